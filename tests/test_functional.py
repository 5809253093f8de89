"""Operations on arrays: pullbacks that may be called again, tokens that stand for rows, losses taken block by block."""

import tracemalloc

import numpy as np
import pytest
from cases import (
    CROSS_ENTROPY,
    DTYPES,
    EMBEDDING,
    LINEAR_CROSS_ENTROPY,
    RECURRENT,
    check,
    elman_cell,
    recurrent,
)
from numerics import assert_close, relative_error

from fastrnn import functional

SIZES = {
    "T, B, I, H": (7, 5, 9, 19),
    "T, B, I, H, V": (7, 5, 9, 19, 11),
    "N, I, O": (35, 9, 19),
    "N, V, D": (35, 11, 19),
    "N, V": (35, 11),
    "N, H, V": (35, 9, 19),
}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name, strict=True)


def draw(name, dtype="float32", **changes):
    """The inputs of a recurrent case, with other values for some."""
    case = RECURRENT[name]
    return case.draw(SIZES[case.letters], dtype) | changes


def linear_cross_entropy(x, weight, bias, targets, scale=1.0):
    d_weight, d_bias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    loss, dx = functional.linear_cross_entropy(x, weight, bias, targets, (d_weight, d_bias), scale)
    return {"loss": np.float64(loss), "dx": dx, "d_weight": d_weight, "d_bias": d_bias}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_tokens_stand_for_one_hot_rows(cell, dtype):
    inputs, (tag, _) = draw(f"recurrent {cell} tokens", dtype), elman_cell(cell)
    got = recurrent(tag, **inputs)
    expected = recurrent(tag, **inputs | {"x": np.eye(9, dtype=dtype)[inputs["x"]]})
    for name in ("y", "final", "d_initial", "d_W_hh", "d_bias"):
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    assert relative_error(got["d_W_ih"], expected["d_W_ih"]) < 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_tokens_with_a_table_stand_for_its_rows(cell, dtype):
    inputs, (tag, _) = draw(f"recurrent {cell} table", dtype), elman_cell(cell)
    got = recurrent(tag, **inputs)
    table = inputs.pop("w_table")
    expected = recurrent(tag, **inputs | {"x": table[inputs["x"]]})
    for name in ("y", "final", "d_initial", "d_W_hh", "d_bias"):
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    d_table = np.zeros_like(table)
    np.add.at(d_table, inputs["x"], expected["dx"])
    for name, value in {"d_W_ih": expected["d_W_ih"], "d_table": d_table}.items():
        assert relative_error(got[name], value) < 32 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", RECURRENT)
def test_rows_of_tokens_that_never_occur_get_no_gradient(name):
    inputs = draw(name)
    if inputs["x"].dtype.kind == "f":
        inputs["x"][..., 3] = 0
        got = recurrent(elman_cell(name)[0], **inputs)["d_W_ih"][:, 3]
    else:
        inputs["x"][inputs["x"] == 3] = 4
        result = recurrent(elman_cell(name)[0], **inputs)
        got = result["d_table"][3] if "w_table" in inputs else result["d_W_ih"][:, 3]
    assert not got.any()


@pytest.mark.real_memory
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_pullbacks_may_be_repeated_and_interleaved(name):
    tag = elman_cell(name)[0]
    draws = [draw(name), draw(name, x=draw(name)["x"][::-1].copy())]
    calls = []
    for inputs in draws:
        given = dict(inputs)
        dy, d_final, table = given.pop("dy"), given.pop("d_final"), given.pop("w_table", None)
        y, final, pullback = functional.recurrent(tag, table=table, **given)
        calls.append((y, final, pullback, dy, d_final, inputs))
    for y, final, pullback, dy, d_final, inputs in [*calls, *calls]:
        outs = {f"d_{n}": np.full_like(inputs[n], np.nan) for n in ("W_ih", "W_hh", "bias", "w_table") if n in inputs}
        dx, d_initial = pullback(dy, d_final, *outs.values())
        got = {"y": y, "final": final, "d_initial": d_initial, **outs} | ({} if dx is None else {"dx": dx})
        if "d_w_table" in got:
            got["d_table"] = got.pop("d_w_table")
        assert_same(got, recurrent(tag, **inputs))


@pytest.mark.parametrize("name", RECURRENT)
def test_no_cotangent_is_zeros(name):
    inputs, tag = draw(name), elman_cell(name)[0]
    assert_same(recurrent(tag, **inputs | {"dy": None}), recurrent(tag, **inputs | {"dy": 0 * inputs["dy"]}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize(("T", "B"), [(0, 5), (7, 0), (0, 0)])
def test_recurrent_of_nothing(T, B, name, dtype):
    case = RECURRENT[name]
    check(case, (T, B, *SIZES[case.letters][2:]), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (17, 2), (5, 17), (64, 65), (3, 3000)], ids=str)
def test_cross_entropy(sizes, dtype):
    check(CROSS_ENTROPY, sizes, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(0, 5, 3), (1, 1, 1), (17, 5, 3), (40, 3, 33), (64, 7, 16)], ids=str)
