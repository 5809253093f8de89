"""Dot-product attention within sequences: every query looks at the memory rows of its own sequence.

Sequence b has the queries query_offsets[b] .. query_offsets[b+1]-1 and memory rows by memory_offsets likewise. Its
weights, m x n of them, begin at places[b]. Shards own sequences, whole, so that no result depends on what else there
is.

Reference twin: fastrnn.reference.attention.
"""

from typing import Any, NamedTuple

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import (
    Panels,
    Rows,
    Shape,
    by_rows,
    repeated,
    row_blocks,
    spread_size,
    tile_block,
    transposed,
    zero_row,
)
from fastrnn.kernels.pack import pack_range, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store, store_first
from fastrnn.kernels.reduce import add_up, row_exp_sum, row_max, virtual_width
from fastrnn.kernels.simd import fma, zeros
from fastrnn.kernels.workspace import Elements, carve, room_size


class Sequences(NamedTuple):
    """What looks at what; M queries and N memory rows in B sequences."""

    queries: Any  # (M, H)
    memory: Any  # (N, H)
    weights: Any  # m x n of each sequence, by queries
    H: int
    query_offsets: Any  # (B+1,), an array
    memory_offsets: Any  # (B+1,), an array
    places: Any  # (B,) the first weight of each sequence, an array


class AttentionRoom(NamedTuple):
    """Workspace of a shard, for one sequence at a time."""

    panels: Elements  # the second factor of a product
    spread: Elements  # rows of the first one that were crowded
    partial: Elements  # a virtual vector
    d_weights: Elements  # (m, n)
    zero: Elements  # max(H, n) zeros


