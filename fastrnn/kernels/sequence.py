"""The time loop, forward and backward, of any cell: it knows time, rows and units, and no gate.

Rows are tokens in time-major order: step t owns rows first[t] .. first[t]+count[t]-1, and a sequence keeps its place
from step to step, so count never grows (ragged batches are sorted by length before they come here).
Threads own a grid of row_shards x unit_shards of every step: with one unit shard a thread runs all steps for its own
rows and meets nobody; with more, all threads meet after each step (`stretch` = 1).

Pre-activations live in "tile order": for each block of `lanes` units, its gates' vectors side by side. The chain of
sums of a pre-activation starts at the bias, runs over the inputs and goes on over the previous hidden state, in that
order for every row, whichever thread or tile computes it.
"""

import numpy as np

from fastrnn.kernels.cells import (
    cell_backward,
    cell_forward,
    gates,
    load_gates,
    load_rest,
    load_saved,
    load_states,
    saved,
    states,
)
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import (
    MAX_ROWS,
    REGISTERS,
    ROW_BLOCK,
    copy_rows,
    row_blocks,
    spread_size,
    tile_block,
    widest,
)
from fastrnn.kernels.pack import pack_weights, padded, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.simd import (
    lanes,
    load,
    load_first,
    pointer,
    prefetch_write,
    store,
    store_first,
    store_many,
    store_many_first,
)
from fastrnn.kernels.tile import tile


@layout
def state_stride(units, width):
    """Elements from row to row of the states' workspace: never a power of two, which would crowd the cache."""
    return padded(units, width) + width


