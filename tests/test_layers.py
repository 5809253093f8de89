"""Linear, Embedding, Dropout and cross_entropy as a user calls them: any leading dimensions, none, or empty ones."""

import numpy as np
import pytest
from cases import DTYPES
from numerics import assert_close
from oracles import normal

from fastrnn import Dropout, Embedding, Linear, cross_entropy
from fastrnn.reference import embedding, loss, matmul

LEADING = [(), (1,), (7,), (5, 3), (2, 3, 4), (0,), (3, 0), (0, 4)]
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}


def tokens_of(shape, below, seed=0):
    return np.random.default_rng(seed).integers(0, below, shape)


# Linear


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize(
    ("I", "O", "leading"),
    [(9, 19, leading) for leading in LEADING]
    + [(1, 1, (5,)), (33, 16, (40,)), (0, 5, (7,)), (5, 0, (7,)), (0, 0, (0,))],
)
def test_linear(I, O, leading, bias, dtype):
    layer = Linear(I, O, bias, dtype=dtype, seed=0)
    x, dy = normal(*leading, I, dtype=dtype), normal(*leading, O, seed=1, dtype=dtype)
    y, pullback = layer.vjp(x)
    dx, grads = pullback(dy)
    assert y.dtype == dx.dtype == dtype
    p = {name: value.astype(np.float64) for name, value in layer.parameters.items()}
    rows, d_rows = x.reshape(int(np.prod(leading)), I).astype(np.float64), dy.reshape(int(np.prod(leading)), O)
    expected = {
        "y": matmul.product(rows, p["weight"].T, p.get("bias")).reshape(*leading, O),
        "dx": matmul.product(d_rows, p["weight"]).reshape(x.shape),
        "weight": matmul.product(d_rows.T, rows),
        "bias": matmul.column_sums(d_rows),
    }
    expected = {name: value for name, value in expected.items() if name in ("y", "dx", *p)}
    assert_close({"y": y, "dx": dx, **grads}, expected, TOLERANCE[dtype])
    np.testing.assert_array_equal(layer(x), y)


def test_linear_initial_values():
    layer = Linear(100, 300, seed=0, dtype="float64")
    assert np.abs(layer.parameters.flat).max() <= 0.1
    assert layer.parameters.flat.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    np.testing.assert_array_equal(Linear(100, 300, seed=0, dtype="float64").parameters.flat, layer.parameters.flat)
    assert (Linear(100, 300, seed=1, dtype="float64").parameters.flat != layer.parameters.flat).all()


# Embedding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LEADING, ids=str)
def test_embedding(shape, dtype):
    layer = Embedding(11, 19, dtype=dtype, seed=0)
    tokens, dy = tokens_of(shape, 11), normal(*shape, 19, dtype=dtype)
    y, pullback = layer.vjp(tokens)
    np.testing.assert_array_equal(y, embedding.gather(layer.parameters["weight"], tokens), strict=True)
    np.testing.assert_array_equal(layer(tokens), y, strict=True)
    expected = embedding.scatter_add(tokens, dy.astype(np.float64), 11)
    assert_close(pullback(dy), {"weight": expected}, TOLERANCE[dtype])


def test_embedding_of_lists():
    layer = Embedding(11, 19, seed=0)
    np.testing.assert_array_equal(layer([[3, 1], [4, 1]]), layer.parameters["weight"][[[3, 1], [4, 1]]])
    np.testing.assert_array_equal(layer(3), layer.parameters["weight"][3], strict=True)


def test_embedding_initial_values():
    weight = Embedding(100, 300, seed=0, dtype="float64").parameters["weight"]
    assert weight.std() == pytest.approx(1, rel=0.02)
    assert abs(weight.mean()) < 0.02


# What both have in common


@pytest.mark.parametrize("layer", [Linear(9, 19, seed=0), Embedding(11, 19, seed=0)], ids=["linear", "embedding"])
def test_pullbacks(layer):
    """Repeated, interleaved, into given gradients; arguments and results are nobody else's memory."""
    inputs = [
        normal(7, 9, seed=s, dtype="float32") if isinstance(layer, Linear) else tokens_of(7, 11, s) for s in (0, 1)
    ]
    cotangents = [normal(7, 19, seed=s, dtype="float32") for s in (2, 3)]
    before = [a.copy() for a in (*inputs, *cotangents, layer.parameters.flat)]
    calls = [layer.vjp(x) for x in inputs]
    given = layer.parameters.empty_like()
    given.flat.fill(np.nan)

    def gradients(i, *grads):
        result = calls[i][1](cotangents[i], *grads)
        return [*result[:-1], result[-1].flat] if isinstance(result, tuple) else [result.flat]

    first = gradients(0)
    again = gradients(1), gradients(0), gradients(0, given)
    for result in again[1:]:
        for a, b in zip(result, first, strict=True):
            np.testing.assert_array_equal(a, b)
    assert again[2][-1] is given.flat
    for a, b in zip((*inputs, *cotangents, layer.parameters.flat), before, strict=True):
        np.testing.assert_array_equal(a, b)
    arrays = [*inputs, *cotangents, layer.parameters.flat, *(y for y, _ in calls), *first, *again[0], *again[1]]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])


