"""A layer in one direction, a call a pass: forward packs the weights and runs the time loop; backward runs it back and
takes the products for the inputs and the weights.
"""

from typing import NamedTuple

from fastrnn.kernels.cells import weights_backward
from fastrnn.kernels.cells.shape import (
    apart,
    columns,
    counts,
    gates,
    hidden,
    if_weights,
    load_columns,
    load_noted,
    load_rest,
    load_weights,
    noted,
    outputs,
    projected,
    recurrent,
    saved,
    states,
)
from fastrnn.kernels.embedding import scatter_add
from fastrnn.kernels.frame import Cut, Inputs, Kept, Order, PackedWeights, Sizes, Upstream, Weights
from fastrnn.kernels.inputs import project_table
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import (
    Panels,
    Rows,
    Shape,
    by_rows,
    column_sums,
    copy_rows,
    multiply,
    product_room,
    repeated,
    spread_size,
    transposed,
)
from fastrnn.kernels.pack import pack_weights, padded, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import (
    element,
    lanes,
    load_first,
    pointer,
    set_element,
    store,
    store_first,
    store_many,
)
from fastrnn.kernels.sequence import backward_room, forward_room, sequence_backward, sequence_forward
from fastrnn.kernels.simd import zeros
from fastrnn.kernels.workspace import Elements, carve, room_size


class PackedRoom(NamedTuple):
    """A layer's weights as the forward loop reads them."""

    ih: Elements
    hh: Elements
    message: Elements
    bias: Elements
    table: Elements  # the rows of a table, that went through W_ih and the biases


@layout
def packed_room(counts, sizes, V, width):
    """The memory of packed weights; V: rows of a table, or 0."""
    (_, I, H, P), blocks = sizes, padded(sizes.H, width) // width
    return PackedRoom(
        ih=counts.G * blocks * panel_size(I, width),
        hh=counts.F * blocks * panel_size(P, width),
        message=counts.outputs * padded(P, width) // width * panel_size(H, width),
        bias=counts.C * blocks * width,
        table=counts.G * blocks * panel_size(V, width) if V > 0 else 0,
    )


@device
def _pack_bias(cell, b_ih, b_hh, H, bias):
    """Both biases of each gate, added; of gates whose hidden part is kept apart, that part's behind all others."""
    width, G, Q = lanes(bias), gates(cell), apart(cell)
    full, together = padded(H, width), hidden(cell) - Q
    for g in range(G):
        own_hidden = together <= g < hidden(cell)
        for u in range(0, full, width):
            total = load_first(pointer(b_ih) + (g * H + u), min(H - u, b_ih.size))  # zeros without biases
            other = load_first(pointer(b_hh) + (g * H + u), min(H - u, b_hh.size) if g < recurrent(cell) else 0)
            store(bias + (u * G + g * width), total if own_hidden else total + other)
            if own_hidden:
                store(bias + (G * full + u * Q + (g - together) * width), other)


@device
def pack_layer(cell, sizes, weights, packed, threads):
    """Weights into panels, biases into tile order; packed: a PackedRoom. Cost: every weight read and written once."""
    pack_weights(weights.W_ih, sizes.I, sizes.H, gates(cell), packed.ih, threads)
    pack_weights(weights.W_hh, sizes.P, sizes.H, hidden(cell), packed.hh, threads)
    if outputs(cell):
        pack_weights(weights.W_message, sizes.H, sizes.P, 1, packed.message, threads)
    _pack_bias(cell, weights.b_ih, weights.b_hh, sizes.H, packed.bias)


@device
def _layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh):
    """Weights of arrays as Python has them."""
    message = pointer(W_hh) + hidden(cell) * sizes.H * sizes.P  # the rows of the gate that it feeds
    if projected(cell):
        message = pointer(W_hr)
    return Weights(pointer(W_ih), pointer(W_hh), message, b_ih, b_hh)


class KeptRoom(NamedTuple):
    """What a layer's forward pass leaves for the backward pass beside y."""

    messages: Elements  # (N, H), with a message
    history: Elements  # (N, S-1, padded H): the other states
    saved: Elements  # (N, blocks, A, lanes)
    sums: Elements  # (N, R)


@layout
def kept_room(counts, sizes, N, keeping, width):
    """The memory of what is kept; without `keeping` what the stages of one step hand on."""
    full, rows = padded(sizes.H, width), N if keeping else 0
    return KeptRoom(
        messages=counts.outputs * rows * sizes.H,
        history=rows * (counts.S - 1) * full,
        saved=(rows if keeping else counts.outputs * sizes.B) * counts.A * full,
        sums=rows * counts.R,
    )


class ForwardRoom(NamedTuple):
    """Workspace of `recurrent_forward`."""

    packed: Elements
    rest: Elements  # of the time loop, or of the table's products


