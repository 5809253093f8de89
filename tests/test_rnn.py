"""RNN: values and gradients against the reference, and what must hold whatever the numbers are."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import DTYPES, wide
from numerics import assert_close, rounding_budget
from oracles import assert_same, assert_within, normal, rnn_results, rnn_vjp

from fastrnn import RNN, Dropout

TOLERANCE = 1e-12
SIZES = [(1, 1, 1, 1), (2, 3, 1, 17), (5, 2, 33, 16), (17, 5, 3, 31), (3, 7, 64, 36), (4, 3, 0, 5)]
# Kept scratch must not leak from call to call, and what is read must have been written.
MEMORY = [pytest.param("kept", marks=pytest.mark.real_memory), "poisoned"]


def arguments(rnn, T, B, seed=0):
    """x, h0, dy, dh_n of a layer's dtype."""
    L, H = rnn.num_layers, rnn.hidden_size
    shapes = {"x": (T, B, rnn.input_size), "h0": (L, B, H), "dy": (T, B, H), "dh_n": (L, B, H)}
    return {name: normal(*shape, seed=seed + i, dtype=rnn.dtype) for i, (name, shape) in enumerate(shapes.items())}


def results(rnn, given):
    return rnn_results(rnn.vjp, **given)


def inference(rnn, given):
    return dict(zip(("y", "h_n"), rnn(given["x"], given["h0"]), strict=True))


def expected_results(rnn, given, masks=()):
    return rnn_results(lambda x, h0: rnn_vjp(rnn.parameters, x, h0, rnn.nonlinearity, masks), **given)


def small_rnn(dtype="float32", **options):
    """A net with every boundary inside: two layers, more units than a vector has lanes."""
    return RNN(5, 18, **{"num_layers": 2, "seed": 0} | options, dtype=dtype)


# Against the reference


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_float64_equals_the_reference(size, num_layers, bias, nonlinearity):
    T, B, I, H = size
    rnn = RNN(I, H, num_layers, nonlinearity, bias, dtype="float64", seed=1)
    given = arguments(rnn, T, B)
    assert_close(results(rnn, given), expected_results(rnn, given), TOLERANCE)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_float32_errors_are_those_of_rounding(size, num_layers, nonlinearity):
    T, B, I, H = size
    rnn = RNN(I, H, num_layers, nonlinearity, seed=1)
    given = arguments(rnn, T, B)

    def exact(x, h0, dy, dh_n, **p):
        return rnn_results(lambda x, h0: rnn_vjp(p, x, h0, nonlinearity), x, h0, dy, dh_n)

    inputs = wide(given | dict(rnn.parameters))
    budget = rounding_budget(exact, inputs, rnn.dtype)
    share = assert_within(results(rnn, given), exact(**inputs), budget)
    assert share > 0.01, "the budget is too large to see a fault"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_call_and_vjp_give_the_same_bits(dtype, num_layers):
    rnn = small_rnn(dtype, num_layers=num_layers)
    given = arguments(rnn, 7, 3)
    got = inference(rnn, given)
    expected = results(rnn, given)
    assert_same(got, {name: expected[name] for name in got})
    np.testing.assert_array_equal(got["h_n"][-1], got["y"][-1])


def test_no_initial_state_is_zeros():
    rnn = small_rnn()
    given = arguments(rnn, 7, 3)
    assert_same(results(rnn, given | {"h0": None}), results(rnn, given | {"h0": np.zeros_like(given["h0"])}))


@pytest.mark.parametrize("name", ["dy", "dh_n"])
def test_a_missing_cotangent_is_zeros(name):
    rnn = small_rnn("float64")
    given = arguments(rnn, 7, 3)
    zeros = given | {name: np.zeros_like(given[name])}
    got = results(rnn, given | {name: None})
    assert_same(got, results(rnn, zeros))
    assert_close(got, expected_results(rnn, zeros), TOLERANCE)
    assert np.abs(got["dx"]).min(axis=(1, 2)).max() > 0


def test_without_cotangents_all_gradients_are_zero():
    rnn = small_rnn()
    given = arguments(rnn, 7, 3)
    got = results(rnn, given | {"dy": None, "dh_n": None})
    assert not any(got[name].any() for name in got.keys() - {"y", "h_n"})