@layout
def attention_room(H, most_queries, most_rows, width):
    """The workspace of a shard; most_queries, most_rows: the largest m and n."""
    longest = max(most_queries, most_rows)
    scores = -(-most_rows // width) * panel_size(H, width)
    return AttentionRoom(
        panels=max(scores, -(-H // width) * panel_size(longest, width)),
        spread=spread_size(max(H, most_rows), width),
        partial=virtual_width(width),
        d_weights=most_queries * most_rows,
        zero=max(H, most_rows),
    )


@layout
def attention_work(H, most_queries, most_rows, width, threads):
    """Elements of the workspaces of all shards, one after another."""
    return threads * room_size(attention_room(H, most_queries, most_rows, width), width)


@device
def _longest(offsets):
    """The most rows of a sequence."""
    most = 0
    for b in range(offsets.size - 1):
        most = max(most, offsets[b + 1] - offsets[b])
    return most


@device
def _own_room(shard, sequences, work):
    """A shard's workspace, with its zeros written."""
    H = sequences.H
    most_rows = _longest(sequences.memory_offsets)
    width = lanes(work)
    sizes = attention_room(H, _longest(sequences.query_offsets), most_rows, width)
    room = carve(work + shard * room_size(sizes, width), sizes)
    zero_row(room.zero, max(H, most_rows))
    return room


@device
def _pack(b, K, N, panels):
    """B (K, N), a Matrix, in panels."""
    width = lanes(panels)
    pack_range(panels, b.data, b.row, b.column, K, N, 0, -(-N // width))
    return Panels(panels, panel_size(K, width))


@device
def _times(shape, a, b, c, room):
    """C = A B; A and C by rows, B a Matrix."""
    M, N, K = shape
    panels = _pack(b, K, N, room.panels)
    row_blocks(M, N, K, by_rows(a, K), panels, repeated(room.zero), Rows(c, N), room.spread)


@device
def _transposed_times(shape, a, b, start, c, room):
    """C = start + A^T B; A, B and C by rows."""
    M, N, K = shape
    panels = _pack(by_rows(b, N), K, N, room.panels)
    tile_block(M, N, K, transposed(by_rows(a, M)), panels, start, Rows(c, N))


@device
def _softmax(rows, columns, scores, partial):
    """Each row of scores becomes e^score over the sum of its row."""
    width = lanes(scores)
    for i in range(rows):
        row = scores + i * columns
        total = row_exp_sum(row, columns, row_max(row, columns, partial), row, True, partial)
        for j in range(0, columns, width):
            store_first(row + j, load_first(row + j, columns - j) / total, columns - j)


@device
def _row_dot(a, b, columns, partial):
    """The sum of the products of two rows, in the order of row_exp_sum's."""
    width = lanes(a)
    step = virtual_width(lanes(a))
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
        row = weights + i * columns
        d_row = d + i * columns
        mean = _row_dot(row, d_row, columns, partial)
        for j in range(0, columns, width):
            n = columns - j
            store_first(d_row + j, load_first(row + j, n) * (load_first(d_row + j, n) - mean), n)


@device
def _attend(shard, shards, sequences, context, work):
    H = sequences.H
    B = sequences.places.size
    room = _own_room(shard, sequences, work)
    for b in range(split(B, shards, shard), split(B, shards, shard + 1)):
        q = sequences.query_offsets[b]
        r = sequences.memory_offsets[b]
        m = sequences.query_offsets[b + 1] - q
        n = sequences.memory_offsets[b + 1] - r
        queries = sequences.queries + q * H
        weights = sequences.weights + sequences.places[b]
        rows = by_rows(sequences.memory + r * H, H)
        _times(Shape(m, n, H), queries, transposed(rows), weights, room)
        _softmax(m, n, weights, room.partial)
        _times(Shape(m, H, n), weights, rows, context + q * H, room)


@Kernel
def attention_forward(queries, memory, weights, H, query_offsets, memory_offsets, places, context, work, threads):
    """context_i = sum_j a_ij memory_j, a_i the softmax of query_i memory_j over the rows j of i's sequence.

    Parameters (flat arrays)
    ----------
    queries, context : (M, H); memory : (N, H)
    weights : out, m*n for each sequence, by queries
    query_offsets, memory_offsets : (B+1,); places : (B,) first weight of each sequence
    work : attention_work(...) elements

    Cost: 4*m*n*H flop and m*n exponentials a sequence, and two copies of the memory.
    """
    sequences = Sequences(
        pointer(queries), pointer(memory), pointer(weights), H, query_offsets, memory_offsets, places
    )  # fmt: skip
    share(threads, _attend, (threads, sequences, pointer(context), pointer(work)))


@device
def _attend_backward(shard, shards, sequences, d_context, d_queries, d_memory, work):
    H = sequences.H
    B = sequences.places.size
    room = _own_room(shard, sequences, work)
    for b in range(split(B, shards, shard), split(B, shards, shard + 1)):
        q = sequences.query_offsets[b]
        r = sequences.memory_offsets[b]
        m = sequences.query_offsets[b + 1] - q
        n = sequences.memory_offsets[b + 1] - r
        queries = sequences.queries + q * H
        weights = sequences.weights + sequences.places[b]
        d = room.d_weights
        rows = by_rows(sequences.memory + r * H, H)
        d_own = d_context + q * H
        d_rows = d_memory + r * H
        _times(Shape(m, n, H), d_own, transposed(rows), d, room)
        _softmax_backward(m, n, weights, d, room.partial)
        _times(Shape(m, H, n), d, rows, d_queries + q * H, room)
        _transposed_times(Shape(n, H, m), d, queries, repeated(room.zero), d_rows, room)
        _transposed_times(Shape(n, H, m), weights, d_own, Rows(d_rows, H), d_rows, room)


@Kernel
def attention_backward(
    queries, memory, weights, H, query_offsets, memory_offsets, places, d_context, d_queries, d_memory, work, threads
):
    """d_queries (M, H) and d_memory (N, H) from d_context (M, H) and the weights that attention_forward wrote.

    Other parameters as its. Cost: 8*m*n*H flop a sequence, and two copies of its memory and of its queries.
    """
    sequences = Sequences(
        pointer(queries), pointer(memory), pointer(weights), H, query_offsets, memory_offsets, places
    )  # fmt: skip
    share(
        threads, _attend_backward,
        (threads, sequences, pointer(d_context), pointer(d_queries), pointer(d_memory), pointer(work)),
    )  # fmt: skip
