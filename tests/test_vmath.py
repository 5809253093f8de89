"""exp, log, tanh and sigmoid: errors against wider arithmetic, and what they do where numbers end."""

import math

import mpmath
import numpy as np
import pytest
from cases import DTYPES
from numba import types

from fastrnn.kernels import vmath
from tools import ulp

FUNCTIONS = {function.name: function for function in ulp.FUNCTIONS}
BOUND = 2.0  # ulp

pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def evaluate(name, values, dtype):
    """What the kernel gives for any number of values."""
    x = np.zeros(-(-len(values) // 64) * 64, dtype)
    x[: len(values)] = values
    return ulp.run(FUNCTIONS[name], x)[: len(values)]


def check(name, dtype, inputs, threads=1):
    worst = ulp.worst_error(FUNCTIONS[name], np.dtype(dtype), inputs, threads)
    assert worst.wrong == 0
    assert 0.5 < worst.ulp < BOUND, worst  # half an ulp is what a correct rounding may be off


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors(name, dtype):
    """In a million inputs of every magnitude, half of them around the thresholds."""
    check(name, dtype, 1 << 20)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_of_all_inputs(name, dtype):
    check(name, dtype, ulp.INPUTS[dtype], threads=2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_planted_errors_are_seen(name, dtype, monkeypatch):
    run = ulp.run
    for fault in (
        lambda y: y * np.asarray(1 + 4 * np.finfo(dtype).eps, dtype),
        lambda y: np.where(np.isnan(y), 0, y).astype(dtype),
        lambda y: np.where(np.arange(y.size) % 64 == 63, 0, y).astype(dtype),
    ):
        monkeypatch.setattr(ulp, "run", lambda function, x, fault=fault: fault(run(function, x)))
        with pytest.raises(AssertionError):
            check(name, dtype, 1 << 18)


def test_the_logarithm_of_2_is_the_same_on_every_machine(dtype):
    """Its low part rounded once, which no type of the machine that is wider than float64 can be trusted with."""
    form = vmath._FORMATS[getattr(types, dtype)]
    with mpmath.workprec(200):
        assert form.ln2_low == float(mpmath.log(2) - form.ln2_high)


def special(dtype):
    """Inputs and their exact results: limits, signed zeros, and the middle."""
    tiny, least = np.finfo(dtype).smallest_normal, np.finfo(dtype).smallest_subnormal
    inf, nan, big = np.inf, np.nan, np.finfo(dtype).max
    return {
        "exp": [(0.0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (nan, nan), (big, inf), (-big, 0), (tiny, 1), (-least, 1)],
        "log": [(1.0, 0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-1.0, nan), (-least, nan), (nan, nan)],
        "tanh": [(x, x) for x in (0.0, -0.0, nan, tiny, -tiny, least, -least, 3 * least, 1e-30, -1e-30)]
        + [(x, math.copysign(1, x)) for x in (25.0, -25.0, big, -big, inf, -inf)],
        "sigmoid": [(x, 0.5) for x in (0.0, -0.0, tiny, least)]
        + [(40.0, 1), (big, 1), (inf, 1), (-big, 0), (-inf, 0), (nan, nan)],
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, dtype):
    x, expected = np.array(special(dtype)[name]).astype(dtype).T
    got = evaluate(name, x, dtype)
    np.testing.assert_array_equal(got, expected)
    zero = got == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


def test_small_results_keep_their_digits(dtype):
    """Far from 0, sigmoid is the exponential and not 1 - 1; e^x passes through the subnormal numbers to 0."""
    x = -np.array([20.0, 50, 80, 87, 87.3, 88, 90, 100, 103, 103.9, 104, 105, 300, 700, 708, 720, 740, 745, 745.2, 746])
    x = x.astype(dtype)
    for name in ("exp", "sigmoid"):
        for value, got in zip(x, evaluate(name, x, dtype), strict=True):
            assert ulp.exact_error(FUNCTIONS[name], value, got) < 1
    assert evaluate("exp", [math.log(float(np.finfo(dtype).max)) * (1 + 1e-6)], dtype) == np.inf


def test_tanh_is_odd_to_the_bit(dtype):
    x = np.concatenate([ulp.inputs(np.dtype(dtype), chunk, every=False) for chunk in range(4)])
    positive, negative = evaluate("tanh", np.abs(x), dtype), evaluate("tanh", -np.abs(x), dtype)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(negative[number], -positive[number])
    assert (np.signbit(negative) != np.signbit(positive))[number].all()
    assert (np.abs(positive[number]) <= 1).all()


def test_every_lane_is_the_same_function(dtype):
    x = np.random.default_rng(0).standard_normal(64).astype(dtype)
    for name in FUNCTIONS:
        y = evaluate(name, x, dtype)
        for shift in (1, 5, 15):
            np.testing.assert_array_equal(evaluate(name, np.roll(x, shift), dtype), np.roll(y, shift))
