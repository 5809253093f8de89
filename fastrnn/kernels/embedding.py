"""Embedding: rows gathered by token, and their gradients added back in the order of the tokens.

Reference twin: fastrnn.reference.embedding.
"""

from numba import prange

from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.pack import split
from fastrnn.kernels.simd import lanes, load_first, pointer, store_first


@Kernel
def gather(weight, tokens, D, out, shards):
    """out (N, D) = weight[tokens]; weight (V, D) flat, tokens (N,) below V."""
    width = lanes(pointer(weight))
    N = tokens.size
    for s in prange(shards):
        for i in range(split(N, shards, s), split(N, shards, s + 1)):
            source, target = pointer(weight) + tokens[i] * D, pointer(out) + i * D
            for j in range(0, D, width):
                store_first(target + j, load_first(source + j, D - j), D - j)


@Kernel
def scatter_add(d_rows, tokens, D, d_weight, shards):
    """d_weight[token] += d_row for each row in order; threads own columns. d_rows (N, D), d_weight (V, D), flat."""
    width = lanes(pointer(d_rows))
    vectors = -(-D // width)
    for s in prange(shards):
        left, right = split(vectors, shards, s) * width, split(vectors, shards, s + 1) * width
        for i in range(tokens.size):
            source, target = pointer(d_rows) + i * D, pointer(d_weight) + tokens[i] * D
            for j in range(left, min(right, D), width):
                store_first(target + j, load_first(target + j, D - j) + load_first(source + j, D - j), D - j)
