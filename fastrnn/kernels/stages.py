"""The stages of a step of any cell, for some rows and units: products in tiles, each followed by the cell's arithmetic.

Pre-activations lie in "tile order", for each block of `lanes` units its gates' vectors side by side, so that a tile's
result is all that the arithmetic of its units wants. Lanes beyond the last unit hold anything, and reach nobody.
What comes as a group of pointers (see `frame`) points to the first row of the step that a shard owns.
"""

from fastrnn.kernels.cells import (
    cell_backward,
    cell_forward,
    output_backward,
    output_forward,
    sum_terms_backward,
)
from fastrnn.kernels.cells.shape import (
    apart,
    columns,
    gates,
    gates_at,
    hidden,
    hidden_part,
    if_sums,
    in_parts,
    load_columns,
    load_rest,
    load_saved,
    load_states,
    load_sums,
    noted,
    outputs,
    projected,
    reads_h,
    reads_h_prev,
    saved,
    states,
    sums,
    with_message,
    with_sums,
)
from fastrnn.kernels.frame import Piece
from fastrnn.kernels.jit import device
from fastrnn.kernels.matmul import copy_rows
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
from fastrnn.kernels.sums import add_terms, store_terms
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
        return height, max(min(vectors, gates), 1), 1
    if vectors >= gates:
        return height, vectors // gates * gates, vectors // gates
    return height, vectors, 1 if gates % vectors == 0 else vectors


@device
def set_aside(cell, piece, z, bias):
    """Move the inputs' part of gates that keep it apart aside; the hidden part's sum begins with its own bias instead.

    bias: of these gates' hidden parts, in tile order.
    """
    width = lanes(z.data)
    G = gates(cell)
    Q = apart(cell)
    for q in range(piece.low, piece.high):
        for v in range(piece.left, piece.right):
            for g in range(Q):
                at = z.data + (q * z.row + ((v - z.left) * G + hidden(cell) - Q + g) * width)
                store(z.data + (q * z.row + (z.aside + (v - z.left) * Q + g) * width), load(at))
                store(at, load(bias + (v * Q + g) * width))


@device
def forward_rows(cell, piece, sizes, panels, bias, z, step, kept, keeping, reduction):
    """The first stage: the products with h_{t-1}, and the arithmetic, or with sums over a row's units their terms.

    panels: of W_hh; bias: of the hidden parts that are kept apart.
    """
    width = lanes(z.data)
    P = sizes.P
    G, F, A = gates(cell), hidden(cell), saved(cell)
    size = panel_size(P, width)
    full = padded(sizes.H, width)
    height, vectors, most_blocks = tiling(piece.high - piece.low, F, F == G)
    for u in range(piece.left, piece.right, most_blocks):
        blocks = min(most_blocks, piece.right - u)
        i = piece.low
        while i < piece.high:
            r = min(height, piece.high - i)
            part = Piece(i, i + r, u, u + blocks)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    if not outputs(cell):
                        prefetch_write(kept.y + (q * kept.y_row + v * width))
                    if keeping:
                        for a in range(A):
                            prefetch_write(kept.saved + (q * A * full + (v * A + a) * width))
            if apart(cell):
                set_aside(cell, part, z, bias)
            for w in range(0, blocks * F, vectors):
                at = z.data + (i * z.row + ((u - z.left) * G + w) * width)
                h_prev = step.prev + i * step.row
                p = panels + (u * F + w) * size
                tile(r, min(vectors, blocks * F - w), P, h_prev, step.row, 1, p, size, at, z.row, at, z.row, width)
            if sums(cell) == 0:
                arithmetic(cell, part, sizes, z, step, kept, keeping, reduction)
            if_sums(cell, store_terms, (part, sizes, z, step, reduction))
            i += r


@device
def arithmetic(cell, piece, sizes, z, step, kept, keeping, reduction):
    """The arithmetic of pre-activations that are complete."""
    width = lanes(z.data)
    H = sizes.H
    S = states(cell)
    A = saved(cell)
    full = padded(H, width)
    for q in range(piece.low, piece.high):
        for v in range(piece.left, piece.right):
            unit = v * width
            gate = with_sums(cell, gates_at(cell, z, q, v), reduction.totals + q * sums(cell))
            state, keep = cell_forward(
                cell, unit, gate, load_states(cell, step.prev + (q * step.row + unit), step.size)
            )
            if outputs(cell):
                store(step.message + (q * step.row + unit), state[0])
                if keeping:
                    store_first(kept.messages + (q * H + unit), state[0], H - unit)
            else:
                store(step.new + (q * step.row + unit), state[0])
                store_first(kept.y + (q * kept.y_row + unit), state[0], H - unit)
            store_many(step.new + (step.size + q * step.row + unit), step.size, state[1:])
            if keeping or outputs(cell):
                store_many(kept.saved + (q * A * full + unit * A), width, keep)
            if keeping:
                store_many(kept.history + (q * (S - 1) * full + unit), full, state[1:])