@layout
def layer_forward_room(counts, sizes, cut, V, width):
    """The workspace of `recurrent_forward`."""
    loop = room_size(forward_room(counts, sizes, cut, width), width)
    table = cut.row_shards * cut.unit_shards * spread_size(sizes.I, width) if V > 0 else 0
    return ForwardRoom(packed=room_size(packed_room(counts, sizes, V, width), width), rest=max(loop, table))


@Kernel
def recurrent_forward(
    W_ih, W_hh, W_hr, b_ih, b_hh, cell, first, count, bounds, call, x, tokens, table, initial, y, final, kept, work,
    threads,
):  # fmt: skip
    """Run a layer over all steps.

    Parameters (flat arrays)
    ----------
    W_ih, W_hh, W_hr : (G*H, I), (recurrent*H, P), and with a projection (P, H); b_ih, b_hh : (G*H,) and (recurrent*H,),
        or empty
    cell : the tag
    first, count, bounds : see frame.Order
    call : an item of frame.CALL; V : rows of the table, or 0
    x : (N, I), or empty with tokens (N,), which stand for one-hot rows of size I, or for rows of the table (V, I)
    initial, final : h (B, P), then the other states (S-1, B, H); read, and written
    y : out, h_t of row n at n*y_row
    kept : out, kept_room(...)
    work : layer_forward_room(...)
    threads : shards of the loop

    Cost: as `sequence_forward`, and 2*V*G*H*I flop for a table. Reference twin:
    fastrnn.reference.sequence.sequence_forward.
    """
    width, own = lanes(pointer(y)), call[0]
    sizes, cut = Sizes(own.B, own.I, own.H, own.P), Cut(bounds.size - 1, own.unit_shards, own.most_rows)
    N, V, keeping, many = own.N, own.V, own.keeping > 0, counts(cell)
    room = carve(pointer(work), layer_forward_room(many, sizes, cut, V, width))
    packed = carve(room.packed, packed_room(many, sizes, V, width))
    pack_layer(cell, sizes, _layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh), packed, threads)
    panels = Panels(packed.ih, panel_size(own.I, width))
    if V > 0:
        vectors = padded(own.H, width) // width * gates(cell)
        projected_table = Panels(packed.table, panel_size(V, width))
        share(
            threads, project_table,
            (threads, pointer(table), V, own.I, panels, vectors, packed.bias, projected_table, room.rest),
        )  # fmt: skip
        panels = projected_table
        for i in range(0, vectors * width, width):  # the table's rows began from the bias
            store(packed.bias + i, zeros(packed.bias))
    inputs, order = Inputs(pointer(x), tokens, panels), Order(first, count, bounds, cut)
    weights, parts = PackedWeights(packed.hh, packed.message, packed.bias), kept_room(many, sizes, N, keeping, width)
    parts = carve(pointer(kept), parts)
    to = Kept(pointer(y), own.y_row, parts.messages, parts.history, parts.saved, parts.sums)
    sequence_forward(
        cell, sizes, order, inputs, weights, pointer(initial), pointer(final), to, keeping, room.rest
    )  # fmt: skip


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
    (B, _, H, P), width = sizes, lanes(dz)
    C, S, A, full = columns(cell), states(cell), saved(cell), padded(H, width)
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
                    prev, prev_size = kept.history + (before * (S - 1) * full + unit), full
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
def _weights_gradients(cell, sizes, order, kept, initial, dz, d_per_unit, work, threads):
    """The gradients (W, H) of the per-unit weights; none if d_per_unit is empty."""
    if d_per_unit.size == 0:
        return
    (B, _, H, P), width = sizes, lanes(dz)
    full, W = padded(H, width), d_per_unit.size // H
    room = carve(work, weights_room(counts(cell), sizes, width))
    for i in range(0, W * full, width):
        store(room.total + i, zeros(dz))
    copy_rows(room.initial, full, initial, P, B, P)
    copy_rows(room.initial + B * full, full, initial + B * P, H, (states(cell) - 1) * B, H)
    share(threads, _weights_shard, (threads, cell, sizes, order, kept, dz, room))
    copy_rows(pointer(d_per_unit), H, room.total, full, W, H)


class BackwardRoom(NamedTuple):
    """Workspace of `recurrent_backward`."""

    dz: Elements  # (N, C*H)
    d_bias: Elements  # (C*H,): its sums over the rows
    dz_message: Elements  # (N, P), with a message
    d_rows: Elements  # (V, C*H): its sums over each token
    zero: Elements  # (max(I, P, H),)
    rest: Elements  # of the time loop, the per-unit weights or the products


