"""One stage of a step of any cell, for some rows and units: products in tiles, each followed by the cell's arithmetic.

A step has one stage, or two (see `cells`). Pre-activations lie in "tile order", for each block of `lanes` units its
gates' vectors side by side, so that a tile's result is all that the arithmetic of its units wants.
Lanes beyond the last unit hold anything, and reach nobody.
"""

from fastrnn.kernels.cells import (
    apart,
    cell_backward,
    cell_forward,
    columns,
    gates,
    hidden,
    hidden_part,
    load_gates,
    load_rest,
    load_saved,
    load_states,
    output_backward,
    output_forward,
    reads_h,
    reads_h_prev,
    saved,
    stages,
    states,
    with_message,
)
from fastrnn.kernels.jit import device
from fastrnn.kernels.pack import padded, panel_size
from fastrnn.kernels.pointers import (
    lanes,
    load,
    load_first,
    prefetch,
    prefetch_write,
    store,
    store_first,
    store_many,
    store_many_first,
)
from fastrnn.kernels.simd import select, zeros
from fastrnn.kernels.tile import tile, tile_rows, widest


@device
def tiling(rows, gates, together):
    """Rows of a tile, its vectors, and the blocks of units that some tiles side by side make up.

    Tall tiles read the fewest panels (LSTM 35,20,650,650: 5x4 178, 10x2 190 GF/s), so the blocks are as many as narrow
    tiles fill. together: whether the vectors of neighbouring blocks are neighbours, too.
    """
    height = tile_rows(rows)
    vectors = widest(height)
    if not together:
        return height, min(vectors, gates), 1
    if vectors >= gates:
        return height, vectors // gates * gates, vectors // gates
    return height, vectors, 1 if gates % vectors == 0 else vectors


@device
def set_aside(cell, rows, first, stop, left, start, z, z_row, aside):
    """Move the inputs' part of the last gate aside; the hidden part's sum begins with its own bias instead."""
    width = lanes(z)
    for q in range(rows):
        for v in range(first, stop):
            at = z + (q * z_row + ((v - left) * gates(cell) + gates(cell) - 1) * width)
            store(z + (q * z_row + (aside + v - left) * width), load(at))
            store(at, load(start + v * width))


@device
def forward_rows(
    cell, rows, left, right, H, P, W_hh, apart_bias, z, z_row, aside, h_prev, new, y, y_row, message, messages,
    history, kept, stride, state_size, keeping,
):  # fmt: skip
    """The first stage of a step for `rows` rows and the unit blocks left..right-1.

    z, h_prev, new, y, message, messages, history, kept point to the first of the rows, z also to the first of the
    blocks. h_prev and new: states of the step before and of this one, state_size elements from state to state.
    aside: vectors from z to the parts that are kept apart.
    """
    width = lanes(z)
    G, F, S, A = gates(cell), hidden(cell), states(cell), saved(cell)
    size = panel_size(P, width)
    height, vectors, most_blocks = tiling(rows, F, F == G)
    full = padded(H, width)
    for u in range(left, right, most_blocks):
        blocks = min(most_blocks, right - u)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    if stages(cell) == 1:
                        prefetch_write(y + (q * y_row + v * width))
                    if keeping:
                        for a in range(A):
                            prefetch_write(kept + (q * A * full + (v * A + a) * width))
            if apart(cell):
                set_aside(cell, r, u, u + blocks, left, apart_bias, z + i * z_row, z_row, aside)
            for w in range(0, blocks * F, vectors):
                at = z + (i * z_row + ((u - left) * G + w) * width)
                tile(
                    r, min(vectors, blocks * F - w), P, h_prev + i * stride, stride, 1, W_hh + (u * F + w) * size, size,
                    at, z_row, at, z_row, width,
                )  # fmt: skip
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    unit = v * width
                    state = load_states(cell, h_prev + (q * stride + unit), state_size)
                    row = z + q * z_row
                    gate = load_gates(cell, row + (v - left) * G * width, width, row + (aside + v - left) * width)
                    state, keep = cell_forward(cell, unit, gate, state)
                    if stages(cell) == 1:
                        store(new + (q * stride + unit), state[0])
                        store_first(y + (q * y_row + unit), state[0], H - unit)
                    else:
                        store(message + (q * stride + unit), state[0])
                        if keeping:
                            store_first(messages + (q * H + unit), state[0], H - unit)
                    store_many(new + (state_size + q * stride + unit), state_size, state[1:])
                    if keeping or stages(cell) == 2:
                        store_many(kept + (q * A * full + unit * A), width, keep)
                    if keeping:
                        store_many(history + (q * (S - 1) * full + unit), full, state[1:])
            i += r


@device
def output_rows(
    cell, rows, left, right, H, P, W_message, z, z_row, h_prev, new, y, y_row, message, kept, stride
):  # fmt: skip
    """The second stage: h from the message, for the blocks left..right-1 of h."""
    width = lanes(z)
    G, F, A = gates(cell), hidden(cell), saved(cell)
    size = panel_size(H, width)
    full = padded(H, width)
    step, gate = (1, 0) if F == G else (G, F)  # a projection, or a gate that the inputs feed, too
    height, _, most_blocks = tiling(rows, 1, F == G)
    for u in range(left, right, most_blocks):
        blocks = min(most_blocks, right - u)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            at = z + (i * z_row + ((u - left) * step + gate) * width)
            if F == G:
                for q in range(r):
                    for v in range(blocks):
                        store(at + (q * z_row + v * width), zeros(z))
            tile(r, blocks, H, message + i * stride, stride, 1, W_message + u * size, size, at, z_row, at, z_row, width)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    unit = v * width
                    z_message = load(z + (q * z_row + ((v - left) * step + gate) * width))
                    keep = load_saved(cell, kept + (q * A * full + unit * A), width)
                    h, more = output_forward(cell, unit, z_message, load(h_prev + (q * stride + unit)), keep)
                    store(new + (q * stride + unit), h)
                    store_first(y + (q * y_row + unit), h, P - unit)
                    store_many(kept + (q * A * full + unit * A + (A - len(more)) * width), width, more)
            i += r


