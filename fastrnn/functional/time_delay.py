"""A convolution over time."""

from collections.abc import Callable

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import matmul
from fastrnn.kernels import time_delay as kernels
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros
from fastrnn.ragged import Steps


def time_delay(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, steps: Steps, shifts: np.ndarray
) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """y_t = bias + sum_k W_k x_{t + shifts[k]} within each sequence, zeros beyond its ends.

    Parameters
    ----------
    x : (N, I), rows in the order of `steps`, which go forwards
    weight : (O, I, k), W_k = weight[:, :, k]; bias : (O,), or None for 0
    shifts : (k,), int64, in steps

    Returns y (N, O) and pullback(dy, d_weight, d_bias or None), which writes both and returns dx.
    Raises ValueError: `x: expected shape (15, 5), got (15, 6)`, `shifts: expected shape (3,), got (2,)`, `steps:
    expected steps that go forwards, got reverse ones`.
    Cost: 2*N*O*I*k flop, twice that backward. Reference twin: fastrnn.reference.time_delay.
    """
    checks.instance("steps", steps, Steps)
    checks.forwards("steps", steps.reverse)
    dtype, (O, I, taps) = (
        checks.floating("weight", weight),
        checks.sizes("weight", weight, "(O, I, k) with all >= 1", 1, 1, 1),
    )
    N, (first, count, *_), shapes = steps.N, steps.followed, ((O, I, taps), None if bias is None else (O,))
    x, weight, bias = checks.arrays(("x", "weight", "bias"), (x, weight, bias), dtype, ((N, I), *shapes))
    x, weight = x.reshape(-1), weight.reshape(-1)
    shifts = np.clip(checks.shifts("shifts", shifts, taps), -len(count), len(count))  # beyond, nothing is to be seen
    lanes = lanes_of(dtype.itemsize)
    parts = threads.for_work(2 * N * O * I * taps * dtype.itemsize / 4)

    def convolved(rows, shifts, in_size, in_stride, out_size, out_stride, start):
        out = empty((N, out_size), dtype)
        work = scratch(kernels.convolve_work(taps, in_size, out_size, lanes, parts), dtype)
        kernels.convolve(
            parts, rows.reshape(-1), in_size, first, count, shifts, weight, in_stride, out_stride, out_size, start,
            out.reshape(-1), N, work, parts,
        )  # fmt: skip
        return out

    def pullback(dy, d_weight, d_bias):
        dy = checks.array("dy", dy, dtype, N, O)
        checks.targets(("d_weight", "d_bias"), (d_weight, d_bias), dtype, shapes)
        dx = convolved(dy, -shifts, O, I * taps, I, taps, zeros(I, dtype))
        work = scratch(kernels.weight_gradient_work(taps, I, O, lanes, parts), dtype)
        kernels.weight_gradient(
            parts, x, I, first, count, shifts, dy.reshape(-1), O, zeros(O, dtype), d_weight.reshape(-1), N,
            work, parts,
        )  # fmt: skip
        if d_bias is not None:
            parts_of_sum = threads.for_bytes(dy.nbytes)
            matmul.column_sums(parts_of_sum, dy.reshape(-1), N, O, d_bias, False, parts_of_sum)
        return dx

    return convolved(x, shifts, I, taps, O, I * taps, zeros(O, dtype) if bias is None else bias), pullback
