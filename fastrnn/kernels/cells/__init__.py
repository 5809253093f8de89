"""What a cell is: a tag type, its traits, and a few functions of vectors.

The tag is a NamedTuple whose type selects the code at compile time; it holds the per-unit weights, if the cell has any.
`sequence` calls the functions below and knows no cell by name. A new cell is one file beside this one that registers
its traits in `TRAITS` and overloads `cell_forward` and `cell_backward`.

A pre-activation is a sum of what feeds its gate, and z is all of a unit's pre-activations. A step is up to three
stages, and between two of them the units of a row meet:

    z = products of x and h_{t-1}; with `sums`, also their terms     meeting, if the cell has sums over a row's units
    cell_forward(z), which sees the sums                            meeting, if a product of the cell's message follows
    output_forward(W m), h from the product of the message m: a gate that m feeds, or a projection
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from numba.extending import overload

# What feeds a gate: x alone; with h_{t-1}, as one sum or as two that are kept apart; or with this step's message.
X, X_H, X_APART_H, X_MESSAGE = "x", "x + h", "x, h", "x + m"
_ORDER = (X_H, X_APART_H, X_MESSAGE, X)


class Traits(NamedTuple):
    """The shape of a cell: names of what a unit has."""

    gates: Mapping[str, str]  # and what feeds each, in the order X_H, X_APART_H, X_MESSAGE, X
    states: tuple[str, ...]  # the first is h
    saved: tuple[str, ...] = ()  # activations that the backward pass wants back
    reads: tuple[str, ...] = ()  # of h and h_prev, those that the backward pass reads beside them
    weights: tuple[str, ...] = ()  # per-unit weights, which are the tag's arrays
    sums: tuple[str, ...] = ()  # over the units of a row, which cell_forward sees
    noted: tuple[str, ...] = ()  # gradients of the backward pass that weights_backward wants
    projected: bool = False  # whether h is a product of what would be h

    def fed(self, *feeds: str) -> int:
        """The number of gates that one of these feeds."""
        return sum(feed in feeds for feed in self.gates.values())

    @property
    def recurrent(self) -> int:
        """The gates with rows of W_hh: those that h_{t-1} or the message feeds."""
        return self.fed(X_H, X_APART_H, X_MESSAGE)

    @property
    def columns(self) -> int:
        """The gradients of a unit's pre-activations: of each gate, and of each part that is kept apart."""
        return len(self.gates) + self.fed(X_APART_H)

    @property
    def outputs(self) -> bool:
        """Whether h follows from a product of the message."""
        return self.projected or self.fed(X_MESSAGE) > 0


class Projected(NamedTuple):
    """A cell whose h is a product of what would be its h: h = W_hr m. Source: Sak et al., Interspeech (2014)."""

    cell: tuple[Any, ...]


class _Register(dict[type, Traits]):
    """Traits by tag, looked at when they come."""

    def __setitem__(self, tag: type, traits: Traits) -> None:
        order = [_ORDER.index(feed) for feed in traits.gates.values()]
        if order != sorted(order) or order.count(_ORDER.index(X_MESSAGE)) > 1:
            raise ValueError(f"gates: expected feeds in the order {_ORDER}, one message at most, got {traits.gates}")
        super().__setitem__(tag, traits)


TRAITS: dict[type, Traits] = _Register()


def traits(cell: tuple[Any, ...]) -> Traits:
    """The traits of a tag."""
    if isinstance(cell, Projected):
        return traits(cell.cell)._replace(projected=True)
    return TRAITS[type(cell)]


def cell_forward(cell, unit, z, state):
    """One step for a vector of units: (new_state, saved) from the pre-activations and the previous states.

    unit: index of the first unit, for the per-unit weights. z: a tuple of the gates' pre-activations but for one that
    the message feeds, in order, of those kept apart x's part; behind them the parts of h_{t-1} that are kept apart;
    behind these the sums, each in all lanes. state, new_state: tuples of the states; with a message new_state begins
    with it. saved: a tuple, in the order of the traits.
    """


def cell_backward(cell, unit, d_state, state, state_prev, saved):
    """The gradients of one step: (dz, d_state_prev) from those of the new states.

    dz: as z but for all gates; the gradients of the sums are the units' terms of them, and behind them is what is
    noted. d_state_prev is the element-wise part; the part through z is the driver's product. With a message state
    begins with it, and d_state ends with its gradient. saved: with sums, they are behind it, each in all lanes.
    """


def output_forward(cell, unit, z, h_prev, saved):
    """The last stage of a cell with a message: (h, more saved) from the message's product."""


def output_backward(cell, unit, d_h, h_prev, saved):
    """The gradient of the message's product."""


def sum_terms(cell, unit, z, state):
    """The units' terms of the sums, a tuple: of z without the sums and of the previous states."""


def sum_terms_backward(cell, unit, dz, d_sums, saved):
    """dz completed with what reaches z through the sums, whose gradients d_sums are in all lanes; saved: as above."""


def weights_backward(cell, sums, dz, state, state_prev, noted):
    """The gradients of the per-unit weights, with this step's added to the `sums` of the other steps': a tuple."""


@overload(output_forward)
def _project(cell, unit, z, h_prev, saved):
    if cell.instance_class is Projected:
        return lambda cell, unit, z, h_prev, saved: (z, ())


@overload(output_backward)
def _project_backward(cell, unit, d_h, h_prev, saved):
    if cell.instance_class is Projected:
        return lambda cell, unit, d_h, h_prev, saved: d_h


@overload(cell_forward)
def _projected_forward(cell, unit, z, state):
    if cell.instance_class is Projected:
        return lambda cell, unit, z, state: cell_forward(cell.cell, unit, z, state)


@overload(cell_backward)
def _projected_backward(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is Projected:

        def backward(cell, unit, d_state, state, state_prev, saved):
            return cell_backward(cell.cell, unit, d_state[-1:] + d_state[1:-1], state, state_prev, saved)

        return backward


@overload(sum_terms)
def _projected_terms(cell, unit, z, state):
    if cell.instance_class is Projected:
        return lambda cell, unit, z, state: sum_terms(cell.cell, unit, z, state)


@overload(sum_terms_backward)
def _projected_terms_backward(cell, unit, dz, d_sums, saved):
    if cell.instance_class is Projected:
        return lambda cell, unit, dz, d_sums, saved: sum_terms_backward(cell.cell, unit, dz, d_sums, saved)


@overload(weights_backward)
def _projected_weights(cell, sums, dz, state, state_prev, noted):
    if cell.instance_class is Projected:

        def backward(cell, sums, dz, state, state_prev, noted):
            return weights_backward(cell.cell, sums, dz, state, state_prev, noted)

        return backward