@device
def bounded(x, limit):
    """Each lane within -limit..limit; NaN stays."""
    return select(x > limit, limit, select(x < -limit, -limit, x))


@device
def backward_rows(
    cell, rows, left, right, H, P, dz_next, dz_next_row, K, panels, d_message, dz_new, dz_stride, carry, carry_size, h,
    h_row, h_prev, prev_h_row, history, prev, prev_row, prev_step, kept, dy, dy_row, dz, limit, d_hs, noting,
):  # fmt: skip
    """One step's gradient of the pre-activations for `rows` rows and the unit blocks left..right-1.

    carry: in, what reaches the states from the step after but for the recurrent product (K = 0: all of it); out, the
    same for the step before. With two stages the product is the message's gradient instead, h the message, and the
    carry holds all that reaches the states. limit: of every element of dL/dh_t, which d_hs (rows, P) receives if
    noting. The other pointers are at the first of the rows.
    """
    width = lanes(dz)
    C, F, S, A = columns(cell), hidden(cell), states(cell), saved(cell)
    size = panel_size(F * H if stages(cell) == 1 else P, width)
    full = padded(H, width)
    height, _, most_blocks = tiling(rows, 1, True)
    target, own = (carry, H) if stages(cell) == 1 else (d_message, P)  # own: units of h
    for u in range(left, right, most_blocks):
        blocks = min(most_blocks, right - u)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    for c in range(C):
                        prefetch_write(dz + (q * C * H + c * H + v * width))
                    for a in range(A):
                        prefetch(kept + (q * A * full + (v * A + a) * width))
                    if S > 1:
                        prefetch(prev + (q * prev_row + v * width))
                        prefetch(history + (q * (S - 1) * full + v * width))
                    prefetch(dy + (q * dy_row + v * width))
                    if reads_h(cell):  # tanh 50,64,512,512, the time loop: 75 -> 81 % of the peak
                        prefetch(h + (q * h_row + v * width))
                    if reads_h_prev(cell):
                        prefetch(h_prev + (q * prev_h_row + v * width))
                    if stages(cell) == 2:
                        store(target + (q * full + v * width), zeros(dz))
            at = target + (i * full + u * width)
            tile(
                r, blocks, K, dz_next + i * dz_next_row, dz_next_row, 1, panels + u * size, size,
                at, full, at, full, width,
            )  # fmt: skip
            for v in range(u, u + blocks):
                unit = v * width
                valid = H - unit
                for q in range(i, i + r):  # the inner loop, so that one mask is alive
                    at = carry + (q * full + unit)
                    d_h = load(at)
                    if stages(cell) == 1:
                        d_h = bounded(d_h + load_first(dy + (q * dy_row + unit), valid), limit)
                        if noting:
                            store_first(d_hs + (q * H + unit), d_h, valid)
                    d_state = (d_h,) + load_rest(cell, at + carry_size, carry_size)
                    d_state = with_message(cell, d_state, d_message + (q * full + unit))
                    own_h = load_first(h + (q * h_row + unit), valid)  # or the message
                    state = (own_h,) + load_rest(cell, history + (q * (S - 1) * full + unit), full)
                    own_h = load_first(h_prev + (q * prev_h_row + unit), own - unit)
                    state_prev = (own_h,) + load_rest(cell, prev + (q * prev_row + unit), prev_step)
                    keep = load_saved(cell, kept + (q * A * full + unit * A), width)
                    d_columns, d_prev = cell_backward(cell, unit, d_state, state, state_prev, keep)
                    store_many(at, carry_size, d_prev)
                    store_many_first(dz + (q * C * H + unit), H, d_columns, valid)
                    store_many_first(dz_new + (q * dz_stride + unit), H, hidden_part(cell, d_columns), valid)
            i += r


@device
def output_backward_rows(
    cell, rows, left, right, H, P, dz_next, dz_next_row, K, W_hh, dm_new, dm_stride, carry, h_prev, prev_h_row, kept,
    dy, dy_row, d_output, limit, d_hs, noting,
):  # fmt: skip
    """The second stage's gradient: the carry of h completed, and the gradient of the message's product."""
    width = lanes(d_output)
    A, size, full = saved(cell), panel_size(hidden(cell) * H, width), padded(H, width)
    height, _, most_blocks = tiling(rows, 1, True)
    for u in range(left, right, most_blocks):
        blocks = min(most_blocks, right - u)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            at = carry + (i * full + u * width)
            tile(
                r, blocks, K, dz_next + i * dz_next_row, dz_next_row, 1, W_hh + u * size, size,
                at, full, at, full, width,
            )  # fmt: skip
            for v in range(u, u + blocks):
                unit = v * width
                valid = P - unit
                for q in range(i, i + r):
                    at = carry + (q * full + unit)
                    d_h = bounded(load(at) + load_first(dy + (q * dy_row + unit), valid), limit)
                    store(at, d_h)
                    if noting:
                        store_first(d_hs + (q * P + unit), d_h, valid)
                    own_h = load_first(h_prev + (q * prev_h_row + unit), valid)
                    keep = load_saved(cell, kept + (q * A * full + unit * A), width)
                    dm = output_backward(cell, unit, d_h, own_h, keep)
                    store_first(d_output + (q * P + unit), dm, valid)
                    store_first(dm_new + (q * dm_stride + unit), dm, valid)
            i += r
