"""RNN, GRU, LSTM: values and gradients against the reference, and what must hold whatever the numbers are."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from cases import DTYPES, wide
from numerics import assert_close, rounding_budget
from oracles import arrays_of, assert_same, assert_within, d_state_in, import_torch, normal, rnn_cells, state_in
from recurrent_layers import (
    KINDS,
    ROWS,
    arguments,
    beyond,
    build,
    expected_results,
    inference,
    results,
    rows_of,
    small,
)

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    GRUCell,
    Linear,
    LSTMCell,
    Packed,
    Recursive,
    RNNCell,
    TimeDelay,
)

TOLERANCE = 1e-12
# T, B, I, H
SIZES = [
    (1, 1, 1, 1),
    (2, 3, 1, 17),
    (5, 2, 33, 16),
    (17, 5, 3, 31),
    (3, 7, 64, 36),
    (4, 3, 0, 5),
    (2, 11, 15, 3),
    (6, 2, 16, 33),
    (2, 2, 36, 64),
    (3, 2, 31, 15),
]
VARIANTS = {
    "one": {},
    "two both ways": {"num_layers": 2, "bidirectional": True},
    "three without bias": {"num_layers": 3, "bias": False},
}
# Kept scratch must not leak from call to call, and what is read must have been written.
MEMORY = [pytest.param("kept", marks=pytest.mark.real_memory), "poisoned"]

kinds = pytest.mark.parametrize("kind", KINDS)
lstms = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("lstm")])
dtypes = pytest.mark.parametrize("dtype", DTYPES)
ways = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])


# Against the reference


@kinds
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_float64_equals_the_reference(size, variant, kind):
    T, B, I, H = size
    layer = build(kind, I, H, **VARIANTS[variant], dtype="float64")
    given = arguments(layer, T, B)
    assert_close(results(layer, given), expected_results(kind, layer.parameters, given), TOLERANCE)


@kinds
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(5, 2, 33, 16), (17, 5, 3, 31)], ids=str)
def test_float32_errors_are_those_of_rounding(size, variant, kind):
    T, B, I, H = size
    layer = build(kind, I, H, **VARIANTS[variant])
    given = arguments(layer, T, B)
    assert within_budget(kind, layer, given) > 0.01, "the budget is too large to see a fault"


def within_budget(kind, layer, given, lengths=None):
    """The largest share of its error budget that a tensor uses, which is at most 1."""

    def exact(**inputs):
        p = {name: inputs[name] for name in layer.parameters}
        return expected_results(kind, p, {name: inputs[name] for name in given}, lengths)

    inputs = wide(given | dict(layer.parameters))
    got = results(layer, given, lengths=lengths)
    return assert_within(got, exact(**inputs), rounding_budget(exact, inputs, layer.dtype))


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("proj_size", [0, 1, 4, 17])
def test_projections(proj_size, peepholes):
    lstm = small("lstm", "float64", proj_size=proj_size, peepholes=peepholes, bidirectional=True)
    given = arguments(lstm, 7, 3)
    got = results(lstm, given)
    assert got["h_n"].shape == (4, 3, proj_size or 18)
    assert_close(got, expected_results("lstm", lstm.parameters, given), TOLERANCE)


@kinds
@ways
@dtypes
@pytest.mark.parametrize("num_layers", [1, 2])
def test_call_and_vjp_give_the_same_bits(num_layers, dtype, bidirectional, kind):
    layer = small(kind, dtype, num_layers=num_layers, bidirectional=bidirectional)
    given = arguments(layer, 7, 3)
    got = inference(layer, given)
    expected = results(layer, given)
    assert_same(got, {name: expected[name] for name in got})
    P = got["h_n"].shape[-1]
    if bidirectional:
        np.testing.assert_array_equal(got["h_n"][-1], got["y"][0, :, P:])
        np.testing.assert_array_equal(got["h_n"][-2], got["y"][-1, :, :P])
    else:
        np.testing.assert_array_equal(got["h_n"][-1], got["y"][-1])


# States and cotangents


@kinds
def test_no_initial_state_is_zeros(kind):
    layer = small(kind)
    given = arguments(layer, 7, 3)
    zeros = given | {name: np.zeros_like(given[name]) for name in ("h0", "c0") if name in given}
    expected = results(layer, zeros)
    (y, _), pullback = layer.vjp(given["x"])
    dx, d_initial, grads = pullback(given["dy"], d_state_in(given))
    got = {"y": y, "dx": dx, **dict(zip(("dh0", "dc0"), arrays_of(d_initial), strict=False)), **grads}
    assert_same(got, {name: expected[name] for name in got})
    np.testing.assert_array_equal(layer(given["x"])[0], y)


@lstms
@pytest.mark.parametrize("name", ["h0", "c0"])
def test_one_of_two_initial_states(name, kind):
    lstm = small(kind)
    given = arguments(lstm, 7, 3)
    zeros = given | {name: np.zeros_like(given[name])}
    given = given | {name: None}
    assert_same(inference(lstm, given), inference(lstm, zeros))


@kinds
@ways
def test_any_of_the_cotangents(bidirectional, kind):
    """Those that are absent are zeros."""
    layer = small(kind, "float64", bidirectional=bidirectional)
    given = arguments(layer, 7, 3)
    names = [name for name in ("dy", "dh_n", "dc_n") if name in given]
    _, pullback = layer.vjp(given["x"], state_in(given))
    for present in product([False, True], repeat=len(names)):
        zeros = given | {n: np.zeros_like(given[n]) for n, there in zip(names, present, strict=True) if not there}
        dy, *d_state = (given[n] if there else None for n, there in zip(names, present, strict=True))
        d_state = tuple(d_state) if len(d_state) == 2 else d_state[0]
        dx, d_initial, grads = pullback(dy, d_state)
        got = {"dx": dx, **dict(zip(("dh0", "dc0"), arrays_of(d_initial), strict=False)), **grads}
        expected = expected_results(kind, layer.parameters, zeros)
        assert_close(got, {name: expected[name] for name in got}, TOLERANCE)
        if not any(present):
            assert not any(value.any() for value in got.values())
            again = pullback()
            assert_same({"dx": again[0], **again[2]}, {"dx": dx, **grads})


@kinds
@pytest.mark.parametrize("t", [0, 3, 6])
def test_gradients_of_a_single_time_step(t, kind):
    layer = small(kind, "float64")
    given = arguments(layer, 7, 3)
    given["dy"][np.arange(7) != t] = 0
    given |= {name: np.zeros_like(given[name]) for name in ("dh_n", "dc_n") if name in given}
    got = results(layer, given)
    assert_close(got, expected_results(kind, layer.parameters, given), TOLERANCE)
    assert not got["dx"][t + 1 :].any()
    assert got["dx"][: t + 1].any(axis=(1, 2)).all()


@kinds
def test_gradients_of_one_layers_last_state(kind):
    layer = small(kind, "float64", num_layers=3)
    given = arguments(layer, 4, 2)
    given["dy"][...] = 0
    for name in ("dh_n", "dc_n"):
        if name in given:
            given[name][[0, 2]] = 0
    got = results(layer, given)
    assert_close(got, expected_results(kind, layer.parameters, given), TOLERANCE)
    for name in layer.parameters:
        assert got[name].any() == (not name.endswith("l2"))


@kinds
def test_the_callers_gradients_are_overwritten(kind):
    layer = small(kind, bidirectional=True)
    given = arguments(layer, 7, 3)
    grads = layer.parameters.empty_like()
    grads.flat.fill(np.nan)
    _, pullback = layer.vjp(given["x"], state_in(given))
    *_, returned = pullback(given["dy"], d_state_in(given), grads)
    assert returned is grads
    fresh = results(layer, given)
    assert_same(grads, {name: fresh[name] for name in grads})


# Shapes


@kinds
@dtypes
def test_batch_first_swaps_x_and_y_only(dtype, kind):
    layer, first = (small(kind, dtype, bidirectional=True, batch_first=b) for b in (False, True))
    given = arguments(layer, 7, 3)
    swapped = given | {name: given[name].swapaxes(0, 1) for name in ("x", "dy")}
    for options in ({}, {"lengths": [3, 7, 0]}):
        got = results(first, swapped, **options)
        assert got["y"].flags.c_contiguous
        straight = got | {name: got[name].swapaxes(0, 1) for name in ("y", "dx")}
        assert_same(straight, results(layer, given, **options))
        np.testing.assert_array_equal(inference(first, swapped, **options)["y"], got["y"])


@kinds
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, [4]], ids=["dense", "ragged"])
def test_unbatched_is_a_batch_of_one(lengths, batch_first, kind):
    layer = small(kind, batch_first=batch_first, bidirectional=True)
    given = arguments(layer, 7, 1)
    expected = results(small(kind, bidirectional=True), given, lengths=lengths)
    alone = {name: value[:, 0] for name, value in given.items()}
    got = results(layer, alone, lengths=lengths)
    assert_same(got, expected | {name: expected[name][:, 0] for name in ROWS if name in expected})
    called = inference(layer, alone, lengths=lengths)
    assert_same(called, {name: got[name] for name in called})
    y, state = layer(alone["x"])
    assert y.shape == (7, expected["y"].shape[-1])
    assert arrays_of(state)[0].shape == (4, expected["h_n"].shape[-1])


@kinds
@ways
@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 5), (7, 0, 5), (0, 0, 5), (7, 3, 0), (0, 3, 0)])
def test_empty_sizes(T, B, I, bidirectional, kind):
    layer = build(kind, I, 18, num_layers=2, bidirectional=bidirectional, dtype="float64")
    given = arguments(layer, T, B)
    got = results(layer, given)
    assert_close(got, expected_results(kind, layer.parameters, given), TOLERANCE)
    if T == 0:
        for state, d in (("h", "dh"), ("c", "dc")):
            if state + "_n" in got:
                np.testing.assert_array_equal(got[f"{state}_n"], given[f"{state}0"])
                np.testing.assert_array_equal(got[f"{d}0"], given[f"{d}_n"])
    if T * B == 0:
        assert not any(got[name].any() for name in layer.parameters)


@kinds
def test_an_empty_unbatched_sequence(kind):
    layer = small(kind, batch_first=True)
    given = {name: value[:, 0] for name, value in arguments(layer, 0, 1).items()}
    got = results(layer, given)
    np.testing.assert_array_equal(got["h_n"], given["h0"])
    np.testing.assert_array_equal(got["dh0"], given["dh_n"])
    assert got["y"].shape == (0, given["h0"].shape[-1])
    assert got["dx"].shape == (0, 5)


# Ragged batches


LENGTHS = {
    "all zero": [0, 0, 0],
    "some zero": [3, 0, 2, 0],
    "zero in the middle": [6, 0, 7],
    "ties": [2, 4, 2, 4, 4],
    "unsorted": [1, 7, 3, 5, 0, 2, 7],
    "all shorter": [4, 4, 4],
    "all": [7, 7],
    "none": [],
}
batches = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)


@kinds
@batches
@pytest.mark.parametrize("variant", VARIANTS)
def test_lengths_equal_the_reference(variant, lengths, kind):
    """And padding, NaN here, is never read, and 0 in results."""
    layer = build(kind, 5, 18, **VARIANTS[variant], dtype="float64")
    given = arguments(layer, 7, len(lengths))
    padding = beyond(lengths, 7)
    padded = given | {name: np.where(padding[..., None], np.nan, given[name]) for name in ("x", "dy")}
    got = results(layer, padded, lengths=lengths)
    assert_close(got, expected_results(kind, layer.parameters, given, lengths), TOLERANCE)
    assert not got["y"][padding].any()
    assert not got["dx"][padding].any()
    called = inference(layer, padded, lengths=lengths)
    assert_same(called, {name: got[name] for name in called})


@kinds
@pytest.mark.parametrize(("I", "H"), [(1, 1), (0, 2), (33, 16), (3, 31), (16, 33)])
def test_lengths_of_any_size(I, H, kind):
    layer = build(kind, I, H, num_layers=2, bidirectional=True, dtype="float64")
    given, lengths = arguments(layer, 4, 5), [2, 0, 4, 1, 3]
    assert_close(
        results(layer, given, lengths=lengths), expected_results(kind, layer.parameters, given, lengths), TOLERANCE
    )


@kinds
@pytest.mark.parametrize("variant", VARIANTS)
def test_ragged_float32_errors_are_those_of_rounding(variant, kind):
    layer = build(kind, 5, 18, **VARIANTS[variant])
    assert within_budget(kind, layer, arguments(layer, 17, 5), [3, 17, 0, 9, 9]) > 0.01


@kinds
@ways
@dtypes
def test_a_row_does_not_depend_on_padding_or_on_others(dtype, bidirectional, kind):
    """Alone, without lengths, it has the same bits."""
    layer = small(kind, dtype, bidirectional=bidirectional)
    lengths = [4, 9, 0, 7, 9, 1]
    given = arguments(layer, 9, 6)
    got = results(layer, given, lengths=lengths)
    for b, length in enumerate(lengths):
        own = {name: value[:, b : b + 1] for name, value in given.items()}
        own |= {name: own[name][:length] for name in ("x", "dy")}
        row = rows_of(got, slice(b, b + 1))
        assert_same(row | {n: row[n][:length] for n in ("y", "dx")}, rows_of(results(layer, own), slice(None)))


@kinds
@ways
@dtypes
def test_equal_lengths_are_a_dense_batch(dtype, bidirectional, kind):
    """To the bit, weights' gradients too, whether there is padding or not."""
    layer = small(kind, dtype, bidirectional=bidirectional)
    given = arguments(layer, 7, 4)
    expected = results(layer, given)
    assert_same(results(layer, given, lengths=[7] * 4), expected)
    more = given | {name: np.concatenate([given[name], given[name][:3] * np.nan]) for name in ("x", "dy")}
    got = results(layer, more, lengths=[7] * 4)
    assert_same(got | {name: got[name][:7] for name in ("y", "dx")}, expected)


