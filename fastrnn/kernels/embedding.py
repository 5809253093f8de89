"""Embedding: rows gathered by token, and their gradients added back in the order of the tokens.

Reference twin: fastrnn.reference.embedding.
"""

from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.matmul import Rows
from fastrnn.kernels.pack import split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store_first


@device
def _gather(shard, shards, source, index, D, out):
    width = lanes(source.data)
    for i in range(split(index.size, shards, shard), split(index.size, shards, shard + 1)):
        row = index[i]
        start = source.data + max(row, 0) * source.row
        target = out.data + i * out.row
        for j in range(0, D, width):
            store_first(target + j, load_first(start + j, D - j if row >= 0 else 0), D - j)


@Kernel
def gather(source, source_row, index, D, out, out_row, threads):
    """out (N, D) = source[index], or 0 where the index is negative; source (V, D) and out flat, with row strides."""
    share(threads, _gather, (threads, Rows(pointer(source), source_row), index, D, Rows(pointer(out), out_row)))


@device
def _scatter_add(shard, shards, d_rows, tokens, D, d_weight):
    width = lanes(d_rows)
    vectors = -(-D // width)
    left = split(vectors, shards, shard) * width
    right = min(D, split(vectors, shards, shard + 1) * width)
    for i in range(tokens.size):
        source = d_rows + i * D
        target = d_weight + tokens[i] * D
        for j in range(left, right, width):
            store_first(target + j, load_first(target + j, D - j) + load_first(source + j, D - j), D - j)


@Kernel
def scatter_add(d_rows, tokens, D, d_weight, threads):
    """d_weight[token] += d_row for each row in order; threads own columns. d_rows (N, D), d_weight (V, D), flat."""
    share(threads, _scatter_add, (threads, pointer(d_rows), tokens, D, pointer(d_weight)))
