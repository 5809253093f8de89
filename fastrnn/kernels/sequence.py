"""The time loop, forward and backward, of any cell: it knows time, rows and units, and no gate.

Step t takes rows first[t] .. first[t]+count[t]-1 of memory, and a sequence keeps its place from step to step, so count
never grows (ragged batches are sorted by length before they come here).
Threads own a grid of row shards x unit shards of every step: with one unit shard a thread runs all steps for its own
rows and meets nobody; with more, all threads meet after each stage of a step.

The chain of sums of a pre-activation starts at the bias, runs over the inputs (see `inputs`) and goes on over the
previous hidden state, in that order for every row, whichever thread or tile computes it.
"""

from typing import NamedTuple

from fastrnn.kernels.cells.shape import (
    columns,
    counts,
    gates,
    hidden,
    if_outputs,
    if_sums,
    outputs,
    saved,
    stages,
    states,
    sums,
)
from fastrnn.kernels.frame import (
    Cotangents,
    Downstream,
    Kept,
    Piece,
    Product,
    Step,
    Trace,
    Upstream,
    Z,
    shards_of,
)
from fastrnn.kernels.inputs import Chunk, chunk_end, chunk_rows, input_size, project
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import Panels, Rows, by_rows, copy_rows, tile_block
from fastrnn.kernels.pack import pack_transposed, padded, panel_size, row_stride, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes
from fastrnn.kernels.stages import (
    backward_rows,
    forward_rows,
    output_backward_rows,
    output_rows,
    summed_backward_rows,
    summed_rows,
)
from fastrnn.kernels.sums import own_reduction, reduction_room
from fastrnn.kernels.workspace import Elements, carve, room_size


class Phases(NamedTuple):
    """The stages start..stop-1 of all steps, counted from the first step's first."""

    start: int
    stop: int
    begin: int  # the step with which the chunk of inputs begins that `start` belongs to


class Owned(NamedTuple):
    """What a shard owns: sequences, blocks of units, and blocks of h."""

    low: int
    last: int
    left: int
    right: int
    h_left: int
    h_right: int


@device
def _owned(shard, order, sizes, width):
    count = order.cut.unit_shards
    row = shard // count
    unit = shard % count
    blocks = padded(sizes.H, width) // width
    h_blocks = padded(sizes.P, width) // width
    left, right = split(blocks, count, unit), split(blocks, count, unit + 1)
    h_left, h_right = split(h_blocks, count, unit), split(h_blocks, count, unit + 1)
    return Owned(order.bounds[row], order.bounds[row + 1], left, right, h_left, h_right)


