"""Measure the worst error of exp, log, tanh and sigmoid: `python tools/ulp.py [--sample N] [--threads N]`.

float32: every one of the 2**32 inputs, against float64 NumPy (about 15 minutes on one core). float64: 2**26 inputs of
every magnitude and around every threshold, against 80-bit NumPy. The worst of both are taken once more with mpmath.

Errors are in units of the distance between the floats around the exact result, infinity counting as the power of two
behind the largest float. `wrong` counts NaN for a number, a number for NaN, 0 of the wrong sign, and tanh(-x) that is
not -tanh(x) to the bit.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import click
import mpmath
import numpy as np
from tqdm import tqdm

from fastrnn.kernels import vmath
from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.pointers import lanes, load, pointer, store

CHUNK = 1 << 16
INPUTS = {"float32": 1 << 32, "float64": 1 << 26}
CHECKED = 32  # of the worst inputs of the chunks, those that mpmath looks at
WIDER = {"float32": np.float64, "float64": np.longdouble}


@Kernel
def evaluate(x, y, which):
    """y = exp(x), log(x), tanh(x) or sigmoid(x) for which = 0..3; x.size is a multiple of the lanes."""
    for i in range(0, x.size, lanes(pointer(x))):
        v = load(pointer(x) + i)
        if which == 0:
            v = vmath.exp(v)
        elif which == 1:
            v = vmath.log(v)
        elif which == 2:
            v = vmath.tanh(v)
        else:
            v = vmath.sigmoid(v)
        store(pointer(y) + i, v)


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


class Function(NamedTuple):
    """A function in wide NumPy and in mpmath; its place in FUNCTIONS is its number in `evaluate`."""

    name: str
    wide: Callable[[np.ndarray], np.ndarray]
    exact: Callable[[mpmath.mpf], mpmath.mpf]


FUNCTIONS = (
    Function("exp", np.exp, mpmath.exp),
    Function("log", np.log, mpmath.log),
    Function("tanh", np.tanh, mpmath.tanh),
    Function("sigmoid", _sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
)


class Result(NamedTuple):
    """The worst error of some inputs in ulp, its input, and how many results were wrong."""

    ulp: float
    x: float
    wrong: int


def run(function: Function, x: np.ndarray) -> np.ndarray:
    """What the kernels give."""
    y = np.empty_like(x)
    evaluate(x=x, y=y, which=FUNCTIONS.index(function))
    return y


def spacing(exact: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The distance between the floats of `dtype` around numbers of a wider type."""
    info, two = np.finfo(dtype), exact.dtype.type(2)
    power = exact / np.frexp(exact)[0] / 2
    return np.fmin(np.fmax(power, two**info.minexp), two ** (info.maxexp - 1)) * two**-info.nmant


def errors(y: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ulp, wrong) of results y against numbers of a wider type."""
    beyond = exact.dtype.type(2) ** np.finfo(y.dtype).maxexp
    wide, bounded = np.clip(y.astype(exact.dtype), -beyond, beyond), np.clip(exact, -beyond, beyond)
    wrong = (np.isnan(y) != np.isnan(exact)) | ((y == 0) & (np.signbit(y) != np.signbit(exact)))
    return np.nan_to_num(np.abs(wide - bounded) / spacing(bounded, y.dtype)), wrong


def exact_error(function: Function, x: np.floating, y: np.floating) -> float:
    """The error of one finite result in ulp, from mpmath."""
    info = np.finfo(y.dtype)
    with mpmath.workprec(400):
        exact = function.exact(mpmath.mpf(float(x)))
        exponent = min(max(int(mpmath.frexp(exact)[1]) - 1, info.minexp), info.maxexp - 1)
        return float(abs(mpmath.mpf(float(y)) - exact) / mpmath.mpf(2) ** (exponent - info.nmant))


def _near_thresholds(dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Inputs around those where the functions change their way, and around the middles between powers of 2."""
    info = np.finfo(dtype)
    middles = (rng.integers(-1100, 1100, CHUNK) + 0.5) * math.log(2) * rng.choice([0.5, 1], CHUNK)
    sizes = [info.max, info.smallest_normal, info.smallest_subnormal]
    points = [0, 0.7, 1, 20, math.sqrt(0.5), math.sqrt(2), *sizes, *map(math.log, sizes)]
    centres = np.where(rng.random(CHUNK) < 0.5, middles, rng.choice(points, CHUNK)).astype(dtype)
    integers = np.dtype(f"i{dtype.itemsize}")
    steps = rng.integers(-(1 << 12), 1 << 12, CHUNK, integers)
    moved = (centres.view(integers) + steps).view(dtype)
    return np.where(rng.random(CHUNK) < 0.5, moved, -moved)