@device
def gate_rows(rows, panels):
    """Rows of each of the even tiles that `rows` are cut into, when a tile is at least `panels` vectors wide."""
    most = max(1, min(MAX_ROWS, (REGISTERS - 1) // panels - 1))
    count = -(-rows // most)
    return -(-rows // max(count, 1))


@layout
def chunk_steps(rows):
    """Steps whose inputs are projected together when each brings `rows` rows."""
    return max(1, ROW_BLOCK // max(rows, 1))


@layout
def chunk_rows(rows):
    """Most rows of a chunk."""
    return chunk_steps(rows) * rows


@layout
def input_work(I, rows, width):
    """Elements of workspace for the gathered inputs of a chunk, or for one block of a step's rows."""
    return max(chunk_rows(rows) * (I + width), spread_size(I, width))


@device
def look_up(tokens, first_row, rows, table, size, bias, z, z_row, left, right):
    """z = bias + the rows of a table in panels that the tokens name."""
    width = lanes(z)
    for i in range(rows):
        for p in range(left, right):
            row = load(table + (p * size + tokens[first_row + i] * width))
            store(z + (i * z_row + (p - left) * width), row + load(bias + p * width))


@device
def project(x, tokens, first, count, start, stop, low, high, I, W_ih, bias, z, z_row, left, right, work):
    """z = bias + x W_ih^T for the steps start..stop-1, their rows low..high-1, and the panels left..right-1.

    The rows of a chunk are gathered first, so that few rows a step still share one reading of the weights.
    """
    width = lanes(z)
    size = panel_size(I, width)
    stride, total = I + width, np.int64(0)
    none, one = np.int64(0), np.int64(1)  # not literals, for which tile_block would be compiled again
    for t in range(start, stop):
        rows = max(0, min(high, count[t]) - low)
        row = first[t] + low
        if tokens.size:
            look_up(tokens, row, rows, W_ih, size, bias, z + total * z_row, z_row, left, right)
        elif stop - start > 1:
            copy_rows(work + total * stride, stride, x + row * I, I, rows, I)
        else:
            row_blocks(
                rows, I, x + row * I, I, W_ih + left * size, size, bias + left * width, none, z, z_row,
                (right - left) * width, work,
            )  # fmt: skip
        total += rows
    if not tokens.size and stop - start > 1:
        tile_block(
            total, I, work, stride, one, W_ih + left * size, size, bias + left * width, none, z, z_row,
            (right - left) * width,
        )  # fmt: skip


@device
def forward_rows(
    cell, rows, left, right, H, W_hh, z, z_row, h_prev, new, y, y_row, history, kept, stride, state_size, keeping
):
    """One step for `rows` rows and the unit blocks left..right-1.

    z, h_prev, new, y, history, kept point to the first of the rows, z also to the first of the blocks.
    h_prev and new: states of the step before and of this one, state_size elements from state to state.
    """
    width = lanes(z)
    G, S, A = gates(cell), states(cell), saved(cell)
    size = panel_size(H, width)
    height = gate_rows(rows, G)
    per_tile = max(1, widest(height) // G)
    full = padded(H, width)
    for u in range(left, right, per_tile):
        blocks = min(per_tile, right - u)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    prefetch_write(y + (q * y_row + v * width))
            at = z + (i * z_row + (u - left) * G * width)
            tile(
                r, blocks * G, H, h_prev + i * stride, stride, 1, W_hh + u * G * size, size,
                at, z_row, at, z_row, width,
            )  # fmt: skip
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    unit = v * width
                    state = load_states(cell, h_prev + (q * stride + unit), state_size)
                    gate = load_gates(cell, z + (q * z_row + (v - left) * G * width), width)
                    state, keep = cell_forward(cell, unit, gate, state)
                    store_many(new + (q * stride + unit), state_size, state)
                    store_first(y + (q * y_row + unit), state[0], H - unit)
                    if keeping:
                        store_many(history + (q * (S - 1) * full + unit), full, state[1:])
                        store_many(kept + (q * A * full + unit * A), width, keep)
            i += r


@device
def _project_table(part, parts, weight, I, W_ih, bias, table, V, panels, work):
    width = lanes(weight)
    own = work + part * spread_size(I, width)
    for p in range(split(panels, parts, part), split(panels, parts, part + 1)):
        source, target = W_ih + p * panel_size(I, width), table + p * panel_size(V, width)
        row_blocks(
            V, I, weight, I, source, panel_size(I, width), bias + p * width, np.int64(0), target, width, width, own
        )  # fmt: skip


@layout
def shard_rows(B, row_shards):
    """Most rows of a shard."""
    return -(-B // row_shards)


@layout
def shard_z(B, row_shards, blocks, unit_shards, G, width):
    """Elements of a shard's pre-activations of a chunk."""
    return chunk_rows(shard_rows(B, row_shards)) * G * -(-blocks // unit_shards) * width


@device
def _forward_part(
    part, x, tokens, I, W_ih, W_hh, cell, bias, first, count, y, y_row, history, kept, keeping, B, H, start, stop,
    row_shards, unit_shards, z, state, work,
):  # fmt: skip
    """The steps start..stop-1 of one shard."""
    width = lanes(y)
    G, S, A = gates(cell), states(cell), saved(cell)
    T = count.size
    full = padded(H, width)
    blocks, stride = full // width, state_stride(H, width)
    state_size = B * stride
    rows, units = part // unit_shards, part % unit_shards
    low, last = split(B, row_shards, rows), split(B, row_shards, rows + 1)
    left, right = split(blocks, unit_shards, units), split(blocks, unit_shards, units + 1)
    z_row = (right - left) * G * width
    own_z = z + part * shard_z(B, row_shards, blocks, unit_shards, G, width)
    own_work = work + part * input_work(I, shard_rows(B, row_shards), width)
    chunk = chunk_steps(shard_rows(B, row_shards))
    for t in range(start, stop):
        begin = t // chunk * chunk
        if t == begin:
            project(
                x, tokens, first, count, t, min(t + chunk, T), low, last, I, W_ih, bias, own_z, z_row, left * G,
                right * G, own_work,
            )  # fmt: skip
        done = 0
        for before in range(begin, t):
            done += max(0, min(last, count[before]) - low)
        n = first[t] + low
        forward_rows(
            cell, min(last, count[t]) - low, left, right, H, W_hh, own_z + done * z_row, z_row,
            state + ((1 - t % 2) * S * state_size + low * stride), state + (t % 2 * S * state_size + low * stride),
            y + n * y_row, y_row, history + n * (S - 1) * full, kept + n * A * full, stride, state_size, keeping,
        )  # fmt: skip


@layout
def forward_work(B, I, H, V, G, S, row_shards, unit_shards, width):
    """Elements of workspace that `sequence_forward` needs; V: rows of a table, or 0."""
    parts, full = row_shards * unit_shards, padded(H, width)
    panels = G * full // width
    room = max(input_work(I, shard_rows(B, row_shards), width), spread_size(I, width))
    return (
        panels * (panel_size(I, width) + panel_size(H, width) + panel_size(V, width) + width)
        + 2 * S * B * state_stride(H, width)
        + parts * (shard_z(B, row_shards, full // width, unit_shards, G, width) + padded(room, width))
    )


@Kernel
def sequence_forward(
    x, tokens, table, W_ih, W_hh, bias, cell, initial, first, count, y, y_row, final, history, kept,
    B, I, H, stretch, row_shards, unit_shards, work,
):  # fmt: skip
    """Run a cell over all steps.

    Parameters (flat arrays; N rows in all, B sequences, G gates, S states)
    ----------
    x : (N, I), or empty with tokens
    tokens : (N,) integers that stand for one-hot rows of size I, or for rows of the table; empty with x
    table : (V, I), or empty
    W_ih, W_hh, bias : (G*H, I), (G*H, H), (G*H,)
    cell : the tag
    initial, final : (S, B, H), read and written
    first, count : (T,) integers
    y : out, h_t of row n at n*y_row
    history : (N, S-1, padded(H)), out, the other states; kept : (N, saved*padded(H)), out; both may be empty, and then
        nothing is kept
    stretch : steps between meetings of the threads; 1 unless unit_shards is 1
    work : forward_work(...) elements

    Cost: 2*N*G*H*(I+H) flop; tokens save the input product but for the V rows of a table.
    Reference twin: fastrnn.reference.sequence.sequence_forward.
    """
    width = lanes(pointer(y))
    G, S = gates(cell), states(cell)
    T, parts = count.size, row_shards * unit_shards
    V = table.size // max(I, 1)
    full, stride = padded(H, width), state_stride(H, width)
    panels = G * full // width
    ih = work
    hh = ih[panels * panel_size(I, width) :]
    rows = hh[panels * panel_size(H, width) :]
    ordered = rows[panels * panel_size(V, width) :]
    state = ordered[panels * width :]
    z = state[2 * S * B * stride :]
    room = z[parts * shard_z(B, row_shards, full // width, unit_shards, G, width) :]
    one = np.int64(1)  # not a literal, for which the packing would be compiled again
    pack_weights(W_ih, one, I, I, H, one * G, ih, parts)
    pack_weights(W_hh, one, H, H, H, one * G, hh, parts)
    for g in range(G):
        for u in range(full):
            at = (u // width * G + g) * width + u % width
            ordered[at] = bias[g * H + u] if u < H else 0.0
    inputs, size = pointer(ih), I
    if V > 0:
        share(
            parts, _project_table,
            (parts, pointer(table), I, inputs, pointer(ordered), pointer(rows), V, panels, pointer(room)),
        )  # fmt: skip
        inputs, size = pointer(rows), V
        ordered[: panels * width] = 0.0  # the table's rows began from the bias
    copy_rows(pointer(state) + S * B * stride, stride, pointer(initial), H, S * B, H)
    keeping = history.size + kept.size > 0
    for start in range(0, T, stretch):
        share(
            parts, _forward_part,
            (pointer(x), tokens, size, inputs, pointer(hh), cell, pointer(ordered), first, count, pointer(y), y_row,
             pointer(history), pointer(kept), keeping, B, H, start, min(start + stretch, T), row_shards, unit_shards,
             pointer(z), pointer(state), pointer(room)),
        )  # fmt: skip
    t = T
    for row in range(B):
        while t > 0 and count[t - 1] <= row:
            t -= 1
        source = pointer(state) + ((1 - t % 2) * S * B * stride + row * stride)
        copy_rows(pointer(final) + row * H, B * H, source, B * stride, S, H)


@device
def backward_rows(
    cell, rows, K, left, right, H, W_hh, dz_next, dz_new, dz_stride, carry, carry_size, y, y_row, h_prev, h_row,
    history, prev, prev_row, prev_step, kept, dy, dy_row, dz,
):  # fmt: skip
    """One step of the gradient for `rows` rows and the unit blocks left..right-1.

    carry: in, what reaches the states from the step after but for the recurrent product (K = 0: all of it); out, the
    same for the step before. The other pointers are at the first of the rows.
    """
    width = lanes(dz)
    G, S, A = gates(cell), states(cell), saved(cell)
    size = panel_size(G * H, width)
    full = padded(H, width)
    height = gate_rows(rows, 1)
    per_tile = widest(height)
    for u in range(left, right, per_tile):
        blocks = min(per_tile, right - u)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    prefetch_write(dz + (q * G * H + v * width))
            at = carry + (i * full + u * width)
            tile(r, blocks, K, dz_next + i * dz_stride, dz_stride, 1, W_hh + u * size, size, at, full, at, full, width)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    unit = v * width
                    valid = H - unit
                    at = carry + (q * full + unit)
                    d_h = load(at) + load_first(dy + (q * dy_row + unit), valid)
                    d_state = (d_h,) + load_rest(cell, at + carry_size, carry_size)
                    h = load_first(y + (q * y_row + unit), valid)
                    state = (h,) + load_rest(cell, history + (q * (S - 1) * full + unit), full)
                    h = load_first(h_prev + (q * h_row + unit), valid)
                    state_prev = (h,) + load_rest(cell, prev + (q * prev_row + unit), prev_step)
                    keep = load_saved(cell, kept + (q * A * full + unit * A), width)
                    d_gates, d_prev = cell_backward(cell, unit, d_state, state, state_prev, keep)
                    store_many(at, carry_size, d_prev)
                    store_many_first(dz + (q * G * H + unit), H, d_gates, valid)
                    store_many_first(dz_new + (q * dz_stride + unit), H, d_gates, valid)
            i += r


@device
def _backward_part(
    part, y, y_row, W_hh, cell, first, count, history, kept, dy, dy_row, dz, B, H, start, stop, row_shards,
    unit_shards, dz_state, carry, initial,
):  # fmt: skip
    """The steps stop-1..start of one shard."""
    width = lanes(y)
    G, S, A = gates(cell), states(cell), saved(cell)
    T = count.size
    full = padded(H, width)
    blocks, carry_size, dz_stride = full // width, B * full, state_stride(G * H, width)
    rows, units = part // unit_shards, part % unit_shards
    low, last = split(B, row_shards, rows), split(B, row_shards, rows + 1)
    left, right = split(blocks, unit_shards, units), split(blocks, unit_shards, units + 1)
    for t in range(stop - 1, start - 1, -1):
        high = max(low, min(last, count[t]))
        going_on = max(low, min(high, count[t + 1])) if t + 1 < T else low
        for half in range(2):  # the rows that have a next step, and those that end here
            begin, end, K = (low, going_on, G * H) if half == 0 else (going_on, high, 0)
            if begin == end:
                continue
            n = first[t] + begin
            h_prev, h_row = initial + begin * full, full
            prev, prev_row, prev_step = initial + (carry_size + begin * full), full, carry_size
            if t > 0:
                before = first[t - 1] + begin
                h_prev, h_row = y + before * y_row, y_row
                prev, prev_row, prev_step = history + before * (S - 1) * full, (S - 1) * full, full
            backward_rows(
                cell, end - begin, K, left, right, H, W_hh, dz_state + ((1 - t % 2) * B + begin) * dz_stride,
                dz_state + (t % 2 * B + begin) * dz_stride, dz_stride, carry + begin * full, carry_size,
                y + n * y_row, y_row, h_prev, h_row, history + n * (S - 1) * full, prev, prev_row, prev_step,
                kept + n * A * full, dy + n * dy_row, dy_row, dz + n * G * H,
            )  # fmt: skip


@device
def _initial_part(part, W_hh, K, dz, dz_stride, d_initial, B, H, rows, row_shards, unit_shards):
    """What reaches h_0 through the first step's product, added for the first `rows` rows."""
    width = lanes(dz)
    blocks, size = padded(H, width) // width, panel_size(K, width)
    shard, units = part // unit_shards, part % unit_shards
    low, high = split(B, row_shards, shard), min(split(B, row_shards, shard + 1), rows)
    left, right = split(blocks, unit_shards, units) * width, min(H, split(blocks, unit_shards, units + 1) * width)
    at = d_initial + (low * H + left)
    tile_block(
        high - low, K, dz + low * dz_stride, dz_stride, np.int64(1), W_hh + left // width * size, size, at, H, at, H,
        right - left,
    )  # fmt: skip


@layout
def backward_work(B, H, G, S, width):
    """Elements of workspace that `sequence_backward` needs."""
    full = padded(H, width)
    return full // width * panel_size(G * H, width) + 2 * B * state_stride(G * H, width) + 2 * S * B * full


@Kernel
def sequence_backward(
    y, y_row, W_hh, cell, initial, first, count, history, kept, dy, dy_row, d_final, d_initial, dz,
    B, H, stretch, row_shards, unit_shards, work,
):  # fmt: skip
    """The gradients of all pre-activations and of the initial states.

    Parameters (as `sequence_forward`, and)
    ----------
    dy : h_t's cotangent of row n at n*dy_row; dy_row = 0 repeats one row (of zeros, for none)
    d_final, d_initial : (S, B, H), in and out
    dz : (N, G*H), out
    work : backward_work(...) elements

    Cost: 2*N*G*H*H flop; the products with x and for the weights are the caller's.
    Reference twin: fastrnn.reference.sequence.sequence_backward.
    """
    width = lanes(pointer(y))
    G, S = gates(cell), states(cell)
    T, parts = count.size, row_shards * unit_shards
    full, dz_stride = padded(H, width), state_stride(G * H, width)
    panels = work
    dz_state = panels[full // width * panel_size(G * H, width) :]
    carry = dz_state[2 * B * dz_stride :]
    start = carry[S * B * full :]
    one = np.int64(1)  # not a literal, for which the packing would be compiled again
    pack_weights(W_hh, H, one, G * H, H, one, panels, parts)
    copy_rows(pointer(carry), full, pointer(d_final), H, S * B, H)
    copy_rows(pointer(start), full, pointer(initial), H, S * B, H)
    for stop in range(T, 0, -stretch):
        share(
            parts, _backward_part,
            (pointer(y), y_row, pointer(panels), cell, first, count, pointer(history), pointer(kept), pointer(dy),
             dy_row, pointer(dz), B, H, max(stop - stretch, 0), stop, row_shards, unit_shards, pointer(dz_state),
             pointer(carry), pointer(start)),
        )  # fmt: skip
    copy_rows(pointer(d_initial), H, pointer(carry), full, S * B, H)
    rows = count[0] if T > 0 else 0
    share(
        parts, _initial_part,
        (pointer(panels), G * H, pointer(dz_state), dz_stride, pointer(d_initial), B, H, rows, row_shards, unit_shards),
    )  # fmt: skip