@kinds
@ways
def test_more_padding_changes_nothing(bidirectional, kind):
    layer, lengths = small(kind, bidirectional=bidirectional), [3, 7, 0, 5]
    given = arguments(layer, 7, 4)
    more = given | {name: np.concatenate([given[name], given[name]]) for name in ("x", "dy")}
    got = results(layer, more, lengths=lengths)
    assert_same(got | {n: got[n][:7] for n in ("y", "dx")}, results(layer, given, lengths=lengths))


@kinds
@dtypes
@pytest.mark.parametrize("lengths", [None, [5, 7, 0, 2]], ids=["dense", "ragged"])
def test_both_ways_are_two_layers(lengths, dtype, kind):
    """The reverse one runs over each sequence flipped, within its length."""
    both = small(kind, dtype, num_layers=1, bidirectional=True)
    given = arguments(both, 7, 4)
    expected = results(both, given, lengths=lengths)
    P = given["h0"].shape[-1]
    order = np.arange(7)[:, None] + np.zeros(4, int)
    ends = np.array([7] * 4 if lengths is None else lengths)
    order = np.where(order < ends, ends - 1 - order, order)[..., None]
    parts = []
    for d, suffix in enumerate(("", "_reverse")):
        layer = small(kind, dtype, num_layers=1)
        layer.load_state_dict({name: both.parameters[name + suffix] for name in layer.parameters})
        own = {name: value[d : d + 1] for name, value in given.items() if name not in ("x", "dy")}
        own |= {"x": given["x"], "dy": given["dy"][..., d * P : (d + 1) * P]}
        if d:
            own |= {name: np.take_along_axis(own[name], order, 0) for name in ("x", "dy")}
        got = results(layer, own, lengths=lengths)
        if d:
            got |= {name: np.take_along_axis(got[name], order, 0) for name in ("y", "dx")}
        parts.append(got)
        weights = {name + suffix: got[name] for name in layer.parameters}
        tolerance = 1e-14 if dtype == "float64" else 1e-5  # summed in another order
        assert_close(weights, {name: expected[name] for name in weights}, tolerance)
    forward, backward = parts
    got = {name: np.concatenate([forward[name], backward[name]]) for name in ROWS[1:] if name in forward}
    got |= {"y": np.concatenate([forward["y"], backward["y"]], axis=2), "dx": forward["dx"] + backward["dx"]}
    assert_same(got, {name: expected[name] for name in got})


