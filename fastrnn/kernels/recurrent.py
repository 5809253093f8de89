"""A layer in one direction, a call a pass: forward packs the weights and runs the time loop; backward runs it back and
takes the products for the inputs and the weights.
"""

from typing import NamedTuple

from fastrnn.kernels.cells.shape import (
    columns,
    counts,
    gates,
    hidden,
    if_weights,
    outputs,
    projected,
)
from fastrnn.kernels.embedding import scatter_add
from fastrnn.kernels.frame import Cut, Inputs, Kept, Order, PackedWeights, Sizes, Upstream
from fastrnn.kernels.gradients import (
    bias_gradients,
    recurrent_products,
    token_gradients,
    weights_gradients,
    weights_room,
)
from fastrnn.kernels.inputs import project_table
from fastrnn.kernels.jit import Kernel, layout
from fastrnn.kernels.matmul import (
    Panels,
    Rows,
    Shape,
    by_rows,
    column_sums,
    multiply,
    product_room,
    repeated,
    spread_size,
    transposed,
    zero_row,
)
from fastrnn.kernels.pack import padded, panel_size
from fastrnn.kernels.packed import layer_weights, pack_layer, packed_room
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import (
    lanes,
    pointer,
)
from fastrnn.kernels.sequence import backward_room, forward_room, sequence_backward, sequence_forward
from fastrnn.kernels.workspace import Elements, carve, room_size


class KeptRoom(NamedTuple):
    """What a layer's forward pass leaves for the backward pass beside y."""

    messages: Elements  # (N, H), with a message
    history: Elements  # (N, S-1, padded H): the other states
    saved: Elements  # (N, blocks, A, lanes)
    sums: Elements  # (N, R)


@layout
def kept_room(counts, sizes, N, keeping, width):
    """The memory of what is kept; without `keeping` what the stages of one step hand on."""
    full = padded(sizes.H, width)
    rows = N if keeping else 0
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
    width = lanes(pointer(y))
    own = call[0]
    sizes = Sizes(own.B, own.I, own.H, own.P)
    cut = Cut(bounds.size - 1, own.unit_shards, own.most_rows)
    N = own.N
    V = own.V
    keeping = own.keeping > 0
    many = counts(cell)
    room = carve(pointer(work), layer_forward_room(many, sizes, cut, V, width))
    packed = carve(room.packed, packed_room(many, sizes, V, width))
    pack_layer(cell, sizes, layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh), packed, threads)
    panels = Panels(packed.ih, panel_size(own.I, width))
    if V > 0:
        vectors = padded(own.H, width) // width * gates(cell)
        projected_table = Panels(packed.table, panel_size(V, width))
        share(
            threads, project_table,
            (threads, pointer(table), V, own.I, panels, vectors, packed.bias, projected_table, room.rest),
        )  # fmt: skip
        panels = projected_table
        zero_row(packed.bias, vectors * width)  # the table's rows began from it
    inputs = Inputs(pointer(x), tokens, panels)
    order = Order(first, count, bounds, cut)
    weights = PackedWeights(packed.hh, packed.message, packed.bias)
    parts = carve(pointer(kept), kept_room(many, sizes, N, keeping, width))
    to = Kept(pointer(y), own.y_row, parts.messages, parts.history, parts.saved, parts.sums)
    sequence_forward(
        cell, sizes, order, inputs, weights, pointer(initial), pointer(final), to, keeping, room.rest
    )  # fmt: skip


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
    _, I, H, P = sizes
    GH = counts.G * sizes.H
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
    width = lanes(pointer(y))
    own = call[0]
    many = counts(cell)
    sizes = Sizes(own.B, own.I, own.H, own.P)
    cut = Cut(bounds.size - 1, own.unit_shards, own.most_rows)
    N, I, H, P, V = own.N, own.I, own.H, own.P, own.V
    K = columns(cell) * H
    GH = gates(cell) * H
    order = Order(first, count, bounds, cut)
    room = carve(pointer(work), layer_backward_room(many, sizes, cut, N, V, width, threads))
    zero_row(room.zero, max(I, H))
    parts = carve(pointer(kept), kept_room(many, sizes, N, True, width))
    from_forward = Kept(pointer(y), own.y_row, parts.messages, parts.history, parts.saved, parts.sums)
    weights = layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh)
    upstream = Upstream(pointer(dy), own.dy_row, pointer(d_hs), d_hs.size > 0, limit)
    sequence_backward(
        cell, sizes, order, weights, pointer(initial), from_forward, upstream, pointer(d_final), pointer(d_initial),
        room.dz, room.dz_message, room.rest,
    )  # fmt: skip
    if_weights(
        cell, weights_gradients,
        (sizes, order, from_forward, pointer(initial), room.dz, d_per_unit, room.rest, threads),
    )  # fmt: skip
    none = repeated(room.zero)
    dz = by_rows(room.dz, K)
    if dW_hh.size:
        h_prev = Rows(pointer(h), own.h_row)
        recurrent_products(cell, sizes, room.dz, h_prev, N, pointer(dW_hh), room.zero, room.rest, threads)
    d_message = pointer(dW_hh) + hidden(cell) * H * P
    wanted = dW_hh.size > 0
    if projected(cell):
        d_message = pointer(dW_hr)
        wanted = dW_hr.size > 0
    if outputs(cell) and wanted:
        left = transposed(by_rows(room.dz_message, P))
        right = by_rows(parts.messages, H)
        multiply(left, right, none, Rows(d_message, H), Shape(P, H, N), room.rest, threads)
    if d_b_ih.size + d_b_hh.size:
        column_sums(room.dz, N, K, room.d_bias, False, threads)
        bias_gradients(cell, sizes, room.d_bias, d_b_ih, d_b_hh)
    if tokens.size == 0:
        d_table[:] = 0.0
        if dx.size:
            target = Rows(pointer(dx), I)
            multiply(dz, by_rows(pointer(W_ih), I), none, target, Shape(N, I, GH), room.rest, threads)
        if dW_ih.size:
            target = Rows(pointer(dW_ih), I)
            multiply(transposed(dz), by_rows(pointer(x), I), none, target, Shape(GH, I, N), room.rest, threads)
    elif dW_ih.size + d_table.size:
        zero_row(room.d_rows, V * K)
        scatter_add(room.dz, tokens, K, room.d_rows, threads)
        token_gradients(cell, sizes, V, W_ih, dW_ih, table, d_table, room, threads)
