"""What the time loop asks of a tag in compiled code: its traits as constants, and tuples of that many vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import overload

from fastrnn.kernels.cells import TRAITS, X_APART_H, X_H, X_MESSAGE, Projected, Traits, X, traits
from fastrnn.kernels.jit import device
from fastrnn.kernels.pointers import lanes, load, load_many, load_many_first, load_spread


def _traits(cell):
    """The same of a tag's type in compiled code."""
    if cell.instance_class is Projected:
        return _traits(cell[0])._replace(projected=True)
    return TRAITS[cell.instance_class]


class Counts(NamedTuple):
    """How many of each a unit has, for sizes of memory."""

    G: int  # gates
    F: int  # gates that h_{t-1} feeds
    C: int  # gradients of pre-activations
    S: int  # states
    A: int  # vectors that are kept
    R: int  # sums over a row's units
    W: int  # per-unit weights
    apart: int  # gates whose part of h_{t-1} is kept apart
    outputs: int  # 1 with a message


def _counts(traits):
    return Counts(
        G=len(traits.gates),
        F=traits.fed(X_H, X_APART_H),
        C=traits.columns,
        S=len(traits.states),
        A=len(traits.saved) + len(traits.noted),
        R=len(traits.sums),
        W=len(traits.weights),
        apart=traits.fed(X_APART_H),
        outputs=int(traits.outputs),
    )


def counts(cell: tuple[Any, ...]) -> Counts:
    """The Counts of a tag."""
    return _counts(traits(cell))


@overload(counts)
def _compiled_counts(cell):
    found = _counts(_traits(cell))
    return lambda cell: found


def _constant(of: Callable[[Traits], int]) -> Callable[..., Any]:
    """A function of the traits becomes one of the tag, which compiles to a number."""

    def constant(cell):
        raise NotImplementedError("compiled code only")

    @overload(constant)
    def compiled(cell):
        value = int(of(_traits(cell)))
        return lambda cell: value

    return constant


@_constant
def gates(traits):
    """G."""
    return len(traits.gates)


@_constant
def hidden(traits):
    """F: gates that h_{t-1} feeds, the first ones."""
    return traits.fed(X_H, X_APART_H)


@_constant
def apart(traits):
    """Gates whose part of h_{t-1} is kept apart, the last of F."""
    return traits.fed(X_APART_H)


@_constant
def recurrent(traits):
    """Gates with rows of W_hh, the first ones."""
    return traits.recurrent


@_constant
def columns(traits):
    """C: gradients of a unit's pre-activations."""
    return traits.columns


@_constant
def states(traits):
    """S."""
    return len(traits.states)


@_constant
def saved(traits):
    """A: vectors that are kept of each block of units, what is noted included."""
    return len(traits.saved) + len(traits.noted)


@_constant
def noted(traits):
    """Of these the last ones."""
    return len(traits.noted)


@_constant
def sums(traits):
    """R: sums over a row's units."""
    return len(traits.sums)


@_constant
def outputs(traits):
    """Whether a product of the message follows."""
    return traits.outputs


@_constant
def projected(traits):
    """Whether that is a projection, not a gate."""
    return traits.projected


@_constant
def stages(traits):
    """Stages of a step, between which the units of a row meet."""
    return 1 + (len(traits.sums) > 0) + traits.outputs


@_constant
def reads_h(traits):
    """Whether cell_backward reads h."""
    return "h" in traits.reads


@_constant
def reads_h_prev(traits):
    """Whether cell_backward reads the previous h."""
    return "h_prev" in traits.reads


def _loader(of: Callable[[Traits], int]) -> Callable[..., Any]:
    """A function of the traits becomes one (cell, p, stride) that loads as many vectors, `stride` elements apart."""

    def loader(cell, p, stride):
        raise NotImplementedError("compiled code only")

    @overload(loader)
    def compiled(cell, p, stride):
        count = int(of(_traits(cell)))
        return lambda cell, p, stride: load_many(p, stride, count)

    return loader


@_loader
def load_states(traits):
    """All states."""
    return len(traits.states)


@_loader
def load_rest(traits):
    """The states beside h."""
    return len(traits.states) - 1


@_loader
def load_saved(traits):
    """What cell_forward saved."""
    return len(traits.saved)