@device
def summed_rows(cell, piece, sizes, z, step, kept, keeping, reduction):
    """The second stage of a cell with sums: what reads them. All shards of a row's units add them up for themselves."""
    add_terms(cell, piece.high, sizes.H, reduction)
    if keeping and piece.left == 0 and piece.right > 0:  # one of them
        copy_rows(kept.sums, sums(cell), reduction.totals, sums(cell), piece.high, sums(cell))
    arithmetic(cell, piece, sizes, z, step, kept, keeping, reduction)


@device
def output_rows(cell, piece, sizes, panels, z, step, kept):
    """The last stage of a cell with a message: h from the message's product, for blocks of h.

    panels: of the message's weights. A gate that the message feeds is one of z's; a projection is computed in z's rows.
    """
    width = lanes(z.data)
    H = sizes.H
    P = sizes.P
    A = saved(cell)
    size = panel_size(H, width)
    full = padded(H, width)
    gates_apart, gate = (1, 0) if projected(cell) else (gates(cell), hidden(cell))
    height, _, most_blocks = tiling(piece.high - piece.low, 1, projected(cell))
    for u in range(piece.left, piece.right, most_blocks):
        blocks = min(most_blocks, piece.right - u)
        i = piece.low
        while i < piece.high:
            r = min(height, piece.high - i)
            at = z.data + (i * z.row + ((u - piece.left) * gates_apart + gate) * width)
            if projected(cell):
                for q in range(r):
                    for v in range(blocks):
                        store(at + (q * z.row + v * width), zeros(z.data))
            message = step.message + i * step.row
            tile(r, blocks, H, message, step.row, 1, panels + u * size, size, at, z.row, at, z.row, width)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    unit = v * width
                    z_message = load(z.data + (q * z.row + ((v - piece.left) * gates_apart + gate) * width))
                    keep = load_saved(cell, kept.saved + (q * A * full + unit * A), width)
                    h_prev = load(step.prev + (q * step.row + unit))
                    h, more = output_forward(cell, unit, z_message, h_prev, keep)
                    store(step.new + (q * step.row + unit), h)
                    store_first(kept.y + (q * kept.y_row + unit), h, P - unit)
                    behind = A - noted(cell) - len(more)
                    store_many(kept.saved + (q * A * full + unit * A + behind * width), width, more)
            i += r


@device
def bounded(x, limit):
    """Each lane within -limit..limit; NaN stays."""
    return select(x > limit, limit, select(x < -limit, -limit, x))


