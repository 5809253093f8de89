"""Reductions over a row, in an order that is the same on every CPU.

Sums use a virtual vector of 64 bytes: narrow targets take one part of it at a time, so the order of every sum, and with
it every bit, is the same for all.
"""

import math

from fastrnn.kernels import vmath
from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.pointers import element, lanes, load_else, store, store_first
from fastrnn.kernels.simd import select, zeros
from fastrnn.kernels.target import TARGET

INFINITY = math.inf
PARTS = 64 // TARGET.vector_bytes  # registers of a virtual vector


@layout
def virtual_width(width):
    """Elements of a virtual vector, where a register holds `width`."""
    return PARTS * width


@device
def add_up(partial):
    """The sum of a stored virtual vector, first to last."""
    total = element(partial)
    for i in range(1, virtual_width(lanes(partial))):
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
    for part in range(PARTS):
        total = zeros(row)
        for j in range(part * width, V, virtual_width(width)):
            term = vmath.exp(load_else(row + j, V - j, -INFINITY) - shift)
            total = total + term
            if keep:
                store_first(out + j, term, V - j)
        store(partial + part * width, total)
    return add_up(partial)