@pytest.mark.parametrize("t", [0, 3, 6])
def test_gradients_of_a_single_time_step(t):
    rnn = small_rnn("float64")
    given = arguments(rnn, 7, 3)
    given["dy"][np.arange(7) != t] = 0
    got = results(rnn, given | {"dh_n": None})
    assert_close(got, expected_results(rnn, given | {"dh_n": np.zeros_like(given["dh_n"])}), TOLERANCE)
    assert not got["dx"][t + 1 :].any()
    assert got["dx"][: t + 1].any(axis=(1, 2)).all()


def test_gradients_of_one_layers_last_state():
    rnn = small_rnn("float64", num_layers=3)
    given = arguments(rnn, 4, 2)
    given["dy"][...] = given["dh_n"][[0, 2]] = 0
    got = results(rnn, given)
    assert_close(got, expected_results(rnn, given), TOLERANCE)
    for name in ("weight_ih_l2", "weight_hh_l2", "bias_ih_l2", "bias_hh_l2"):
        assert not got[name].any()


def test_the_callers_gradients_are_overwritten():
    rnn = small_rnn()
    given = arguments(rnn, 7, 3)
    grads = rnn.parameters.empty_like()
    grads.flat.fill(np.nan)
    _, pullback = rnn.vjp(given["x"], given["h0"])
    *_, returned = pullback(given["dy"], given["dh_n"], grads)
    assert returned is grads
    fresh = results(rnn, given)
    assert_same(grads, {name: fresh[name] for name in grads})


# Shapes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_batch_first_swaps_x_and_y_only(dtype, num_layers):
    rnn, first = (small_rnn(dtype, num_layers=num_layers, batch_first=b) for b in (False, True))
    given = arguments(rnn, 7, 3)
    swapped = given | {name: given[name].swapaxes(0, 1) for name in ("x", "dy")}
    got = results(first, swapped)
    assert got["y"].flags.c_contiguous
    assert_same(got | {name: got[name].swapaxes(0, 1) for name in ("y", "dx")}, results(rnn, given))
    np.testing.assert_array_equal(first(swapped["x"], given["h0"])[0], got["y"])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("h0", [True, False])
def test_unbatched_is_a_batch_of_one(h0, batch_first):
    rnn = small_rnn(batch_first=batch_first)
    given = arguments(small_rnn(), 7, 1)
    expected = results(small_rnn(), given | ({} if h0 else {"h0": None}))
    alone = {name: value[:, 0] for name, value in given.items()} | ({} if h0 else {"h0": None})
    got = results(rnn, alone)
    assert_same(got, expected | {name: expected[name][:, 0] for name in ("y", "h_n", "dx", "dh0")})
    assert_same(inference(rnn, alone), {name: got[name] for name in ("y", "h_n")})


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 5), (7, 0, 5), (0, 0, 5), (7, 3, 0), (0, 3, 0)])
def test_empty_sizes(T, B, I, num_layers):
    rnn = RNN(I, 18, num_layers, dtype="float64", seed=0)
    given = arguments(rnn, T, B)
    got = results(rnn, given)
    assert_close(got, expected_results(rnn, given), TOLERANCE)
    if T == 0:
        assert_same({"h_n": got["h_n"], "dh0": got["dh0"]}, {"h_n": given["h0"], "dh0": given["dh_n"]})
    if T * B == 0:
        assert not any(got[name].any() for name in rnn.parameters)


def test_an_empty_unbatched_sequence():
    rnn = small_rnn(batch_first=True)
    given = {name: value[:, 0] for name, value in arguments(small_rnn(), 0, 1).items()}
    got = results(rnn, given)
    assert_same({"h_n": got["h_n"], "dh0": got["dh0"]}, {"h_n": given["h0"], "dh0": given["dh_n"]})
    assert got["y"].shape == (0, 18)
    assert got["dx"].shape == (0, 5)


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts_do_not_change_a_bit(layout):
    rnn = small_rnn("float64" if layout == "lists" else "float32")
    given = arguments(rnn, 7, 3)
    arranged = {name: LAYOUTS[layout](value) for name, value in given.items()}
    assert_same(results(rnn, arranged), results(rnn, given))
    assert_same(inference(rnn, arranged), inference(rnn, given))


def test_broadcast_arguments():
    rnn = small_rnn()
    given = {name: np.broadcast_to(value[:1, :1], value.shape) for name, value in arguments(rnn, 7, 3).items()}
    assert given["x"].strides[:2] == (0, 0)
    assert_same(results(rnn, given), results(rnn, {name: value.copy() for name, value in given.items()}))


