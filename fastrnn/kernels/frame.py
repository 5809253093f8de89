"""What travels together through a time loop, by name. Data are pointers, and strides count elements."""

from typing import Any, NamedTuple

import numpy as np

from fastrnn.kernels.jit import layout
from fastrnn.kernels.matmul import Panels

# The numbers of a call as Python hands them over: an array of one item, which costs what a single number does.
CALL = np.dtype([
    (name, np.int64)
    for name in ("N", "B", "I", "H", "P", "V", "unit_shards", "most_rows", "keeping", "y_row", "h_row", "dy_row")
])  # fmt: skip


class Sizes(NamedTuple):
    """Of one layer in one direction."""

    B: int  # sequences
    I: int  # inputs
    H: int  # units
    P: int  # width of h


class Cut(NamedTuple):
    """How the work of a step is shared: row shards x unit shards."""

    row_shards: int
    unit_shards: int
    most_rows: int  # of a row shard


class Order(NamedTuple):
    """Which rows a step takes, and who owns them."""

    first: Any  # (T,) the first row of each step, an array
    count: Any  # (T,) the number of its rows, an array
    bounds: Any  # (row_shards+1,) row shard i owns the sequences bounds[i]..bounds[i+1]-1, an array
    cut: Cut


class Inputs(NamedTuple):
    """Rows x (N, I); or tokens, an array (N,), that name rows of what the panels hold."""

    x: Any
    tokens: Any
    panels: Panels  # of W_ih, or of a table that went through W_ih


class PackedWeights(NamedTuple):
    """The weights that the forward loop reads: panels, and biases in tile order."""

    hh: Any
    message: Any
    bias: Any  # of the gates; behind them those of the hidden parts that are kept apart


class Weights(NamedTuple):
    """The weights of a layer as the caller has them."""

    W_ih: Any  # (G*H, I)
    W_hh: Any  # (recurrent*H, P)
    W_message: Any  # (P, H): rows of W_hh, or a projection
    b_ih: Any  # (G*H,), an array, or an empty one
    b_hh: Any  # (recurrent*H,), an array, or an empty one


class Kept(NamedTuple):
    """What the backward pass reads again, from one row on."""

    y: Any  # h
    y_row: int
    messages: Any  # rows (H,)
    history: Any  # rows (S-1, padded H): the other states
    saved: Any  # rows (blocks, A, lanes)
    sums: Any  # rows (R,)


class Step(NamedTuple):
    """Rows of the states of the step before and of this one, and of its message."""

    prev: Any
    new: Any
    message: Any
    row: int
    size: int  # from state to state


class Piece(NamedTuple):
    """The rows low..high-1 of a step, and the blocks of units left..right-1 of them."""

    low: int
    high: int
    left: int
    right: int


class Z(NamedTuple):
    """A shard's pre-activations of a step in tile order: see `stages`."""

    data: Any  # of its first row and first block of units
    row: int
    left: int  # that block
    aside: int  # vectors from a row's first one to the inputs' parts that are kept apart


class Reduction(NamedTuple):
    """Sums over the units of rows, of the shard's first row on."""

    terms: Any  # rows (blocks, R, lanes), which all shards of the row's units write
    totals: Any  # rows (R,), of a shard's own
    partial: Any  # a virtual vector, see `reduce`


class Trace(NamedTuple):
    """What a step's backward pass reads of the forward pass, from one row on."""

    h: Any  # or the message, where h follows from it
    h_row: int
    h_prev: Any
    h_prev_row: int
    history: Any  # rows (S-1, padded H)
    prev: Any  # the other states of the step before
    prev_row: int
    prev_size: int  # from state to state
    saved: Any
    sums: Any


class Product(NamedTuple):
    """Rows (K,) times panels."""

    data: Any
    row: int
    K: int
    panels: Any


class Cotangents(NamedTuple):
    """Rows (padded H): what reaches the states from above and from the step after."""

    carry: Any
    size: int  # from state to state
    message: Any


class Upstream(NamedTuple):
    """The cotangents of y, from one row on, and what becomes of dL/dh_t."""

    dy: Any
    dy_row: int  # 0 repeats one row
    d_hs: Any  # out: rows (P,) of dL/dh_t
    noting: bool  # whether they are wanted
    limit: float  # largest size of an element of dL/dh_t


class Downstream(NamedTuple):
    """Out: gradients of pre-activations, from one row on."""

    dz: Any  # rows (C, H), or of a message's product (P,)
    new: Any  # again those that go back to h_{t-1}, or to the message
    new_row: int


@layout
def shards_of(cut):
    """Threads that work at the same time."""
    return cut.row_shards * cut.unit_shards
