"""The contract of cells, proven by cells that need all of it, through everything that a layer does."""

import copy
import pickle

import numpy as np
import pytest
from proofs import LAYERS, kind_of, reference

from fastrnn import gradcheck, kinds, threads

T, B, I, H = 5, 4, 3, 19  # more units than a vector has lanes, and no multiple of them
LENGTHS = np.array([5, 2, 0, 4])

every_cell = pytest.mark.parametrize("tag", LAYERS, ids=lambda tag: tag.__name__)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """The kinds as rows of the table."""
    for tag in LAYERS:
        monkeypatch.setitem(kinds.KINDS, tag, kind_of(tag))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def drawn(tag, hidden=H, **options):
    """A layer, its inputs and cotangents."""
    layer = LAYERS[tag](I, hidden, dtype="float64", seed=0, **options)
    layer.parameters.flat[:] = normal(1, layer.parameters.flat.size) / 3
    D, S = layer.num_layers * (1 + layer.bidirectional), len(layer.state_names)
    x, states = normal(2, T, B, I), [0.5 * normal(3 + s, D, B, hidden) for s in range(S)]
    dy, d_states = (
        normal(10, T, B, hidden * (1 + layer.bidirectional)),
        [normal(11 + s, D, B, hidden) for s in range(S)],
    )
    return layer, x, states, dy, d_states


def results(layer, x, states, dy, d_states, lengths):
    """Values and gradients by name."""
    (y, final), pullback = layer.vjp(x, layer.state_of(states), lengths=lengths)
    dx, d_initial, grads = pullback(dy, layer.state_of(d_states))
    final, d_initial = ((s,) if len(states) == 1 else s for s in (final, d_initial))
    names = layer.state_names
    return (
        {"y": y, "dx": dx, **grads}
        | dict(zip(names, final, strict=True))
        | {f"d_{name}": d for name, d in zip(names, d_initial, strict=True)}
    )


@every_cell
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [np.full(B, T), LENGTHS], ids=["dense", "ragged"])
def test_values_and_every_gradient_by_complex_steps(tag, lengths, bidirectional):
    layer, x, states, dy, d_states = drawn(tag, 3, num_layers=2, bidirectional=bidirectional)
    got = results(layer, x, states, dy, d_states, lengths)
    parameters, names = dict(layer.parameters), layer.state_names

    def run(x, *rest):
        return reference(
            layer, x, rest[: len(states)], dict(zip(parameters, rest[len(states) :], strict=True)), lengths
        )

    inputs = [x, *states, *parameters.values()]
    y, *final = run(*inputs)
    present = np.arange(T)[:, None, None] < lengths[None, :, None]
    for name, value in zip(("y", *names), (y, *final), strict=True):
        np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-13, err_msg=name)
    for i, name in enumerate(("dx", *[f"d_{name}" for name in names], *parameters)):
        expected = np.zeros(inputs[i].shape)
        for place in np.ndindex(inputs[i].shape):
            moved = [each.astype(complex) if j == i else each for j, each in enumerate(inputs)]
            moved[i][place] += 1e-30j
            y, *final = run(*moved)
            total = (dy * y * present).sum() + sum((d * s).sum() for d, s in zip(d_states, final, strict=True))
            expected[place] = total.imag / 1e-30
        np.testing.assert_allclose(got[name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


@every_cell
@pytest.mark.parametrize("plan", [(2, 1), (1, 2), (1, 3), (3, 2)], ids=str)
def test_same_bits_for_any_cut_and_any_neighbours(tag, plan, monkeypatch):
    layer, *arrays = drawn(tag, num_layers=2, bidirectional=True)
    expected = results(layer, *arrays, LENGTHS)
    monkeypatch.setattr(threads, "for_sequence", lambda *work: threads.Plan(*plan))
    for name, value in results(layer, *arrays, LENGTHS).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    x, states, dy, d_states = arrays
    alone = results(
        layer, x[:, 1:2], [s[:, 1:2] for s in states], dy[:, 1:2], [d[:, 1:2] for d in d_states], LENGTHS[1:2]
    )
    for name in ("y", "dx", *layer.state_names):
        np.testing.assert_array_equal(alone[name], expected[name][:, 1:2], err_msg=name)


@pytest.mark.exhaustive  # a compilation more for each cell; the engine's float32 is tested with the package's own
@every_cell
def test_float32_is_close(tag):
    layer, *arrays = drawn(tag)
    expected = results(layer, *arrays, LENGTHS)
    narrow = LAYERS[tag](I, H, seed=0)
    narrow.parameters.flat[:] = layer.parameters.flat
    x, states, dy, d_states = arrays
    states, d_states = ([s.astype("f") for s in each] for each in (states, d_states))
    got = results(narrow, x.astype("f"), states, dy.astype("f"), d_states, LENGTHS)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-4, atol=2e-5 * abs(value).max(), err_msg=name)


@every_cell
def test_cells_are_returned_by_name(tag):
    layer, x, states, _, _ = drawn(tag)
    y, final, (cells,) = layer(x, layer.state_of(states), lengths=LENGTHS, return_cells=True)
    gates = [name for name in layer.kind.gates if name in kinds.TRAITS[tag].saved]
    assert [*cells] == ["h", *gates, *layer.state_names[1:]]
    np.testing.assert_array_equal(cells["h"], y)
    for name, last in zip(layer.state_names, final if len(states) > 1 else (final,), strict=True):
        for b in np.flatnonzero(LENGTHS):
            np.testing.assert_array_equal(cells[name][LENGTHS[b] - 1, b], last[0, b])


@every_cell
def test_steps_are_what_the_sequence_is(tag):
    layer, x, states, _, _ = drawn(tag, num_layers=2)
    stream = layer.stream(B)
    stream.state = layer.state_of(states)
    rows = np.stack([stream(row) for row in x[:3]])
    stream = pickle.loads(pickle.dumps(copy.copy(stream)))
    rows = np.concatenate([rows, [stream(row) for row in x[3:]]])
    y, final = layer(x, layer.state_of(states))
    np.testing.assert_array_equal(rows, y)
    np.testing.assert_array_equal(stream.state, final)


@every_cell
def test_the_gradient_check_finds_them_right(tag):
    report = gradcheck.check_layer(
        LAYERS[tag](3, 4, num_layers=2, bidirectional=True, dtype="float64", seed=0), lengths=[4, 0, 2]
    )
    report.raise_if_wrong()
    gates = {row.block for row in report.rows if row.input == "weight_ih_l0"}
    assert gates == {f"gate {name}" for name in kinds.KINDS[tag].gates}
    assert {row.output for row in report.rows} >= {f"{name}_n" for name in kinds.KINDS[tag].states}


def test_an_order_of_gates_that_no_product_has_is_refused():
    from fastrnn.kernels.cells import TRAITS, X_H, Traits, X

    with pytest.raises(ValueError, match="gates: expected feeds in the order"):
        TRAITS[object] = Traits(gates={"a": X, "b": X_H}, states=("h",))