def test_x_may_share_memory_with_the_other_arguments():
    rnn = RNN(18, 18, 2, seed=0)
    shared = normal(7, 3, 18, dtype="float32")
    given = {"x": shared, "h0": shared[:2], "dy": shared, "dh_n": shared[3:5]}
    assert_same(results(rnn, given), results(rnn, {name: value.copy() for name, value in given.items()}))


@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_and_weights_are_left_alone(batch_first):
    rnn = small_rnn(batch_first=batch_first)
    arrays = arguments(small_rnn(), 7, 3)
    arrays = arrays | {name: arrays[name].swapaxes(0, 1).copy() for name in ("x", "dy")} if batch_first else arrays
    before = {name: value.copy() for name, value in (arrays | dict(rnn.parameters)).items()}
    results(rnn, arrays)
    rnn(arrays["x"], arrays["h0"])
    assert_same(arrays | dict(rnn.parameters), before)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("sizes", [(7, 3), (1, 1), (0, 3)], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_results_own_their_memory(batch_first, sizes, num_layers, memory):
    rnn = small_rnn(num_layers=num_layers, batch_first=batch_first)
    given = arguments(small_rnn(num_layers=num_layers), *sizes)
    given |= {name: given[name].swapaxes(0, 1) for name in ("x", "dy")} if batch_first else {}
    arrays = [*given.values(), rnn.parameters.flat]
    for _ in range(2):
        got = results(rnn, given)
        arrays += [got[name] for name in ("y", "h_n", "dx", "dh0", "weight_hh_l0")]
        arrays += rnn(given["x"], given["h0"])
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            assert not np.shares_memory(a, b)


@pytest.mark.parametrize("memory", MEMORY)
def test_changing_results_changes_nothing_else(memory):
    rnn = small_rnn()
    given = arguments(rnn, 7, 3)
    expected = results(rnn, given)
    y, h_n = rnn(given["x"], given["h0"])
    h_n.fill(np.nan)
    np.testing.assert_array_equal(y, expected["y"])
    y.fill(np.nan)
    for value in results(rnn, given).values():
        value.fill(np.nan)
    assert_same(results(rnn, given), expected)


# Relations that hold for any numbers


@pytest.mark.parametrize("dtype", DTYPES)
def test_permuted_batch_rows(dtype):
    rnn, order = small_rnn(dtype), np.random.default_rng(5).permutation(9)
    given = arguments(rnn, 7, 9)
    expected = results(rnn, given)
    got = results(rnn, {name: value[:, order] for name, value in given.items()})
    assert_same(
        {name: got[name] for name in ("y", "h_n", "dx", "dh0")},
        {name: expected[name][:, order] for name in ("y", "h_n", "dx", "dh0")},
    )
    assert_close(
        {name: got[name] for name in rnn.parameters},
        {name: expected[name] for name in rnn.parameters},
        1e-13 if dtype == "float64" else 1e-5,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(1, 18))
def test_more_batch_rows_change_no_bit_of_the_others(rows, dtype):
    rnn = small_rnn(dtype)
    given = arguments(rnn, 5, 18)
    whole = results(rnn, given)
    got = results(rnn, {name: value[:, :rows] for name, value in given.items()})
    assert_same(
        {name: got[name] for name in ("y", "h_n", "dx", "dh0")},
        {name: whole[name][:, :rows] for name in ("y", "h_n", "dx", "dh0")},
    )


def test_permuted_units():
    rnn, permuted = (RNN(5, 18, dtype="float64", seed=0) for _ in range(2))
    order = np.random.default_rng(5).permutation(18)
    for name, value in rnn.parameters.items():
        permuted.parameters[name] = value[order][:, order] if "hh_l" in name and value.ndim == 2 else value[order]
    given = arguments(rnn, 7, 3)
    expected = results(rnn, given)
    got = results(permuted, given | {name: given[name][..., order] for name in ("h0", "dy", "dh_n")})
    expected |= {name: expected[name][..., order] for name in ("y", "h_n", "dh0")}
    for name in rnn.parameters:
        value = expected[name]
        expected[name] = value[order][:, order] if "hh_l" in name and value.ndim == 2 else value[order]
    assert_close(got, expected, 1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stacked_layers_are_layers_in_sequence(dtype):
    rnn = small_rnn(dtype, num_layers=3)
    given = arguments(rnn, 7, 3)
    expected = results(rnn, given)
    y, states, pullbacks = given["x"], [], []
    for k in range(3):
        layer = RNN(18 if k else 5, 18, dtype=dtype)
        layer.load_state_dict(
            {name[:-1] + "0": value for name, value in rnn.parameters.items() if name.endswith(str(k))}
        )
        (y, h), pullback = layer.vjp(y, given["h0"][k : k + 1])
        states.append(h)
        pullbacks.append(pullback)
    got = {"y": y, "h_n": np.concatenate(states)}
    d, d_states, gradients = given["dy"], [], {}
    for k in (2, 1, 0):
        d, d_state, grads = pullbacks[k](d, given["dh_n"][k : k + 1])
        d_states.insert(0, d_state)
        gradients |= {f"{name[:-1]}{k}": value for name, value in grads.items()}
    assert_same(got | {"dx": d, "dh0": np.concatenate(d_states), **gradients}, expected)


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_sequence_in_two_parts(cut):
    rnn = small_rnn()
    given = arguments(rnn, 7, 3)
    expected = results(rnn, given)
    (y_1, h_1), pull_1 = rnn.vjp(given["x"][:cut], given["h0"])
    (y_2, h_2), pull_2 = rnn.vjp(given["x"][cut:], h_1)
    dx_2, dh_1, _ = pull_2(given["dy"][cut:], given["dh_n"])
    dx_1, dh0, _ = pull_1(given["dy"][:cut], dh_1)
    got = {"y": np.concatenate([y_1, y_2]), "h_n": h_2, "dx": np.concatenate([dx_1, dx_2]), "dh0": dh0}
    assert_same(got, {name: expected[name] for name in got})


def test_without_recurrent_weights_steps_are_independent():
    rnn = RNN(5, 18, dtype="float64", seed=0)
    rnn.parameters["weight_hh_l0"].fill(0)
    given = arguments(rnn, 7, 3)
    y, _ = rnn(given["x"], given["h0"])
    alone = [rnn(x[None])[0][0] for x in given["x"]]
    np.testing.assert_array_equal(y, alone)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_repeats_give_the_same_bits(dtype, memory):
    rnn = RNN(64, 128, seed=0, dtype=dtype)
    given = arguments(rnn, 20, 32)
    expected = results(rnn, given)
    for _ in range(20):
        assert_same(results(rnn, given), expected)


# Values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 4, 8])
def test_nan_and_infinity_stay_in_their_row(row, bad, nonlinearity, dtype):
    rnn = small_rnn(dtype, nonlinearity=nonlinearity)
    given = arguments(rnn, 5, 9)
    clean = results(rnn, given)
    given["x"][2, row, 1] = bad
    got = results(rnn, given)
    others = np.arange(9) != row
    assert_same(
        {name: got[name][:, others] for name in ("y", "h_n", "dx", "dh0")},
        {name: clean[name][:, others] for name in ("y", "h_n", "dx", "dh0")},
    )
    np.testing.assert_array_equal(got["y"][:2], clean["y"][:2])
    if np.isnan(bad):
        assert np.isnan(got["y"][2:, row]).all()
        assert np.isnan(got["weight_ih_l0"]).any()
    elif nonlinearity == "tanh":
        assert np.isfinite(got["y"]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_units_have_no_gradient(dtype):
    rnn = RNN(1, 18, dtype=dtype, seed=0)
    rnn.parameters["weight_ih_l0"] = np.where(rnn.parameters["weight_ih_l0"] > 0, 1, -1)
    given = arguments(rnn, 7, 3)
    given["x"] = 1e4 * np.where(given["x"] > 0, 1, -1).astype(dtype)
    got = results(rnn, given)
    np.testing.assert_array_equal(np.abs(got["y"]), 1)
    assert not any(got[name].any() for name in ("dx", "dh0", *rnn.parameters))


# Calls do not disturb each other


@pytest.mark.parametrize("memory", MEMORY)
def test_pullbacks_may_be_repeated_and_interleaved(memory):
    rnn = small_rnn()
    first, second = arguments(rnn, 7, 3), arguments(rnn, 4, 5, seed=10)
    expected_first, expected_second = results(rnn, first), results(rnn, second)
    (y_1, _), pull_1 = rnn.vjp(first["x"], first["h0"])
    (y_2, _), pull_2 = rnn.vjp(second["x"], second["h0"])
    for y, pullback, given, expected in [
        (y_1, pull_1, first, expected_first),
        (y_2, pull_2, second, expected_second),
        (y_1, pull_1, first, expected_first),
    ]:
        dx, dh0, grads = pullback(given["dy"], given["dh_n"])
        assert_same({"y": y, "dx": dx, "dh0": dh0, **grads}, {n: expected[n] for n in ("y", "dx", "dh0", *grads)})


@pytest.mark.real_memory
@pytest.mark.parametrize("sizes", [(5, 18, 7, 3), (64, 128, 20, 32)], ids=["one_thread", "all_threads"])
def test_python_threads_share_a_layer(sizes):
    I, H, T, B = sizes
    rnn = RNN(I, H, 2, seed=0)
    inputs = [arguments(rnn, T, B, seed=10 * i) for i in range(4)]
    expected = [results(rnn, given) for given in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(lambda i: results(rnn, inputs[i % 4]), range(32)), 8 * expected, strict=True):
            assert_same(got, wanted)


# Initial values and dropout


def test_initial_values():
    rnn = RNN(200, 100, seed=0, dtype="float64")
    assert list(rnn.parameters) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    for name, value in rnn.parameters.items():
        assert np.abs(value).max() <= 0.1, name
    assert rnn.parameters.flat.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    assert abs(rnn.parameters.flat.mean()) < 0.1 * 3 / rnn.parameters.flat.size**0.5
    same, other = (RNN(200, 100, seed=seed, dtype="float64") for seed in (0, 1))
    np.testing.assert_array_equal(same.parameters.flat, rnn.parameters.flat)
    assert (other.parameters.flat != rnn.parameters.flat).mean() > 0.99
    np.testing.assert_array_equal(RNN(200, 100, seed=0).parameters.flat, rnn.parameters.flat.astype(np.float32))
    assert (RNN(3, 4).parameters.flat != RNN(3, 4).parameters.flat).any()


def test_state_dict_moves_the_weights():
    rnn, other = small_rnn(), small_rnn(seed=1)
    given = arguments(rnn, 7, 3)
    state = rnn.state_dict()
    other.load_state_dict(state)
    assert_same(results(other, given), results(rnn, given))
    state["weight_hh_l1"].fill(0)
    assert rnn.parameters["weight_hh_l1"].any()
    assert other.parameters["weight_hh_l1"].any()


@pytest.fixture
def masks(monkeypatch):
    """The masks that dropout draws while the test runs, in order."""
    drawn, original = [], Dropout.vjp

    def vjp(self, x):
        y, pullback = original(self, x)
        drawn.append(np.where(y == 0, 0.0, 1 / (1 - self.p)))
        return y, pullback

    monkeypatch.setattr(Dropout, "vjp", vjp)
    return drawn


@pytest.mark.parametrize("num_layers", [2, 3])
def test_dropout_between_layers(num_layers, masks):
    rnn = small_rnn("float64", num_layers=num_layers, dropout=0.4)
    given = arguments(rnn, 7, 3)
    got = results(rnn, given)
    assert len(masks) == num_layers - 1
    assert all(0.2 < (mask == 0).mean() < 0.6 for mask in masks)
    assert_close(got, expected_results(rnn, given, masks), TOLERANCE)


def test_dropout_is_off_in_inference_and_seeded_in_training():
    rnn, same, other, none = (small_rnn(dropout=p, seed=s) for p, s in [(0.4, 0), (0.4, 0), (0.4, 1), (0.0, 0)])
    other.load_state_dict(rnn.parameters)
    given = arguments(rnn, 7, 3)
    for _ in range(2):
        assert_same(inference(rnn, given), inference(none, given))
    first, second = results(rnn, given), results(rnn, given)
    assert_same(results(same, given), first)
    assert_same(results(same, given), second)
    for different in (second, results(other, given), results(none, given)):
        assert (different["y"] != first["y"]).mean() > 0.9
    np.testing.assert_array_equal(first["h_n"][0], inference(none, given)["h_n"][0])


def test_the_last_layer_has_no_dropout():
    rnn, none = (small_rnn(num_layers=1, dropout=p) for p in (0.9, 0.0))
    given = arguments(rnn, 7, 3)
    assert_same(results(rnn, given), results(none, given))
