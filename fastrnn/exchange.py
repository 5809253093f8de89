"""What weights need to travel: a layer's parameters part by part, a layer made of parts, and the order of gates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.kinds import KINDS, Kind
from fastrnn.layers.sequence import Recurrent

# Of one layer and direction, parameters by name without suffix: weight_ih (G*H, I), weight_hh (G*H, H), and where the
# layer has them bias_ih (G*H,), bias_hh (G*H,), weight_ch (3, H).
Part = Mapping[str, np.ndarray]


def classes(library: str) -> dict[str, type]:
    """The classes of layers that another library, "keras" or "onnx", has too, by name."""
    return {kind.layer_name: kind.layer_class for kind in KINDS.values() if getattr(kind, library)}


def reordered(blocks: np.ndarray, order: Sequence[int] | np.ndarray) -> np.ndarray:
    """The len(order) equal blocks of the first axis in another order: block j is the old one order[j]."""
    old = np.split(blocks, len(order))
    return np.concatenate([old[i] for i in order])


def parts_of(layer: Recurrent) -> list[list[Part]]:
    """Of each layer, of each direction: views of its parameters."""
    found = layer.parameters.items()
    return [
        [{name.removesuffix(s): value for name, value in found if name.endswith(s)} for s in directions]
        for directions in _suffixes(layer.num_layers, layer.bidirectional)
    ]


def layer_of(kind: Kind, parts: Sequence[Sequence[Part]], **options: Any) -> Recurrent:
    """A layer with copies of these parameters, the inverse of `parts_of`; the first part tells its sizes.

    options : of the constructor, what neither the kind nor parameters tell

    Raises ValueError for parts that don't belong together: `weight_ih_l1: expected shape (40, 20), got (40, 10)`.
    """
    first, bidirectional = parts[0][0], len(parts[0]) == 2
    sizes = first["weight_ih"].shape[1], first["weight_hh"].shape[1], len(parts)
    options |= {"peepholes": True} if "weight_ch" in first else {}
    options |= kind.options
    layer = kind.layer_class(*sizes, bias="bias_ih" in first, bidirectional=bidirectional, **options)
    state: dict[str, np.ndarray] = {}
    for directions, suffixes in zip(parts, _suffixes(len(parts), bidirectional), strict=True):
        for part, suffix in zip(directions, suffixes, strict=True):
            state |= {name + suffix: value for name, value in part.items()}
    layer.load_state_dict(state)
    return layer


def _suffixes(num_layers, bidirectional):
    """The end of a parameter's name, of each layer, of each direction."""
    directions = ("", "_reverse") if bidirectional else ("",)
    return [[f"_l{k}{direction}" for direction in directions] for k in range(num_layers)]
