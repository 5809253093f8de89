"""RNNCell, GRUCell, LSTMCell: a step against the reference, and against a layer that takes one."""

import copy

import numpy as np
import pytest
from cases import DTYPES
from cells import CELLS
from numerics import assert_close
from oracles import arrays_of, assert_same, import_torch, normal, state_of

import fastrnn
from fastrnn import GRUCell, LSTMCell, RNNCell
from fastrnn.reference.cells import cell_backward, cell_forward

KINDS = {name: cell for name, cell in CELLS.items() if not cell.projected}
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def build(kind, I=5, H=18, **options):
    return getattr(fastrnn, f"{KINDS[kind].kind.layer_name}Cell")(I, H, **{"seed": 0} | own_options(kind) | options)


def own_options(kind):
    """What chooses the kind, of the constructors of a layer and of a single step."""
    return KINDS[kind].kind.options | ({"peepholes": True} if KINDS[kind].peepholes else {})


def arguments(cell, *batch):
    """x, state, d_state."""
    count = len(cell.state_names)
    x = normal(*batch, cell.input_size, dtype=cell.dtype)
    arrays = [normal(*batch, cell.hidden_size, seed=i, dtype=cell.dtype) for i in range(1, 5)]
    return x, *(tuple(part) if count == 2 else part[0] for part in (arrays[:count], arrays[2 : 2 + count]))


def named(new, dx, d_initial, grads):
    """All that a step computes, by name."""
    found = {"dx": dx, **grads}
    found |= dict(zip(("h", "c"), arrays_of(new), strict=False))
    return found | dict(zip(("dh", "dc"), arrays_of(d_initial), strict=False))


def results(cell, x, state, d_state):
    new, pullback = cell.vjp(x, state)
    return named(new, *pullback(d_state))