@pytest.mark.parametrize("form", ["list", "tuple", "int8", "uint16", "int32", "int64", ">i4", "read_only", "tensor"])
def test_lengths_of_any_integer_type(form):
    layer, lengths = small("gru"), [3, 7, 0]
    given = arguments(layer, 7, 3)
    expected = results(layer, given, lengths=lengths)
    if form in ("list", "tuple"):
        lengths = {"list": list, "tuple": tuple}[form](lengths)
    elif form == "tensor":
        lengths = import_torch().tensor(lengths)
    else:
        lengths = np.array(lengths, "int64" if form == "read_only" else form)
        lengths.flags.writeable = form != "read_only"
    assert_same(results(layer, given, lengths=lengths), expected)


def test_lengths_are_left_alone():
    layer, lengths = small("gru"), np.array([3, 7, 0])
    results(layer, arguments(layer, 7, 3), lengths=lengths)
    np.testing.assert_array_equal(lengths, [3, 7, 0])


# Packed batches


@kinds
@batches
@ways
def test_packed_sequences_are_padded_ones(bidirectional, lengths, kind):
    layer = small(kind, bidirectional=bidirectional)
    given = arguments(layer, 7, len(lengths))
    expected = results(layer, given, lengths=lengths)
    packed = given | {name: Packed.from_padded(given[name], lengths) for name in ("x", "dy")}
    got = results(layer, packed)
    for name in ("y", "dx"):
        np.testing.assert_array_equal(got[name].offsets, packed["x"].offsets)
    padded = got | {name: got[name].to_padded(total_length=7) for name in ("y", "dx")}
    assert_same(padded, expected)
    rows = results(layer, packed | {"dy": packed["dy"].data})
    np.testing.assert_array_equal(rows["dx"].data, got["dx"].data)
    np.testing.assert_array_equal(inference(layer, packed)["y"].data, got["y"].data)


def test_batch_first_says_nothing_about_packed_sequences():
    layer, first = (small("lstm", batch_first=b) for b in (False, True))
    x = Packed(normal(9, 5, dtype="float32"), [0, 4, 4, 9])
    np.testing.assert_array_equal(first(x)[0].data, layer(x)[0].data)


# Cells


