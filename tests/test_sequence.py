"""The time loop: values and every gradient, bits for any cut and any neighbours, in reverse and of unequal lengths."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from cases import DTYPES, RECURRENT, by_name, check, recurrent, reference_recurrent, steps_of, take, wide
from cells import CELLS
from numerics import relative_error

from fastrnn import functional, memory, threads
from fastrnn.functional import Weights
from fastrnn.kernels.inputs import chunk_end, chunk_rows

SIZES = [
    (1, 1, 1, 1), (2, 1, 3, 15), (1, 2, 15, 3), (2, 7, 16, 17), (17, 2, 17, 16), (2, 33, 31, 33), (17, 7, 33, 31),
    (17, 33, 1, 36), (17, 1, 36, 64), (2, 7, 64, 1), (3, 100, 5, 20), (40, 3, 5, 20),
]  # fmt: skip
EMPTY = [(0, 3, 2, 5), (3, 0, 2, 5), (0, 0, 2, 5), (3, 2, 0, 5)]
PLANS = [(2, 1), (1, 2), (5, 1), (1, 3), (3, 2)]
LENGTHS = [
    (4, 4, 4, 4), (4, 3, 3, 2), (4, 2, 2, 0), (3, 0, 0), (0, 0), (5, 5, 5, 3, 3), (), (40, 37, 1), (98, 1),
    (*[4] * 50, *[3] * 30, *[1] * 20, 0),
]  # fmt: skip
# More rows than fit a chunk of the inputs, in several steps and in one.
LONG, WIDE = (*[9] * 3, *[7] * 20, *[2] * 10, 0), (*[4] * 70, *[3] * 70, *[1] * 60)

STATES = {form + state for cell in CELLS.values() for state in cell.kind.states for form in ("", "d_")}

by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_cell = pytest.mark.parametrize("cell", CELLS)
by_case = by_name(RECURRENT)
by_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])


def sizes_of(name, T, B, I, H):
    """The sizes of a case: a table has 11 rows more than it is wide."""
    return (T, B, I, H, I + 11) if "table" in name else (T, B, I, H)


def draw(cell, sizes, dtype, seed=0):
    """Inputs of a cell on numbers."""
    return RECURRENT[f"recurrent {cell} x"].draw(sizes, dtype, seed)


def pick(arrays, rows):
    """Those sequences of a batch alone, of all inputs or results that have a part for each."""
    picked = {}
    for name, value in arrays.items():
        if name in ("x", "y", "dx", "dy", "d_hs") or name.startswith("kept"):
            picked[name] = np.ascontiguousarray(value[:, rows])
        elif name in STATES or name.startswith("final"):
            picked[name] = value[rows]
    return picked


def force(monkeypatch, row_shards, unit_shards):
    """Cut every time loop in this way."""
    monkeypatch.setattr(threads, "for_sequence", lambda *work: threads.Plan(row_shards, unit_shards))


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
def test_nothing(name, sizes, dtype):
    """No steps, no sequences, inputs without columns."""
    if sizes[2] or "x" in name.split():
        check(RECURRENT[name], sizes_of(name, *sizes), dtype)


@by_dtype
@by_case
@by_direction
@pytest.mark.parametrize("lengths", [None, *LENGTHS], ids=lambda lengths: str(lengths)[:20])
def test_directions_and_lengths(name, lengths, reverse, dtype):
    """Sequences end early, together or not at all, and in reverse each starts at its own end."""
    T, B = (7, 5) if lengths is None else (max(lengths, default=0) + 1, len(lengths))
    check(RECURRENT[name], sizes_of(name, T, B, 5, 19), dtype, lengths=lengths, reverse=reverse)


@by_dtype
@by_cell
@by_direction
def test_a_sequence_without_steps_hands_its_state_on(cell, reverse, dtype):
    inputs = draw(cell, (3, 4, 5, 20), dtype)
    got = recurrent(CELLS[cell], **inputs, lengths=(3, 2, 0, 0), reverse=reverse)
    for state in CELLS[cell].traits.states:
        np.testing.assert_array_equal(got[f"final {state}"][2:], inputs[state][2:])
        np.testing.assert_array_equal(got[f"d_{state}"][2:], inputs[f"d_{state}"][2:])


def check_drawn(name, dtype, sizes, lengths, reverse, seed):
    """Errors of a case whose sequences have T steps, or as many of the lengths as they can have."""
    if lengths is not None:
        lengths = sorted(np.minimum(np.resize(lengths, sizes[1]), sizes[0]).tolist(), reverse=True)
    errors = check(RECURRENT[name], sizes_of(name, *sizes), dtype, seed, lengths=lengths, reverse=reverse)
    hypothesis.target(max(errors.values()))


with_drawn = hypothesis.given(
    sizes=st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 70), st.integers(1, 70)),
    lengths=st.none() | st.lists(st.integers(0, 20), min_size=1, max_size=40),
    reverse=st.booleans(),
    seed=st.integers(0, 2**32),
)


@by_dtype
@by_case
@with_drawn
@hypothesis.settings(max_examples=5)
def test_drawn_sizes(name, dtype, sizes, lengths, reverse, seed):
    check_drawn(name, dtype, sizes, lengths, reverse, seed)


@pytest.mark.exhaustive
@by_dtype
@by_case
@with_drawn
@hypothesis.settings(max_examples=500)
def test_many_drawn_sizes(name, dtype, sizes, lengths, reverse, seed):
    check_drawn(name, dtype, sizes, lengths, reverse, seed)


@by_case
def test_budget_of_float32_is_not_rotten(name):
    """The largest error of each tensor over some sizes uses a real part of what it is allowed."""
    largest = {}
    for seed in range(4):
        for tensor, part in check(RECURRENT[name], sizes_of(name, 17, 7, 33, 31), "float32", seed).items():
            largest[tensor] = max(largest.get(tensor, 0), part)
    assert all(0.01 < part <= 1 for part in largest.values()), largest


@by_dtype
@by_case
@by_direction
@pytest.mark.parametrize("lengths", [None, (5, 4, 4, 1, 0)], ids=["dense", "ragged"])
def test_a_limit_of_each_step(name, lengths, reverse, dtype):
    """Half of the elements meet the limit; a step's gradient goes through the cell as it was clipped."""
    inputs, limit = RECURRENT[name].draw(sizes_of(name, 5, 5, 6, 19), dtype), 0.3
    check(RECURRENT[name], sizes_of(name, 5, 5, 6, 19), dtype, lengths=lengths, reverse=reverse, limit=limit)
    found = RECURRENT[name].compiled(**inputs, lengths=lengths, reverse=reverse, limit=limit)["d_hs"]
    assert np.abs(found).max() == np.dtype(dtype).type(limit)
    assert 0.1 < np.mean(np.abs(found) == np.dtype(dtype).type(limit)) < 0.9


