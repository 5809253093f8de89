"""Operations on arrays: what tokens stand for, pullbacks called again, and the loss that never holds all logits."""

import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, LINEAR_CROSS_ENTROPY, RECURRENT, elman_cell, recurrent
from numerics import assert_close, relative_error
from oracles import assert_same

from fastrnn import functional

T, B, I, H, V = 7, 5, 9, 19, 11


def draw(name, dtype="float32", **changes):
    """The inputs of a recurrent case, with other values for some."""
    sizes = (T, B, I, H, V) if "table" in name else (T, B, I, H)
    return RECURRENT[name].draw(sizes, dtype) | changes


def linear_cross_entropy(x, weight, bias, targets):
    d_weight, d_bias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    loss, dx = functional.linear_cross_entropy(x, weight, bias, targets, (d_weight, d_bias))
    return {"loss": np.float64(loss), "dx": dx, "d_weight": d_weight, "d_bias": d_bias}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_tokens_stand_for_one_hot_rows(cell, dtype):
    inputs, (tag, _) = draw(f"recurrent {cell} tokens", dtype), elman_cell(cell)
    got = recurrent(tag, **inputs)
    expected = recurrent(tag, **inputs | {"x": np.eye(I, dtype=dtype)[inputs["x"]]})
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


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_cross_entropy_is_the_composition(dtype):
    inputs = LINEAR_CROSS_ENTROPY.draw((35, 9, 19), dtype)
    logits, linear_pullback = functional.linear(inputs["x"], inputs["weight"], inputs["bias"])
    loss, loss_pullback = functional.cross_entropy(logits, inputs["targets"])
    expected = {"loss": np.float64(loss), "d_weight": np.empty_like(inputs["weight"]), "d_bias": np.empty(19, dtype)}
    expected["dx"] = linear_pullback(loss_pullback(1.0), expected["d_weight"], expected["d_bias"])
    got = linear_cross_entropy(**inputs)
    assert_close({name: got[name] for name in expected}, expected, 16 * np.finfo(dtype).eps)


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