@kinds
@pytest.mark.parametrize("lengths", [None, [3, 7, 0, 5]], ids=["dense", "ragged"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_cells_equal_the_reference(variant, lengths, kind):
    layer = build(kind, 5, 18, **VARIANTS[variant], dtype="float64")
    given = arguments(layer, 7, 4)
    (y, _, cells), _ = layer.vjp(given["x"], state_in(given), lengths=lengths, return_cells=True)
    order = None if lengths is None else np.array(lengths)
    expected = rnn_cells(layer.parameters, given["x"], state_in(given), kind, lengths=order)
    assert len(cells) == len(expected)
    for got, wanted in zip(cells, expected, strict=True):
        assert_close(got, wanted, TOLERANCE)
        for value in got.values():
            assert not value[beyond([7] * 4 if lengths is None else lengths, 7)].any()
    P = cells[-1]["h"].shape[-1]
    np.testing.assert_array_equal(cells[-1]["h"], y[..., -P:])


@kinds
@dtypes
def test_cells_are_the_same_in_every_form(dtype, kind):
    layer, first = (small(kind, dtype, bidirectional=True, batch_first=b) for b in (False, True))
    given, lengths = arguments(layer, 7, 3), [2, 7, 5]
    state = state_in(given)
    (*plain, expected), _ = layer.vjp(given["x"], state, lengths=lengths, return_cells=True)
    assert_same({"y": plain[0]}, {"y": layer(given["x"], state, lengths=lengths)[0]})
    *_, called = layer(given["x"], state, lengths=lengths, return_cells=True)
    *_, swapped = first(given["x"].swapaxes(0, 1), state, lengths=lengths, return_cells=True)
    *_, packed = layer(Packed.from_padded(given["x"], lengths), state, return_cells=True)
    *_, alone = layer(given["x"][:, 1], return_cells=True)
    *_, batched = layer(given["x"][:, 1:2], return_cells=True)
    for i, wanted in enumerate(expected):
        assert_same(called[i], wanted)
        assert_same({name: value.swapaxes(0, 1) for name, value in swapped[i].items()}, wanted)
        assert_same({name: value.to_padded() for name, value in packed[i].items()}, wanted)
        assert_same(alone[i], {name: value[:, 0] for name, value in batched[i].items()})


@kinds
@pytest.mark.parametrize("H", [16, 18])
def test_cells_own_their_memory(H, kind):
    layer = build(kind, 5, H)
    given = arguments(layer, 7, 3)
    expected = results(layer, given)
    (y, _, cells), pullback = layer.vjp(given["x"], state_in(given), return_cells=True)
    before = y.copy()
    for each in cells:
        for value in each.values():
            value.fill(np.nan)
    np.testing.assert_array_equal(y, before)
    dx, _, grads = pullback(given["dy"], d_state_in(given))
    assert_same({"dx": dx, **grads}, {name: expected[name] for name in ("dx", *grads)})


@kinds
@pytest.mark.parametrize(("T", "B"), [(0, 3), (7, 0)])
def test_cells_of_nothing(T, B, kind):
    layer = small(kind)
    *_, cells = layer(arguments(layer, T, B)["x"], return_cells=True)
    assert all(value.shape[:2] == (T, B) for each in cells for value in each.values())


# Streaming


@kinds
@dtypes
@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_sequence_in_two_parts(cut, dtype, kind):
    """The state carries it on, and its gradient back, to the bit."""
    layer = small(kind, dtype)
    given = arguments(layer, 7, 3)
    expected = results(layer, given)
    (y_1, state), pull_1 = layer.vjp(given["x"][:cut], state_in(given))
    (y_2, state), pull_2 = layer.vjp(given["x"][cut:], state)
    dx_2, d_state, grads_2 = pull_2(given["dy"][cut:], d_state_in(given))
    dx_1, d_initial, grads_1 = pull_1(given["dy"][:cut], d_state)
    got = {"y": np.concatenate([y_1, y_2]), "dx": np.concatenate([dx_1, dx_2])}
    got |= dict(zip(("h_n", "c_n"), arrays_of(state), strict=False))
    got |= dict(zip(("dh0", "dc0"), arrays_of(d_initial), strict=False))
    assert_same(got, {name: expected[name] for name in got})
    weights = {name: grads_1[name] + grads_2[name] for name in layer.parameters}
    tolerance = 1e-13 if dtype == "float64" else 1e-5
    assert_close(weights, {name: expected[name] for name in weights}, tolerance)


@kinds
@dtypes
@pytest.mark.parametrize("B", [1, 3])
def test_step_by_step(B, dtype, kind):
    layer = small(kind, dtype)
    given = arguments(layer, 9, B)
    state, steps = state_in(given), []
    for x in given["x"]:
        y, state = layer(x[None], state)
        steps.append(y)
    got = {"y": np.concatenate(steps), **dict(zip(("h_n", "c_n"), arrays_of(state), strict=False))}
    assert_same(got, inference(layer, given))


# Memory


def misaligned(a):
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def sliced(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1] + 1), np.nan, a.dtype)
    wide[..., 1::2] = a
    return wide[..., 1::2]


LAYOUTS = {
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "fortran": np.asfortranarray,
    "negative_strides": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "sliced": sliced,
    "offset": lambda a: np.concatenate([a[:1] * np.nan, a])[1:],
    "misaligned": misaligned,
    "read_only": read_only,
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "lists": lambda a: a.tolist(),
}


