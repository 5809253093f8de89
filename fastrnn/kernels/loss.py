"""Softmax cross-entropy of rows of logits, with its gradient in the same pass.

Reference twin: fastrnn.reference.loss.
"""

from typing import Any, NamedTuple

from fastrnn.kernels import vmath
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.matmul import (
    Rows,
    Shape,
    by_rows,
    column_sums,
    multiply,
    product_room,
    repeated,
    transposed,
    zero_row,
)
from fastrnn.kernels.pack import split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, lanes, load_first, pointer, set_element, store_first
from fastrnn.kernels.reduce import row_exp_sum, row_max, virtual_width
from fastrnn.kernels.workspace import Elements, carve, room_size


class LossRoom(NamedTuple):
    """Workspace of `softmax_cross_entropy`."""

    totals: Elements  # (N,) the sum of a row's exponentials
    shifted: Elements  # (N,) a row's largest logit minus that of its target
    partial: Elements  # a virtual vector for each thread


@layout
def loss_room(N, width, threads):
    """The workspace of `softmax_cross_entropy`."""
    return LossRoom(totals=N, shifted=N, partial=threads * virtual_width(width))


class Softmax(NamedTuple):
    """Rows of logits, and what becomes of them."""

    logits: Any  # (N, V)
    targets: Any  # (N,) below V, an array
    V: int
    scale: float  # of the gradient
    losses: Any  # (N,) out
    gradient: Any  # (N, V) out, if wanted; may be the logits
    wanted: bool


@device
def _softmax_shard(shard, shards, rows, room):
    N, V = rows.targets.size, rows.V
    partial = room.partial + shard * virtual_width(lanes(room.partial))
    set_element(partial, rows.scale)
    scale = element(partial)  # in the logits' precision, so that 1 - 1 is 0
    low, high = split(N, shards, shard), split(N, shards, shard + 1)
    for i in range(low, high):
        x = rows.logits + i * V
        d = rows.gradient + i * V
        target = rows.targets[i]
        best = row_max(x, V, partial)
        set_element(room.shifted + i, best - element(x + target))
        total = row_exp_sum(x, V, best, d, rows.wanted, partial)
        set_element(room.totals + i, total)
        if rows.wanted:
            factor = scale / total
            for j in range(0, V, lanes(x)):
                store_first(d + j, load_first(d + j, V - j) * factor, V - j)
            set_element(d + target, element(d + target) - scale)
    for i in range(low, high, lanes(room.totals)):
        n = high - i
        log_total = vmath.log(load_first(room.totals + i, n))
        store_first(rows.losses + i, log_total + load_first(room.shifted + i, n), n)


@device
def _softmax_cross_entropy(rows, work, threads):
    room = carve(work, loss_room(rows.targets.size, lanes(work), threads))
    share(threads, _softmax_shard, (threads, rows, room))


@Kernel
def softmax_cross_entropy(logits, targets, V, scale, losses, d_logits, work, threads):
    """losses_i = log sum_j e^(x_ij) - x_i,target; d_logits = scale*(softmax - one-hot), unless it is empty.

    logits, d_logits: (N, V), flat, may be the same memory; targets: (N,) below V; losses: (N,) out
    work: room_size(loss_room(...)) elements

    Cost: one exp and 2 passes a logit.
    """
    gradient = pointer(d_logits)
    wanted = d_logits.size > 0
    rows = Softmax(pointer(logits), targets, V, scale, pointer(losses), gradient, wanted)
    _softmax_cross_entropy(rows, pointer(work), threads)


class LinearLossRoom(NamedTuple):
    """Workspace of `linear_cross_entropy`."""

    logits: Elements  # (N, V), and their gradient
    zero: Elements  # (H,) zeros
    loss: Elements  # of the rows' cross-entropy
    product: Elements  # of the largest product


@layout
def linear_loss_room(N, V, H, width, threads):
    """The workspace of `linear_cross_entropy`."""
    forward = room_size(product_room(Shape(N, V, H), width, threads), width)
    inputs = room_size(product_room(Shape(N, H, V), width, threads), width)
    weights = room_size(product_room(Shape(V, H, N), width, threads), width)
    return LinearLossRoom(
        logits=N * V,
        zero=H,
        loss=room_size(loss_room(N, width, threads), width),
        product=max(forward, inputs, weights),
    )


@Kernel
def linear_cross_entropy(x, weight, bias, targets, scale, losses, dx, d_weight, d_bias, add, work, threads):
    """Cross-entropy of the logits x weight^T + bias, and the gradients of scale times the sum of the losses.

    x, dx: (N, H); weight, d_weight: (V, H), V >= 1; bias, d_bias: (V,); targets, losses: (N,). With `add` the gradients
    of weight and bias add to what is there; an empty d_bias asks for the losses only.
    work: room_size(linear_loss_room(...)) elements

    Cost: 2*N*V*H flop, or 6*N*V*H. Reference twin: fastrnn.reference.loss.linear_cross_entropy.
    """
    N, H = x.shape
    V = bias.size
    wanted = d_bias.size > 0
    room = carve(pointer(work), linear_loss_room(N, V, H, lanes(pointer(work)), threads))
    rows, weights, logits = by_rows(pointer(x), H), by_rows(pointer(weight), H), by_rows(room.logits, V)
    start = repeated(pointer(bias))
    target = Rows(room.logits, V)
    multiply(rows, transposed(weights), start, target, Shape(N, V, H), room.product, threads)
    softmax = Softmax(room.logits, targets, V, scale, pointer(losses), room.logits, wanted)
    _softmax_cross_entropy(softmax, room.loss, threads)
    if wanted:
        zero_row(room.zero, H)
        zero = repeated(room.zero)
        sums = Rows(pointer(d_weight), H)
        multiply(logits, weights, zero, Rows(pointer(dx), H), Shape(N, H, V), room.product, threads)
        multiply(transposed(logits), rows, sums if add else zero, sums, Shape(V, H, N), room.product, threads)
        column_sums(room.logits, N, V, d_bias, add, threads)