@layout
def layer_backward_room(counts, sizes, cut, N, V, width, threads):
    """The workspace of `recurrent_backward`; V: rows of a table, or of one-hot tokens, or 0."""
    (_, I, H, P), GH = sizes, counts.G * sizes.H
    rest = max(
        room_size(backward_room(counts, sizes, cut, width), width),
        room_size(weights_room(counts, sizes, width), width),
        room_size(product_room(Shape(GH, P, N), width, threads), width),
        room_size(product_room(Shape(N, I, GH), width, threads), width),
        room_size(product_room(Shape(GH, I, max(N, V)), width, threads), width),
        room_size(product_room(Shape(V, I, GH), width, threads), width),
        room_size(product_room(Shape(P, H, N), width, threads), width) if counts.outputs else 0,
    )
    return BackwardRoom(
        dz=N * counts.C * H,
        d_bias=counts.C * H,
        dz_message=counts.outputs * N * P,
        d_rows=V * counts.C * H,
        zero=max(I, H),
        rest=rest,
    )


@device
def _recurrent_products(cell, sizes, dz, h_prev, N, dW_hh, zero, work, threads):
    """The gradients of the rows of W_hh whose gates h_{t-1} feeds. h_prev: Rows (N, P)."""
    (_, _, H, P), K, together = sizes, columns(cell) * sizes.H, (hidden(cell) - apart(cell)) * sizes.H
    h, none = by_rows(h_prev.data, h_prev.row), repeated(zero)
    left, target = transposed(by_rows(dz, K)), Rows(dW_hh, P)
    multiply(left, h, none, target, Shape(together, P, N), work, threads)
    if apart(cell):
        left, target = transposed(by_rows(dz + gates(cell) * H, K)), Rows(dW_hh + together * P, P)
        multiply(left, h, none, target, Shape(apart(cell) * H, P, N), work, threads)


@device
def _bias_gradients(cell, sizes, d_bias, d_b_ih, d_b_hh):
    """From the sums of dz over all rows."""
    H, first = sizes.H, (hidden(cell) - apart(cell)) * sizes.H
    for k in range(d_b_ih.size):
        d_b_ih[k] = element(d_bias + k)
    for k in range(d_b_hh.size):
        own_hidden = first <= k < hidden(cell) * H
        d_b_hh[k] = element(d_bias + (k - first + gates(cell) * H if own_hidden else k))


@device
def _token_gradients(cell, sizes, V, W_ih, dW_ih, table, d_table, room, threads):
    """The gradients of W_ih and of a table from the sums of dz over each token."""
    I, K, GH = sizes.I, columns(cell) * sizes.H, gates(cell) * sizes.H
    d_rows, none = by_rows(room.d_rows, K), repeated(room.zero)
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


@Kernel
def recurrent_backward(
    W_ih, W_hh, W_hr, b_ih, b_hh, cell, first, count, bounds, call, x, tokens, table, dW_ih, dW_hh, d_b_ih, d_b_hh,
    dW_hr, d_per_unit, initial, y, h, kept, dy, d_final, limit, d_initial, dx, d_table, d_hs, work, threads,
):  # fmt: skip
    """The gradients of a layer's inputs, initial states and weights.

    Parameters (as `recurrent_forward`, and)
    ----------
    call : V : rows of the table, or I of one-hot tokens, or 0
    h : h_{t-1} of row n at n*h_row
    dy : h_t's cotangent of row n at n*dy_row; a dy_row of 0 repeats one row (of zeros, for none)
    d_final, d_initial : as final and initial, in and out
    limit : largest size of an element of dL/dh_t at every step, before it goes through the cell
    dx : (N, I), out, not with tokens; d_table : (V, I), out, with a table; d_hs : (N, P), out: dL/dh_t as it went
        through the cell
    dW_ih, dW_hh, d_b_ih, d_b_hh, dW_hr, d_per_unit : out, as the weights; d_per_unit (W, H)
        any of dx to d_per_unit that is empty is not computed
    work : layer_backward_room(...)
    threads : shards of the products, at least as many as of the loop

    Cost: 2*N*H*(2*G*I + 2*F*P) flop, without I's share with tokens. Reference twin: fastrnn.reference.sequence.
    """
    width, own, many = lanes(pointer(y)), call[0], counts(cell)
    sizes, cut = Sizes(own.B, own.I, own.H, own.P), Cut(bounds.size - 1, own.unit_shards, own.most_rows)
    N, I, H, P, V = own.N, own.I, own.H, own.P, own.V
    K, GH, order = columns(cell) * H, gates(cell) * H, Order(first, count, bounds, cut)
    room = carve(pointer(work), layer_backward_room(many, sizes, cut, N, V, width, threads))
    for i in range(0, max(I, H), width):
        store_first(room.zero + i, zeros(room.zero), max(I, H) - i)
    parts = carve(pointer(kept), kept_room(many, sizes, N, True, width))
    from_forward = Kept(pointer(y), own.y_row, parts.messages, parts.history, parts.saved, parts.sums)
    weights = _layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh)
    upstream = Upstream(pointer(dy), own.dy_row, pointer(d_hs), d_hs.size > 0, limit)
    sequence_backward(
        cell, sizes, order, weights, pointer(initial), from_forward, upstream, pointer(d_final), pointer(d_initial),
        room.dz, room.dz_message, room.rest,
    )  # fmt: skip
    if_weights(
        cell, _weights_gradients,
        (sizes, order, from_forward, pointer(initial), room.dz, d_per_unit, room.rest, threads),
    )  # fmt: skip
    none, dz = repeated(room.zero), by_rows(room.dz, K)
    if dW_hh.size:
        h_prev = Rows(pointer(h), own.h_row)
        _recurrent_products(cell, sizes, room.dz, h_prev, N, pointer(dW_hh), room.zero, room.rest, threads)
    d_message, wanted = pointer(dW_hh) + hidden(cell) * H * P, dW_hh.size > 0
    if projected(cell):
        d_message, wanted = pointer(dW_hr), dW_hr.size > 0
    if outputs(cell) and wanted:
        left, right = transposed(by_rows(room.dz_message, P)), by_rows(parts.messages, H)
        multiply(left, right, none, Rows(d_message, H), Shape(P, H, N), room.rest, threads)
    if d_b_ih.size + d_b_hh.size:
        column_sums(room.dz, N, K, room.d_bias, False, threads)
        _bias_gradients(cell, sizes, room.d_bias, d_b_ih, d_b_hh)
    if tokens.size == 0:
        d_table[:] = 0.0
        if dx.size:
            target = Rows(pointer(dx), I)
            multiply(dz, by_rows(pointer(W_ih), I), none, target, Shape(N, I, GH), room.rest, threads)
        if dW_ih.size:
            target = Rows(pointer(dW_ih), I)
            multiply(transposed(dz), by_rows(pointer(x), I), none, target, Shape(GH, I, N), room.rest, threads)
    elif dW_ih.size + d_table.size:
        for i in range(V * K):
            set_element(room.d_rows + i, 0.0)
        scatter_add(room.dz, tokens, K, room.d_rows, threads)
        _token_gradients(cell, sizes, V, W_ih, dW_ih, table, d_table, room, threads)


