"""The weights of one recurrent layer in one direction, compared with each other once."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.kernels.cells import TRAITS, X_MESSAGE, Projected, Traits, traits
from fastrnn.kernels.cells.shape import Counts, counts
from fastrnn.kernels.frame import Sizes

NOTHING = {np.dtype(name): np.empty(0, name) for name in checks.DTYPES}


class Weights(NamedTuple):
    """The parameters of one recurrent layer in one direction, or their gradients; None where the layer has none."""

    W_ih: np.ndarray  # (G*H, I)
    W_hh: np.ndarray | None = None  # (R*H, P), R gates that h_{t-1} or a message feeds
    b_ih: np.ndarray | None = None  # (G*H,)
    b_hh: np.ndarray | None = None  # (R*H,)
    W_hr: np.ndarray | None = None  # (P, H)
    per_unit: np.ndarray | None = None  # (weights, H), in the order of the cell's traits


@dataclass(frozen=True, eq=False)  # itself a key
class Layer:
    """What a cell and the shapes of its weights say."""

    traits: Traits
    counts: Counts
    tag: Any  # without its arrays
    I: int
    H: int
    P: int
    shapes: tuple[tuple[int, ...] | None, ...]  # in the order of Weights; None for what there is not

    def sizes(self, B: int) -> Sizes:
        """The sizes of a loop over B sequences."""
        return Sizes(B, self.I, self.H, self.P)

    def states(self, B: int) -> tuple[tuple[int, int], ...]:
        """The shape of every state of B sequences."""
        return ((B, self.P), *[(B, self.H)] * (self.counts.S - 1))


@lru_cache(maxsize=512)
def _layer(cell, W_ih, W_hh, b_ih, b_hh, W_hr, per_unit):
    """The Layer of a cell and its weights' shapes; whether there are biases."""
    checks.member("cell", cell, tuple(TRAITS))
    own = TRAITS[cell]
    name = f"for {cell.__name__}"
    if own.fed(X_MESSAGE) or "h_prev" in own.reads:
        checks.absent("W_hr", W_hr, name)
    if not own.recurrent:
        checks.absent("W_hh", W_hh, name)
        checks.absent("b_hh", b_hh or None, name)
    if not own.weights:
        checks.absent("per_unit", per_unit, name)
    G = len(own.gates)
    rows, I = checks.axes("W_ih", W_ih, "(G*H, I) with H >= 1", G, 0)
    H = rows // G
    P = H if W_hr is None else checks.axes("W_hr", W_hr, "(P, H) with P >= 1", 1, 0)[0]
    tag = cell(((),) * len(own.weights)) if own.weights else cell()
    tag = tag if W_hr is None else Projected(tag)
    shapes = (G * H, I), (own.recurrent * H, P), (G * H,), (own.recurrent * H,), (P, H), (len(own.weights), H)
    present = True, own.recurrent > 0, b_ih, b_hh, W_hr is not None, len(own.weights) > 0
    found = tuple([shape if there else None for shape, there in zip(shapes, present, strict=True)])
    return Layer(traits(tag), counts(tag), tag, I, H, P, found)


class Arguments(NamedTuple):
    """The first arguments of the kernels of a layer, by their names: flat views."""

    W_ih: np.ndarray
    W_hh: np.ndarray
    W_hr: np.ndarray
    b_ih: np.ndarray
    b_hh: np.ndarray
    cell: Any  # the tag, with the arrays that its arithmetic reads


class Bound(NamedTuple):
    """The weights of one layer in one direction, each compared with the others, as kernels take them."""

    layer: Layer
    dtype: np.dtype
    arguments: Arguments


def bound(cell: type, weights: Weights) -> Bound:
    """Weights once and for all: the arrays are read at every call, but not compared again.

    Raises ValueError: `W_hh: expected shape (72, 18), got (72, 19)`; TypeError: `b_ih: expected dtype float32, got
    float64`.
    """
    dtype = checks.floating("W_ih", weights.W_ih)
    W_ih, W_hh, b_ih, b_hh, W_hr, per_unit = [None if w is None else checks.shape_of(w) for w in weights]
    layer = _layer(cell, W_ih, W_hh, b_ih is not None, b_hh is not None, W_hr, per_unit)
    arrays = checks.arrays(Weights._fields, weights, dtype, layer.shapes)
    none = NOTHING[dtype]
    W_ih, W_hh, b_ih, b_hh, W_hr, _ = [none if w is None else w.ravel() for w in arrays]
    tag = layer.tag
    per_unit = arrays[5]
    if per_unit is not None:
        tag = cell(tuple(per_unit)) if type(tag) is cell else Projected(cell(tuple(per_unit)))
    return Bound(layer, dtype, Arguments(W_ih, W_hh, W_hr, b_ih, b_hh, tag))
