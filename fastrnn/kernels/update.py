"""Optimiser updates over the flat parameter buffer, and the gradient's global norm.

Formulas and names are torch.optim's. Reference twin: fastrnn.reference.update.
"""

from numba import prange

from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.loss import add_up, virtual_width
from fastrnn.kernels.pack import split
from fastrnn.kernels.simd import fma, lanes, load_first, pointer, sqrt, store, store_first, zeros

NORM_BLOCK = 1 << 14  # elements summed in one chain of vectors; fixed, so that the norm's bits are


@Kernel
def sum_of_squares(g, blocks, work, shards):
    """blocks[i] = the sum of g^2 over elements i*NORM_BLOCK...; work: one virtual vector (64 bytes) a shard."""
    width = lanes(pointer(g))
    wide = virtual_width(pointer(g))
    for s in prange(shards):
        partial = pointer(work) + s * wide
        for i in range(split(blocks.size, shards, s), split(blocks.size, shards, s + 1)):
            end = min(g.size, (i + 1) * NORM_BLOCK)
            for part in range(0, wide, width):
                total = zeros(partial)
                for j in range(i * NORM_BLOCK + part, end, wide):
                    x = load_first(pointer(g) + j, end - j)
                    total = fma(x, x, total)
                store(partial + part, total)
            blocks[i] = add_up(partial)


@Kernel
def sgd(p, g, velocity, lr, momentum, nesterov, weight_decay, first, shards):
    """velocity = momentum*velocity + g (g at the first step); p -= lr*(velocity, or g + momentum*velocity)."""
    width = lanes(pointer(p))
    for s in prange(shards):
        for i in range(split(p.size, shards, s), split(p.size, shards, s + 1), width):
            n = split(p.size, shards, s + 1) - i
            x = load_first(pointer(p) + i, n)
            step = fma(x, weight_decay, load_first(pointer(g) + i, n))
            if momentum != 0.0:
                v = step if first else fma(load_first(pointer(velocity) + i, n), momentum, step)
                store_first(pointer(velocity) + i, v, n)
                step = fma(v, momentum, step) if nesterov else v
            store_first(pointer(p) + i, fma(step, -lr, x), n)


@Kernel
def adagrad(p, g, total, lr, eps, eps_inside, weight_decay, shards):
    """total += g^2; p -= lr*g / (sqrt(total) + eps), or / sqrt(total + eps)."""
    width = lanes(pointer(p))
    for s in prange(shards):
        for i in range(split(p.size, shards, s), split(p.size, shards, s + 1), width):
            n = split(p.size, shards, s + 1) - i
            x = load_first(pointer(p) + i, n)
            step = fma(x, weight_decay, load_first(pointer(g) + i, n))
            t = fma(step, step, load_first(pointer(total) + i, n))
            store_first(pointer(total) + i, t, n)
            scale = sqrt(t + eps) if eps_inside else sqrt(t) + eps
            store_first(pointer(p) + i, x - step * lr / scale, n)


@Kernel
def rmsprop(p, g, square_avg, lr, alpha, eps, weight_decay, shards):
    """square_avg = alpha*square_avg + (1 - alpha)*g^2; p -= lr*g / (sqrt(square_avg) + eps)."""
    width = lanes(pointer(p))
    for s in prange(shards):
        for i in range(split(p.size, shards, s), split(p.size, shards, s + 1), width):
            n = split(p.size, shards, s + 1) - i
            x = load_first(pointer(p) + i, n)
            step = fma(x, weight_decay, load_first(pointer(g) + i, n))
            v = fma(step * step, 1.0 - alpha, load_first(pointer(square_avg) + i, n) * alpha)
            store_first(pointer(square_avg) + i, v, n)
            store_first(pointer(p) + i, x - step * lr / (sqrt(v) + eps), n)


@Kernel
def adam(p, g, exp_avg, exp_avg_sq, step_size, beta1, beta2, eps, correction, weight_decay, shrink, shards):
    """Moments m and v of g; p = shrink*p - step_size*m / (sqrt(v)*correction + eps).

    step_size = lr/(1 - beta1^t), correction = 1/sqrt(1 - beta2^t); Adam has weight_decay and shrink 1, AdamW has
    weight_decay 0 and shrink 1 - lr*weight_decay.
    """
    width = lanes(pointer(p))
    for s in prange(shards):
        for i in range(split(p.size, shards, s), split(p.size, shards, s + 1), width):
            n = split(p.size, shards, s + 1) - i
            x = load_first(pointer(p) + i, n)
            step = fma(x, weight_decay, load_first(pointer(g) + i, n))
            m = load_first(pointer(exp_avg) + i, n)
            m = fma(step - m, 1.0 - beta1, m)
            v = fma(step * step, 1.0 - beta2, load_first(pointer(exp_avg_sq) + i, n) * beta2)
            store_first(pointer(exp_avg) + i, m, n)
            store_first(pointer(exp_avg_sq) + i, v, n)
            store_first(pointer(p) + i, x * shrink - m * step_size / fma(sqrt(v), correction, eps), n)
