"""The gradients of a layer's weights: sums over all rows, in the order of the steps."""

from typing import NamedTuple

from fastrnn.kernels.cells import weights_backward
from fastrnn.kernels.cells.shape import (
    apart,
    columns,
    counts,
    gates,
    hidden,
    load_columns,
    load_noted,
    load_rest,
    load_weights,
    noted,
    saved,
    states,
)
from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.matmul import Rows, Shape, by_rows, copy_rows, multiply, repeated, transposed, zero_row
from fastrnn.kernels.pack import padded, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, lanes, load_first, pointer, store_many
from fastrnn.kernels.workspace import Elements, carve


class WeightsRoom(NamedTuple):
    """Workspace of the per-unit weights' gradients."""

    total: Elements  # rows (padded H)
    initial: Elements  # the initial states, rows (padded H)


@layout
def weights_room(counts, sizes, width):
    """The workspace of the per-unit weights' gradients."""
    full = padded(sizes.H, width)
    return WeightsRoom(total=counts.W * full, initial=counts.S * sizes.B * full if counts.W > 0 else 0)


@device
def _weights_shard(shard, shards, cell, sizes, order, kept, dz, room):
    """Sums over all rows, in the order of the steps, for the units of one shard."""
    B, _, H, P = sizes
    width = lanes(dz)
    C = columns(cell)
    S = states(cell)
    A = saved(cell)
    full = padded(H, width)
    blocks = full // width
    for unit in range(split(blocks, shards, shard) * width, split(blocks, shards, shard + 1) * width, width):
        for t in range(order.count.size):
            for row in range(order.count[t]):
                n = order.first[t] + row
                prev, prev_size, h_prev = (
                    room.initial + (B * full + row * full + unit),
                    B * full,
                    room.initial + row * full,
                )
                if t > 0:
                    before = order.first[t - 1] + row
                    prev = kept.history + (before * (S - 1) * full + unit)
                    prev_size = full
                    h_prev = kept.y + before * kept.y_row
                d_columns = load_columns(cell, dz + (n * C * H + unit), H, H - unit)
                h = load_first(kept.y + (n * kept.y_row + unit), P - unit)
                state = (h,) + load_rest(cell, kept.history + (n * (S - 1) * full + unit), full)
                state_prev = (load_first(h_prev + unit, P - unit),) + load_rest(cell, prev, prev_size)
                notes = load_noted(cell, kept.saved + (n * A * full + unit * A + (A - noted(cell)) * width), width)
                total = load_weights(cell, room.total + unit, full)
                total = weights_backward(cell, total, d_columns, state, state_prev, notes)
                store_many(room.total + unit, full, total)


@device
def weights_gradients(cell, sizes, order, kept, initial, dz, d_per_unit, work, threads):
    """The gradients (W, H) of the per-unit weights; none if d_per_unit is empty."""
    if d_per_unit.size == 0:
        return
    B, _, H, P = sizes
    width = lanes(dz)
    full = padded(H, width)
    W = d_per_unit.size // H
    room = carve(work, weights_room(counts(cell), sizes, width))
    zero_row(room.total, W * full)
    copy_rows(room.initial, full, initial, P, B, P)
    copy_rows(room.initial + B * full, full, initial + B * P, H, (states(cell) - 1) * B, H)
    share(threads, _weights_shard, (threads, cell, sizes, order, kept, dz, room))
    copy_rows(pointer(d_per_unit), H, room.total, full, W, H)


@device
def recurrent_products(cell, sizes, dz, h_prev, N, dW_hh, zero, work, threads):
    """The gradients of the rows of W_hh whose gates h_{t-1} feeds. h_prev: Rows (N, P)."""
    _, _, H, P = sizes
    K = columns(cell) * sizes.H
    together = (hidden(cell) - apart(cell)) * sizes.H
    h = by_rows(h_prev.data, h_prev.row)
    none = repeated(zero)
    left = transposed(by_rows(dz, K))
    target = Rows(dW_hh, P)
    multiply(left, h, none, target, Shape(together, P, N), work, threads)
    if apart(cell):
        left = transposed(by_rows(dz + gates(cell) * H, K))
        target = Rows(dW_hh + together * P, P)
        multiply(left, h, none, target, Shape(apart(cell) * H, P, N), work, threads)


@device
def bias_gradients(cell, sizes, d_bias, d_b_ih, d_b_hh):
    """From the sums of dz over all rows."""
    H = sizes.H
    first = (hidden(cell) - apart(cell)) * sizes.H
    for k in range(d_b_ih.size):
        d_b_ih[k] = element(d_bias + k)
    for k in range(d_b_hh.size):
        own_hidden = first <= k < hidden(cell) * H
        d_b_hh[k] = element(d_bias + (k - first + gates(cell) * H if own_hidden else k))


@device
def token_gradients(cell, sizes, V, W_ih, dW_ih, table, d_table, room, threads):
    """The gradients of W_ih and of a table from the sums of dz over each token."""
    I = sizes.I
    K = columns(cell) * sizes.H
    GH = gates(cell) * sizes.H
    d_rows = by_rows(room.d_rows, K)
    none = repeated(room.zero)
    if table.size == 0:
        for k in range(GH):
            for v in range(V):
                dW_ih[k * V + v] = element(room.d_rows + (v * K + k))
        return
    if d_table.size:
        target = Rows(pointer(d_table), I)
        multiply(d_rows, by_rows(pointer(W_ih), I), none, target, Shape(V, I, GH), room.rest, threads)
    if dW_ih.size:
        target = Rows(pointer(dW_ih), I)
        multiply(transposed(d_rows), by_rows(pointer(table), I), none, target, Shape(GH, I, V), room.rest, threads)
