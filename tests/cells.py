"""The cells that tests run: every kind of fastrnn's own, and each again with what its layers may have besides."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

from fastrnn.functional import Weights
from fastrnn.kernels.cells import TRAITS, Traits
from fastrnn.kinds import KINDS, Kind

OWN = [kind for tag, kind in KINDS.items() if tag.__module__.startswith("fastrnn.")]  # tests may add others
Shapes = dict[str, tuple[int, ...]]


class Cell(NamedTuple):
    """A kind, and which of the weights it has that not every layer has."""

    kind: Kind
    projected: bool = False
    peepholes: bool = False

    @property
    def tag(self) -> type:
        """The compiled cell."""
        return self.kind.weighted if self.peepholes else self.kind.tag

    @property
    def reference(self) -> Any:
        """Its twin."""
        return getattr(import_module(self.tag.__module__.replace("kernels", "reference")), self.kind.tag.__name__)

    @property
    def traits(self) -> Traits:
        """The shape of the cell."""
        return TRAITS[self.tag]

    @property
    def kept(self) -> tuple[str, ...]:
        """What the reference keeps of a step: its states, and the gates that the backward pass wants."""
        return *self.kind.states, *[name for name in self.traits.saved if name in self.kind.gates]

    def outputs(self, H: int) -> int:
        """P, the width of h: with a projection no multiple of a vector where H is one."""
        return -(-2 * H // 3) if self.projected else H

    def states(self, B: int, H: int) -> Shapes:
        """The shape of every state."""
        return {name: (B, H if i else self.outputs(H)) for i, name in enumerate(self.kind.states)}

    def weights(self, I: int, H: int) -> Shapes:
        """The shape of every parameter that it has, by the fields of Weights."""
        GH, RH, P = len(self.traits.gates) * H, self.traits.recurrent * H, self.outputs(H)
        shapes: Shapes = {"W_ih": (GH, I), "W_hh": (RH, P), "b_ih": (GH,), "b_hh": (RH,)}
        shapes |= {"W_hr": (P, H)} if self.projected else {}
        return shapes | ({"per_unit": (len(self.traits.weights), H)} if self.peepholes else {})


def _cells() -> Iterator[tuple[str, Cell]]:
    for kind in OWN:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.tag.__name__)
        name = kind.name or words.lower()
        yield name, Cell(kind)
        if "proj_size" in kind.own:
            yield f"{name}_projected", Cell(kind, projected=True)
        if "peepholes" in kind.own:
            yield f"{name}_peepholes", Cell(kind, peepholes=True)
        if {"proj_size", "peepholes"} <= {*kind.own}:
            yield f"{name}_all", Cell(kind, projected=True, peepholes=True)


CELLS = dict(_cells())  # by the kind's name, or its tag's where it has none
PARAMETERS = dict(zip(Weights._fields, OWN[0].parameters, strict=True))  # by field


def torch_layer(torch: Any, name: str, *sizes: int, **options: Any) -> Any:
    """torch.nn's module of a kind that it has."""
    module = CELLS[name].kind.torch
    return getattr(torch.nn, module.name)(*sizes, **module.attributes, **options)