@pytest.mark.parametrize("order", ["F", "reversed", "read_only", ">"])
def test_memory_layouts(order):
    layer, x, dy = Linear(9, 19, seed=0), normal(7, 9, dtype="float32"), normal(7, 19, dtype="float32")

    def arranged(a):
        if order == "reversed":
            return a[::-1].copy()[::-1]
        a = a.astype(a.dtype.newbyteorder(">")) if order == ">" else np.array(a, order="F" if order == "F" else "C")
        a.flags.writeable = order != "read_only"
        return a

    y, pullback = layer.vjp(x)
    dx, grads = pullback(dy)
    got_y, got_pullback = layer.vjp(arranged(x))
    got_dx, got_grads = got_pullback(arranged(dy))
    for got, expected in [(got_y, y), (got_dx, dx), (got_grads.flat, grads.flat)]:
        np.testing.assert_array_equal(got, expected, strict=True)


# Dropout


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_keeps_the_mean(dtype):
    x = np.ones((400, 250), dtype)
    y, _ = Dropout(0.3, seed=0).vjp(x)
    np.testing.assert_array_equal(np.unique(y), np.array([0, 1 / 0.7], dtype), strict=True)
    kept = (y != 0).mean()
    assert abs(kept - 0.7) < 4 * (0.3 * 0.7 / x.size) ** 0.5
    assert all(abs((y != 0).mean(axis) - 0.7).max() < 0.2 for axis in (0, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_gradients_use_the_mask(dtype):
    x, dy = normal(20, 30, dtype=dtype), normal(20, 30, seed=1, dtype=dtype)
    y, pullback = Dropout(0.5, seed=0).vjp(x)
    np.testing.assert_array_equal(y, np.where(y == 0, 0, 2 * x), strict=True)
    for _ in range(2):
        np.testing.assert_array_equal(pullback(dy), np.where(y == 0, 0, 2 * dy), strict=True)


def test_dropout_masks_are_new_and_seeded():
    x = np.ones((20, 30), np.float32)
    one, same, other = Dropout(seed=0), Dropout(seed=0), Dropout(seed=1)
    first, second = one.vjp(x)[0], one.vjp(x)[0]
    np.testing.assert_array_equal(same.vjp(x)[0], first)
    np.testing.assert_array_equal(same.vjp(x)[0], second)
    for different in (second, other.vjp(x)[0]):
        assert 0.4 < (different != first).mean() < 0.6


@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_dropout_is_off_in_inference(p):
    x = normal(3, 4)
    assert Dropout(p, seed=0)(x) is x


def test_dropout_of_everything_and_nothing():
    x, dy = normal(3, 4), normal(3, 4, seed=1)
    y, pullback = Dropout(1).vjp(x)
    assert not y.any()
    assert not pullback(dy).any()
    y, pullback = Dropout(0).vjp(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(pullback(dy), dy)


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_dropout_of_any_shape(shape):
    y, pullback = Dropout(0.5, seed=0).vjp(np.ones(shape))
    assert np.shape(y) == np.shape(pullback(np.ones(shape))) == shape


# Loss


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leading", [shape for shape in LEADING if 0 not in shape], ids=str)
@pytest.mark.parametrize("V", [1, 2, 65])
def test_cross_entropy(V, leading, dtype):
    logits, targets = 3 * normal(*leading, V, dtype=dtype), tokens_of(leading, V)
    value, pullback = cross_entropy(logits, targets)
    expected, d_logits = loss.softmax_cross_entropy(logits.reshape(-1, V).astype(np.float64), targets.reshape(-1))
    assert type(value) is float
    assert value == pytest.approx(expected, rel=TOLERANCE[dtype], abs=1e-15)
    got = pullback()
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got, d_logits.reshape(logits.shape), rtol=0, atol=TOLERANCE[dtype] / max(targets.size, 1)
    )
    np.testing.assert_array_equal(pullback(-2.0), -2 * got)


def test_cross_entropy_of_a_uniform_guess_is_the_entropy():
    assert cross_entropy(np.full((5, 3, 65), 7.0), tokens_of((5, 3), 65))[0] == pytest.approx(np.log(65), rel=1e-15)


@pytest.mark.parametrize("leading", [(0,), (3, 0), (0, 4)], ids=str)
def test_cross_entropy_of_nothing_is_zero(leading):
    value, pullback = cross_entropy(np.zeros((*leading, 5)), np.zeros(leading, int))
    assert value == 0
    assert pullback().shape == (*leading, 5)


def test_cross_entropy_leaves_the_logits_alone():
    logits, targets = normal(7, 5), tokens_of(7, 5)
    before = logits.copy(), targets.copy()
    d_logits = cross_entropy(logits, targets)[1]()
    assert not np.shares_memory(d_logits, logits)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(targets, before[1])