@pytest.mark.parametrize("kind", ["tanh", "lstm_projected"])
@pytest.mark.parametrize("lengths", [None, [4, 7, 2]], ids=["dense", "ragged"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts_do_not_change_a_bit(layout, lengths, kind):
    layer = small(kind, "float64" if layout == "lists" else "float32", bidirectional=True)
    given = arguments(layer, 7, 3)
    arranged = {name: LAYOUTS[layout](value) for name, value in given.items()}
    assert_same(results(layer, arranged, lengths=lengths), results(layer, given, lengths=lengths))
    assert_same(inference(layer, arranged, lengths=lengths), inference(layer, given, lengths=lengths))


@pytest.mark.parametrize("kind", ["tanh", "lstm_projected"])
def test_broadcast_arguments(kind):
    layer = small(kind)
    given = {name: np.broadcast_to(value[:1, :1], value.shape) for name, value in arguments(layer, 7, 3).items()}
    assert given["x"].strides[:2] == (0, 0)
    assert_same(results(layer, given), results(layer, {name: value.copy() for name, value in given.items()}))


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
def test_x_may_share_memory_with_the_other_arguments(kind):
    layer, shared = build(kind, 18, 18, num_layers=2), normal(7, 3, 18, dtype="float32")
    given = {"x": shared, "h0": shared[:2], "dy": shared, "dh_n": shared[3:5]}
    given |= {"c0": shared[:2], "dc_n": shared[3:5]} if kind == "lstm" else {}
    assert_same(results(layer, given), results(layer, {name: value.copy() for name, value in given.items()}))


@kinds
@pytest.mark.parametrize("lengths", [None, [4, 7, 2]], ids=["dense", "ragged"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_and_weights_are_left_alone(batch_first, lengths, kind):
    layer = small(kind, batch_first=batch_first, bidirectional=True)
    given = arguments(layer, 7, 3)
    given |= {name: given[name].swapaxes(0, 1).copy() for name in ("x", "dy")} if batch_first else {}
    before = {name: value.copy() for name, value in (given | dict(layer.parameters)).items()}
    results(layer, given, lengths=lengths)
    inference(layer, given, lengths=lengths)
    assert_same(given | dict(layer.parameters), before)


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm", "lstm_projected"])
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("sizes", "lengths"), [((7, 3), None), ((7, 3), [4, 7, 2]), ((1, 1), None), ((0, 3), None)])
@pytest.mark.parametrize("batch_first", [False, True])
@ways
def test_results_own_their_memory(bidirectional, batch_first, sizes, lengths, num_layers, memory, kind):
    layer = small(kind, num_layers=num_layers, batch_first=batch_first, bidirectional=bidirectional)
    given = arguments(layer, *sizes)
    given |= {name: given[name].swapaxes(0, 1) for name in ("x", "dy")} if batch_first else {}
    arrays = [*given.values(), layer.parameters.flat]
    for _ in range(2):
        got = results(layer, given, lengths=lengths)
        arrays += [got[name] for name in (*ROWS, "weight_hh_l0") if name in got]
        arrays += inference(layer, given, lengths=lengths).values()
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            assert not np.shares_memory(a, b)


@kinds
@pytest.mark.parametrize("memory", MEMORY)
def test_changing_results_changes_nothing_else(memory, kind):
    layer = small(kind, bidirectional=True)
    given = arguments(layer, 7, 3)
    expected = results(layer, given)
    called = inference(layer, given)
    for name in ("h_n", "c_n"):
        if name in called:
            called[name].fill(np.nan)
    np.testing.assert_array_equal(called["y"], expected["y"])
    called["y"].fill(np.nan)
    for value in results(layer, given).values():
        value.fill(np.nan)
    assert_same(results(layer, given), expected)


# Relations that hold for any numbers


@kinds
@dtypes
@pytest.mark.parametrize("lengths", [None, [3, 0, 7, 7, 1, 5, 3, 2, 6]], ids=["dense", "ragged"])
def test_permuted_batch_rows(lengths, dtype, kind):
    layer, order = small(kind, dtype, bidirectional=True), np.random.default_rng(5).permutation(9)
    given = arguments(layer, 7, 9)
    expected = results(layer, given, lengths=lengths)
    permuted = {name: value[:, order] for name, value in given.items()}
    got = results(layer, permuted, lengths=None if lengths is None else np.array(lengths)[order])
    assert_same(rows_of(got, slice(None)), rows_of(expected, order))
    tolerance = 1e-13 if dtype == "float64" else 1e-5
    assert_close(*({name: found[name] for name in layer.parameters} for found in (got, expected)), tolerance)


@kinds
@dtypes
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 13, 16, 17])
def test_more_batch_rows_change_no_bit_of_the_others(rows, dtype, kind):
    layer = small(kind, dtype)
    given = arguments(layer, 5, 18)
    whole = results(layer, given)
    got = results(layer, {name: value[:, :rows] for name, value in given.items()})
    assert_same(rows_of(got, slice(None)), rows_of(whole, slice(rows)))


@kinds
def test_permuted_units(kind):
    """With a projection h keeps its columns, and c has other units."""
    layer, permuted = (build(kind, 5, 18, dtype="float64") for _ in range(2))
    order = np.random.default_rng(5).permutation(18)
    projected = layer.proj_size > 0
    given = arguments(layer, 7, 3)
    states = {"y", "h0", "dy", "dh_n", "h_n", "dh0"} if not projected else set()
    states |= {"c0", "dc_n", "c_n", "dc0"}

    def moved(name, value):
        if name in states:
            return value[..., order]
        if name not in layer.parameters:
            return value
        if name.startswith(("weight_hr", "weight_ch")):
            return value[:, order]
        gates = value.reshape(-1, 18, *value.shape[1:])[:, order]
        if name.startswith("weight_hh") and not projected:
            gates = gates[..., order]
        return gates.reshape(value.shape)

    for name, value in layer.parameters.items():
        permuted.parameters[name] = moved(name, value)
    expected = {name: moved(name, value) for name, value in results(layer, given).items()}
    got = results(permuted, {name: moved(name, value) for name, value in given.items()})
    assert_close(got, expected, 1e-13)


@kinds
@dtypes
@pytest.mark.parametrize("lengths", [None, [3, 7, 0]], ids=["dense", "ragged"])
@ways
def test_stacked_layers_are_layers_in_sequence(bidirectional, lengths, dtype, kind):
    options = {"dtype": dtype, "bidirectional": bidirectional}
    layer = small(kind, num_layers=3, **options)
    given = arguments(layer, 7, 3)
    expected = results(layer, given, lengths=lengths)
    D = 2 if bidirectional else 1
    states = {name: value.reshape(3, D, *value.shape[1:]) for name, value in given.items() if name not in ("x", "dy")}
    y, ends, pullbacks = given["x"], [], []
    for k in range(3):
        one = build(kind, y.shape[-1], 18, **options)
        one.load_state_dict({name: layer.parameters[name.replace("l0", f"l{k}")] for name in one.parameters})
        (y, end), pullback = one.vjp(y, state_in({n: s[k] for n, s in states.items()}), lengths=lengths)
        ends.append(arrays_of(end))
        pullbacks.append(pullback)
    d, starts, gradients = given["dy"], [], {}
    for k in (2, 1, 0):
        d, start, grads = pullbacks[k](d, d_state_in({name: state[k] for name, state in states.items()}))
        starts.insert(0, arrays_of(start))
        gradients |= {name.replace("l0", f"l{k}"): value for name, value in grads.items()}
    got = {"y": y, "dx": d, **gradients}
    for names, parts in ((("h_n", "c_n"), ends), (("dh0", "dc0"), starts)):
        got |= {name: np.concatenate(each) for name, each in zip(names, zip(*parts, strict=True), strict=False)}
    assert_same(got, expected)


@kinds
def test_without_recurrent_weights_steps_see_the_state_alone(kind):
    """What is left of the past is what a gate lets through; an Elman layer has nothing of it."""
    layer = build(kind, 5, 18, dtype="float64")
    layer.parameters["weight_hh_l0"].fill(0)
    if layer.state_names == ("h", "c"):  # a forget gate that is shut
        layer.parameters["bias_ih_l0"][18:36] = -1e4
        if "weight_ch_l0" in layer.parameters:
            layer.parameters["weight_ch_l0"].fill(0)
    elif isinstance(layer, GRU):  # an update gate that takes the new
        layer.parameters["bias_ih_l0"][18:36] = -1e4
    given = arguments(layer, 7, 3)
    y, _ = layer(given["x"], state_in(given))
    alone = [layer(x[None])[0][0] for x in given["x"]]
    np.testing.assert_array_equal(y, alone)


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
def test_tied_directions_mirror_each_other(kind):
    """The same weights both ways over a sequence that reads the same both ways."""
    layer = build(kind, 5, 18, bidirectional=True)
    for name in list(layer.parameters):
        if name.endswith("_reverse"):
            layer.parameters[name] = layer.parameters[name.removesuffix("_reverse")]
    x = normal(4, 3, 5, dtype="float32")
    y, _ = layer(np.concatenate([x, x[::-1]]))
    np.testing.assert_array_equal(y[..., :18], y[::-1, :, 18:])


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
@pytest.mark.parametrize("memory", MEMORY)
@dtypes
def test_repeats_give_the_same_bits(dtype, memory, kind):
    layer = build(kind, 64, 128, dtype=dtype)
    given = arguments(layer, 20, 32)
    expected = results(layer, given)
    for _ in range(20):
        assert_same(results(layer, given), expected)


# Values


@kinds
@dtypes
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 4, 8])
@pytest.mark.parametrize("lengths", [None, [5, 4, 3, 3, 4, 5, 3, 0, 3]], ids=["dense", "ragged"])
def test_nan_and_infinity_stay_in_their_row(lengths, row, bad, dtype, kind):
    layer = small(kind, dtype)
    given = arguments(layer, 5, 9)
    clean = results(layer, given, lengths=lengths)
    given["x"][2, row, 1] = bad
    got = results(layer, given, lengths=lengths)
    others = np.arange(9) != row
    assert_same(rows_of(got, others), rows_of(clean, others))
    np.testing.assert_array_equal(got["y"][:2], clean["y"][:2])
    if np.isnan(bad):
        end = 5 if lengths is None else lengths[row]
        assert np.isnan(got["y"][2:end, row]).all()
        assert np.isnan(got["weight_ih_l0"]).any()
    elif kind != "relu":
        assert np.isfinite(got["y"]).all()


