"""Optimiser updates over the flat parameter buffer, and the gradient's global norm.

Formulas and names are torch.optim's. Reference twin: fastrnn.reference.update.
"""

from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.pack import split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store, store_first
from fastrnn.kernels.reduce import add_up, virtual_width
from fastrnn.kernels.simd import fma, sqrt, zeros

NORM_BLOCK = 1 << 14  # elements summed in one chain of vectors; fixed, so that the norm's bits are


@device
def _sum_of_squares(part, parts, g, size, blocks, work):
    width = lanes(g)
    wide = virtual_width(g)
    partial = work + part * wide
    for i in range(split(blocks.size, parts, part), split(blocks.size, parts, part + 1)):
        end = min(size, (i + 1) * NORM_BLOCK)
        for lane in range(0, wide, width):
            total = zeros(partial)
            for j in range(i * NORM_BLOCK + lane, end, wide):
                x = load_first(g + j, end - j)
                total = fma(x, x, total)
            store(partial + lane, total)
        blocks[i] = add_up(partial)


@Kernel
def sum_of_squares(g, blocks, work, parts):
    """blocks[i] = the sum of g^2 over elements i*NORM_BLOCK...; work: one virtual vector (64 bytes) a part."""
    share(parts, _sum_of_squares, (parts, pointer(g), g.size, blocks, pointer(work)))


@device
def _sgd(part, parts, p, size, g, velocity, lr, momentum, nesterov, weight_decay, first):
    end = split(size, parts, part + 1)
    for i in range(split(size, parts, part), end, lanes(p)):
        n = end - i
        x = load_first(p + i, n)
        step = fma(x, weight_decay, load_first(g + i, n))
        if momentum != 0.0:
            v = step if first else fma(load_first(velocity + i, n), momentum, step)
            store_first(velocity + i, v, n)
            step = fma(v, momentum, step) if nesterov else v
        store_first(p + i, fma(step, -lr, x), n)


@Kernel
def sgd(p, g, velocity, lr, momentum, nesterov, weight_decay, first, parts):
    """velocity = momentum*velocity + g (g at the first step); p -= lr*(velocity, or g + momentum*velocity)."""
    share(
        parts, _sgd,
        (parts, pointer(p), p.size, pointer(g), pointer(velocity), lr, momentum, nesterov, weight_decay, first),
    )  # fmt: skip


@device
def _adagrad(part, parts, p, size, g, total, lr, eps, eps_inside, weight_decay):
    end = split(size, parts, part + 1)
    for i in range(split(size, parts, part), end, lanes(p)):
        n = end - i
        x = load_first(p + i, n)
        step = fma(x, weight_decay, load_first(g + i, n))
        t = fma(step, step, load_first(total + i, n))
        store_first(total + i, t, n)
        scale = sqrt(t + eps) if eps_inside else sqrt(t) + eps
        store_first(p + i, x - step * lr / scale, n)


@Kernel
def adagrad(p, g, total, lr, eps, eps_inside, weight_decay, parts):
    """total += g^2; p -= lr*g / (sqrt(total) + eps), or / sqrt(total + eps)."""
    share(parts, _adagrad, (parts, pointer(p), p.size, pointer(g), pointer(total), lr, eps, eps_inside, weight_decay))


@device
def _rmsprop(part, parts, p, size, g, square_avg, lr, alpha, eps, weight_decay):
    end = split(size, parts, part + 1)
    for i in range(split(size, parts, part), end, lanes(p)):
        n = end - i
        x = load_first(p + i, n)
        step = fma(x, weight_decay, load_first(g + i, n))
        v = fma(step * step, 1.0 - alpha, load_first(square_avg + i, n) * alpha)
        store_first(square_avg + i, v, n)
        store_first(p + i, x - step * lr / (sqrt(v) + eps), n)


@Kernel
def rmsprop(p, g, square_avg, lr, alpha, eps, weight_decay, parts):
    """square_avg = alpha*square_avg + (1 - alpha)*g^2; p -= lr*g / (sqrt(square_avg) + eps)."""
    share(parts, _rmsprop, (parts, pointer(p), p.size, pointer(g), pointer(square_avg), lr, alpha, eps, weight_decay))


@device
def _adam(part, parts, p, size, g, exp_avg, exp_avg_sq, step_size, beta1, beta2, eps, correction, weight_decay, shrink):
    end = split(size, parts, part + 1)
    for i in range(split(size, parts, part), end, lanes(p)):
        n = end - i
        x = load_first(p + i, n)
        step = fma(x, weight_decay, load_first(g + i, n))
        m = load_first(exp_avg + i, n)
        m = fma(step - m, 1.0 - beta1, m)
        v = fma(step * step, 1.0 - beta2, load_first(exp_avg_sq + i, n) * beta2)
        store_first(exp_avg + i, m, n)
        store_first(exp_avg_sq + i, v, n)
        store_first(p + i, x * shrink - m * step_size / fma(sqrt(v), correction, eps), n)


@Kernel
def adam(p, g, exp_avg, exp_avg_sq, step_size, beta1, beta2, eps, correction, weight_decay, shrink, parts):
    """Moments m and v of g; p = shrink*p - step_size*m / (sqrt(v)*correction + eps).

    step_size = lr/(1 - beta1^t), correction = 1/sqrt(1 - beta2^t); Adam has weight_decay and shrink 1, AdamW has
    weight_decay 0 and shrink 1 - lr*weight_decay.
    """
    share(
        parts, _adam,
        (parts, pointer(p), p.size, pointer(g), pointer(exp_avg), pointer(exp_avg_sq), step_size, beta1, beta2, eps,
         correction, weight_decay, shrink),
    )  # fmt: skip