def test_a_limit_lets_nan_through():
    inputs = draw("lstm", (3, 2, 4, 5), "float32")
    inputs["dy"][1, 0, 2] = np.nan
    d_hs = recurrent(CELLS["lstm"], **inputs, limit=0.5)["d_hs"]
    assert np.isnan(d_hs[1, 0, 2])
    assert np.isnan(d_hs[0, 0]).all()
    assert np.isfinite(d_hs[:, 1]).all()
    assert np.isfinite(d_hs[2]).all()


@by_dtype
@by_cell
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_bits_do_not_depend_on_the_plan(cell, plan, dtype, monkeypatch):
    """Shards may be more than threads, rows or blocks of units."""
    for sizes, lengths in (((5, 1, 20, 33), None), ((5, 33, 20, 70), None), ((9, 34, 9, 37), LONG)):
        inputs = draw(cell, sizes, dtype) | {"lengths": lengths, "reverse": plan[1] == 3}
        force(monkeypatch, 1, 1)
        expected = recurrent(CELLS[cell], **inputs)
        force(monkeypatch, *plan)
        assert_same_bits(recurrent(CELLS[cell], **inputs), expected)


@by_cell
@pytest.mark.parametrize("plan", [(2, 1), (1, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("lengths", [None, WIDE], ids=["dense", "ragged"])
def test_bits_of_steps_wider_than_a_chunk(cell, plan, lengths, monkeypatch):
    inputs = draw(cell, (4, 200, 5, 20), "float32") | {"lengths": lengths}
    force(monkeypatch, 1, 1)
    expected = recurrent(CELLS[cell], **inputs)
    force(monkeypatch, *plan)
    assert_same_bits(recurrent(CELLS[cell], **inputs), expected)


@by_dtype
@pytest.mark.parametrize("name", [name for name in RECURRENT if "x" not in name.split()])
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
@by_cell
def test_a_row_does_not_know_its_neighbours(cell, dtype):
    """A row in a batch, alone, beside other rows, and beside NaN: the same bits."""
    T, B, I, H = 9, 14, 19, 37
    inputs = draw(cell, (T, B, I, H), dtype)
    whole = recurrent(CELLS[cell], **inputs)
    for rows in ([0], [13], [6], [3, 4], [13, 2, 6, 0, 7], list(range(13))):
        assert_same_bits(recurrent(CELLS[cell], **inputs | pick(inputs, rows)), pick(whole, rows))
    poisoned = {name: value.copy() for name, value in inputs.items()}
    for value in pick(poisoned, slice(None)):
        poisoned[value][(slice(None), 5) if value in ("x", "dy") else 5] = np.nan
    spoiled = recurrent(CELLS[cell], **poisoned)
    others = [b for b in range(B) if b != 5]
    assert_same_bits(pick(spoiled, others), pick(whole, others))
    assert np.isnan(spoiled["y"][:, 5]).all()


@by_dtype
@by_cell
@by_direction
def test_bits_of_a_row_beside_rows_of_other_lengths(cell, reverse, dtype):
    """A sequence in a ragged batch equals the sequence alone, without lengths."""
    lengths = (10, 10, 9, 9, 6, 3, 3, 1)
    inputs = draw(cell, (10, 8, 20, 33), dtype)
    together = recurrent(CELLS[cell], **inputs, lengths=lengths, reverse=reverse)
    for row in (0, 1, 3, 5, 7):
        n = lengths[row]
        alone = {name: v[:n] if name in ("x", "dy") else v for name, v in pick(inputs, [row]).items()}
        got = recurrent(CELLS[cell], **inputs | alone, reverse=reverse)
        expected = pick(together, [row])
        expected = {name: v[:n] if np.ndim(v) == 3 else v for name, v in expected.items()}
        assert_same_bits(got, expected)


@by_dtype
@by_cell
@by_direction
def test_equal_lengths_are_none(cell, reverse, dtype):
    inputs = draw(cell, (9, 5, 19, 37), dtype)
    expected = recurrent(CELLS[cell], **inputs, reverse=reverse)
    assert_same_bits(recurrent(CELLS[cell], **inputs, lengths=[9] * 5, reverse=reverse), expected)


@by_dtype
@by_cell
@by_direction
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_time_in_two_parts(cell, cut, reverse, dtype):
    """The state carries everything, and so does its gradient."""
    states, inputs = CELLS[cell].traits.states, draw(cell, (9, 5, 19, 37), dtype)
    whole = recurrent(CELLS[cell], **inputs, reverse=reverse)
    times = [slice(cut), slice(cut, None)]
    first, second = (
        inputs | {"reverse": reverse} | {name: inputs[name][time] for name in ("x", "dy")}
        for time in (times[::-1] if reverse else times)
    )
    between = recurrent(CELLS[cell], **first)
    second = recurrent(CELLS[cell], **second | {state: between[f"final {state}"] for state in states})
    first = recurrent(CELLS[cell], **first | {f"d_{state}": second[f"d_{state}"] for state in states})
    for name in whole:
        if np.ndim(whole[name]) == 3:
            parts = (second[name], first[name]) if reverse else (first[name], second[name])
            np.testing.assert_array_equal(np.concatenate(parts), whole[name], err_msg=name)
        elif name.startswith("final"):
            np.testing.assert_array_equal(second[name], whole[name], err_msg=name)
        elif name in STATES:
            np.testing.assert_array_equal(first[name], whole[name], err_msg=name)
        else:
            assert relative_error(first[name] + second[name], whole[name]) < 60 * np.finfo(dtype).eps, name


@by_dtype
@by_direction
@pytest.mark.parametrize("lengths", [None, (4, 4, 3, 3, 1, 0)], ids=["dense", "ragged"])
def test_small_integers_are_exact(lengths, reverse, dtype):
    """relu, weights of -1, 0, 1 and small inputs: no sum is rounded, so float32 equals the reference to the bit."""
    rng, options = np.random.default_rng(0), {"lengths": lengths, "reverse": reverse}
    for sizes in ((4, 6, 5, 33), (4, 6, 20, 17), (4, 6, 64, 64)):
        inputs = {name: rng.integers(-1, 2, v.shape).astype(dtype) for name, v in draw("relu", sizes, dtype).items()}
        expected = reference_recurrent(CELLS["relu"], **wide(inputs), **options)
        assert max(np.abs(v).max() for v in expected.values()) < 2**24
        assert_same_bits(recurrent(CELLS["relu"], **inputs, **options), expected)


@by_dtype
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_without_recurrent_weights_steps_are_apart(cell, dtype):
    inputs = draw(cell, (6, 5, 19, 37), dtype)
    inputs["W_hh"][:] = 0
    whole = recurrent(CELLS[cell], **inputs)
    as_batch = {name: inputs[name].reshape(1, 30, -1) for name in ("x", "dy")}
    no_state = np.zeros((30, 37), dtype)
    one_step = recurrent(CELLS[cell], **inputs | as_batch | {"h": no_state, "d_h": no_state})
    np.testing.assert_array_equal(one_step["y"].reshape(6, 5, -1), whole["y"])
    np.testing.assert_array_equal(one_step["dx"].reshape(6, 5, -1)[:-1], whole["dx"][:-1])
    np.testing.assert_array_equal(whole["d_h"], 0)


@by_dtype
@by_cell
@pytest.mark.parametrize("lengths", [None, (6, 4, 4, 1, 0)], ids=["dense", "ragged"])
def test_no_cotangent_of_the_outputs(cell, lengths, dtype):
    """dy = None means zeros, to the bit."""
    inputs = draw(cell, (6, 5, 19, 37), dtype) | {"lengths": lengths, "reverse": lengths is not None}
    zeros = recurrent(CELLS[cell], **inputs | {"dy": np.zeros_like(inputs["dy"])})
    assert_same_bits(recurrent(CELLS[cell], **inputs | {"dy": None}), zeros)


@by_dtype
def test_saturated_units_have_no_gradient(dtype):
    inputs = draw("tanh", (6, 5, 19, 37), dtype)
    inputs["x"] *= 1e6
    got = recurrent(CELLS["tanh"], **inputs)
    assert set(np.unique(got["y"])) == {-1, 1}
    for name in got.keys() - {"y", "final h", "d_hs"}:
        np.testing.assert_array_equal(got[name], 0, err_msg=name)
    np.testing.assert_array_equal(got["d_hs"][:-1], inputs["dy"][:-1])  # nothing comes back from later steps


def weights_of(inputs):
    """The weights among the inputs."""
    return Weights(**{name: inputs[name] for name in Weights._fields if name in inputs})


def states_of(cell, inputs, form="{}"):
    """The initial states among the inputs, or the cotangents of the final ones."""
    return tuple(inputs[form.format(state)] for state in CELLS[cell].traits.states)


@by_dtype
@by_cell
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("lengths", [None, (6, 4, 4, 1, 0)], ids=["dense", "ragged"])
def test_bits_without_a_backward_pass(cell, lengths, shards, dtype, monkeypatch):
    """keep = False keeps nothing, and computes the same."""
    force(monkeypatch, shards, 1)
    inputs = draw(cell, (6, 5, 19, 37), dtype)
    steps, present = steps_of(6, 5, lengths, lengths is not None)
    x, P, results = inputs["x"][present], inputs["h"].shape[1], []
    for keep in (True, False):
        buffer = np.full((len(x) + 10, P), np.nan, dtype)
        final, *_ = functional.recurrent(
            CELLS[cell].tag, x, states_of(cell, inputs), weights_of(inputs), steps, buffer, keep=keep
        )
        results.append(dict(enumerate((buffer[5:-5], *final))))
    assert_same_bits(*results)


@by_dtype
@by_cell
@pytest.mark.parametrize("lengths", [None, (6, 4, 4, 1, 0)], ids=["dense", "ragged"])
def test_two_directions_share_a_buffer(cell, lengths, dtype):
    """Each writes and reads its own columns alone."""
    T, B = 6, 5
    inputs = [draw(cell, (T, B, 19, 37), dtype, seed) for seed in range(2)]
    P = inputs[0]["h"].shape[1]
    N = T * B if lengths is None else sum(lengths)
    buffer, dy = np.full((N + 2 * B, 2 * P + 3), np.nan, dtype), np.full((N, 2 * P + 3), np.nan, dtype)
    columns = (1, P + 2)
    passes = []
    for own, reverse, column in zip(inputs, (False, True), columns, strict=True):
        steps, present = steps_of(T, B, lengths, reverse)
        dy[:, column : column + P] = own["dy"][present]
        passes.append(functional.recurrent(
            CELLS[cell].tag, own["x"][present], states_of(cell, own), weights_of(own), steps, buffer, column
        ))  # fmt: skip
    assert np.isnan(np.delete(buffer, [c + p for c in columns for p in range(P)], axis=1)).all()
    for own, (final, pullback, _), reverse, column in zip(inputs, passes, (False, True), columns, strict=True):
        gradients = Weights(*(w if w is None else np.empty_like(w) for w in weights_of(own)))
        dx, d_initial = pullback(dy, states_of(cell, own, "d_{}"), gradients)
        expected = recurrent(CELLS[cell], **own, lengths=lengths, reverse=reverse)
        got = {"y": buffer[B : B + N, column : column + P], "dx": dx}
        assert_same_bits(got, {name: expected[name][present] for name in got})
        states = CELLS[cell].traits.states
        got = {f"final {state}": value for state, value in zip(states, final, strict=True)}
        got |= {f"d_{state}": value for state, value in zip(states, d_initial, strict=True)}
        got |= {f"d_{name}": value for name, value in gradients._asdict().items() if value is not None}
        assert_same_bits(got, {name: expected[name] for name in got})


@by_dtype
@by_cell
@pytest.mark.real_memory
def test_memory_used_again_changes_no_bit(cell, dtype):
    """Calls of growing and shrinking sizes share scratch; each gives what it gives with memory of its own."""
    calls = [draw(cell, sizes, dtype) for sizes in ((5, 3, 4, 20), (20, 9, 40, 70), (2, 1, 4, 20), (5, 3, 4, 20))]
    alone = []
    for inputs in calls:
        vars(memory._kept).clear()
        alone.append(recurrent(CELLS[cell], **inputs))
    for inputs, expected in zip(calls, alone, strict=True):
        assert_same_bits(recurrent(CELLS[cell], **inputs), expected)


@hypothesis.given(count=st.lists(st.integers(0, 150), max_size=30), rows=st.integers(0, 200))
def test_chunks_are_as_long_as_they_may_be(count, rows):
    """Chunks of a shard of `rows` sequences: their steps follow each other, and one more step would not fit."""
    count = np.array(sorted(count, reverse=True), np.int64)
    own, most, begin = np.minimum(count, rows), chunk_rows(rows), 0
    while begin < count.size:
        end = chunk_end.py_func(count, begin, rows, most)
        assert begin < end <= count.size
        assert own[begin:end].sum() <= most
        assert end == count.size or own[begin : end + 1].sum() > most
        begin = end


@by_cell
@pytest.mark.parametrize("source", ["x", "tokens", "table"])
def test_only_what_is_wanted_is_computed(cell, source):
    """Gradients that are not asked for are left out, and the others keep their bits."""
    name = f"recurrent {cell} {source}"
    if name not in RECURRENT:
        return
    kind, inputs = CELLS[cell], RECURRENT[name].draw(sizes_of(name, 4, 3, 5, 17), "float32")
    whole = recurrent(kind, **inputs)
    x, dy, table = inputs.pop("x"), inputs.pop("dy"), inputs.pop("w_table", None)
    initial, d_final = (take(inputs, form, *kind.traits.states) for form in ("{}", "d_{}"))
    weights, (T, B), P = Weights(**inputs), x.shape[:2], initial[0].shape[1]
    rows, buffer = x.reshape(T * B, *x.shape[2:]), np.empty(((T + 2) * B, P), np.float32)
    _, pullback, _ = functional.recurrent(kind.tag, rows, initial, weights, steps_of(T, B)[0], buffer, table=table)
    for field in (None, *Weights._fields):
        wanted = Weights(
            *(
                np.full_like(w, np.nan) if name == field and w is not None else None
                for name, w in weights._asdict().items()
            )
        )
        dx, d_initial = pullback(dy.reshape(T * B, P), d_final, wanted, need_dx=False)
        assert dx is None
        np.testing.assert_array_equal(d_initial[0], whole["d_h"])
        for name, gradient in wanted._asdict().items():
            if gradient is not None:
                np.testing.assert_array_equal(gradient, whole[f"d_{name}"], err_msg=name)