@kinds
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize(("B", "I", "H"), [(3, 5, 18), (1, 1, 1), (7, 33, 16), (2, 0, 31), (0, 5, 18), (17, 64, 36)])
def test_float64_equals_the_reference(B, I, H, bias, kind):
    cell = build(kind, I, H, bias=bias, dtype="float64")
    x, state, d_state = arguments(cell, B)
    p = {"bias_ih": np.zeros(1), "bias_hh": np.zeros(1), **cell.parameters}
    if not bias:
        p |= dict.fromkeys(("bias_ih", "bias_hh"), np.zeros(len(p["weight_hh"])))
    weights = [p[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    weights += [None, p["weight_ch"]] if "weight_ch" in p else []
    reference = KINDS[kind].reference(*weights)
    new, saved = cell_forward(reference, x, arrays_of(state))
    dx, d_initial, d_cell = cell_backward(reference, x, arrays_of(state), new, saved, arrays_of(d_state))
    grads = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh", "", "weight_ch"), d_cell, strict=False))
    expected = named(new, dx, d_initial, {name: grads[name] for name in cell.parameters})
    assert_close(results(cell, x, state, d_state), expected, 1e-12)


@kinds
@dtypes
def test_a_step_is_a_layers(dtype, kind):
    """To the bit; so cells continue what layers begin."""
    cell = build(kind, dtype=dtype)
    layer = KINDS[kind].kind.layer_class(5, 18, **own_options(kind), dtype=dtype)
    layer.load_state_dict({name + "_l0": value for name, value in cell.parameters.items()})
    x, state, d_state = arguments(cell, 3)
    (y, new), pullback = layer.vjp(x[None], state_of(tuple(s[None] for s in arrays_of(state))))
    dx, d_initial, grads = pullback(None, state_of(tuple(d[None] for d in arrays_of(d_state))))
    new, d_initial = ([s[0] for s in arrays_of(states)] for states in (new, d_initial))
    expected = named(tuple(new), dx[0], tuple(d_initial), {name.removesuffix("_l0"): g for name, g in grads.items()})
    got = results(cell, x, state, d_state)
    assert_same(got, expected)
    np.testing.assert_array_equal(y[0], got["h"])


@kinds
@dtypes
def test_call_and_vjp_give_the_same_bits(dtype, kind):
    cell = build(kind, dtype=dtype)
    x, state, _ = arguments(cell, 3)
    for called, trained in zip(arrays_of(cell(x, state)), arrays_of(cell.vjp(x, state)[0]), strict=True):
        np.testing.assert_array_equal(called, trained, strict=True)


@kinds
def test_unbatched_is_a_batch_of_one(kind):
    cell = build(kind)
    x, state, d_state = arguments(cell)
    batched = [tuple(a[None] for a in arrays_of(s)) if isinstance(s, tuple) else s[None] for s in (x, state, d_state)]
    expected = results(cell, *batched)
    got = results(cell, x, state, d_state)
    assert_same(got, {n: v[0] if n not in cell.parameters else v for n, v in expected.items()})
    assert arrays_of(cell(x))[0].shape == (18,)


@kinds
def test_absent_states_and_cotangents_are_zeros(kind):
    cell = build(kind)
    x, state, d_state = arguments(cell, 3)
    zeros = tuple(np.zeros_like(s) for s in state) if isinstance(state, tuple) else np.zeros_like(state)
    assert_same(results(cell, x, None, d_state), results(cell, x, zeros, d_state))
    assert_same(results(cell, x, state, None), results(cell, x, state, zeros))
    _, pullback = cell.vjp(x, state)
    assert not any(value.any() for value in pullback()[2].values())


@pytest.mark.parametrize("kind", ["lstm", "lstm_peepholes"])
@pytest.mark.parametrize("absent", [0, 1])
def test_either_part_of_a_pair_may_be_absent(absent, kind):
    cell = build(kind)
    x, state, d_state = arguments(cell, 3)

    def without(pair, value):
        return tuple(value(s) if i == absent else s for i, s in enumerate(pair))

    got = results(cell, x, without(state, lambda s: None), without(d_state, lambda s: None))
    assert_same(got, results(cell, x, without(state, np.zeros_like), without(d_state, np.zeros_like)))


@kinds
def test_results_and_arguments_are_nobody_elses(kind):
    cell = build(kind)
    x, state, d_state = arguments(cell, 3)
    given = [x, *arrays_of(state), *arrays_of(d_state), cell.parameters.flat]
    before = [a.copy() for a in given]
    grads = cell.parameters.empty_like()
    grads.flat.fill(np.nan)
    expected = results(cell, x, state, d_state)
    new, pullback = cell.vjp(x, state)
    dx, d_initial, returned = pullback(d_state, grads)
    assert returned is grads
    assert_same(named(new, dx, d_initial, grads), expected)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)
    arrays = [*given, *arrays_of(new), *arrays_of(cell(x, state)), dx, *arrays_of(d_initial), grads.flat]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[:i])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_memory_layouts_do_not_change_a_bit(kind):
    cell = build(kind)
    x, state, d_state = arguments(cell, 3)
    for layout in (np.asfortranarray, lambda a: a[::-1].copy()[::-1], lambda a: a.astype(">f4")):
        arranged = [tuple(map(layout, s)) if isinstance(s, tuple) else layout(s) for s in (x, state, d_state)]
        assert_same(results(cell, *arranged), results(cell, x, state, d_state))


def test_names_are_torchs():
    nn = import_torch().nn
    for Cell in (RNNCell, GRUCell, LSTMCell):
        for bias in (True, False):
            theirs = getattr(nn, Cell.__name__)(5, 7, bias)
            ours = Cell(5, 7, bias).parameters.shapes
            assert list(ours.items()) == [(name, tuple(p.shape)) for name, p in theirs.named_parameters()]
    assert list(LSTMCell(5, 7, peepholes=True).parameters)[-1] == "weight_ch"


@kinds
def test_initial_values(kind):
    cell = build(kind, 200, 100, dtype="float64")
    assert np.abs(cell.parameters.flat).max() <= 0.1
    assert cell.parameters.flat.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    np.testing.assert_array_equal(build(kind, 200, 100, dtype="float64").parameters.flat, cell.parameters.flat)
    assert (build(kind, 200, 100, seed=1, dtype="float64").parameters.flat != cell.parameters.flat).any()


def test_forget_bias():
    plain, biased = (LSTMCell(5, 7, forget_bias=b, seed=0).parameters for b in (None, 1.5))
    np.testing.assert_array_equal(biased["bias_ih"][7:14] + biased["bias_hh"][7:14], np.full(7, 1.5, np.float32))
    np.testing.assert_array_equal(biased["bias_ih"][14:], plain["bias_ih"][14:])


@kinds
def test_copies_have_weights_of_their_own(kind):
    cell = build(kind)
    x, state, d_state = arguments(cell, 3)
    expected = results(cell, x, state, d_state)
    twin = copy.deepcopy(cell)
    twin.parameters.flat.fill(np.nan)
    assert np.isnan(arrays_of(twin(x, state))[0]).all()
    assert_same(results(cell, x, state, d_state), expected)
