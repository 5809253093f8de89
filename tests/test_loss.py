"""Softmax cross-entropy, alone and fused with the linear layer before it: in blocks, in threads, at extremes."""

import numpy as np
import pytest
from cases import CROSS_ENTROPY, DTYPES, LINEAR_CROSS_ENTROPY, check
from numerics import relative_error

from fastrnn import functional
from fastrnn.reference import loss as reference

SIZES = [(1, 1), (1, 2), (7, 1), (5, 15), (5, 16), (5, 17), (33, 65), (100, 3), (3, 1000)]
LINEAR_SIZES = [(1, 1, 1), (5, 3, 2), (20, 17, 65), (70, 33, 31), (7, 20, 1000)]

by_dtype = pytest.mark.parametrize("dtype", DTYPES)


@by_dtype
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients(size, dtype):
    check(CROSS_ENTROPY, size, dtype)


@by_dtype
@pytest.mark.parametrize("size", LINEAR_SIZES, ids=str)
def test_linear_values_and_gradients(size, dtype):
    check(LINEAR_CROSS_ENTROPY, size, dtype)


@by_dtype
@pytest.mark.parametrize("size", [(70, 33, 31), (33, 8, 300)], ids=str)
@pytest.mark.parametrize("rows", [1, 16, 17])
def test_blocks_of_logits(size, rows, dtype, monkeypatch):
    """Rows in blocks, the last one smaller: each row's part is the same to the bit, the sums are near."""
    whole = LINEAR_CROSS_ENTROPY.compiled(**LINEAR_CROSS_ENTROPY.draw(size, dtype))
    monkeypatch.setattr(functional.losses, "_LEAST_ROWS", 1)
    monkeypatch.setattr(functional.losses, "_LOGITS_BYTES", rows * size[2] * np.dtype(dtype).itemsize)
    check(LINEAR_CROSS_ENTROPY, size, dtype)
    blocks = LINEAR_CROSS_ENTROPY.compiled(**LINEAR_CROSS_ENTROPY.draw(size, dtype))
    np.testing.assert_array_equal(blocks["dx"], whole["dx"])


@by_dtype
def test_a_vocabulary_beyond_a_block(dtype, monkeypatch):
    """At least 16 rows make a block, however many bytes they are."""
    monkeypatch.setattr(functional.losses, "_LOGITS_BYTES", 1000)
    check(LINEAR_CROSS_ENTROPY, (50, 5, 3000), dtype)


def test_budget_of_float32_is_not_rotten():
    largest = {}
    for seed in range(4):
        for name, part in check(LINEAR_CROSS_ENTROPY, (70, 33, 31), "float32", seed).items():
            largest[name] = max(largest.get(name, 0), part)
    assert all(0.01 < part <= 1 for part in largest.values()), largest


@by_dtype
def test_bits_of_a_row_are_its_own(dtype):
    inputs = CROSS_ENTROPY.draw((37, 101), dtype)
    whole = CROSS_ENTROPY.compiled(**inputs)["d_logits"] * 37
    for row in (0, 17, 36):
        alone = CROSS_ENTROPY.compiled(**{name: value[row : row + 1] for name, value in inputs.items()})
        np.testing.assert_allclose(alone["d_logits"][0], whole[row], rtol=4 * np.finfo(dtype).eps)


@by_dtype
def test_extreme_logits(dtype):
    """Differences count, however large the logits; what cannot be the target weighs nothing."""
    V, targets = 40, np.array([7, 3, 5, 39])
    for far, largest in [(1e30, 0), *((1e4, i) for i in range(V))]:
        logits = np.full((4, V), -far, dtype)
        logits[:, largest] = far
        logits[2] = far
        value, d_logits = CROSS_ENTROPY.compiled(logits, targets).values()
        expected, d_expected = reference.softmax_cross_entropy(logits.astype(np.float64), targets)
        assert value == pytest.approx(float(expected), rel=4 * float(np.finfo(dtype).eps))
        assert relative_error(d_logits, d_expected) < 4 * np.finfo(dtype).eps
    logits = np.zeros((2, V), dtype)
    logits[0, 1:] = -np.inf
    logits[1, 20:] = -np.inf
    value, d_logits = CROSS_ENTROPY.compiled(logits, np.array([0, 19])).values()
    assert value == pytest.approx(np.log(20) / 2, rel=4 * float(np.finfo(dtype).eps))
    np.testing.assert_array_equal(d_logits[0], 0)
    np.testing.assert_array_equal(d_logits[1, 20:], 0)


@by_dtype
def test_an_impossible_target(dtype):
    logits = np.zeros((1, 5), dtype)
    logits[0, 3] = -np.inf
    value, d_logits = CROSS_ENTROPY.compiled(logits, np.array([3])).values()
    assert value == np.inf
    np.testing.assert_allclose(d_logits, [[0.25, 0.25, 0.25, -1, 0.25]], rtol=1e-6)


@by_dtype
def test_nan_spoils_only_its_row(dtype):
    inputs = CROSS_ENTROPY.draw((33, 50), dtype)
    clean = CROSS_ENTROPY.compiled(**inputs)["d_logits"]
    inputs["logits"][4, 13] = np.nan
    got = CROSS_ENTROPY.compiled(**inputs)
    assert np.isnan(got["loss"])
    assert np.isnan(got["d_logits"][4]).all()
    np.testing.assert_array_equal(np.delete(got["d_logits"], 4, 0), np.delete(clean, 4, 0))


@by_dtype
def test_probabilities_sum_to_one(dtype):
    """A row of the gradient sums to 0, and its target's part is negative."""
    inputs = CROSS_ENTROPY.draw((33, 129), dtype)
    d_logits = CROSS_ENTROPY.compiled(**inputs)["d_logits"].astype(np.float64)
    np.testing.assert_allclose(d_logits.sum(1), 0, atol=np.finfo(dtype).eps)
    assert (d_logits[np.arange(33), inputs["targets"]] < 0).all()
    assert (d_logits < 0).sum() == 33


@by_dtype
def test_scale(dtype):
    inputs = LINEAR_CROSS_ENTROPY.draw((9, 5, 17), dtype)
    once = LINEAR_CROSS_ENTROPY.compiled(**inputs)
    d_weight, d_bias = np.empty_like(inputs["weight"]), np.empty_like(inputs["bias"])
    value, dx = functional.linear_cross_entropy(*inputs.values(), (d_weight, d_bias), scale=4.0)
    assert value == once["loss"]
    np.testing.assert_array_equal(dx, 4 * once["dx"])
    np.testing.assert_array_equal(d_weight, 4 * once["d_weight"])
    np.testing.assert_array_equal(d_bias, 4 * once["d_bias"])
