"""A layer in one direction, a call a pass: forward packs the weights and runs the time loop; backward runs it back and
takes the products for the inputs and the weights.
"""

import numpy as np

from fastrnn.kernels.cells import (
    apart,
    columns,
    gates,
    hidden,
    load_columns,
    load_rest,
    load_weights,
    saved,
    stages,
    states,
    unit_weights,
    weights_backward,
)
from fastrnn.kernels.embedding import scatter_add
from fastrnn.kernels.inputs import project_table
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import column_sums, copy_rows, product, product_work, spread_size
from fastrnn.kernels.pack import pack_weights, padded, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store, store_many
from fastrnn.kernels.sequence import backward_work, forward_work, sequence_backward, sequence_forward


@layout
def packed_sizes(I, H, P, V, G, F, C, two_stages, width):
    """Elements of a layer's packed parts: W_ih, W_hh, the message's weights, the biases, and the projected table."""
    units = padded(H, width) // width
    return (
        G * units * panel_size(I, width),
        F * units * panel_size(P, width),
        padded(P, width) // width * panel_size(H, width) if two_stages else 0,
        C * units * width,
        G * units * panel_size(V, width) if V > 0 else 0,
    )


@Kernel
def pack_layer(W_ih, W_hh, W_message, b_ih, b_hh, table, cell, I, H, P, ih, hh, message, bias, rows, work, parts):
    """Weights into panels, biases into tile order, and a table's rows through W_ih and the biases.

    Parameters (flat arrays)
    ----------
    W_ih, W_hh, W_message : (G*H, I), (at least F*H, P), (P, H) with two stages
    b_ih, b_hh : (G*H,) each, or empty
    table : (V, I), or empty
    ih, hh, message, bias, rows : out, packed_sizes(...) elements each. bias: for each block of units its gates' vectors
        side by side; behind them the vectors of the hidden part that a cell keeps apart
    work : parts*spread_size(I, lanes) elements with a table

    Cost: every weight read and written once, and 2*V*G*H*I flop for a table.
    """
    width = lanes(pointer(W_ih))
    G, full = gates(cell), padded(H, width)
    one, V = np.int64(1), table.size // max(I, 1)  # not a literal, for which the packing would be compiled again
    pack_weights(W_ih, one, I, I, H, one * G, ih, parts)
    pack_weights(W_hh, one, P, P, H, one * hidden(cell), hh, parts)
    if stages(cell) == 2:
        pack_weights(W_message, one, H, H, P, one, message, parts)
    for g in range(G):
        own_hidden = apart(cell) and g == G - 1
        for u in range(0, full, width):
            total = load_first(pointer(b_ih) + (g * H + u), min(H - u, b_ih.size))  # zeros without biases
            other = load_first(pointer(b_hh) + (g * H + u), min(H - u, b_hh.size))
            store(pointer(bias) + (u * G + g * width), total if own_hidden else total + other)
            if own_hidden:
                store(pointer(bias) + (G * full + u), other)
    if V > 0:
        share(
            parts, project_table,
            (parts, pointer(table), I, pointer(ih), pointer(bias), pointer(rows), V, G * full // width, pointer(work)),
        )  # fmt: skip
        bias[: G * full] = 0.0  # the table's rows began from it


@layout
def recurrent_forward_work(B, I, H, P, V, G, F, C, S, two_stages, row_shards, most_rows, unit_shards, width):
    """Elements of workspace that `recurrent_forward` needs; V: rows of a table, or 0."""
    ih, hh, message, bias, rows = packed_sizes(I, H, P, V, G, F, C, two_stages, width)
    time_loop = forward_work(B, I, H, C, S, row_shards, most_rows, unit_shards, width)
    table = row_shards * unit_shards * spread_size(I, width) if V > 0 else 0
    return ih + hh + message + bias + rows + max(time_loop, table)


@Kernel
def recurrent_forward(
    x, tokens, table, W_ih, W_hh, W_message, b_ih, b_hh, cell, initial, first, count, bounds, y, y_row, final, messages,
    history, kept, keeping, B, I, H, P, unit_shards, most_rows, work,
):  # fmt: skip
    """Run a layer over all steps.

    Parameters: as `pack_layer`'s and `sequence_forward`'s; tokens stand for one-hot rows of size I, or for rows of the
    table. work : recurrent_forward_work(...) elements.
    Reference twin: fastrnn.reference.sequence.sequence_forward.
    """
    width = lanes(pointer(y))
    V, parts = table.size // max(I, 1), (bounds.size - 1) * unit_shards
    ih_size, hh_size, message_size, bias_size, rows_size = packed_sizes(
        I, H, P, V, gates(cell), hidden(cell), columns(cell), stages(cell) == 2, width
    )
    ih, rest = work[:ih_size], work[ih_size:]
    hh, rest = rest[:hh_size], rest[hh_size:]
    message, rest = rest[:message_size], rest[message_size:]
    bias, rest = rest[:bias_size], rest[bias_size:]
    rows, rest = rest[:rows_size], rest[rows_size:]
    pack_layer(W_ih, W_hh, W_message, b_ih, b_hh, table, cell, I, H, P, ih, hh, message, bias, rows, rest, parts)
    inputs, size = (rows, V) if V > 0 else (ih, I)
    sequence_forward(
        x, tokens, inputs, hh, message, bias, cell, initial, first, count, bounds, y, y_row, final, messages, history,
        kept, keeping, B, size, H, P, unit_shards, most_rows, rest,
    )  # fmt: skip


@device
def _unit_weights_part(part, cell, parts, dz, y, y_row, first, count, initial, history, B, H, P, total):
    """Sums over all rows, in the order of the steps, for the units of one part."""
    width = lanes(dz)
    C, S, full = columns(cell), states(cell), padded(H, width)
    blocks = full // width
    for unit in range(split(blocks, parts, part) * width, split(blocks, parts, part + 1) * width, width):
        for t in range(count.size):
            for row in range(count[t]):
                n = first[t] + row
                prev, prev_step, h_prev = initial + (B * full + row * full + unit), B * full, initial + row * full
                if t > 0:
                    before = first[t - 1] + row
                    prev, prev_step, h_prev = history + (before * (S - 1) * full + unit), full, y + before * y_row
                d_columns = load_columns(cell, dz + (n * C * H + unit), H, H - unit)
                own_h = load_first(y + (n * y_row + unit), P - unit)
                state = (own_h,) + load_rest(cell, history + (n * (S - 1) * full + unit), full)
                own_h = load_first(h_prev + unit, P - unit)
                state_prev = (own_h,) + load_rest(cell, prev, prev_step)
                sums = load_weights(cell, total + unit, full)
                store_many(total + unit, full, weights_backward(cell, sums, d_columns, state, state_prev))


@device
def _unit_weights(cell, dz, y, y_row, first, count, initial, history, B, H, P, d_weights, work, parts):
    """The gradients (weights, H) of the tag's per-unit arrays."""
    if d_weights.size == 0:
        return
    width = lanes(pointer(dz))
    full = padded(H, width)
    total, start = work[: d_weights.size // H * full], pointer(work[d_weights.size // H * full :])
    total[:] = 0.0
    copy_rows(start, full, pointer(initial), P, B, P)
    copy_rows(start + B * full, full, pointer(initial) + B * P, H, (states(cell) - 1) * B, H)
    share(
        parts, _unit_weights_part,
        (cell, parts, pointer(dz), pointer(y), y_row, first, count, start, pointer(history), B, H, P, pointer(total)),
    )  # fmt: skip
    copy_rows(pointer(d_weights), H, pointer(total), full, d_weights.size // H, H)


@layout
def recurrent_backward_work(N, B, I, H, P, V, C, G, F, S, two_stages, weights, width, parts):
    """Elements of workspace that `recurrent_backward` needs; V: rows of a table, or of one-hot tokens, or 0."""
    full, K = padded(H, width), C * H
    products = max(product_work(G * H, P, N, width, parts), product_work(N, I, G * H, width, parts))
    products = max(products, product_work(G * H, I, max(N, V), width, parts), product_work(V, I, G * H, width, parts))
    products = max(products, product_work(P, H, N, width, parts) if two_stages else 0)
    through_time = max(backward_work(B, H, P, F, S, two_stages, width), (weights + S * B) * full)
    own = padded(N * K, width) + padded(V * K, width) + padded(K, width) + (padded(N * P, width) if two_stages else 0)
    return own + max(through_time, products)


@Kernel
def recurrent_backward(
    y, y_row, h, h_row, x, tokens, table, W_ih, W_hh, W_message, cell, initial, first, count, bounds, messages, history,
    kept, dy, dy_row, d_final, limit, d_initial, dx, d_hs, d_table, dW_ih, dW_hh, dW_message, d_b_ih, d_b_hh, d_weights,
    zero, N, B, I, H, P, unit_shards, work, parts,
):  # fmt: skip
    """The gradients of a layer's inputs, initial states and weights.

    Parameters (as `recurrent_forward` and `sequence_backward`, and)
    ----------
    h : h_{t-1} of row n at n*h_row
    dx : (N, I), out; with tokens empty
    d_table : (V, I), out, with a table; d_rows of one-hot tokens go to dW_ih^T
    dW_ih, dW_hh, dW_message, d_b_ih, d_b_hh : as the weights, out; of dW_hh the rows of the gates that h_{t-1} feeds
    an empty dx or gradient of a parameter is not computed
    d_weights : (weights, H), out: of the cell's per-unit arrays
    zero : at least max(I, H) zeros
    work : recurrent_backward_work(...) elements
    parts : shards of the products

    Cost: 2*N*H*(2*C*I + 2*G*P + G*P) flop, without I's share with tokens. Reference twin: fastrnn.reference.sequence.
    """
    width = lanes(pointer(y))
    G, C = gates(cell), columns(cell)
    K, gate_columns = C * H, G * H
    V = I if table.size == 0 else table.size // max(I, 1)
    one, none = np.int64(1), np.int64(0)  # not literals, for which the product would be compiled again
    dz, rest = work[: N * K], work[padded(N * K, width) :]
    sums, rest = rest[:K], rest[padded(K, width) :]
    d_output = rest[: N * P if stages(cell) == 2 else 0]
    rest = rest[padded(d_output.size, width) :]
    sequence_backward(
        y, y_row, W_hh, W_message, cell, initial, first, count, bounds, messages, history, kept, dy, dy_row, d_final,
        limit, d_initial, dz, d_output, d_hs, B, H, P, unit_shards, rest,
    )  # fmt: skip
    unit_weights(cell, _unit_weights, (dz, y, y_row, first, count, initial, history, B, H, P, d_weights, rest, parts))
    together = (hidden(cell) - apart(cell)) * H
    if dW_hh.size:
        product(dz, one, K, h, h_row, one, zero, none, dW_hh, P, together, P, N, rest, parts)
    if apart(cell) and dW_hh.size:
        product(dz[gate_columns:], one, K, h, h_row, one, zero, none, dW_hh[together * P :], P, H, P, N, rest, parts)
    if stages(cell) == 2 and dW_message.size:
        product(d_output, one, P, messages, H, one, zero, none, dW_message, H, P, H, N, rest, parts)
    if d_b_ih.size + d_b_hh.size:
        column_sums(dz, N, K, sums, np.bool_(False), parts)
    for k in range(d_b_ih.size):
        d_b_ih[k] = sums[k]
    for k in range(d_b_hh.size):
        d_b_hh[k] = sums[k + H] if apart(cell) and k >= together else sums[k]
    if tokens.size == 0:
        d_table[:] = 0.0
        if dx.size:
            product(dz, K, one, W_ih, I, one, zero, none, dx, I, N, I, gate_columns, rest, parts)
        if dW_ih.size:
            product(dz, one, K, x, I, one, zero, none, dW_ih, I, gate_columns, I, N, rest, parts)
        return
    if dW_ih.size + d_table.size == 0:
        return
    d_rows, rest = rest[: V * K], rest[padded(V * K, width) :]
    d_rows[:] = 0.0
    scatter_add(dz, tokens, K, d_rows, parts)
    if table.size == 0:
        for k in range(gate_columns):
            for v in range(V):
                dW_ih[k * V + v] = d_rows[v * K + k]
    else:
        if d_table.size:
            product(d_rows, K, one, W_ih, I, one, zero, none, d_table, I, V, I, gate_columns, rest, parts)
        if dW_ih.size:
            product(d_rows, one, K, table, I, one, zero, none, dW_ih, I, gate_columns, I, V, rest, parts)


@layout
def step_sizes(B, I, H, P, G, F, C, S, A, two_stages, width):
    """Elements of the parts of the arena of `step`: W_ih, W_hh, the message's weights, the biases; the states; what a
    step with two stages keeps; and the workspace."""
    ih, hh, message, bias, _ = packed_sizes(I, H, P, 0, G, F, C, two_stages, width)
    kept = B * A * padded(H, width) if two_stages else 0
    return ih, hh, message, bias, B * (P + (S - 1) * H), kept, forward_work(B, I, H, C, S, 1, B, 1, width)


@Kernel
def step(x, y, arena, sizes, cell):
    """One step of a layer whose weights are packed and whose states stay where they are: no parallel region.

    Parameters (flat arrays)
    ----------
    x, y : (B, I), and out, (B, P)
    arena : step_sizes(...) elements, see there
    sizes : the integers 0, B, I, H, P

    Cost: 2*B*H*(C*I + G*P) flop. Reference twin: fastrnn.reference.sequence.sequence_forward with T = 1.
    """
    width = lanes(pointer(x))
    B, I, H, P = sizes[1], sizes[2], sizes[3], sizes[4]
    ih, hh, message, bias, state, kept, _ = step_sizes(
        B, I, H, P, gates(cell), hidden(cell), columns(cell), states(cell), saved(cell), stages(cell) == 2, width
    )
    own = arena[ih + hh + message + bias :]
    none = arena[:0]
    sequence_forward(
        x, sizes[:0], arena, arena[ih:], arena[ih + hh :], arena[ih + hh + message :], cell, own, sizes[:1], sizes[1:2],
        sizes[:2], y, P, own, none, none, own[state:], np.bool_(False), B, I, H, P, np.int64(1), B, own[state + kept :],
    )  # fmt: skip