def inputs(dtype: np.dtype, chunk: int, every: bool) -> np.ndarray:
    """Chunk number `chunk` of all bit patterns, or of a mixture of ranges."""
    if every:
        return np.arange(chunk * CHUNK, (chunk + 1) * CHUNK, dtype=f"u{dtype.itemsize}").view(dtype)
    rng = np.random.default_rng(chunk)
    match chunk % 4:
        case 0:
            return rng.integers(0, 2 ** (8 * dtype.itemsize) - 1, CHUNK, f"u{dtype.itemsize}", True).view(dtype)
        case 1:
            return (rng.choice([1, 8, 100, 800], CHUNK) * rng.uniform(-1, 1, CHUNK)).astype(dtype)
        case 2:
            return np.exp2(rng.uniform(-12, 5, CHUNK)).astype(dtype) * rng.choice([-1, 1], CHUNK).astype(dtype)
        case _:
            return _near_thresholds(dtype, rng)


def measure(function: Function, dtype: np.dtype, every: bool, chunk: int) -> Result:
    """The worst of one chunk."""
    x = inputs(dtype, chunk, every)
    y = run(function, x)
    with np.errstate(all="ignore"):
        ulp, wrong = errors(y, function.wide(x.astype(WIDER[dtype.name])))
        if function.name == "tanh":
            wrong |= (run(function, -x) != -y) & ~np.isnan(y)
    worst = np.argmax(ulp)
    return Result(float(ulp[worst]), x[worst], int(wrong.sum()))


def worst_error(function: Function, dtype: np.dtype, count: int, threads: int) -> Result:
    """The worst of `count` inputs, its error from mpmath."""
    every = count == 2 ** (8 * dtype.itemsize)
    one = partial(measure, function, dtype, every)
    one(0)  # compiles
    with ThreadPoolExecutor(threads) as pool:
        chunks = range(-(-count // CHUNK))
        done = tqdm(pool.map(one, chunks), f"{function.name} {dtype.name}", len(chunks), leave=False, disable=None)
        results = sorted(done, reverse=True)
    candidates = np.full(CHUNK, results[0].x)
    candidates[:CHECKED] = [result.x for result in results[:CHECKED]] + [results[0].x] * (CHECKED - len(results))
    y = run(function, candidates)
    checked = [exact_error(function, x, y) for x, y in zip(candidates[:CHECKED], y, strict=False)]
    worst = int(np.argmax(checked))
    return Result(checked[worst], candidates[worst], sum(result.wrong for result in results))


@click.command()
@click.option("--sample", type=click.IntRange(1), help="Only this many inputs a function and dtype.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(sample: int | None, threads: int) -> None:
    """Print the worst errors in ulp, their inputs, and the number of wrong results."""
    if np.finfo(np.longdouble).nmant < 63:
        raise click.ClickException("longdouble: expected at least 64 bits of precision, got those of float64")
    click.echo(f"{'':10} {'ulp':>8} {'input':>26} {'wrong':>6} {'inputs':>12}")
    for name, count in INPUTS.items():
        for function in FUNCTIONS:
            count = min(sample or count, count)
            worst = worst_error(function, np.dtype(name), count, threads)
            line = f"{worst.ulp:8.4f} {worst.x!s:>26} {worst.wrong:6} {count:12}"
            click.echo(f"{name} {function.name:8} {line}")


if __name__ == "__main__":
    main()
