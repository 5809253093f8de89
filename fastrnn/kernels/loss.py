"""Softmax cross-entropy of rows of logits, with its gradient in the same pass.

Reference twin: fastrnn.reference.loss.
"""

import numpy as np

from fastrnn.kernels import vmath
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import column_sums, product, product_work
from fastrnn.kernels.pack import padded, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, lanes, load_first, pointer, set_element, store_first
from fastrnn.kernels.reduce import PARTS, row_exp_sum, row_max, virtual_width


@device
def _softmax_cross_entropy(part, parts, logits, row, targets, V, scale, losses, d_logits, d_row, keep, work):
    N = targets.size
    totals, shifted = work, work + N
    partial = work + (2 * N + part * virtual_width(logits))
    set_element(partial, scale)
    scale_here = element(partial)  # in the logits' precision, so that 1 - 1 is 0
    low, high = split(N, parts, part), split(N, parts, part + 1)
    for i in range(low, high):
        x, d = logits + i * row, d_logits + i * d_row
        best = row_max(x, V, partial)
        set_element(shifted + i, best - element(x + targets[i]))
        total = row_exp_sum(x, V, best, d, keep, partial)
        set_element(totals + i, total)
        if keep:
            factor = scale_here / total
            for j in range(0, V, lanes(x)):
                store_first(d + j, load_first(d + j, V - j) * factor, V - j)
            set_element(d + targets[i], element(d + targets[i]) - scale_here)
    for i in range(low, high, lanes(totals)):
        n = high - i
        store_first(losses + i, vmath.log(load_first(totals + i, n)) + load_first(shifted + i, n), n)


@Kernel
def softmax_cross_entropy(logits, row, targets, V, scale, losses, d_logits, d_row, work, parts):
    """losses_i = log sum_j e^(x_ij) - x_i,target; d_logits = scale*(softmax - one-hot), unless it is empty.

    logits: row i at i*row, V numbers; targets: (N,) below V; losses: (N,) out; d_logits: row i at i*d_row, may be
    logits itself; work: softmax_work(N) elements. Cost: one exp and 2 passes a logit.
    """
    share(
        parts, _softmax_cross_entropy,
        (parts, pointer(logits), row, targets, V, scale, pointer(losses), pointer(d_logits), d_row, d_logits.size > 0,
         pointer(work)),
    )  # fmt: skip


@layout
def softmax_work(N, lanes, parts):
    """Elements of workspace that `softmax_cross_entropy` needs."""
    return 2 * N + parts * PARTS * lanes


@layout
def linear_cross_entropy_work(N, V, H, lanes, parts):
    """Elements of workspace that `linear_cross_entropy` needs."""
    products = max(product_work(N, V, H, lanes, parts), product_work(N, H, V, lanes, parts))
    products = max(products, product_work(V, H, N, lanes, parts))
    return padded(N * V, lanes) + padded(softmax_work(N, lanes, parts), lanes) + products


@Kernel
def linear_cross_entropy(
    x, weight, bias, targets, scale, losses, dx, d_weight, d_bias, add, zero, N, V, H, work, parts
):  # fmt: skip
    """Cross-entropy of the logits x weight^T + bias, and the gradients of scale times the sum of the losses.

    x, dx: (N, H); weight, d_weight: (V, H); bias, d_bias: (V,); losses: (N,). With `add` the gradients of weight and
    bias add to what is there; an empty d_bias asks for the losses only. zero: at least H zeros.
    Cost: 2*N*V*H flop, or 6*N*V*H. Reference twin: fastrnn.reference.loss.linear_cross_entropy.
    """
    width = lanes(pointer(x))
    logits, room = work[: N * V], work[padded(N * V, width) :]
    rest = room[padded(softmax_work(N, width, parts), width) :]
    one, none = np.int64(1), np.int64(0)  # not literals, for which the product would be compiled again
    product(x, H, one, weight, one, H, bias, none, logits, V, N, V, H, rest, parts)
    softmax_cross_entropy(logits, V, targets, V, scale, losses, logits if d_bias.size else d_bias, V, room, parts)
    if d_bias.size:
        product(logits, V, one, weight, H, one, zero, none, dx, H, N, H, V, rest, parts)
        start, row = (d_weight, H) if add else (zero, none)
        product(logits, one, V, x, H, one, start, row, d_weight, H, V, H, N, rest, parts)
        column_sums(logits, N, V, d_bias, add, parts)
