"""Operations on arrays: what tokens stand for, pullbacks called again, and the loss that never holds all logits."""

import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, LINEAR_CROSS_ENTROPY, RECURRENT, SOURCES, by_name, recurrent, steps_of, take
from cells import CELLS
from numerics import assert_close, relative_error

from fastrnn import functional, ragged
from fastrnn.functional import Weights, recurrence, weights
from fastrnn.kernels import recurrent as kernels
from fastrnn.kernels import step

T, B, I, H, V = 7, 5, 9, 19, 11
OPTIONS = [{}, {"lengths": (7, 7, 4, 2, 0), "reverse": True}]


def draw(name, dtype="float32", **changes):
    """The inputs of a recurrent case, with other values for some."""
    sizes = (T, B, I, H, V) if "table" in name else (T, B, I, H)
    return RECURRENT[name].draw(sizes, dtype) | changes


def linear_cross_entropy(x, weight, bias, targets):
    d_weight, d_bias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    loss, dx = functional.linear_cross_entropy(x, weight, bias, targets, (d_weight, d_bias))
    return {"loss": np.float64(loss), "dx": dx, "d_weight": d_weight, "d_bias": d_bias}


def assert_same_but(got, expected, *others):
    """The same bits of all that `got` names, but for the others."""
    for name in got.keys() - set(others):
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", SOURCES["tokens"])
@pytest.mark.parametrize("options", OPTIONS, ids=["dense", "ragged"])
def test_tokens_stand_for_one_hot_rows(cell, options, dtype):
    inputs = draw(f"recurrent {cell} tokens", dtype) | options
    got = recurrent(CELLS[cell], **inputs)
    expected = recurrent(CELLS[cell], **inputs | {"x": np.eye(I, dtype=dtype)[inputs["x"]]})
    assert_same_but(got, expected, "d_W_ih")
    assert relative_error(got["d_W_ih"], expected["d_W_ih"]) < 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", SOURCES["table"])
@pytest.mark.parametrize("options", OPTIONS, ids=["dense", "ragged"])
def test_tokens_with_a_table_stand_for_its_rows(cell, options, dtype):
    inputs = draw(f"recurrent {cell} table", dtype) | options
    got = recurrent(CELLS[cell], **inputs)
    table = inputs.pop("w_table")
    expected = recurrent(CELLS[cell], **inputs | {"x": table[inputs["x"]]})
    assert_same_but(got, expected, "d_W_ih", "d_table")
    d_table = np.zeros_like(table)
    np.add.at(d_table, inputs["x"], expected["dx"])
    for name, value in {"d_W_ih": expected["d_W_ih"], "d_table": d_table}.items():
        assert relative_error(got[name], value) < 32 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@by_name(CELLS, "cell")
def test_no_biases_are_zeros(cell, dtype):
    inputs = draw(f"recurrent {cell} x", dtype)
    for name in ("b_ih", "b_hh"):
        inputs[name][:] = 0
    expected = recurrent(CELLS[cell], **inputs)
    assert_same_but(recurrent(CELLS[cell], **inputs | {"b_ih": None, "b_hh": None}), expected)


@by_name(RECURRENT)
def test_rows_of_tokens_that_never_occur_get_no_gradient(name):
    inputs = draw(name)
    if inputs["x"].dtype.kind == "f":
        inputs["x"][..., 3] = 0
        got = RECURRENT[name].compiled(**inputs)["d_W_ih"][:, 3]
    else:
        inputs["x"][inputs["x"] == 3] = 4
        result = RECURRENT[name].compiled(**inputs)
        got = result["d_table"][3] if "w_table" in inputs else result["d_W_ih"][:, 3]
    assert not got.any()


@pytest.mark.real_memory
@pytest.mark.parametrize("options", OPTIONS, ids=["dense", "ragged"])
@by_name(CELLS, "cell")
def test_recurrent_pullbacks_may_be_repeated_and_interleaved(cell, options):
    own, calls = CELLS[cell], []
    for seed in range(2):
        inputs = RECURRENT[f"recurrent {cell} x"].draw((T, B, I, H), "float32", seed)
        arrays = dict(inputs)
        x, dy = arrays.pop("x"), arrays.pop("dy")
        initial, d_final = (take(arrays, form, *own.traits.states) for form in ("{}", "d_{}"))
        weights, steps, present = Weights(**arrays), *steps_of(T, B, **options)
        N = np.count_nonzero(present)
        buffer = np.empty((N + 2 * B, initial[0].shape[1]), "float32")
        calls.append(
            (
                functional.recurrent(own.tag, x[present], initial, weights, steps, buffer)[1],
                dy[present],
                d_final,
                weights,
                own.traits.states,
                recurrent(own, **inputs, **options),
                present,
            )
        )
    for pullback, dy, d_final, weights, states, expected, present in [*calls, *calls]:
        gradients = Weights(*(None if w is None else np.full_like(w, np.nan) for w in weights))
        dx, d_initial = pullback(dy, d_final, gradients)
        got = {f"d_{name}": gradient for name, gradient in gradients._asdict().items() if gradient is not None}
        got |= {f"d_{state}": d for state, d in zip(states, d_initial, strict=True)}
        assert_same_but(got, expected)
        np.testing.assert_array_equal(dx, expected["dx"][present])


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


def test_arguments_that_are_made_once_are_named_as_the_kernels_name_them():
    """They are spread by their places."""
    prepared = [weights.Arguments, ragged.Rows, recurrence._Places, recurrence._Read]
    names = tuple([name for group in prepared for name in group._fields])
    assert kernels.recurrent_forward.names[: len(names)] == names
    names += recurrence._Gradients._fields
    assert kernels.recurrent_backward.names[: len(names)] == names
    assert step.pack_step.names[: len(weights.Arguments._fields)] == weights.Arguments._fields