@layout
def shard_vectors(columns, H, unit_shards, width):
    """Most vectors of pre-activations of a row that a shard of the units has."""
    return columns * -(-(padded(H, width) // width) // unit_shards)


class ForwardRoom(NamedTuple):
    """Workspace of `sequence_forward`."""

    states: Elements  # of the step before, of this one, and its message
    z: Elements  # each shard's pre-activations of a chunk
    inputs: Elements  # each shard's, see `inputs`
    sums: Elements


@layout
def forward_room(counts, sizes, cut, width):
    """The workspace of `sequence_forward`."""
    B, I, H, _ = sizes
    shards = shards_of(cut)
    return ForwardRoom(
        states=(2 * counts.S + 1) * B * row_stride(H, width),
        z=shards * chunk_rows(cut.most_rows) * shard_vectors(counts.C, H, cut.unit_shards, width) * width,
        inputs=shards * input_size(I, cut.most_rows, width),
        sums=room_size(reduction_room(counts, sizes, cut, width), width),
    )


@device
def _copy_states(target, row, source, sizes, S):
    """Copy h (B, P) and the other states (S-1, B, H) to rows `row` elements apart."""
    B, _, H, P = sizes
    copy_rows(target, row, source, P, B, P)
    copy_rows(target + B * row, row, source + B * P, H, (S - 1) * B, H)


@device
def _forward_shard(shard, cell, sizes, order, inputs, weights, kept, keeping, room, phases):
    """Some stages of all steps, of one shard."""
    B, I, H, _ = sizes
    width = lanes(room.z)
    G, S, A, cut = gates(cell), states(cell), saved(cell), order.cut
    full = padded(H, width)
    row = row_stride(H, width)
    own = _owned(shard, order, sizes, width)
    size = B * row
    z_row = shard_vectors(columns(cell), H, cut.unit_shards, width) * width
    most = chunk_rows(cut.most_rows)
    first_z = room.z + shard * most * z_row
    work = room.inputs + shard * input_size(I, cut.most_rows, width)
    reduction = own_reduction(cell, shard, own.low, sizes, cut, room.sums)
    begin = phases.begin
    end = chunk_end(order.count, begin, cut.most_rows, most)
    for phase in range(phases.start, phases.stop):
        t = phase // stages(cell)
        stage = phase % stages(cell)
        rows = min(own.last, order.count[t]) - own.low
        if rows <= 0:
            break
        if t == end:
            begin = t
            end = chunk_end(order.count, t, cut.most_rows, most)
        if t == begin and stage == 0:
            chunk = Chunk(begin, end, own.low, own.last, own.left * G, own.right * G)
            project(inputs, order, chunk, I, weights.bias, Rows(first_z, z_row), work)
        done = 0
        for before in range(begin, t):
            done += max(0, min(own.last, order.count[before]) - own.low)
        n = order.first[t] + own.low
        n_saved = n if keeping else own.low
        z = Z(first_z + done * z_row, z_row, own.left, (own.right - own.left) * G)
        prev = room.states + (1 - t % 2) * S * size
        new = room.states + t % 2 * S * size
        message = room.states + 2 * S * size
        step = Step(prev + own.low * row, new + own.low * row, message + own.low * row, row, size)
        to = Kept(
            kept.y + n * kept.y_row, kept.y_row, kept.messages + n * H, kept.history + n * (S - 1) * full,
            kept.saved + n_saved * A * full, kept.sums + n * sums(cell),
        )  # fmt: skip
        piece = Piece(0, rows, own.left, own.right)
        if stage == 0:
            apart_bias = weights.bias + full * G
            forward_rows(cell, piece, sizes, weights.hh, apart_bias, z, step, to, keeping, reduction)
        elif outputs(cell) and stage == stages(cell) - 1:
            piece = Piece(0, rows, own.h_left, own.h_right)
            if_outputs(cell, output_rows, (piece, sizes, weights.message, z, step, to))
        else:
            if_sums(cell, summed_rows, (piece, sizes, z, step, to, keeping, reduction))


@Kernel
def sequence_forward(cell, sizes, order, inputs, weights, initial, final, kept, keeping, work):
    """Run a cell over all steps.

    Parameters (see `frame`; N rows in all)
    ----------
    cell : the tag
    weights : PackedWeights, see `recurrent.pack`
    initial, final : h (B, P), then the other states (S-1, B, H); read, and written
    kept : y of row n at n*y_row; the others only with `keeping`, for the backward pass, but with a message `saved` has
        room for B rows
    work : forward_room(...)

    Cost: 2*N*H*(G*I + F*P) flop, without I's share with tokens; a message adds 2*N*H*P.
    Reference twin: fastrnn.reference.sequence.sequence_forward.
    """
    B, _, H, P = sizes
    S = states(cell)
    T = order.count.size
    width = lanes(work)
    room = carve(work, forward_room(counts(cell), sizes, order.cut, width))
    row = row_stride(H, width)
    _copy_states(room.states + S * B * row, row, initial, sizes, S)
    most = chunk_rows(order.cut.most_rows)
    total = T * stages(cell)
    begin = 0
    stretch = max(total, 1) if order.cut.unit_shards == 1 else 1
    for start in range(0, total, stretch):
        end = chunk_end(order.count, begin, order.cut.most_rows, most)
        if start // stages(cell) == end:
            begin = end
        phases = Phases(start, start + stretch, begin)
        share(
            shards_of(order.cut), _forward_shard,
            (cell, sizes, order, inputs, weights, kept, keeping, room, phases),
        )  # fmt: skip
    t = T
    for b in range(B):
        while t > 0 and order.count[t - 1] <= b:
            t -= 1
        source = room.states + ((1 - t % 2) * S * B * row + b * row)
        copy_rows(final + b * P, P, source, row, 1, P)
        copy_rows(final + (B * P + b * H), B * H, source + B * row, B * row, S - 1, H)


class BackwardRoom(NamedTuple):
    """Workspace of `sequence_backward`."""

    hh: Elements  # W_hh^T of the gates that h_{t-1} feeds, in panels
    message: Elements  # the message's weights, transposed, in panels
    dz: Elements  # rows (F, H) of this step and of the step after
    dz_message: Elements  # rows (P,) of this step
    carry: Elements  # what reaches the states
    d_message: Elements
    initial: Elements  # the initial states, as the carry lies
    sums: Elements


@layout
def backward_room(counts, sizes, cut, width):
    """The workspace of `sequence_backward`."""
    B, _, H, P = sizes
    full = padded(sizes.H, width)
    return BackwardRoom(
        hh=padded(P, width) // width * panel_size(counts.F * H, width),
        message=counts.outputs * full // width * panel_size(P, width),
        dz=2 * B * row_stride(counts.F * H, width),
        dz_message=counts.outputs * B * row_stride(P, width),
        carry=counts.S * B * full,
        d_message=counts.outputs * B * full,
        initial=counts.S * B * full,
        sums=room_size(reduction_room(counts, sizes, cut, width), width),
    )


@device
def _trace(cell, t, begin, sizes, order, kept, initial):
    """The Trace of a step's rows from row `begin` on."""
    B, _, H, _ = sizes
    width = lanes(initial)
    S = states(cell)
    full = padded(H, width)
    n = order.first[t] + begin
    h = kept.y + n * kept.y_row
    h_row = kept.y_row
    if outputs(cell):
        h = kept.messages + n * H
        h_row = H
    h_prev = initial + begin * full
    h_prev_row = full
    prev = initial + (B * full + begin * full)
    prev_row = full
    prev_size = B * full
    if t > 0:
        before = order.first[t - 1] + begin
        h_prev = kept.y + before * kept.y_row
        h_prev_row = kept.y_row
        prev = kept.history + before * (S - 1) * full
        prev_row = (S - 1) * full
        prev_size = full
    history = kept.history + n * (S - 1) * full
    save = kept.saved + n * saved(cell) * full
    return Trace(
        h, h_row, h_prev, h_prev_row, history, prev, prev_row, prev_size, save, kept.sums + n * sums(cell)
    )  # fmt: skip


@device
def _backward_shard(shard, cell, sizes, order, kept, upstream, dz, dz_message, room, phases):
    """Some stages of all steps, the last one first, of one shard."""
    B, _, H, P = sizes
    width = lanes(room.carry)
    C, F, T = columns(cell), hidden(cell), order.count.size
    full = padded(H, width)
    dz_row = row_stride(F * H, width)
    message_row = row_stride(P, width)
    own = _owned(shard, order, sizes, width)
    for phase in range(phases.stop - 1, phases.start - 1, -1):
        t = phase // stages(cell)
        stage = phase % stages(cell)
        high = max(own.low, min(own.last, order.count[t]))
        going_on = high
        if stage == stages(cell) - 1:  # whose product comes from the step after
            going_on = max(own.low, min(high, order.count[t + 1])) if t + 1 < T else own.low
        for half in range(2):  # the rows that have a next step, and those that end here
            begin, end, more = (own.low, going_on, 1) if half == 0 else (going_on, high, 0)
            if begin == end:
                continue
            n = order.first[t] + begin
            piece = Piece(0, end - begin, own.left, own.right)
            trace = _trace(cell, t, begin, sizes, order, kept, room.initial)
            d = Cotangents(room.carry + begin * full, B * full, room.d_message + begin * full)
            dy = upstream.dy + n * upstream.dy_row
            d_hs = upstream.d_hs + n * P
            up = Upstream(dy, upstream.dy_row, d_hs, upstream.noting, upstream.limit)
            down = Downstream(dz + n * C * H, room.dz + (t % 2 * B + begin) * dz_row, dz_row)
            through_time = Product(room.dz + ((1 - t % 2) * B + begin) * dz_row, dz_row, more * F * H, room.hh)
            to_message = Downstream(dz_message + n * P, room.dz_message + begin * message_row, message_row)
            product = through_time
            reduction = own_reduction(cell, shard, begin, sizes, order.cut, room.sums)
            if outputs(cell):
                product = Product(to_message.new, message_row, P, room.message)
            if outputs(cell) and stage == stages(cell) - 1:
                piece = Piece(0, end - begin, own.h_left, own.h_right)
                if_outputs(cell, output_backward_rows, (piece, sizes, through_time, trace, d, up, to_message))
            elif sums(cell) > 0 and stage == 0:
                if_sums(cell, summed_backward_rows, (piece, sizes, trace, down, reduction))
            else:
                backward_rows(cell, piece, sizes, product, trace, d, up, down, reduction)


@device
def _initial_shard(shard, sizes, order, K, rows, room, d_initial):
    """What reaches h_0 through the first step's product, added for the first `rows` rows."""
    width, P = lanes(d_initial), sizes.P
    size = panel_size(K, width)
    row = row_stride(K, width)
    own = _owned(shard, order, sizes, width)
    left = own.h_left * width
    right = min(P, own.h_right * width)
    target = Rows(d_initial + (own.low * P + left), P)
    panels = Panels(room.hh + own.h_left * size, size)
    count = max(min(own.last, rows) - own.low, 0)
    tile_block(count, right - left, K, by_rows(room.dz + own.low * row, row), panels, target, target)


@Kernel
def sequence_backward(cell, sizes, order, weights, initial, kept, upstream, d_final, d_initial, dz, dz_message, work):
    """The gradients of all pre-activations and of the initial states.

    Parameters (see `frame`, and as `sequence_forward`)
    ----------
    weights : Weights
    d_final, d_initial : as final and initial, in and out
    dz : (N, C*H), out; dz_message : (N, P), out with a message: of its product
    work : backward_room(...)

    Cost: 2*N*F*H*P flop, and 2*N*H*P with a message; the products with x and for the weights are the caller's.
    Reference twin: fastrnn.reference.sequence.sequence_backward.
    """
    B, _, H, P = sizes
    F = hidden(cell)
    S = states(cell)
    T = order.count.size
    width = lanes(work)
    room = carve(work, backward_room(counts(cell), sizes, order.cut, width))
    full = padded(H, width)
    shards = shards_of(order.cut)
    pack_transposed(weights.W_hh, F * H, P, room.hh, shards)
    if outputs(cell):
        pack_transposed(weights.W_message, P, H, room.message, shards)
    _copy_states(room.carry, full, d_final, sizes, S)
    _copy_states(room.initial, full, initial, sizes, S)
    total = T * stages(cell)
    stretch = max(total, 1) if order.cut.unit_shards == 1 else 1
    for stop in range(total, 0, -stretch):
        phases = Phases(stop - stretch, stop, 0)
        share(shards, _backward_shard, (cell, sizes, order, kept, upstream, dz, dz_message, room, phases))
    copy_rows(d_initial, P, room.carry, full, B, P)
    copy_rows(d_initial + B * P, H, room.carry + B * full, full, (S - 1) * B, H)
    rows = order.count[0] if T > 0 else 0
    share(shards, _initial_shard, (sizes, order, F * H, rows, room, d_initial))