@dtypes
@pytest.mark.parametrize("kind", ["tanh", "gru", "gru_reset_before", "lstm"])
def test_saturated_units_have_no_gradient(dtype, kind):
    """Gates at 1e4 and -1e4: 0 or 1, with a slope of 0, not of NaN."""
    layer = build(kind, 1, 18, dtype=dtype)
    layer.parameters["weight_ih_l0"] = np.where(layer.parameters["weight_ih_l0"] > 0, 1, -1)
    given = arguments(layer, 7, 3)
    given["x"] = 1e4 * np.where(given["x"] > 0, 1, -1).astype(dtype)
    got = results(layer, given)
    assert all(np.isfinite(value).all() for value in got.values())
    assert not got["dx"].any()
    if kind == "tanh":
        np.testing.assert_array_equal(np.abs(got["y"]), 1)
        assert not any(got[name].any() for name in ("dh0", *layer.parameters))
    else:
        assert not any(got[name].any() for name in layer.parameters if name != "weight_hr_l0")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "relu"])
def test_float32_overflows_to_saturation(kind):
    """Pre-activations beyond float32's range are infinite, and outputs what tanh and sigmoid make of that."""
    layer = build(kind, 1, 18)
    layer.parameters["weight_ih_l0"] = np.where(layer.parameters["weight_ih_l0"] > 0, 2, -2)
    y, state = layer(np.full((3, 2, 1), 3e38, np.float32))
    assert np.isfinite(y).all()
    assert np.isfinite(arrays_of(state)[-1]).all()


@kinds
@dtypes
def test_subnormal_inputs(dtype, kind):
    layer = small(kind, dtype, bias=False)
    given = {name: value * np.finfo(dtype).tiny / 8 for name, value in arguments(layer, 7, 3).items()}
    given |= {name: given[name] * 0 + 1 for name in given if name.startswith("d")}
    got, expected = results(layer, given), expected_results(kind, layer.parameters, given)
    assert all(np.isfinite(value).all() for value in got.values())
    assert_close({"dx": got["dx"]}, {"dx": expected["dx"]}, 1e-5 if dtype == "float32" else 1e-12)


# Calls do not disturb each other


@kinds
@pytest.mark.parametrize("memory", MEMORY)
def test_pullbacks_may_be_repeated_and_interleaved(memory, kind):
    layer = small(kind, bidirectional=True)
    first, second = arguments(layer, 7, 3), arguments(layer, 4, 5, seed=10)
    ragged = [1, 4, 0, 3, 2]
    expected_first, expected_second = results(layer, first), results(layer, second, lengths=ragged)
    (y_1, _), pull_1 = layer.vjp(first["x"], state_in(first))
    (y_2, _), pull_2 = layer.vjp(second["x"], state_in(second), lengths=ragged)
    for y, pullback, given, expected in [
        (y_1, pull_1, first, expected_first),
        (y_2, pull_2, second, expected_second),
        (y_1, pull_1, first, expected_first),
    ]:
        dx, d_initial, grads = pullback(given["dy"], d_state_in(given))
        got = {"y": y, "dx": dx, "dh0": arrays_of(d_initial)[0], **grads}
        assert_same(got, {name: expected[name] for name in got})


