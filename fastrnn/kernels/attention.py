"""Dot-product attention within sequences: every query looks at the memory rows of its own sequence.

Sequence b has the queries query_offsets[b] .. query_offsets[b+1]-1 and memory rows by memory_offsets likewise. Its
weights, m x n of them, begin at places[b]. Parts own sequences, whole, so that no result depends on what else there is.

Reference twin: fastrnn.reference.attention.
"""

import numpy as np

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.loss import softmax_work
from fastrnn.kernels.matmul import row_blocks, spread_size, tile_block
from fastrnn.kernels.pack import pack_range, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store, store_first
from fastrnn.kernels.reduce import add_up, row_exp_sum, row_max, virtual_width
from fastrnn.kernels.simd import fma, zeros


@layout
def panels_size(K, N, width):
    """Elements of a (K, N) matrix in panels."""
    return -(-N // width) * panel_size(K, width)


@device
def _times(rows, K, a, b, b_k, b_n, zero, c, columns, panels, spread):
    """C = A B; A (rows, K) and C (rows, columns) by rows, element (k, n) of B at k*b_k + n*b_n."""
    width, none = lanes(a), np.int64(0)
    pack_range(panels, b, b_k, b_n, K, columns, none, -(-columns // width))
    row_blocks(rows, K, a, K, panels, panel_size(K, width), zero, none, c, columns, columns, spread)


@device
def _transposed_times(K, rows, a, b, c0, c0_row, c, columns, panels):
    """C = C0 + A^T B; A (K, rows), B (K, columns) and C (rows, columns) by rows."""
    width, none, one = lanes(a), np.int64(0), np.int64(1)
    pack_range(panels, b, columns, one, K, columns, none, -(-columns // width))
    tile_block(rows, K, a, one, rows, panels, panel_size(K, width), c0, c0_row, c, columns, columns)


@device
def _softmax(rows, columns, scores, partial):
    """Each row of scores becomes e^score over the sum of its row."""
    width = lanes(scores)
    for i in range(rows):
        row = scores + i * columns
        total = row_exp_sum(row, columns, row_max(row, columns, partial), row, np.bool_(True), partial)
        for j in range(0, columns, width):
            store_first(row + j, load_first(row + j, columns - j) / total, columns - j)


@device
def _row_dot(a, b, columns, partial):
    """The sum of the products of two rows, in the order of row_exp_sum's."""
    width, step = lanes(a), virtual_width(a)
    for start in range(0, step, width):
        total = zeros(a)
        for j in range(start, columns, step):
            total = fma(load_first(a + j, columns - j), load_first(b + j, columns - j), total)
        store(partial + start, total)
    return add_up(partial)


@device
def _softmax_backward(rows, columns, weights, d, partial):
    """d, the gradient of the weights, becomes that of the scores."""
    width = lanes(d)
    for i in range(rows):
        row, d_row = weights + i * columns, d + i * columns
        mean = _row_dot(row, d_row, columns, partial)
        for j in range(0, columns, width):
            n = columns - j
            store_first(d_row + j, load_first(row + j, n) * (load_first(d_row + j, n) - mean), n)


@layout
def part_sizes(H, most_queries, most_rows, width):
    """Elements of one part's panels, spread rows, a virtual vector, and one sequence's gradients of weights."""
    longest = max(most_queries, most_rows)
    panels = max(panels_size(H, most_rows, width), panels_size(longest, H, width))
    return panels, spread_size(max(H, most_rows), width), softmax_work(0, width, 1), most_queries * most_rows


@layout
def attention_work(H, most_queries, most_rows, lanes, parts):
    """Elements of workspace that a pass needs; most_queries, most_rows: of a sequence."""
    panels, spread, partial, scores = part_sizes(H, most_queries, most_rows, lanes)
    return parts * (panels + spread + partial + scores)


@device
def _room(part, H, most_queries, most_rows, work):
    """A part's panels, spread rows, virtual vector and gradients of weights."""
    panels, spread, partial, scores = part_sizes(H, most_queries, most_rows, lanes(work))
    own = work + part * (panels + spread + partial + scores)
    return own, own + panels, own + (panels + spread), own + (panels + spread + partial)


@device
def _attend(
    part, parts, queries, memory, query_offsets, memory_offsets, places, H, zero, weights, context, most_queries,
    most_rows, work,
):  # fmt: skip
    one = np.int64(1)
    panels, spread, partial, _ = _room(part, H, most_queries, most_rows, work)
    B = places.size
    for b in range(split(B, parts, part), split(B, parts, part + 1)):
        q, r = query_offsets[b], memory_offsets[b]
        m, n = query_offsets[b + 1] - q, memory_offsets[b + 1] - r
        rows, own = memory + r * H, weights + places[b]
        _times(m, H, queries + q * H, rows, one, H, zero, own, n, panels, spread)
        _softmax(m, n, own, partial)
        _times(m, n, own, rows, H, one, zero, context + q * H, H, panels, spread)


@Kernel
def attention_forward(
    queries, memory, query_offsets, memory_offsets, places, H, zero, weights, context, most_queries, most_rows, work,
    parts,
):  # fmt: skip
    """context_i = sum_j a_ij memory_j, a_i the softmax of query_i memory_j over the rows j of i's sequence.

    Parameters (flat arrays)
    ----------
    queries, context : (M, H); memory : (N, H)
    query_offsets, memory_offsets : (B+1,); places : (B,) first weight of each sequence
    weights : out, m*n for each sequence, by queries; most_queries, most_rows : the largest m and n
    zero : at least max(H, most_rows) zeros; work : attention_work(...) elements

    Cost: 4*m*n*H flop and m*n exponentials a sequence, and two copies of the memory.
    """
    share(
        parts, _attend,
        (parts, pointer(queries), pointer(memory), query_offsets, memory_offsets, places, H, pointer(zero),
         pointer(weights), pointer(context), most_queries, most_rows, pointer(work)),
    )  # fmt: skip


@device
def _attend_backward(
    part, parts, queries, memory, weights, d_context, query_offsets, memory_offsets, places, H, zero, d_queries,
    d_memory, most_queries, most_rows, work,
):  # fmt: skip
    one, none = np.int64(1), np.int64(0)
    panels, spread, partial, d = _room(part, H, most_queries, most_rows, work)
    B = places.size
    for b in range(split(B, parts, part), split(B, parts, part + 1)):
        q, r = query_offsets[b], memory_offsets[b]
        m, n = query_offsets[b + 1] - q, memory_offsets[b + 1] - r
        rows, own, target = memory + r * H, weights + places[b], d_memory + r * H
        _times(m, H, d_context + q * H, rows, one, H, zero, d, n, panels, spread)
        _softmax_backward(m, n, own, d, partial)
        _times(m, n, d, rows, H, one, zero, d_queries + q * H, H, panels, spread)
        _transposed_times(m, n, d, queries + q * H, zero, none, target, H, panels)
        _transposed_times(m, n, own, d_context + q * H, target, H, target, H, panels)


@Kernel
def attention_backward(
    queries, memory, weights, d_context, query_offsets, memory_offsets, places, H, zero, d_queries, d_memory,
    most_queries, most_rows, work, parts,
):  # fmt: skip
    """d_queries (M, H) and d_memory (N, H) from d_context (M, H) and the weights that attention_forward wrote.

    Other parameters as its. Cost: 8*m*n*H flop a sequence, and two copies of its memory and of its queries.
    """
    share(
        parts, _attend_backward,
        (parts, pointer(queries), pointer(memory), pointer(weights), pointer(d_context), query_offsets, memory_offsets,
         places, H, pointer(zero), pointer(d_queries), pointer(d_memory), most_queries, most_rows, pointer(work)),
    )  # fmt: skip