def test_embedding(sizes, dtype):
    check(EMBEDDING, sizes, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 7, 1), (17, 1, 2), (50, 31, 65), (37, 16, 3000)], ids=str)
def test_linear_cross_entropy(sizes, dtype):
    check(LINEAR_CROSS_ENTROPY, sizes, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 16, 34, 35, 36])
def test_blocks_of_rows_give_the_same_loss_and_gradients(rows, dtype, monkeypatch):
    inputs = LINEAR_CROSS_ENTROPY.draw((35, 9, 19), dtype)
    whole = linear_cross_entropy(**inputs)
    monkeypatch.setattr(functional, "_LOGITS_BYTES", 0)
    monkeypatch.setattr(functional, "_LEAST_ROWS", rows)
    got = linear_cross_entropy(**inputs)
    np.testing.assert_array_equal(got["dx"], whole["dx"])
    assert_close(got, whole, 16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_cross_entropy_is_the_composition(dtype):
    inputs = LINEAR_CROSS_ENTROPY.draw((35, 9, 19), dtype)
    logits, linear_pullback = functional.linear(inputs["x"], inputs["weight"], inputs["bias"])
    loss, loss_pullback = functional.cross_entropy(logits, inputs["targets"])
    expected = {"loss": np.float64(loss), "d_weight": np.empty_like(inputs["weight"]), "d_bias": np.empty(19, dtype)}
    expected["dx"] = linear_pullback(loss_pullback(1.0), expected["d_weight"], expected["d_bias"])
    got = linear_cross_entropy(**inputs)
    assert_close({name: got[name] for name in expected}, expected, 16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [0.0, -2.0, 25.0])
def test_scale_is_a_factor_of_the_gradients_alone(scale):
    inputs = LINEAR_CROSS_ENTROPY.draw((35, 9, 19), "float64")
    got, expected = linear_cross_entropy(**inputs, scale=scale), linear_cross_entropy(**inputs)
    assert got.pop("loss") == expected.pop("loss")
    assert_close(got, {name: scale * value for name, value in expected.items()}, 1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_cross_entropy_of_nothing(dtype):
    got = linear_cross_entropy(**LINEAR_CROSS_ENTROPY.draw((0, 9, 19), dtype))
    assert got["loss"] == 0
    assert got["dx"].shape == (0, 9)
    assert not got["d_weight"].any()
    assert not got["d_bias"].any()


@pytest.mark.real_memory
def test_logits_never_exist_as_a_whole():
    N, V = 60_000, 1000
    inputs = LINEAR_CROSS_ENTROPY.draw((N, 4, V), "float32")
    linear_cross_entropy(**{name: value[:100] if name in ("x", "targets") else value for name, value in inputs.items()})
    tracemalloc.start()
    linear_cross_entropy(**inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * N * V * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_far_apart(dtype):
    huge = np.finfo(dtype).max / 4
    logits = np.array([[huge, -huge, 0], [0, 0, -np.inf], [-np.inf, 5, -np.inf], [1e4, 1e4, -1e4]], dtype)
    loss, pullback = functional.cross_entropy(logits, np.array([0, 1, 1, 0]))
    assert loss == pytest.approx(np.log(2) / 2, rel=4 * float(np.finfo(dtype).eps))
    expected = [[0, 0, 0], [0.5, -0.5, 0], [0, 0, 0], [-0.5, 0.5, 0]]
    np.testing.assert_allclose(pullback(4.0), expected, rtol=4 * np.finfo(dtype).eps)
    assert functional.cross_entropy(logits[1:2], np.array([2]))[0] == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_row_of_logits(dtype):
    logits, targets = CROSS_ENTROPY.draw((9, 20), dtype).values()
    clean = functional.cross_entropy(logits, targets)[1](1.0)
    logits[4, 17] = np.nan
    loss, pullback = functional.cross_entropy(logits, targets)
    assert np.isnan(loss)
    got = pullback(1.0)
    assert np.isnan(got[4]).all()
    np.testing.assert_array_equal(np.delete(got, 4, 0), np.delete(clean, 4, 0))


def test_gradients_of_logits_sum_to_zero_and_scale_with_the_cotangent():
    logits, targets = CROSS_ENTROPY.draw((35, 11), "float64").values()
    _, pullback = functional.cross_entropy(logits, targets)
    np.testing.assert_allclose(pullback(1.0).sum(1), 0, atol=1e-17)
    np.testing.assert_array_equal(pullback(-2.0), -2 * pullback(1.0))
    assert not pullback(0.0).any()
