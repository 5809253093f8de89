"""Cells over trees: against the reference, chains of RNN and LSTM, torch, and the bits that must not change."""

import numpy as np
import pytest
from cases import DTYPES
from cells import CELLS, PARAMETERS
from forests import forests, random_forest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import assert_close, complex_step
from oracles import assert_same, import_torch, normal

import fastrnn
from fastrnn import Recursive, Trees, gradcheck
from fastrnn.layers.recursive import CELLS as KINDS
from fastrnn.reference import recursive

CHILDREN = ("sum", 1, 3)
TOLERANCE = {"float32": 4e-6, "float64": 2e-14}
STATES = ("h", "c")


def forest(N, children, seed=0):
    return random_forest(np.random.default_rng(seed), N, 3 if children == "sum" else children)


def wide(count):
    """A node with so many children, whose own are some of the others."""
    return np.r_[-1, np.zeros(count, int), 1 + np.arange(count // 2)], None


def arguments(layer, N, seed=0):
    """x, and the cotangents of all states."""
    x = normal(N, layer.input_size, seed=seed, dtype=layer.dtype)
    return x, tuple(normal(N, layer.hidden_size, seed=seed + 1 + i, dtype=layer.dtype) for i in range(states_of(layer)))


def states_of(layer):
    return len(layer.state_names)


def one(parts):
    return parts if len(parts) > 1 else parts[0]


def results(layer, trees, x, d_state):
    """All that a layer computes, by name."""
    state, pullback = layer.vjp(x, trees)
    dx, grads = pullback(one(d_state))
    state = state if isinstance(state, tuple) else (state,)
    return dict(zip(STATES, state, strict=False)) | {"dx": dx} | dict(grads)


def reference_cell(parameters, kind):
    no_bias = np.zeros(len(parameters["weight_ih"]))
    weights = {field: parameters[name] for field, name in PARAMETERS.items() if name in parameters}
    return CELLS[kind].reference(**{"b_ih": no_bias, "b_hh": no_bias} | weights)


def expected_results(layer, parents, positions, x, d_state):
    """The same by the reference, in float64."""
    K = 0 if layer.children == "sum" else layer.children
    cell = reference_cell({name: p.astype(np.float64) for name, p in layer.parameters.items()}, layer.cell)
    x = x.astype(np.float64)
    state, tape = recursive.recursive_forward(cell, x, parents, positions, K)
    dx, d_cell = recursive.recursive_backward(cell, x, state, tape, d_state, K)
    grads = {PARAMETERS[field]: gradient for field, gradient in d_cell._asdict().items()}
    grads = {name: grads[name] for name in layer.parameters}
    return dict(zip(STATES, state, strict=False)) | {"dx": dx} | grads


def check(layer, parents, positions, seed=0):
    trees = Trees(parents, positions)
    x, d_state = arguments(layer, len(parents), seed)
    got = results(layer, trees, x, d_state)
    assert all(value.dtype == layer.dtype for value in got.values())
    expected = expected_results(layer, trees.parents, trees.positions, x, d_state)
    assert_close(got, expected, TOLERANCE[layer.dtype.name])


# The reference


@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_by_the_complex_step(kind, children):
    I, H, N, K = 2, 3, 9, 0 if children == "sum" else children
    parents, positions = forest(N, children, seed=3)
    layer = Recursive(I, H, kind, children, dtype="float64", seed=0)
    x, d_state = arguments(layer, N)

    def loss(x, **parameters):
        state, _ = recursive.recursive_forward(reference_cell(parameters, kind), x, parents, positions, K)
        return sum((d * s).sum() for d, s in zip(d_state, state, strict=True))

    found = complex_step(loss, {"x": x} | dict(layer.parameters))
    expected = expected_results(layer, parents, positions, x, d_state)
    assert_close(found, {"x": expected["dx"]} | {name: expected[name] for name in layer.parameters}, 1e-13)


# Kernels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("I", "H", "N"), [(1, 1, 1), (3, 15, 20), (0, 16, 7), (16, 17, 2), (33, 33, 400)], ids=str)
def test_values_and_gradients(I, H, N, kind, children, dtype):
    check(Recursive(I, H, kind, children, dtype=dtype, seed=0), *forest(N, children))


@pytest.mark.parametrize("kind", KINDS)
def test_many_children(kind):
    """More edges than a block of rows."""
    check(Recursive(5, 17, kind, dtype="float64", seed=0), *wide(250))
    check(Recursive(2, 5, kind, 250, dtype="float64", seed=0), *wide(250))


@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
def test_without_bias(kind, children):
    layer = Recursive(4, 6, kind, children, bias=False, seed=0)
    assert list(layer.parameters) == ["weight_ih", "weight_hh"]
    check(layer, *forest(30, children))


@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(st.data())
def test_random_trees(kind, children, data):
    parents, positions = data.draw(forests(3 if children == "sum" else children, 25))
    check(Recursive(3, 5, kind, children, dtype="float64", seed=0), parents, positions)


@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_differences(kind, children):
    layer = Recursive(3, 4, kind, children, dtype="float64", seed=0)
    trees = Trees(*forest(12, children))
    x, _ = arguments(layer, len(trees))

    def function(x, **parameters):
        for name, value in parameters.items():
            layer.parameters[name] = value
        state = layer(x, trees)
        return dict(zip(STATES, state if isinstance(state, tuple) else (state,), strict=False))

    def gradients(cotangents):
        dx, grads = layer.vjp(x, trees)[1](one(tuple(cotangents.values())))
        return {"x": dx} | dict(grads)

    report = gradcheck.check(function, gradients, {"x": x} | layer.state_dict(), method="central")
    assert report.ok, report


# What it is a case of, and others'


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("children", ["sum", 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_is_a_recurrent_network(kind, children, dtype):
    I, H, lengths = 5, 18, np.array([40, 1, 0, 17])
    layer = Recursive(I, H, kind, children, dtype=dtype, seed=0)
    own = CELLS[kind].kind
    rnn = own.layer_class(I, H, **own.options, dtype=dtype)
    rnn.load_state_dict({f"{name}_l0": p for name, p in layer.state_dict().items()})
    trees, offsets = Trees.chains(lengths), np.append(0, np.cumsum(lengths))
    x, d_state = arguments(layer, len(trees))
    last = np.isin(np.arange(len(trees)), trees.roots)[:, None]
    d_state = d_state[:1] + tuple(np.where(last, d, 0) for d in d_state[1:])
    got = results(layer, trees, x, d_state)

    (y, _), pullback = rnn.vjp(fastrnn.Packed(x, offsets))
    d_final = [np.zeros((1, len(lengths), H), dtype) for _ in d_state]
    for d, rows in zip(d_final[1:], d_state[1:], strict=True):
        d[0, lengths > 0] = rows[trees.roots]
    dx, _, grads = pullback(fastrnn.Packed(d_state[0], offsets), one(tuple(d_final)))
    np.testing.assert_array_equal(got.pop("h"), y.data)
    got.pop("c", None)
    expected = {"dx": dx.data} | {name.removesuffix("_l0"): gradient for name, gradient in grads.items()}
    assert_close(got, expected, TOLERANCE[dtype])


def torch_states(torch, layer, p, x, trees):
    """The equations of the papers, node by node."""
    H, K = layer.hidden_size, 0 if layer.children == "sum" else layer.children
    none = torch.zeros(H, dtype=x.dtype)
    found = {}
    for node in trees.order.tolist():
        children = sorted(np.flatnonzero(trees.parents == node).tolist(), key=lambda child: trees.positions[child])
        z = p["weight_ih"] @ x[node] + p["bias_ih"] + p["bias_hh"]
        if K:
            places = {int(trees.positions[child]): child for child in children}
            fed = torch.cat([found[places[k]][0] if k in places else none for k in range(K)])
        else:
            fed = sum((found[child][0] for child in children), none)
        if layer.cell != "lstm":
            f = torch.tanh if layer.cell == "tanh" else torch.relu
            found[node] = (f(z + p["weight_hh"] @ fed),)
            continue
        U = p["weight_hh"]
        i, g, o = z[:H] + U[:H] @ fed, z[2 * H : 3 * H] + U[-2 * H : -H] @ fed, z[3 * H :] + U[-H:] @ fed
        c = torch.sigmoid(i) * torch.tanh(g)
        for child in children:
            k = int(trees.positions[child])
            hidden = U[H * (1 + k) : H * (2 + k)] @ fed if K else U[H : 2 * H] @ found[child][0]
            c = c + torch.sigmoid(z[H : 2 * H] + hidden) * found[child][1]
        found[node] = torch.sigmoid(o) * torch.tanh(c), c
    return [torch.stack([found[node][i] for node in range(len(trees))]) for i in range(states_of(layer))]


@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
def test_torch(kind, children):
    torch = import_torch()
    layer, trees = Recursive(5, 7, kind, children, dtype="float64", seed=0), Trees(*forest(40, children))
    x, d_state = arguments(layer, len(trees))
    p = {name: torch.tensor(value, requires_grad=True) for name, value in layer.parameters.items()}
    x_torch = torch.tensor(x, requires_grad=True)
    state = torch_states(torch, layer, p, x_torch, trees)
    sum((torch.tensor(d) * s).sum() for d, s in zip(d_state, state, strict=True)).backward()
    expected = {name: s.detach().numpy() for name, s in zip(STATES, state, strict=False)} | {"dx": x_torch.grad.numpy()}
    expected |= {name: value.grad.numpy() for name, value in p.items()}
    assert_close(results(layer, trees, x, d_state), expected, TOLERANCE["float64"])


# Bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("children", ["sum", 3])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_no_bit(kind, children, dtype):
    layer, trees = Recursive(40, 50, kind, children, dtype=dtype, seed=0), Trees(*forest(500, children))
    given = arguments(layer, len(trees))
    found = []
    for threads in (1, fastrnn.get_num_threads()):
        fastrnn.set_num_threads(threads)
        found.append(results(layer, trees, *given))
    assert_same(*found)


@pytest.mark.parametrize("children", ["sum", 3])
@pytest.mark.parametrize("kind", KINDS)
def test_other_trees_change_no_bit(kind, children):
    """Nor does the numbering of the nodes."""
    layer = Recursive(9, 18, kind, children, seed=0)
    (parents, positions), (others, more) = forest(60, children, seed=1), forest(300, children, seed=2)
    number = np.random.default_rng(0).permutation(360)
    own, at_others = number[:60], number[60:]
    all_parents, all_positions = np.empty(360, int), np.empty(360, int)
    for at, p, q in ((own, parents, positions), (at_others, others, more)):
        all_parents[at], all_positions[at] = np.where(p < 0, -1, at[p]), q
    x, d_state = arguments(layer, 360)
    together = results(layer, Trees(all_parents, all_positions), x, d_state)
    alone = results(layer, Trees(parents, positions), x[own], tuple(d[own] for d in d_state))
    for name in ("h", "dx"):
        np.testing.assert_array_equal(together[name][own], alone[name], err_msg=name)


# As a user calls it


@pytest.mark.parametrize("children", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
def test_calls(kind, children):
    """Inference, repeated and interleaved pullbacks, cotangents of None, given gradients."""
    layer, trees = Recursive(4, 19, kind, children, seed=0), Trees(*forest(50, children))
    x, d_state = arguments(layer, len(trees))
    first = results(layer, trees, x, d_state)
    state = layer(x, trees)
    assert_same(
        dict(zip(STATES, state if kind == "lstm" else (state,), strict=False)),
        {name: first[name] for name in STATES if name in first},
    )
    _, pullback = layer.vjp(x, trees)
    layer(x[::-1], trees)
    given = layer.parameters.empty_like()
    for _ in range(2):
        dx, grads = pullback(one(d_state), given)
        assert grads is given
        assert_same({"dx": dx} | dict(grads), {name: first[name] for name in ("dx", *grads)})
    zeros = tuple(np.zeros_like(d) for d in d_state)
    for i, zero in enumerate(zeros):
        some = (*d_state[:i], zero, *d_state[i + 1 :])
        without = (*d_state[:i], None, *d_state[i + 1 :])
        assert_same(dict(pullback(one(without))[1]), dict(pullback(one(some))[1]))


def test_the_roots_are_the_trees():
    trees, words = Trees.from_nested([(("not", "good"), "."), "fine"])
    layer = Recursive(8, 6, "lstm", 2, seed=0)
    x = np.array([normal(8, seed=len(word)) if word else np.zeros(8) for word in words], np.float32)
    h, c = layer(x, trees)
    assert h[trees.roots].shape == c[trees.roots].shape == (2, 6)
    swapped, _ = Trees.from_nested([(".", ("not", "good")), "fine"])
    assert (layer(x[[0, 4, 1, 2, 3, 5]], swapped)[0][0] != h[0]).all()
    summed = Recursive(8, 6, "lstm", seed=0)
    np.testing.assert_allclose(summed(x[[0, 4, 1, 2, 3, 5]], swapped)[0][0], summed(x, trees)[0][0], rtol=1e-5)


def test_initial_values():
    layer = Recursive(100, 64, "lstm", 3, dtype="float64", seed=0)
    assert {name: p.shape for name, p in layer.parameters.items()} == {
        "weight_ih": (256, 100), "weight_hh": (384, 192), "bias_ih": (256,), "bias_hh": (256,)
    }  # fmt: skip
    assert np.abs(layer.parameters.flat).max() <= 1 / 8
    assert layer.parameters.flat.std() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    np.testing.assert_array_equal(
        Recursive(100, 64, "lstm", 3, dtype="float64", seed=0).parameters.flat, layer.parameters.flat
    )


TREES, X = Trees([-1, 0, 0]), np.zeros((3, 2), np.float32)
ERRORS = {
    "input_size: expected an integer >= 0, got -1": lambda: Recursive(-1, 3),
    "hidden_size: expected an integer >= 1, got 0": lambda: Recursive(2, 0),
    "cell: expected one of tanh, relu, lstm, got 'gru'": lambda: Recursive(2, 3, "gru"),
    "children: expected \"sum\" or an integer >= 1, got 'mean'": lambda: Recursive(2, 3, children="mean"),
    'children: expected "sum" or an integer >= 1, got 0': lambda: Recursive(2, 3, children=0),
    'children: expected "sum" or an integer >= 1, got True': lambda: Recursive(2, 3, children=True),
    "x: expected shape (N, input_size) = (3, 2), got (4, 2)": lambda: Recursive(2, 3)(np.zeros((4, 2), "f4"), TREES),
    "x: expected shape (N, input_size) = (3, 5), got (3, 2)": lambda: Recursive(5, 3).vjp(X, TREES),
    "positions: expected 0 <= position < 1, the layer's children, got 1": lambda: Recursive(2, 3, children=1)(X, TREES),
    "dh: expected shape (N, hidden_size) = (3, 3), got (3, 2)": lambda: Recursive(2, 3).vjp(X, TREES)[1](X),
    "d_state: expected (dh, dc), got ndarray": lambda: Recursive(2, 2, "lstm").vjp(X, TREES)[1](X),
    "dc: expected shape (N, hidden_size) = (3, 3), got (3, 2)": lambda: Recursive(2, 3, "lstm").vjp(X, TREES)[1](
        (None, X)
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    with pytest.raises(ValueError) as caught:
        ERRORS[message]()
    assert str(caught.value) == message


def test_what_has_the_wrong_type():
    with pytest.raises(TypeError, match=r"^trees: expected Trees, got list$"):
        Recursive(2, 3)(X, [-1, 0, 0])
    with pytest.raises(TypeError, match=r"^x: expected dtype float32, got float64$"):
        Recursive(2, 3)(X.astype(np.float64), TREES)
