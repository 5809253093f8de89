"""Optimiser updates over the flat parameter buffer, and the gradient's global norm.

Formulas and names are torch.optim's. Reference twin: fastrnn.reference.update.
"""

from typing import Any, NamedTuple

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.pack import split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store, store_first
from fastrnn.kernels.reduce import add_up, virtual_width
from fastrnn.kernels.simd import fma, sqrt, zeros
from fastrnn.kernels.workspace import Elements, carve

NORM_BLOCK = 1 << 14  # elements summed in one chain of vectors; fixed, so that the norm's bits are


class NormRoom(NamedTuple):
    """Workspace of `sum_of_squares`."""

    partial: Elements  # a virtual vector for each thread


@layout
def norm_room(width, threads):
    """The workspace of `sum_of_squares`."""
    return NormRoom(partial=threads * virtual_width(width))


@device
def _sum_of_squares(shard, shards, g, size, blocks, room):
    width = lanes(g)
    wide = virtual_width(width)
    partial = room.partial + shard * wide
    for i in range(split(blocks.size, shards, shard), split(blocks.size, shards, shard + 1)):
        end = min(size, (i + 1) * NORM_BLOCK)
        for lane in range(0, wide, width):
            total = zeros(partial)
            for j in range(i * NORM_BLOCK + lane, end, wide):
                x = load_first(g + j, end - j)
                total = fma(x, x, total)
            store(partial + lane, total)
        blocks[i] = add_up(partial)


@Kernel
def sum_of_squares(g, blocks, work, threads):
    """blocks[i] = the sum of g^2 over elements i*NORM_BLOCK...; work: room_size(norm_room(...)) elements."""
    room = carve(pointer(work), norm_room(lanes(pointer(work)), threads))
    share(threads, _sum_of_squares, (threads, pointer(g), g.size, blocks, room))


class Descent(NamedTuple):
    """What every update starts from."""

    p: Any  # parameters, which it changes
    g: Any  # their gradients
    size: int  # elements of each
    weight_decay: float  # of the parameters, added to the gradients


@device
def _decayed(start, i, n):
    """The first n lanes at element i: the parameters, and their gradients with weight decay."""
    x = load_first(start.p + i, n)
    return x, fma(x, start.weight_decay, load_first(start.g + i, n))


@device
def _sgd(shard, shards, start, velocity, lr, momentum, nesterov, first):
    end = split(start.size, shards, shard + 1)
    for i in range(split(start.size, shards, shard), end, lanes(start.p)):
        n = end - i
        x, step = _decayed(start, i, n)
        if momentum != 0.0:
            v = step if first else fma(load_first(velocity + i, n), momentum, step)
            store_first(velocity + i, v, n)
            step = fma(v, momentum, step) if nesterov else v
        store_first(start.p + i, fma(step, -lr, x), n)


@Kernel
def sgd(p, g, velocity, lr, momentum, nesterov, weight_decay, first, threads):
    """velocity = momentum*velocity + g (g at the first step); p -= lr*(velocity, or g + momentum*velocity)."""
    start = Descent(pointer(p), pointer(g), p.size, weight_decay)
    share(threads, _sgd, (threads, start, pointer(velocity), lr, momentum, nesterov, first))


@device
def _adagrad(shard, shards, start, total, lr, eps, eps_inside):
    end = split(start.size, shards, shard + 1)
    for i in range(split(start.size, shards, shard), end, lanes(start.p)):
        n = end - i
        x, step = _decayed(start, i, n)
        t = fma(step, step, load_first(total + i, n))
        store_first(total + i, t, n)
        scale = sqrt(t + eps) if eps_inside else sqrt(t) + eps
        store_first(start.p + i, x - step * lr / scale, n)


@Kernel
def adagrad(p, g, total, lr, eps, eps_inside, weight_decay, threads):
    """total += g^2; p -= lr*g / (sqrt(total) + eps), or / sqrt(total + eps)."""
    start = Descent(pointer(p), pointer(g), p.size, weight_decay)
    share(threads, _adagrad, (threads, start, pointer(total), lr, eps, eps_inside))


@device
def _rmsprop(shard, shards, start, square_avg, lr, alpha, eps):
    end = split(start.size, shards, shard + 1)
    for i in range(split(start.size, shards, shard), end, lanes(start.p)):
        n = end - i
        x, step = _decayed(start, i, n)
        v = fma(step * step, 1.0 - alpha, load_first(square_avg + i, n) * alpha)
        store_first(square_avg + i, v, n)
        store_first(start.p + i, x - step * lr / (sqrt(v) + eps), n)


@Kernel
def rmsprop(p, g, square_avg, lr, alpha, eps, weight_decay, threads):
    """square_avg = alpha*square_avg + (1 - alpha)*g^2; p -= lr*g / (sqrt(square_avg) + eps)."""
    start = Descent(pointer(p), pointer(g), p.size, weight_decay)
    share(threads, _rmsprop, (threads, start, pointer(square_avg), lr, alpha, eps))


@device
def _adam(shard, shards, start, moments, step_size, betas, eps, correction, shrink):
    exp_avg, exp_avg_sq = moments
    beta1, beta2 = betas
    end = split(start.size, shards, shard + 1)
    for i in range(split(start.size, shards, shard), end, lanes(start.p)):
        n = end - i
        x, step = _decayed(start, i, n)
        m = load_first(exp_avg + i, n)
        m = fma(step - m, 1.0 - beta1, m)
        v = fma(step * step, 1.0 - beta2, load_first(exp_avg_sq + i, n) * beta2)
        store_first(exp_avg + i, m, n)
        store_first(exp_avg_sq + i, v, n)
        store_first(start.p + i, x * shrink - m * step_size / fma(sqrt(v), correction, eps), n)


@Kernel
def adam(p, g, exp_avg, exp_avg_sq, step_size, beta1, beta2, eps, correction, weight_decay, shrink, threads):
    """Moments m and v of g; p = shrink*p - step_size*m / (sqrt(v)*correction + eps).

    step_size = lr/(1 - beta1^t), correction = 1/sqrt(1 - beta2^t); Adam has weight_decay and shrink 1, AdamW has
    weight_decay 0 and shrink 1 - lr*weight_decay.
    """
    start = Descent(pointer(p), pointer(g), p.size, weight_decay)
    moments = (pointer(exp_avg), pointer(exp_avg_sq))
    share(threads, _adam, (threads, start, moments, step_size, (beta1, beta2), eps, correction, shrink))
