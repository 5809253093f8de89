"""Softmax cross-entropy of rows of logits, with its gradient in the same pass.

Sums over a row use a virtual vector of 64 bytes on every CPU: narrow targets take one part of it at a time, so the
order of every sum, and with it every bit, is the same for all targets.

Reference twin: fastrnn.reference.loss.
"""

import math

from numba import prange

from fastrnn.kernels import vmath
from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.pack import split
from fastrnn.kernels.simd import (
    element,
    lanes,
    load,
    load_else,
    load_first,
    pointer,
    select,
    set_element,
    store,
    store_first,
    zeros,
)
from fastrnn.kernels.target import TARGET

INFINITY = math.inf
_PARTS = 64 // TARGET.vector_bytes  # registers of a virtual vector


@device
def virtual_width(p):
    """Elements of the virtual vector."""
    return _PARTS * lanes(p)


@device
def add_up(partial):
    """The sum of a stored virtual vector, first to last."""
    total = element(partial)
    for i in range(1, virtual_width(partial)):
        total += element(partial + i)
    return total


@device
def row_max(row, V, partial):
    """The largest of V numbers (-inf for none); NaN is passed over."""
    width = lanes(row)
    largest = zeros(row) - INFINITY
    for j in range(0, V, width):
        x = load_else(row + j, V - j, -INFINITY)
        largest = select(x > largest, x, largest)
    store(partial, largest)
    best = element(partial)
    for i in range(1, width):
        best = max(best, element(partial + i))
    return best


@device
def row_exp_sum(row, V, shift, out, keep, partial):
    """The sum of e^(x - shift) over a row; with `keep`, the terms are written to out."""
    width = lanes(row)
    for part in range(_PARTS):
        total = zeros(row)
        for j in range(part * width, V, width * _PARTS):
            term = vmath.exp(load_else(row + j, V - j, -INFINITY) - shift)
            total = total + term
            if keep:
                store_first(out + j, term, V - j)
        store(partial + part * width, total)
    return add_up(partial)


@Kernel
def softmax_cross_entropy(logits, row, targets, V, scale, losses, d_logits, d_row, work, shards):
    """losses_i = log sum_j e^(x_ij) - x_i,target; d_logits = scale*(softmax - one-hot), unless it is empty.

    logits: row i at i*row, V numbers; targets: (N,) below V; losses: (N,) out; d_logits: row i at i*d_row, may be
    logits itself; work: 2*N elements and 64 bytes a shard. Cost: one exp and 2 passes a logit.
    """
    N = targets.size
    width = virtual_width(pointer(logits))
    keep = d_logits.size > 0
    for s in prange(shards):
        partial = pointer(work) + (2 * N + s * width)
        low, high = split(N, shards, s), split(N, shards, s + 1)
        totals, shifted = pointer(work), pointer(work) + N
        for i in range(low, high):
            x, d = pointer(logits) + i * row, pointer(d_logits) + i * d_row
            best = row_max(x, V, partial)
            set_element(shifted + i, best - element(x + targets[i]))
            total = row_exp_sum(x, V, best, d, keep, partial)
            set_element(totals + i, total)
            if keep:
                factor = scale / total
                for j in range(0, V, lanes(x)):
                    store_first(d + j, load_first(d + j, V - j) * factor, V - j)
                set_element(d + targets[i], element(d + targets[i]) - scale)
        for i in range(low, high, lanes(totals)):
            n = high - i
            store_first(pointer(losses) + i, vmath.log(load_first(totals + i, n)) + load_first(shifted + i, n), n)