@device
def backward_rows(cell, piece, sizes, product, trace, d, upstream, downstream, reduction):
    """One step's gradients of the pre-activations; with sums, but for what comes through them.

    product: completes the carry with what the step after sends (K = 0: nothing); with a message it gives the message's
    gradient, and the carry is complete. d: Cotangents; the carry that goes in is that of the step after, and that of
    the step before comes out.
    """
    width = lanes(d.carry)
    H = sizes.H
    C, S, A, R = columns(cell), states(cell), saved(cell), sums(cell)
    size = panel_size(sizes.P if outputs(cell) else hidden(cell) * H, width)
    full = padded(H, width)
    height, _, most_blocks = tiling(piece.high - piece.low, 1, True)
    target, own = (d.message, sizes.P) if outputs(cell) else (d.carry, H)  # own: units of h
    for u in range(piece.left, piece.right, most_blocks):
        blocks = min(most_blocks, piece.right - u)
        i = piece.low
        while i < piece.high:
            r = min(height, piece.high - i)
            for q in range(i, i + r):
                for v in range(u, u + blocks):
                    for c in range(C):
                        prefetch_write(downstream.dz + (q * C * H + c * H + v * width))
                    for a in range(A):
                        prefetch(trace.saved + (q * A * full + (v * A + a) * width))
                    if S > 1:
                        prefetch(trace.prev + (q * trace.prev_row + v * width))
                        prefetch(trace.history + (q * (S - 1) * full + v * width))
                    prefetch(upstream.dy + (q * upstream.dy_row + v * width))
                    if reads_h(cell):  # tanh 50,64,512,512, the time loop: 75 -> 81 % of the peak
                        prefetch(trace.h + (q * trace.h_row + v * width))
                    if reads_h_prev(cell):
                        prefetch(trace.h_prev + (q * trace.h_prev_row + v * width))
                    if outputs(cell):
                        store(target + (q * full + v * width), zeros(d.carry))
            at = target + (i * full + u * width)
            dz_next = product.data + i * product.row
            p = product.panels + u * size
            tile(r, blocks, product.K, dz_next, product.row, 1, p, size, at, full, at, full, width)
            for v in range(u, u + blocks):
                unit = v * width
                valid = H - unit
                for q in range(i, i + r):  # the inner loop, so that one mask is alive
                    at = d.carry + (q * full + unit)
                    d_h = load(at)
                    if not outputs(cell):
                        dy = load_first(upstream.dy + (q * upstream.dy_row + unit), valid)
                        d_h = bounded(d_h + dy, upstream.limit)
                        if upstream.noting:
                            store_first(upstream.d_hs + (q * H + unit), d_h, valid)
                    d_state = (d_h,) + load_rest(cell, at + d.size, d.size)
                    d_state = with_message(cell, d_state, d.message + (q * full + unit))
                    h = load_first(trace.h + (q * trace.h_row + unit), valid)
                    state = (h,) + load_rest(cell, trace.history + (q * (S - 1) * full + unit), full)
                    h_prev = load_first(trace.h_prev + (q * trace.h_prev_row + unit), own - unit)
                    rest = load_rest(cell, trace.prev + (q * trace.prev_row + unit), trace.prev_size)
                    keep = trace.saved + (q * A * full + unit * A)
                    keep_and_sums = with_sums(cell, load_saved(cell, keep, width), trace.sums + q * R)
                    found, d_prev = cell_backward(cell, unit, d_state, state, (h_prev,) + rest, keep_and_sums)
                    dz, terms, notes = in_parts(cell, found)
                    store_many(at, d.size, d_prev)
                    store_many(keep + (A - noted(cell)) * width, width, notes)
                    store_many_first(downstream.dz + (q * C * H + unit), H, dz, valid)
                    if R > 0:
                        store_many(reduction.terms + (q * (full // width) + v) * R * width, width, terms)
                    else:
                        new = downstream.new + (q * downstream.new_row + unit)
                        store_many_first(new, H, hidden_part(cell, dz), valid)
            i += r


@device
def summed_backward_rows(cell, piece, sizes, trace, downstream, reduction):
    """The gradients of the pre-activations of a cell with sums, completed."""
    width = lanes(trace.saved)
    H = sizes.H
    C, A, R = columns(cell), saved(cell), sums(cell)
    full = padded(H, width)
    add_terms(cell, piece.high, H, reduction)
    for q in range(piece.low, piece.high):
        for v in range(piece.left, piece.right):
            unit = v * width
            valid = H - unit
            at = downstream.dz + (q * C * H + unit)
            keep = load_saved(cell, trace.saved + (q * A * full + unit * A), width)
            keep_and_sums = with_sums(cell, keep, trace.sums + q * R)
            d_sums = load_sums(cell, reduction.totals + q * R)
            dz = sum_terms_backward(cell, unit, load_columns(cell, at, H, valid), d_sums, keep_and_sums)
            store_many_first(at, H, dz, valid)
            new = downstream.new + (q * downstream.new_row + unit)
            store_many_first(new, H, hidden_part(cell, dz), valid)


@device
def output_backward_rows(cell, piece, sizes, product, trace, d, upstream, downstream):
    """The gradient of the message's product, and the carry of h, completed."""
    width = lanes(d.carry)
    P = sizes.P
    A = saved(cell)
    size = panel_size(hidden(cell) * sizes.H, width)
    full = padded(sizes.H, width)
    height, _, most_blocks = tiling(piece.high - piece.low, 1, True)
    for u in range(piece.left, piece.right, most_blocks):
        blocks = min(most_blocks, piece.right - u)
        i = piece.low
        while i < piece.high:
            r = min(height, piece.high - i)
            at = d.carry + (i * full + u * width)
            dz_next = product.data + i * product.row
            p = product.panels + u * size
            tile(r, blocks, product.K, dz_next, product.row, 1, p, size, at, full, at, full, width)
            for v in range(u, u + blocks):
                unit = v * width
                valid = P - unit
                for q in range(i, i + r):
                    at = d.carry + (q * full + unit)
                    dy = load_first(upstream.dy + (q * upstream.dy_row + unit), valid)
                    d_h = bounded(load(at) + dy, upstream.limit)
                    store(at, d_h)
                    if upstream.noting:
                        store_first(upstream.d_hs + (q * P + unit), d_h, valid)
                    h_prev = load_first(trace.h_prev + (q * trace.h_prev_row + unit), valid)
                    keep = load_saved(cell, trace.saved + (q * A * full + unit * A), width)
                    dz = output_backward(cell, unit, d_h, h_prev, keep)
                    store_first(downstream.dz + (q * P + unit), dz, valid)
                    store_first(downstream.new + (q * downstream.new_row + unit), dz, valid)
            i += r
