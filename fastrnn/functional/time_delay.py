"""A convolution over time."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import matmul
from fastrnn.kernels import time_delay as kernels
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import room_size
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch
from fastrnn.ragged import Steps

# The sums of these sizes take as long in Python as a small call in the kernel; `count` threads.


@lru_cache
def _convolve_size(taps, I, O, lanes, count):
    return room_size(kernels.convolve_room(taps, I, O, lanes, count), lanes)


@lru_cache
def _gradient_size(taps, I, O, lanes, count):
    return room_size(kernels.gradient_room(taps, I, O, lanes, count), lanes)


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
    N = steps.N
    followed = steps.followed
    shapes = ((O, I, taps), None if bias is None else (O,))
    x, weight, bias = checks.arrays(("x", "weight", "bias"), (x, weight, bias), dtype, ((N, I), *shapes))
    x = x.reshape(-1)
    weight = weight.reshape(-1)
    rows_of = followed.rows
    T = len(followed.rows.count)
    shifts = np.clip(checks.shifts("shifts", shifts, taps), -T, T)  # beyond, nothing is to be seen
    lanes = lanes_of(dtype.itemsize)
    none = np.empty(0, dtype)
    count = threads.for_work(2 * N * O * I * taps * dtype.itemsize / 4)

    def convolved(rows, shifts, transposed, bias):
        """(N, I) to (N, O), or with the weight transposed (N, O) to (N, I)."""
        sizes = (O, I) if transposed else (I, O)
        out = empty((N, sizes[1]), dtype)
        work = scratch(_convolve_size(taps, *sizes, lanes, count), dtype)
        kernels.convolve(
            x=rows.reshape(-1), first=rows_of.first, count=rows_of.count, shifts=shifts, weight=weight,
            weight_transposed=transposed, bias=bias, O=sizes[1], y=out.reshape(-1), work=work, threads=count,
        )  # fmt: skip
        return out

    def pullback(dy, d_weight, d_bias):
        dy = checks.array("dy", dy, dtype, N, O)
        checks.targets(("d_weight", "d_bias"), (d_weight, d_bias), dtype, shapes)
        dx = convolved(dy, -shifts, True, none)
        work = scratch(_gradient_size(taps, I, O, lanes, count), dtype)
        kernels.weight_gradient(
            x=x, first=rows_of.first, count=rows_of.count, shifts=shifts, dy=dy.reshape(-1), O=O,
            d_weight=d_weight.reshape(-1), work=work, threads=count,
        )  # fmt: skip
        if d_bias is not None:
            matmul.column_sums(
                a=dy.reshape(-1), rows=N, columns=O, total=d_bias, add=False, threads=threads.for_bytes(dy.nbytes)
            )
        return dx

    return convolved(x, shifts, False, none if bias is None else bias), pullback
