"""The time loop: values and every gradient, bits for any cut and any neighbours, sequences that end early."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from cases import DTYPES, RECURRENT, SERIAL, TOLERANCE, check, elman_cell, ragged, recurrent, reference_recurrent, wide
from numerics import assert_close, relative_error, rounding_budget

from fastrnn import functional, memory, threads

SIZES = [
    (1, 1, 1, 1), (2, 1, 3, 15), (1, 2, 15, 3), (2, 7, 16, 17), (17, 2, 17, 16), (2, 33, 31, 33), (17, 7, 33, 31),
    (17, 33, 1, 36), (17, 1, 36, 64), (2, 7, 64, 1), (3, 100, 5, 20), (40, 3, 5, 20),
]  # fmt: skip
EMPTY = [(0, 3, 2, 5), (3, 0, 2, 5), (0, 0, 2, 5)]
PLANS = [(2, 1), (1, 2), (3, 1), (1, 3), (5, 1), (1, 5), (2, 2), (3, 2)]
COUNTS = [(5, 5, 5, 5), (5, 4, 2, 1), (5, 5, 1, 0), (3, 0, 0, 0), (0, 0, 0, 0), (5,), (5, 5, 4, 4, 4, 1)]
CELLS = ("tanh", "relu")

by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_cell = pytest.mark.parametrize("cell", CELLS)
by_case = pytest.mark.parametrize("name", RECURRENT)


def sizes_of(name, T, B, I, H):
    """The sizes of a case: a table has 11 rows more than it is wide."""
    return (T, B, I, H, I + 11) if "table" in name else (T, B, I, H)


def force(monkeypatch, row_shards, unit_shards, stretch=None):
    """Cut every time loop in this way."""

    def plan(T, *rest):
        return threads.Plan(row_shards, unit_shards, stretch or (max(T, 1) if unit_shards == 1 else 1))

    monkeypatch.setattr(threads, "for_sequence", plan)


def assert_same_bits(got, expected):
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


@by_dtype
@by_case
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(name, sizes, dtype):
    check(RECURRENT[name], sizes_of(name, *sizes), dtype)


@by_dtype
@by_case
@pytest.mark.parametrize("sizes", EMPTY, ids=str)
def test_empty_sequences(name, sizes, dtype):
    check(RECURRENT[name], sizes_of(name, *sizes), dtype)


@by_dtype
@by_cell
def test_inputs_of_size_0(cell, dtype):
    check(RECURRENT[f"recurrent {cell} x"], (3, 2, 0, 5), dtype)


@by_dtype
@by_case
@hypothesis.given(
    T=st.integers(1, 20), B=st.integers(1, 40), I=st.integers(1, 70), H=st.integers(1, 70), seed=st.integers(0, 2**32)
)
@hypothesis.settings(max_examples=25)
def test_drawn_sizes(name, dtype, T, B, I, H, seed):
    errors = check(RECURRENT[name], sizes_of(name, T, B, I, H), dtype, seed)
    hypothesis.target(max(errors.values()))


@by_case
def test_budget_of_float32_is_not_rotten(name):
    """The largest error of each tensor over some sizes uses a real part of what it is allowed."""
    largest = {}
    for seed in range(4):
        for tensor, part in check(RECURRENT[name], sizes_of(name, 17, 7, 33, 31), "float32", seed).items():
            largest[tensor] = max(largest.get(tensor, 0), part)
    assert all(0.01 < part <= 1 for part in largest.values()), largest


@by_dtype
@by_cell
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_bits_do_not_depend_on_the_plan(cell, plan, dtype, monkeypatch):
    """Shards may be more than threads, rows or blocks of units."""
    for sizes in ((5, 1, 20, 33), (5, 4, 20, 33), (30, 33, 20, 70)):
        case = RECURRENT[f"recurrent {cell} x"]
        inputs = case.draw(sizes, dtype)
        force(monkeypatch, 1, 1)
        expected = case.compiled(**inputs)
        force(monkeypatch, *plan)
        assert_same_bits(case.compiled(**inputs), expected)


@by_dtype
@pytest.mark.parametrize("name", ["recurrent tanh tokens", "recurrent tanh table"])
@pytest.mark.parametrize("plan", [(2, 1), (1, 2), (3, 2)], ids=str)
def test_bits_of_tokens_do_not_depend_on_the_plan(name, plan, dtype, monkeypatch):
    case = RECURRENT[name]
    inputs = case.draw(sizes_of(name, 9, 5, 21, 37), dtype)
    force(monkeypatch, 1, 1)
    expected = case.compiled(**inputs)
    force(monkeypatch, *plan)
    for count in (1, 2):
        monkeypatch.setattr(threads, "for_work", lambda flops, count=count: count)
        monkeypatch.setattr(threads, "for_bytes", lambda size, count=count: count)
        assert_same_bits(case.compiled(**inputs), expected)


@by_dtype
@pytest.mark.parametrize("stretch", [1, 2, 7])
def test_bits_do_not_depend_on_the_stretch(stretch, dtype, monkeypatch):
    case = RECURRENT["recurrent tanh x"]
    inputs = case.draw((10, 5, 20, 33), dtype)
    expected = case.compiled(**inputs)
    for row_shards in (1, 2):
        force(monkeypatch, row_shards, 1, stretch)
        assert_same_bits(case.compiled(**inputs), expected)


@by_dtype
@by_cell
def test_a_row_does_not_know_its_neighbours(cell, dtype):
    """A row in a batch, alone, beside other rows, and beside NaN: the same bits."""
    tag, _ = elman_cell(cell)
    T, B, I, H = 9, 14, 19, 37
    inputs = RECURRENT[f"recurrent {cell} x"].draw((T, B, I, H), dtype)
    rows = ("x", "initial", "dy", "d_final")
    whole = recurrent(tag, **inputs)
    for some in ([0], [13], [6], [3, 4], [13, 2, 6, 0, 7], list(range(13))):
        picked = inputs | {name: np.ascontiguousarray(inputs[name][:, some]) for name in rows}
        part = recurrent(tag, **picked)
        for name in ("y", "final", "dx", "d_initial"):
            np.testing.assert_array_equal(part[name], whole[name][:, some], err_msg=name)
    poisoned = inputs | {name: inputs[name].copy() for name in rows}
    for name in rows:
        poisoned[name][:, 5] = np.nan
    spoiled = recurrent(tag, **poisoned)
    others = [b for b in range(B) if b != 5]
    for name in ("y", "final", "dx", "d_initial"):
        np.testing.assert_array_equal(spoiled[name][:, others], whole[name][:, others], err_msg=name)
    assert np.isnan(spoiled["y"][:, 5]).all()


@by_dtype
@by_cell
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_time_in_two_parts(cell, cut, dtype):
    """The state carries everything, and so does its gradient."""
    tag, _ = elman_cell(cell)
    inputs = RECURRENT[f"recurrent {cell} x"].draw((9, 5, 19, 37), dtype)
    whole = recurrent(tag, **inputs)
    first = inputs | {"x": inputs["x"][:cut], "dy": inputs["dy"][:cut]}
    state = recurrent(tag, **first)["final"]
    second = recurrent(tag, **inputs | {"x": inputs["x"][cut:], "dy": inputs["dy"][cut:], "initial": state})
    first = recurrent(tag, **first | {"d_final": second["d_initial"]})
    for name in ("y", "dx"):
        np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), whole[name], err_msg=name)
    np.testing.assert_array_equal(second["final"], whole["final"])
    np.testing.assert_array_equal(first["d_initial"], whole["d_initial"])
    for name in ("d_W_ih", "d_W_hh", "d_bias"):
        assert relative_error(first[name] + second[name], whole[name]) < 30 * np.finfo(dtype).eps, name


@by_dtype
def test_small_integers_are_exact(dtype):
    """relu, weights of -1, 0, 1 and small inputs: no sum is rounded, so float32 equals the reference to the bit."""
    rng = np.random.default_rng(0)
    tag, Cell = elman_cell("relu")
    for T, B, I, H in ((4, 7, 5, 33), (3, 33, 20, 17), (2, 1, 64, 64)):
        shapes = {"x": (T, B, I), "initial": (1, B, H), "W_ih": (H, I), "W_hh": (H, H), "bias": (H,)}
        shapes |= {"dy": (T, B, H), "d_final": (1, B, H)}
        inputs = {name: rng.integers(-1, 2, shape).astype(dtype) for name, shape in shapes.items()}
        expected = reference_recurrent(Cell, **wide(inputs))
        assert max(np.abs(v).max() for v in expected.values()) < 2**24
        assert_same_bits(recurrent(tag, **inputs), expected)


@by_dtype
@by_cell
def test_without_recurrent_weights_steps_are_apart(cell, dtype):
    tag, _ = elman_cell(cell)
    inputs = RECURRENT[f"recurrent {cell} x"].draw((6, 5, 19, 37), dtype)
    inputs["W_hh"][:] = 0
    whole = recurrent(tag, **inputs)
    as_batch = {name: inputs[name].reshape(1, 30, -1) for name in ("x", "dy")}
    no_state = np.zeros((1, 30, 37), dtype)
    one_step = recurrent(tag, **inputs | as_batch | {"initial": no_state, "d_final": no_state})
    np.testing.assert_array_equal(one_step["y"].reshape(6, 5, -1), whole["y"])
    np.testing.assert_array_equal(one_step["dx"].reshape(6, 5, -1)[:-1], whole["dx"][:-1])
    np.testing.assert_array_equal(whole["d_initial"], 0)


@by_dtype
def test_no_cotangent_of_the_outputs(dtype):
    """dy = None means zeros, to the bit."""
    tag, _ = elman_cell("tanh")
    inputs = RECURRENT["recurrent tanh x"].draw((6, 5, 19, 37), dtype)
    zeros = recurrent(tag, **inputs | {"dy": np.zeros_like(inputs["dy"])})
    assert_same_bits(recurrent(tag, **inputs | {"dy": None}), zeros)


@by_dtype
def test_saturated_units_have_no_gradient(dtype):
    tag, _ = elman_cell("tanh")
    inputs = RECURRENT["recurrent tanh x"].draw((6, 5, 19, 37), dtype)
    inputs["x"] *= 1e6
    got = recurrent(tag, **inputs)
    assert set(np.unique(got["y"])) == {-1, 1}
    for name in ("dx", "d_initial", "d_W_ih", "d_W_hh", "d_bias"):
        np.testing.assert_array_equal(got[name], 0, err_msg=name)


@by_dtype
@pytest.mark.real_memory
def test_memory_used_again_changes_no_bit(dtype):
    """Calls of growing, shrinking and nested sizes share scratch; each gives what it gives with memory of its own."""
    tag, _ = elman_cell("tanh")
    case = RECURRENT["recurrent tanh x"]
    calls = [case.draw(sizes, dtype) for sizes in ((5, 3, 4, 20), (20, 9, 40, 70), (2, 1, 4, 20), (5, 3, 4, 20))]
    alone = []
    for inputs in calls:
        vars(memory._kept).clear()
        alone.append(recurrent(tag, **inputs))
    for inputs, expected in zip(calls, alone, strict=True):
        assert_same_bits(recurrent(tag, **inputs), expected)
    names = ("x", "initial", "W_ih", "W_hh", "bias")
    forward = [functional.recurrent(tag, *(inputs[name] for name in names)) for inputs in calls]
    for (y, final, pullback), inputs, expected in zip(forward, calls, alone, strict=True):
        gradients = [np.empty_like(inputs[name]) for name in ("W_ih", "W_hh", "bias")]
        dx, d_initial = pullback(inputs["dy"], inputs["d_final"], *gradients)
        got = {"y": y, "final": final, "dx": dx, "d_initial": d_initial}
        got |= dict(zip(("d_W_ih", "d_W_hh", "d_bias"), gradients, strict=True))
        assert_same_bits(got, expected)


def check_ragged(cell, count, sizes, dtype, plan=SERIAL, seed=0):
    """The ragged kernels against the reference, whose dx is dz where W_ih is the identity."""
    tag, Cell = elman_cell(cell)
    B, H = sizes
    inputs = RECURRENT[f"recurrent {cell} x"].draw((len(count), B, H, H), dtype, seed)
    inputs["W_ih"][:] = np.eye(H)
    lengths = (np.arange(B) < np.asarray(count)[:, None]).sum(0)
    got = ragged(tag, **inputs, count=count, plan=plan)

    def reference(**inputs):
        result = reference_recurrent(Cell, **inputs, lengths=lengths)
        return {"dz": result["dx"], **{name: result[name] for name in ("y", "final", "d_initial")}}

    expected = reference(**wide(inputs))
    budget = rounding_budget(reference, wide(inputs), np.dtype(dtype)) if dtype == "float32" else {}
    for name in expected:
        assert_close({name: got[name]}, {name: expected[name]}, budget.get(name, TOLERANCE))
    ended = lengths == 0
    np.testing.assert_array_equal(got["final"][:, ended], inputs["initial"][:, ended])
    np.testing.assert_array_equal(got["d_initial"][:, ended], inputs["d_final"][:, ended])
    return got


@by_dtype
@by_cell
@pytest.mark.parametrize("count", COUNTS, ids=str)
def test_sequences_that_end_early(cell, count, dtype):
    for H in (1, 20, 33):
        check_ragged(cell, count, (5, H), dtype)


@by_dtype
@hypothesis.given(
    count=st.lists(st.integers(0, 37), min_size=1, max_size=20), H=st.integers(1, 50), seed=st.integers(0, 2**32)
)
@hypothesis.settings(max_examples=30)
def test_drawn_lengths(dtype, count, H, seed):
    check_ragged("tanh", sorted(count, reverse=True), (37, H), dtype, seed=seed)


@by_dtype
@pytest.mark.parametrize("plan", [(2, 1, 30), (2, 1, 1), (3, 1, 4), (1, 2, 1), (5, 3, 1)], ids=str)
def test_bits_of_ragged_sequences_do_not_depend_on_the_plan(plan, dtype):
    count = [11, 11, 9, 6, 6, 5, 3, 3, 3, 1, 0, 0]
    expected = check_ragged("tanh", count, (11, 50), dtype)
    assert_same_bits(check_ragged("tanh", count, (11, 50), dtype, threads.Plan(*plan)), expected)


@by_dtype
def test_bits_of_a_ragged_row_are_its_own(dtype):
    """A row beside rows of other lengths equals the row alone."""
    tag, _ = elman_cell("tanh")
    count = [11, 11, 9, 6, 6, 5, 3, 3, 3, 1]
    inputs = RECURRENT["recurrent tanh x"].draw((10, 11, 20, 33), dtype)
    together = ragged(tag, **inputs, count=count)
    lengths = (np.arange(11) < np.asarray(count)[:, None]).sum(0)
    for row in (0, 1, 4, 8, 10):
        n = lengths[row]
        alone = {name: np.ascontiguousarray(inputs[name][:n, row : row + 1]) for name in ("x", "dy")}
        alone |= {name: np.ascontiguousarray(inputs[name][:, row : row + 1]) for name in ("initial", "d_final")}
        got = ragged(tag, **inputs | alone, count=[1] * n)
        for name, part in got.items():
            steps = n if name in ("y", "dz") else 1
            np.testing.assert_array_equal(part, together[name][:steps, row : row + 1], err_msg=name)