@pytest.mark.real_memory
@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
@pytest.mark.parametrize("sizes", [(5, 18, 7, 3), (64, 128, 20, 32)], ids=["one_thread", "all_threads"])
def test_python_threads_share_a_layer(sizes, kind):
    I, H, T, B = sizes
    layer = build(kind, I, H, num_layers=2)
    inputs = [arguments(layer, T, B, seed=10 * i) for i in range(4)]
    expected = [results(layer, given) for given in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda i: results(layer, inputs[i % 4]), range(32)), 8 * expected, strict=True):
            assert_same(got, wanted)


# Parameters


def test_names_and_shapes_of_parameters():
    options = {"num_layers": 2, "bidirectional": True}
    assert RNN(5, 7).parameters.shapes == {
        "weight_ih_l0": (7, 5), "weight_hh_l0": (7, 7), "bias_ih_l0": (7,), "bias_hh_l0": (7,)
    }  # fmt: skip
    assert GRU(5, 7, bias=False, **options).parameters.shapes == {
        "weight_ih_l0": (21, 5), "weight_hh_l0": (21, 7),
        "weight_ih_l0_reverse": (21, 5), "weight_hh_l0_reverse": (21, 7),
        "weight_ih_l1": (21, 14), "weight_hh_l1": (21, 7),
        "weight_ih_l1_reverse": (21, 14), "weight_hh_l1_reverse": (21, 7),
    }  # fmt: skip
    assert list(LSTM(5, 7, 2, proj_size=3, peepholes=True).parameters.shapes.items()) == [
        ("weight_ih_l0", (28, 5)), ("weight_hh_l0", (28, 3)), ("bias_ih_l0", (28,)), ("bias_hh_l0", (28,)),
        ("weight_hr_l0", (3, 7)), ("weight_ch_l0", (3, 7)),
        ("weight_ih_l1", (28, 3)), ("weight_hh_l1", (28, 3)), ("bias_ih_l1", (28,)), ("bias_hh_l1", (28,)),
        ("weight_hr_l1", (3, 7)), ("weight_ch_l1", (3, 7)),
    ]  # fmt: skip


@pytest.mark.parametrize(("Layer", "proj_size"), [(RNN, 0), (GRU, 0), (LSTM, 0), (LSTM, 3)])
@ways
def test_names_are_torchs(bidirectional, Layer, proj_size):
    nn = import_torch().nn
    options = {"num_layers": 2, "bidirectional": bidirectional} | ({"proj_size": proj_size} if proj_size else {})
    theirs = getattr(nn, Layer.__name__)(5, 7, **options)
    ours = Layer(5, 7, **options).parameters.shapes
    assert list(ours.items()) == [(name, tuple(p.shape)) for name, p in theirs.named_parameters()]


def test_attributes_are_torchs():
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
    options = {"num_layers": 2, "batch_first": True, "dropout": 0.25, "bidirectional": True}
    nn = import_torch().nn
    for Layer, own in ((RNN, {"nonlinearity": "relu"}), (GRU, {}), (LSTM, {"proj_size": 3})):
        ours, theirs = Layer(5, 7, **options, **own), getattr(nn, Layer.__name__)(5, 7, **options, **own)
        for name in (*names, *own):
            assert getattr(ours, name) == getattr(theirs, name), name


def test_positional_arguments_are_torchs():
    nn = import_torch().nn
    for Layer, given in (
        (RNN, (5, 7, 2, "relu", False, True, 0.25, True)),
        (GRU, (5, 7, 2, False, True, 0.25, True)),
        (LSTM, (5, 7, 2, False, True, 0.25, True, 3)),
    ):
        ours, theirs = Layer(*given), getattr(nn, Layer.__name__)(*given)
        assert list(ours.parameters) == [name for name, _ in theirs.named_parameters()]
        assert (ours.batch_first, ours.dropout) == (theirs.batch_first, theirs.dropout)


@kinds
def test_initial_values(kind):
    layer = build(kind, 200, 100, dtype="float64")
    for name, value in layer.parameters.items():
        assert np.abs(value).max() <= 0.1, name
    assert layer.parameters.flat.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert abs(layer.parameters.flat.mean()) < 0.1 * 3 / layer.parameters.flat.size**0.5
    same, other = (build(kind, 200, 100, seed=seed, dtype="float64") for seed in (0, 1))
    np.testing.assert_array_equal(same.parameters.flat, layer.parameters.flat)
    assert (other.parameters.flat != layer.parameters.flat).mean() > 0.99
    np.testing.assert_array_equal(build(kind, 200, 100).parameters.flat, layer.parameters.flat.astype(np.float32))
    assert (build(kind, 3, 4, seed=None).parameters.flat != build(kind, 3, 4, seed=None).parameters.flat).any()


@pytest.mark.parametrize("value", [1.0, -0.5, 0, np.float32(2)])
def test_forget_bias(value):
    plain, biased = (LSTM(5, 7, 2, bidirectional=True, forget_bias=b, seed=0) for b in (None, value))
    for name, p in biased.parameters.items():
        expected = plain.parameters[name].copy()
        if name.startswith("bias"):
            expected[7:14] = value if name.startswith("bias_ih") else 0
        np.testing.assert_array_equal(p, expected)


@kinds
def test_state_dict_moves_the_weights(kind):
    layer, other = small(kind), small(kind, seed=1)
    given = arguments(layer, 7, 3)
    state = layer.state_dict()
    other.load_state_dict(state)
    assert_same(results(other, given), results(layer, given))
    state["weight_hh_l1"].fill(0)
    assert layer.parameters["weight_hh_l1"].any()
    assert other.parameters["weight_hh_l1"].any()


@kinds
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_copies_have_weights_of_their_own(copied, kind):
    """Also where the layer has run before, and may hold views of its weights."""
    layer = small(kind)
    given = arguments(layer, 7, 3)
    expected = results(layer, given)
    twin = copied(layer)
    assert_same(results(twin, given), expected)
    twin.parameters.flat.fill(0)
    assert not any(twin(given["x"])[0].any() for _ in range(2))
    assert_same(results(layer, given), expected)


def test_parameters_may_be_replaced():
    layer, other = small("lstm"), small("lstm", seed=1)
    given = arguments(layer, 7, 3)
    results(layer, given)
    layer.parameters = other.parameters
    assert_same(results(layer, given), results(other, given))


# Dropout


