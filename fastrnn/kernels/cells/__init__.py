"""What a cell is: a tag type, a row of traits, and two functions of vectors.

The tag is a NamedTuple of the per-unit arrays that the arithmetic reads; its type selects the code at compile time.
`sequence` calls the four functions below and knows no cell by name. A new cell is one file beside this one that
registers its traits in `TRAITS` and overloads `cell_forward` and `cell_backward`.
"""

from typing import NamedTuple

from numba.extending import overload

from fastrnn.kernels.simd import load_many


class Traits(NamedTuple):
    """The shape of a cell."""

    gates: int  # pre-activations a unit
    states: int  # states a unit; the first is h, which feeds the recurrent product
    saved: int  # activations a unit that the backward pass wants back


TRAITS: dict[type, Traits] = {}


def cell_forward(cell, unit, z, state):
    """One step for a vector of units: (new_state, saved) from the pre-activations and the previous states.

    unit: index of the first unit, for the cell's per-unit arrays. z, state, new_state, saved: tuples of `gates`,
    `states`, `states` and `saved` vectors.
    """


def cell_backward(cell, unit, d_state, state, state_prev, saved):
    """The gradients of one step: (dz, d_state_prev) from those of the new states.

    d_state_prev is the element-wise part; the part through z is the driver's product.
    """


def _count(name, less=0):
    """A function of the tag that compiles to a constant: the trait `name`, less `less`."""

    def count(cell):
        raise NotImplementedError("compiled code only")

    @overload(count)
    def compiled(cell):
        value = getattr(TRAITS[cell.instance_class], name) - less
        return lambda cell: value

    return count


def _loader(name, less=0):
    """A function (cell, p, stride) that loads as many vectors, `stride` elements apart, as the trait says."""

    def loader(cell, p, stride):
        raise NotImplementedError("compiled code only")

    @overload(loader)
    def compiled(cell, p, stride):
        value = getattr(TRAITS[cell.instance_class], name) - less
        return lambda cell, p, stride: load_many(p, stride, value)

    return loader


gates, states, saved = _count("gates"), _count("states"), _count("saved")
load_gates, load_states, load_saved = _loader("gates"), _loader("states"), _loader("saved")
load_rest = _loader("states", 1)  # the states beside h
