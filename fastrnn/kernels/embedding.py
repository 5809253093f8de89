"""Embedding: rows gathered by token, and their gradients added back in the order of the tokens.

Reference twin: fastrnn.reference.embedding.
"""

from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.pack import split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.simd import lanes, load_first, pointer, store_first


@device
def _gather(part, parts, weight, tokens, D, out):
    width = lanes(weight)
    for i in range(split(tokens.size, parts, part), split(tokens.size, parts, part + 1)):
        source, target = weight + tokens[i] * D, out + i * D
        for j in range(0, D, width):
            store_first(target + j, load_first(source + j, D - j), D - j)


@Kernel
def gather(weight, tokens, D, out, parts):
    """out (N, D) = weight[tokens]; weight (V, D) flat, tokens (N,) below V."""
    share(parts, _gather, (parts, pointer(weight), tokens, D, pointer(out)))


@device
def _scatter_add(part, parts, d_rows, tokens, D, d_weight):
    width = lanes(d_rows)
    vectors = -(-D // width)
    left, right = split(vectors, parts, part) * width, min(D, split(vectors, parts, part + 1) * width)
    for i in range(tokens.size):
        source, target = d_rows + i * D, d_weight + tokens[i] * D
        for j in range(left, right, width):
            store_first(target + j, load_first(target + j, D - j) + load_first(source + j, D - j), D - j)


@Kernel
def scatter_add(d_rows, tokens, D, d_weight, parts):
    """d_weight[token] += d_row for each row in order; threads own columns. d_rows (N, D), d_weight (V, D), flat."""
    share(parts, _scatter_add, (parts, pointer(d_rows), tokens, D, pointer(d_weight)))