@pytest.fixture
def masks(monkeypatch):
    """The masks (N, D*P) that dropout draws while the test runs, in order."""
    drawn, original = [], Dropout.vjp

    def vjp(self, x):
        y, pullback = original(self, x)
        drawn.append(np.where(y == 0, 0.0, 1 / (1 - self.p)))
        return y, pullback

    monkeypatch.setattr(Dropout, "vjp", vjp)
    return drawn


@kinds
@ways
@pytest.mark.parametrize("num_layers", [2, 3])
def test_dropout_between_layers(num_layers, bidirectional, masks, kind):
    layer = small(kind, "float64", num_layers=num_layers, dropout=0.4, bidirectional=bidirectional)
    if kind == "relu":
        layer.parameters["bias_ih_l0"] = np.full(18, 5.0)  # so that a 0 is one of dropout's
        layer.parameters["bias_ih_l1"] = np.full(18, 5.0)
        if bidirectional:
            layer.parameters["bias_ih_l0_reverse"] = layer.parameters["bias_ih_l1_reverse"] = np.full(18, 5.0)
    given = arguments(layer, 7, 3)
    got = results(layer, given)
    assert len(masks) == num_layers - 1
    assert all(0.2 < (mask == 0).mean() < 0.6 for mask in masks)
    dense = tuple(mask.reshape(7, 3, -1) for mask in masks)
    assert_close(got, expected_results(kind, layer.parameters, given, masks=dense), TOLERANCE)


def test_dropout_of_ragged_rows(masks):
    lstm, lengths = small("lstm", "float64", dropout=0.4), [5, 7, 0]
    given = arguments(lstm, 7, 3)
    got = results(lstm, given, lengths=lengths)
    packed = small("lstm", "float64", dropout=0.4)
    again = results(packed, given | {name: Packed.from_padded(given[name], lengths) for name in ("x", "dy")})
    np.testing.assert_array_equal(again["dx"].to_padded(), got["dx"])
    assert masks[0].shape == (12, 18)
    valid = ~beyond(lengths, 7)
    mask = np.ones((7, 3, 18))
    longest_first = [1, 0, 2]
    mask[:, longest_first] = scattered(masks[0], valid[:, longest_first])
    assert_close(got, expected_results("lstm", lstm.parameters, given, lengths, (mask,)), TOLERANCE)


def scattered(rows, where):
    """Rows, step after step, at the places of a mask (T, B)."""
    found = np.zeros((*where.shape, rows.shape[1]))
    found[where] = rows
    return found


@kinds
def test_dropout_is_off_in_inference_and_seeded_in_training(kind):
    layer, same, other, none = (small(kind, dropout=p, seed=s) for p, s in [(0.4, 0), (0.4, 0), (0.4, 1), (0.0, 0)])
    other.load_state_dict(layer.parameters)
    given = arguments(layer, 7, 3)
    for _ in range(2):
        assert_same(inference(layer, given), inference(none, given))
    first, second = results(layer, given), results(layer, given)
    assert_same(results(same, given), first)
    assert_same(results(same, given), second)
    for different in (second, results(other, given), results(none, given)):
        assert (different["y"] != first["y"]).mean() > (0.4 if kind == "relu" else 0.9)
    np.testing.assert_array_equal(first["h_n"][0], inference(none, given)["h_n"][0])


@kinds
def test_the_last_layer_has_no_dropout(kind):
    with pytest.warns(UserWarning) as caught:
        layer = small(kind, num_layers=1, dropout=0.9)
    message = "dropout: expected 0 with one layer, as it acts between layers, got 0.9"
    assert [str(warning.message) for warning in caught] == [message]
    none = small(kind, num_layers=1, dropout=0.0)
    given = arguments(layer, 7, 3)
    assert_same(results(layer, given), results(none, given))


def test_the_warning_points_at_the_caller():
    for Layer in (RNN, GRU, LSTM):
        with pytest.warns(UserWarning, match="^dropout: ") as caught:
            Layer(2, 3, dropout=1)
        assert caught[0].filename == __file__


SHOWN = {
    "LSTM(64, 128, num_layers=2, bidirectional=True)": lambda: LSTM(64, 128, num_layers=2, bidirectional=True),
    "LSTM(3, 4, bias=False, batch_first=True, proj_size=2, peepholes=True, dtype=float64)": lambda: LSTM(
        3, 4, 1, False, True, proj_size=2, peepholes=True, dtype=np.float64, seed=3
    ),
    "LSTM(3, 4)": lambda: LSTM(3, 4, forget_bias=1.0),
    "RNN(0, 4, num_layers=3, nonlinearity=relu, dropout=0.5)": lambda: RNN(0, np.int64(4), 3, "relu", dropout=0.5),
    "GRU(3, 4, reset_after=False)": lambda: GRU(3, 4, reset_after=False),
    "RNNCell(3, 4, nonlinearity=relu)": lambda: RNNCell(3, 4, nonlinearity="relu"),
    "GRUCell(3, 4, bias=False)": lambda: GRUCell(3, 4, False),
    "LSTMCell(3, 4, peepholes=True)": lambda: LSTMCell(3, 4, peepholes=True),
    "Linear(3, 4)": lambda: Linear(3, 4),
    "Linear(3, 4, bias=False, dtype=float64)": lambda: Linear(3, 4, False, dtype="float64"),
    "Embedding(3, 4)": lambda: Embedding(3, 4),
    "Dropout(p=0.5)": lambda: Dropout(),
    "TimeDelay(3, 4, 5, dilation=2, causal=True)": lambda: TimeDelay(3, 4, 5, 2, True),
    "Recursive(3, 4, cell=lstm, children=2)": lambda: Recursive(3, 4, "lstm", 2),
    "Deep(2, 4, num_layers=2)": lambda: Deep(2),
}


class Deep(LSTM):
    """A layer with a constructor of its own."""

    def __init__(self, size):
        super().__init__(size, 2 * size, num_layers=2)


@pytest.mark.parametrize("shown", SHOWN)
def test_a_layer_shows_how_it_is_made(shown):
    assert repr(SHOWN[shown]()) == shown


@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_dropout_of_any_share(p):
    layer = small("lstm", dropout=p)
    got = results(layer, arguments(layer, 7, 3))
    assert all(np.isfinite(value).all() for value in got.values())
    assert got["weight_ih_l1"].any() == (p < 1)
    assert got["weight_hh_l1"].any()