@_loader
def load_noted(traits):
    """What cell_backward noted."""
    return len(traits.noted)


@_loader
def load_weights(traits):
    """Vectors of all per-unit weights."""
    return len(traits.weights)


def load_gates(cell, p, width, aside):
    """z without the sums: the gates `width` elements apart at p; aside: where x's parts of those kept apart are."""


@overload(load_gates)
def _load_gates(cell, p, width, aside):
    traits = _traits(cell)
    together, apart, rest = traits.fed(X_H), traits.fed(X_APART_H), traits.fed(X)
    if not apart and not rest:
        return lambda cell, p, width, aside: load_many(p, width, together)
    behind = together + apart + traits.fed(X_MESSAGE)

    def implementation(cell, p, width, aside):
        x_parts, h_parts = load_many(aside, width, apart), load_many(p + together * width, width, apart)
        alone = load_many(p + behind * width, width, rest)
        return load_many(p, width, together) + x_parts + alone + h_parts

    return implementation


@device
def gates_at(cell, z, q, v):
    """z without the sums of row q and block v; z: a Z."""
    width = lanes(z.data)
    row = z.data + q * z.row
    aside = row + (z.aside + (v - z.left) * apart(cell)) * width
    return load_gates(cell, row + (v - z.left) * gates(cell) * width, width, aside)


def load_columns(cell, p, stride, valid):
    """The `valid` first lanes of all columns' gradients, `stride` elements apart."""


@overload(load_columns)
def _load_columns(cell, p, stride, valid):
    count = _traits(cell).columns
    return lambda cell, p, stride, valid: load_many_first(p, stride, count, valid)


def load_sums(cell, p):
    """The numbers at p, one for each sum, in all lanes."""


@overload(load_sums)
def _load_sums(cell, p):
    count = len(_traits(cell).sums)
    return lambda cell, p: load_spread(p, count)


def hidden_part(cell, dz):
    """Of the columns' gradients those that go back to h_{t-1}, in the order of W_hh."""


@overload(hidden_part)
def _hidden_part(cell, dz):
    traits = _traits(cell)
    together = traits.fed(X_H)
    first = len(traits.gates)
    last = traits.columns
    if traits.fed(X_APART_H):
        return lambda cell, dz: dz[:together] + dz[first:last]
    return lambda cell, dz: dz[:together]


def in_parts(cell, dz):
    """What cell_backward gives: the columns' gradients, terms of the sums' gradients, and what is noted."""


@overload(in_parts)
def _in_parts(cell, dz):
    traits = _traits(cell)
    first = traits.columns
    second = first + len(traits.sums)
    if not traits.sums and not traits.noted:
        return lambda cell, dz: (dz, (), ())
    return lambda cell, dz: (dz[:first], dz[first:second], dz[second:])


def with_message(cell, d_state, p):
    """d_state, and with a message its gradient at p behind it."""


@overload(with_message)
def _with_message(cell, d_state, p):
    if not _traits(cell).outputs:
        return lambda cell, d_state, p: d_state
    return lambda cell, d_state, p: d_state + (load(p),)


def with_sums(cell, vectors, p):
    """A tuple, and the sums at p behind it."""


@overload(with_sums)
def _with_sums(cell, vectors, p):
    if not _traits(cell).sums:
        return lambda cell, vectors, p: vectors
    return lambda cell, vectors, p: vectors + load_sums(cell, p)


def _only_if(condition: Callable[[Traits], bool]) -> Callable[..., Any]:
    """A condition of the traits becomes a function (cell, body, arguments) that runs body(cell, *arguments) if it
    holds; if not, the body needn't be compiled."""

    def run(cell, body, arguments):
        raise NotImplementedError("compiled code only")

    @overload(run, jit_options={"forceinline": True})  # a body that stays an argument could not be cached
    def compiled(cell, body, arguments):
        if condition(_traits(cell)):
            return lambda cell, body, arguments: body(cell, *arguments)
        return lambda cell, body, arguments: None

    return run


@_only_if
def if_outputs(traits):
    """With a message."""
    return traits.outputs


@_only_if
def if_sums(traits):
    """With sums over a row's units."""
    return len(traits.sums) > 0


@_only_if
def if_weights(traits):
    """With per-unit weights."""
    return len(traits.weights) > 0
