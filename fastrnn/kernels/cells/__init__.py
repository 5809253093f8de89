"""What a cell is: a tag type, a row of traits, and a few functions of vectors.

The tag is a NamedTuple of the per-unit arrays that the arithmetic reads; its type selects the code at compile time.
`sequence` calls the functions below and knows no cell by name. A new cell is one file beside this one that registers
its traits in `TRAITS` and overloads `cell_forward` and `cell_backward`.

A step is one stage, or two: where some gates are fed by a message of this step instead of h_{t-1}, or h is a product
of the message (a projection), `cell_forward` gives the message in place of h, the driver multiplies it, and
`output_forward` gives h.
"""

from typing import NamedTuple

from numba.extending import overload

from fastrnn.kernels.pointers import load, load_many, load_many_first


class Traits(NamedTuple):
    """The shape of a cell: names of what a unit has."""

    gates: tuple[str, ...]  # pre-activations that the inputs feed
    states: tuple[str, ...]  # the first is h, which feeds the recurrent product
    saved: tuple[str, ...] = ()  # activations that the backward pass wants back
    reads: tuple[str, ...] = ()  # of h and h_prev, those that it reads beside them
    message_gates: int = 0  # the last gates, which the message feeds in place of h_{t-1}
    apart: bool = False  # whether the hidden part of the last gate's pre-activation is kept apart from the inputs' part
    stages: int = 1
    weights: int = 0  # per-unit arrays of the tag that are learnt

    @property
    def hidden(self) -> int:
        """Gates that h_{t-1} feeds: the first ones."""
        return len(self.gates) - self.message_gates

    @property
    def columns(self) -> int:
        """Pre-activations a unit, and their gradients: the gates, and the part of the last that is kept apart."""
        return len(self.gates) + self.apart


TRAITS: dict[type, Traits] = {}


class Projected(NamedTuple):
    """A cell whose h is a product of what would be its h: h = W_hr m. Source: Sak et al., Interspeech (2014)."""

    cell: tuple


def traits(cell: tuple) -> Traits:
    """The traits of a tag."""
    if isinstance(cell, Projected):
        return traits(cell.cell)._replace(stages=2)
    return TRAITS[type(cell)]._replace(weights=sum(map(len, cell)))


def _traits(cell):
    """The same of a tag's type in compiled code."""
    if cell.instance_class is Projected:
        return _traits(cell[0])._replace(stages=2)
    return TRAITS[cell.instance_class]._replace(weights=sum(len(field) for field in cell))


def cell_forward(cell, unit, z, state):
    """One step for a vector of units: (new_state, saved) from the pre-activations and the previous states.

    unit: index of the first unit, for the cell's per-unit arrays. z: a tuple of the pre-activations that h_{t-1} feeds,
    in the order of the gates; with `apart` the last one's two parts, the inputs' first. state, new_state: tuples of the
    states; with two stages new_state begins with the message. saved: a tuple, in the order of the traits.
    """


def output_forward(cell, unit, z, h_prev, saved):
    """The second stage: (h, more saved) from the message's product."""


def output_backward(cell, unit, d_h, h_prev, saved):
    """The gradient of the message's product."""


def cell_backward(cell, unit, d_state, state, state_prev, saved):
    """The gradients of one step: (dz, d_state_prev) from those of the new states.

    dz: as z, for all columns. d_state_prev is the element-wise part; the part through z is the driver's product. With
    two stages state begins with the message, and d_state ends with the message's gradient.
    """


def weights_backward(cell, sums, dz, state, state_prev):
    """The gradients of the tag's per-unit weights, with this step's added: a tuple."""


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


@overload(weights_backward)
def _projected_weights(cell, sums, dz, state, state_prev):
    if cell.instance_class is Projected:
        return lambda cell, sums, dz, state, state_prev: weights_backward(cell.cell, sums, dz, state, state_prev)


def _constant(of):
    """A function of the tag that compiles to a number: `of` its traits."""

    def constant(cell):
        raise NotImplementedError("compiled code only")

    @overload(constant)
    def compiled(cell):
        value = int(of(_traits(cell)))
        return lambda cell: value

    return constant


def _loader(of):
    """A function (cell, p, stride) that loads as many vectors, `stride` elements apart, as `of` the traits says."""

    def loader(cell, p, stride):
        raise NotImplementedError("compiled code only")

    @overload(loader)
    def compiled(cell, p, stride):
        value = int(of(_traits(cell)))
        return lambda cell, p, stride: load_many(p, stride, value)

    return loader


gates, states, saved = (_constant(lambda t, name=name: len(getattr(t, name))) for name in ("gates", "states", "saved"))
hidden, columns, apart, stages, weights = (
    _constant(lambda t, name=name: getattr(t, name)) for name in ("hidden", "columns", "apart", "stages", "weights")
)
reads_h, reads_h_prev = (_constant(lambda t, name=name: name in t.reads) for name in ("h", "h_prev"))
load_states, load_saved = _loader(lambda t: len(t.states)), _loader(lambda t: len(t.saved))
load_rest = _loader(lambda t: len(t.states) - 1)  # the states beside h
load_weights = _loader(lambda t: t.weights)


def load_gates(cell, p, width, aside):
    """The pre-activations that h_{t-1} feeds, `width` elements apart at p; aside: the inputs' part of the last one."""


@overload(load_gates)
def _load_gates(cell, p, width, aside):
    count = _traits(cell).hidden
    if not _traits(cell).apart:
        return lambda cell, p, width, aside: load_many(p, width, count)
    front = count - 1

    def split(cell, p, width, aside):
        return load_many(p, width, front) + (load(aside), load(p + front * width))

    return split


def load_columns(cell, p, stride, valid):
    """The `valid` first lanes of all columns' gradients, `stride` elements apart."""


@overload(load_columns)
def _load_columns(cell, p, stride, valid):
    count = _traits(cell).columns
    return lambda cell, p, stride, valid: load_many_first(p, stride, count, valid)


def hidden_part(cell, dz):
    """Of the columns' gradients those that go back to h_{t-1}."""


@overload(hidden_part)
def _hidden_part(cell, dz):
    count, first = _traits(cell).hidden, _traits(cell).hidden - 1
    if _traits(cell).apart:
        return lambda cell, dz: dz[:first] + dz[count:]
    return lambda cell, dz: dz[:count]


def with_message(cell, d_state, p):
    """d_state, and with two stages the message's gradient at p behind it."""


@overload(with_message)
def _with_message(cell, d_state, p):
    if _traits(cell).stages == 1:
        return lambda cell, d_state, p: d_state
    return lambda cell, d_state, p: d_state + (load(p),)


def _only(condition):
    """A function (cell, body, arguments) that runs body(cell, *arguments) for the cells whose traits hold it to be
    needed; the others then needn't compile the body."""

    def run(cell, body, arguments):
        raise NotImplementedError("compiled code only")

    @overload(run, jit_options={"forceinline": True})  # a body that stays an argument could not be cached
    def compiled(cell, body, arguments):
        if condition(_traits(cell)):
            return lambda cell, body, arguments: body(cell, *arguments)
        return lambda cell, body, arguments: None

    return run


second_stage, unit_weights = _only(lambda t: t.stages == 2), _only(lambda t: t.weights > 0)