class StepRoom(NamedTuple):
    """The memory of a layer that is fed step by step."""

    packed: Elements
    state: Elements  # h (B, P), and the other states (S-1, B, H)
    kept: Elements
    loop: Elements


@layout
def step_room(counts, sizes, width):
    """The memory of a layer that is fed step by step, at `Sizes`."""
    B, _, H, P = sizes
    return StepRoom(
        packed=room_size(packed_room(counts, sizes, 0, width), width),
        state=B * (P + (counts.S - 1) * H),
        kept=room_size(kept_room(counts, sizes, 1, False, width), width),
        loop=room_size(forward_room(counts, sizes, Cut(1, 1, B), width), width),
    )


@Kernel
def pack_step(W_ih, W_hh, W_hr, b_ih, b_hh, cell, numbers, arena):
    """Pack a layer's weights for `step`; parameters as there and in `recurrent_forward`."""
    sizes, width = Sizes(numbers[1], numbers[2], numbers[3], numbers[4]), lanes(pointer(arena))
    room = carve(pointer(arena), step_room(counts(cell), sizes, width))
    packed = carve(room.packed, packed_room(counts(cell), sizes, 0, width))
    pack_layer(cell, sizes, _layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh), packed, 1)


@Kernel
def step(x, y, arena, numbers, cell):
    """One step of a layer whose weights are packed and whose states stay where they are: no parallel region.

    Parameters (flat arrays)
    ----------
    x, y : (B, I), and out, (B, P)
    arena : step_room(...), where `pack_step` has put the weights
    numbers : the integers 0, B, I, H, P

    Cost: 2*B*H*(G*I + F*P) flop. Reference twin: fastrnn.reference.sequence.sequence_forward with T = 1.
    """
    sizes, width, many = Sizes(numbers[1], numbers[2], numbers[3], numbers[4]), lanes(pointer(x)), counts(cell)
    room = carve(pointer(arena), step_room(many, sizes, width))
    packed = carve(room.packed, packed_room(many, sizes, 0, width))
    parts = carve(room.kept, kept_room(many, sizes, 1, False, width))
    inputs = Inputs(pointer(x), numbers[:0], Panels(packed.ih, panel_size(sizes.I, width)))
    order = Order(numbers[:1], numbers[1:2], numbers[:2], Cut(1, 1, sizes.B))
    weights = PackedWeights(packed.hh, packed.message, packed.bias)
    to = Kept(pointer(y), sizes.P, parts.messages, parts.history, parts.saved, parts.sums)
    sequence_forward(cell, sizes, order, inputs, weights, room.state, room.state, to, False, room.loop)
