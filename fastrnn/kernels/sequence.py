"""The time loop, forward and backward, of any cell: it knows time, rows and units, and no gate.

Step t takes rows first[t] .. first[t]+count[t]-1 of memory, and a sequence keeps its place from step to step, so count
never grows (ragged batches are sorted by length before they come here).
Threads own a grid of row shards x unit shards of every step: with one unit shard a thread runs all steps for its own
rows and meets nobody; with more, all threads meet after each stage of a step.

The chain of sums of a pre-activation starts at the bias, runs over the inputs (see `inputs`) and goes on over the
previous hidden state, in that order for every row, whichever thread or tile computes it.
"""

import numpy as np

from fastrnn.kernels.cells import columns, gates, hidden, saved, second_stage, stages, states
from fastrnn.kernels.inputs import chunk_end, chunk_rows, input_work, project
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import copy_rows, tile_block
from fastrnn.kernels.pack import pack_weights, padded, panel_size, row_stride, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, pointer
from fastrnn.kernels.stages import backward_rows, forward_rows, output_backward_rows, output_rows


@layout
def shard_columns(columns, blocks, unit_shards):
    """Most vectors of pre-activations of a row that a shard of the units has."""
    return columns * -(-blocks // unit_shards)


@device
def copy_states(target, stride, source, B, H, P, S):
    """Copy h (B, P) and the other states (S-1, B, H) to rows `stride` elements apart."""
    copy_rows(target, stride, source, P, B, P)
    copy_rows(target + B * stride, stride, source + B * P, H, (S - 1) * B, H)


@device
def _forward_part(
    part, x, tokens, I, W_ih, W_hh, W_message, bias, cell, first, count, bounds, begin, y, y_row, messages, history,
    kept, keeping, B, H, P, start, stop, unit_shards, most_rows, z, state, work,
):  # fmt: skip
    """The stages start..stop-1 of all steps, of one shard; its current chunk begins with the step `begin`."""
    width = lanes(y)
    G, S, A = gates(cell), states(cell), saved(cell)
    full = padded(H, width)
    blocks, stride = full // width, row_stride(H, width)
    state_size = B * stride
    shard, units = part // unit_shards, part % unit_shards
    low, last = bounds[shard], bounds[shard + 1]
    left, right = split(blocks, unit_shards, units), split(blocks, unit_shards, units + 1)
    h_blocks = padded(P, width) // width
    h_left, h_right = split(h_blocks, unit_shards, units), split(h_blocks, unit_shards, units + 1)
    z_row = shard_columns(columns(cell), blocks, unit_shards) * width
    aside = (right - left) * G
    most = chunk_rows(most_rows)
    own_z, own_work = z + part * most * z_row, work + part * input_work(I, most_rows, width)
    end = chunk_end(count, begin, most_rows, most)
    for phase in range(start, stop):
        t, stage = phase // stages(cell), phase % stages(cell)
        rows = min(last, count[t]) - low
        if rows <= 0:
            break
        if t == end:
            begin, end = t, chunk_end(count, t, most_rows, most)
        if t == begin and stage == 0:
            project(
                x, tokens, first, count, begin, end, low, last, I, W_ih, bias, own_z, z_row, left * G, right * G,
                own_work,
            )  # fmt: skip
        done = 0
        for before in range(begin, t):
            done += max(0, min(last, count[before]) - low)
        n = first[t] + low
        n_kept = n if keeping else low
        own = own_z + done * z_row
        h_prev = state + ((1 - t % 2) * S * state_size + low * stride)
        new, message = state + (t % 2 * S * state_size + low * stride), state + (2 * S * state_size + low * stride)
        if stage == 0:
            forward_rows(
                cell, rows, left, right, H, P, W_hh, bias + blocks * G * width, own, z_row, aside, h_prev, new,
                y + n * y_row, y_row, message, messages + n * H, history + n * (S - 1) * full, kept + n_kept * A * full,
                stride, state_size, keeping,
            )  # fmt: skip
        else:
            second_stage(
                cell, output_rows,
                (rows, h_left, h_right, H, P, W_message, own, z_row, h_prev, new, y + n * y_row, y_row, message,
                 kept + n_kept * A * full, stride),
            )  # fmt: skip


@layout
def forward_work(B, I, H, C, S, row_shards, most_rows, unit_shards, width):
    """Elements of workspace that `sequence_forward` needs; C: columns."""
    parts, blocks = row_shards * unit_shards, padded(H, width) // width
    z = chunk_rows(most_rows) * shard_columns(C, blocks, unit_shards) * width
    return (2 * S + 1) * B * row_stride(H, width) + parts * (z + input_work(I, most_rows, width))


@Kernel
def sequence_forward(
    x, tokens, W_ih, W_hh, W_message, bias, cell, initial, first, count, bounds, y, y_row, final, messages, history,
    kept, keeping, B, I, H, P, unit_shards, most_rows, work,
):  # fmt: skip
    """Run a cell over all steps.

    Parameters (flat arrays; N rows in all, B sequences, and of the cell G gates, C columns, S states)
    ----------
    x : (N, I), or empty with tokens
    tokens : (N,) integers below I that name rows of W_ih, whose panels then hold a projected table; or empty
    W_ih, W_hh, W_message, bias : weights in panels and biases in tile order, see `recurrent.pack_layer`
    cell : the tag
    initial, final : h (B, P), then the other states (S-1, B, H); read, and written
    first, count : (T,) integers
    bounds : (row_shards+1,) integers; shard i owns the sequences bounds[i]..bounds[i+1]-1, most_rows or fewer
    y : out, h_t of row n at n*y_row
    messages, history, kept : out, for the backward pass with `keeping`: (N, H) messages with two stages;
        (N, S-1, padded(H)), the other states; (N, saved*padded(H)). Without, all may be empty, but with two stages
        kept has room for B rows.
    work : forward_work(...) elements

    Cost: 2*N*H*(C*I + G*P) flop, without I's share with tokens; two stages move, or add, N*H*P multiply-adds.
    Reference twin: fastrnn.reference.sequence.sequence_forward.
    """
    width = lanes(pointer(y))
    S, T = states(cell), count.size
    parts = (bounds.size - 1) * unit_shards
    stride = row_stride(H, width)
    size = S * B * stride
    state, most = pointer(work), chunk_rows(most_rows)
    z = state + (2 * S + 1) * B * stride
    room = z + parts * most * shard_columns(columns(cell), padded(H, width) // width, unit_shards) * width
    copy_states(state + size, stride, pointer(initial), B, H, P, S)
    phases, begin = T * stages(cell), 0
    stretch = phases if unit_shards == 1 else 1
    for start in range(0, phases, max(stretch, 1)):
        end = chunk_end(count, begin, most_rows, most)
        if start // stages(cell) == end:
            begin = end
        share(
            parts, _forward_part,
            (pointer(x), tokens, I, pointer(W_ih), pointer(W_hh), pointer(W_message), pointer(bias), cell, first,
             count, bounds, begin, pointer(y), y_row, pointer(messages), pointer(history), pointer(kept), keeping, B, H,
             P, start, start + stretch, unit_shards, most_rows, z, state, room),
        )  # fmt: skip
    t = T
    for row in range(B):
        while t > 0 and count[t - 1] <= row:
            t -= 1
        source = state + ((1 - t % 2) * size + row * stride)
        copy_rows(pointer(final) + row * P, P, source, stride, 1, P)
        copy_rows(pointer(final) + (B * P + row * H), B * H, source + B * stride, B * stride, S - 1, H)


@device
def _backward_part(
    part, y, y_row, W_hh, W_message, cell, first, count, bounds, messages, history, kept, dy, dy_row, dz, d_output,
    limit, d_hs, noting, B, H, P, start, stop, unit_shards, dz_state, dm, carry, d_message, initial,
):  # fmt: skip
    """The stages stop-1..start of all steps, of one shard."""
    width = lanes(y)
    C, F, S, A = columns(cell), hidden(cell), states(cell), saved(cell)
    T = count.size
    full = padded(H, width)
    carry_size, dz_stride, dm_stride = B * full, row_stride(F * H, width), row_stride(P, width)
    shard, units = part // unit_shards, part % unit_shards
    low, last = bounds[shard], bounds[shard + 1]
    for phase in range(stop - 1, start - 1, -1):
        t, stage = phase // stages(cell), phase % stages(cell)
        blocks = padded(P if stage == 1 else H, width) // width
        left, right = split(blocks, unit_shards, units), split(blocks, unit_shards, units + 1)
        through_time = stage == stages(cell) - 1  # whether this stage's product comes from the step after
        high = max(low, min(last, count[t]))
        going_on = high
        if through_time:
            going_on = max(low, min(high, count[t + 1])) if t + 1 < T else low
        for half in range(2):  # the rows that have a next step, and those that end here
            begin, end, more = (low, going_on, 1) if half == 0 else (going_on, high, 0)
            if begin == end:
                continue
            n, rows = first[t] + begin, end - begin
            h_prev, h_row = initial + begin * full, full
            prev, prev_row, prev_step = initial + (carry_size + begin * full), full, carry_size
            if t > 0:
                before = first[t - 1] + begin
                h_prev, h_row = y + before * y_row, y_row
                prev, prev_row, prev_step = history + before * (S - 1) * full, (S - 1) * full, full
            dz_next = dz_state + ((1 - t % 2) * B + begin) * dz_stride
            own_carry, own_dy, own_kept = carry + begin * full, dy + n * dy_row, kept + n * A * full
            own_dm = dm + begin * dm_stride
            if stage == 1:
                second_stage(
                    cell, output_backward_rows,
                    (rows, left, right, H, P, dz_next, dz_stride, more * F * H, W_hh, own_dm, dm_stride, own_carry,
                     h_prev, h_row, own_kept, own_dy, dy_row, d_output + n * P, limit, d_hs + n * P, noting),
                )  # fmt: skip
                continue
            source, source_row, K, panels = dz_next, dz_stride, more * F * H, W_hh
            h, own_row = y + n * y_row, y_row
            if stages(cell) == 2:
                source, source_row, K, panels = own_dm, dm_stride, P, W_message
                h, own_row = messages + n * H, H
            backward_rows(
                cell, rows, left, right, H, P, source, source_row, K, panels, d_message + begin * full,
                dz_state + (t % 2 * B + begin) * dz_stride, dz_stride, own_carry, carry_size, h, own_row, h_prev, h_row,
                history + n * (S - 1) * full, prev, prev_row, prev_step, own_kept, own_dy, dy_row, dz + n * C * H,
                limit, d_hs + n * P, noting,
            )  # fmt: skip


@device
def _initial_part(part, W_hh, K, dz, dz_stride, d_initial, P, bounds, rows, unit_shards):
    """What reaches h_0 through the first step's product, added for the first `rows` rows."""
    width = lanes(dz)
    blocks, size = padded(P, width) // width, panel_size(K, width)
    shard, units = part // unit_shards, part % unit_shards
    low, high = bounds[shard], min(bounds[shard + 1], rows)
    left, right = split(blocks, unit_shards, units) * width, min(P, split(blocks, unit_shards, units + 1) * width)
    at = d_initial + (low * P + left)
    tile_block(
        max(high - low, 0), K, dz + low * dz_stride, dz_stride, np.int64(1), W_hh + left // width * size, size,
        at, P, at, P, right - left,
    )  # fmt: skip


@layout
def backward_work(B, H, P, F, S, two_stages, width):
    """Elements of workspace that `sequence_backward` needs; F: gates that h_{t-1} feeds."""
    full, h_full = padded(H, width), padded(P, width)
    panels = h_full // width * panel_size(F * H, width)
    second = full // width * panel_size(P, width) + B * (row_stride(P, width) + full)
    return panels + 2 * B * row_stride(F * H, width) + 2 * S * B * full + (second if two_stages else 0)


@Kernel
def sequence_backward(
    y, y_row, W_hh, W_message, cell, initial, first, count, bounds, messages, history, kept, dy, dy_row, d_final,
    limit, d_initial, dz, d_output, d_hs, B, H, P, unit_shards, work,
):  # fmt: skip
    """The gradients of all pre-activations and of the initial states.

    Parameters (as `sequence_forward`, and)
    ----------
    W_hh, W_message : (F*H, P) and (P, H), as they are
    dy : h_t's cotangent of row n at n*dy_row; dy_row = 0 repeats one row (of zeros, for none)
    d_final, d_initial : as final and initial, in and out
    limit : largest size of an element of dL/dh_t at every step, before it goes through the cell
    dz : (N, C*H), out; d_output : (N, P), out with two stages: the gradients of the messages' products
    d_hs : (N, P), out: dL/dh_t as it went through the cell; or empty
    work : backward_work(...) elements

    Cost: 2*N*F*H*P flop, and 2*N*H*P with two stages; the products with x and for the weights are the caller's.
    Reference twin: fastrnn.reference.sequence.sequence_backward.
    """
    width = lanes(pointer(y))
    F, S = hidden(cell), states(cell)
    T, parts = count.size, (bounds.size - 1) * unit_shards
    full, dz_stride = padded(H, width), row_stride(F * H, width)
    panels = work
    dz_state = panels[padded(P, width) // width * panel_size(F * H, width) :]
    carry = dz_state[2 * B * dz_stride :]
    start = carry[S * B * full :]
    second = start[S * B * full :]
    dm = second[full // width * panel_size(P, width) :] if stages(cell) == 2 else second
    d_message = dm[B * row_stride(P, width) :] if stages(cell) == 2 else second
    one = np.int64(1)  # not a literal, for which the packing would be compiled again
    pack_weights(W_hh, P, one, F * H, P, one, panels, parts)
    if stages(cell) == 2:
        pack_weights(W_message, H, one, P, H, one, second, parts)
    copy_states(pointer(carry), full, pointer(d_final), B, H, P, S)
    copy_states(pointer(start), full, pointer(initial), B, H, P, S)
    phases = T * stages(cell)
    stretch = max(phases, 1) if unit_shards == 1 else 1
    for stop in range(phases, 0, -stretch):
        share(
            parts, _backward_part,
            (pointer(y), y_row, pointer(panels), pointer(second), cell, first, count, bounds, pointer(messages),
             pointer(history), pointer(kept), pointer(dy), dy_row, pointer(dz), pointer(d_output), limit, pointer(d_hs),
             d_hs.size > 0, B, H, P,
             stop - stretch, stop, unit_shards, pointer(dz_state), pointer(dm), pointer(carry), pointer(d_message),
             pointer(start)),
        )  # fmt: skip
    copy_rows(pointer(d_initial), P, pointer(carry), full, B, P)
    copy_rows(pointer(d_initial) + B * P, H, pointer(carry) + B * full, full, (S - 1) * B, H)
    rows = count[0] if T > 0 else 0
    share(
        parts, _initial_part,
        (pointer(panels), F * H, pointer(dz_state), dz_stride, pointer(d_initial), P, bounds, rows, unit_shards),
    )  # fmt: skip
