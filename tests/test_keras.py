"""Weights from and to Keras: against Keras' equations, written here once more and in its own order of gates."""

import numpy as np
import pytest
from cells import CELLS
from numerics import assert_close, relative_error
from oracles import arrays_of, normal
from recurrent_layers import build

from fastrnn import LSTM, Linear
from fastrnn.exchange import layer_of, parts_of
from fastrnn.keras import from_keras, to_keras

# kind: how Keras names it, and its settings
KINDS = {
    "tanh": ("SimpleRNN", {"activation": "tanh"}),
    "relu": ("SimpleRNN", {"activation": "relu"}),
    "gru": ("GRU", {"reset_after": True}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "lstm": ("LSTM", {}),
}
GATED = {"activation": "tanh", "recurrent_activation": "sigmoid"}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step(kind, x, states, kernel, recurrent_kernel, bias):
    """One step of Keras' cell: x (B, I), states of (B, H); its new states, the output first."""
    h = states[0]
    H = h.shape[1]
    if kind in ("tanh", "relu"):
        a = x @ kernel + h @ recurrent_kernel + (0 if bias is None else bias)
        return (np.tanh(a) if kind == "tanh" else np.maximum(a, 0),)
    if kind == "lstm":
        a = x @ kernel + h @ recurrent_kernel + (0 if bias is None else bias)
        i, f, c, o = (a[:, j * H : (j + 1) * H] for j in range(4))
        carry = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(c)
        return sigmoid(o) * np.tanh(carry), carry
    bias = np.zeros((2, 3 * H)) if bias is None else bias
    input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros(3 * H))
    a, b = x @ kernel + input_bias, h @ recurrent_kernel + recurrent_bias
    z, r = sigmoid(a[:, :H] + b[:, :H]), sigmoid(a[:, H : 2 * H] + b[:, H : 2 * H])
    inner = r * b[:, 2 * H :] if kind == "gru" else (r * h) @ recurrent_kernel[:, 2 * H :]
    return (z * h + (1 - z) * np.tanh(a[:, 2 * H :] + inner),)


def direction(kind, x, weights, backward):
    """Keras' layer with return_sequences and return_state, from zeros: y (B, T, H) in x's order, and its states."""
    kernel, recurrent_kernel, bias = [*weights, None][:3]
    states, y = (np.zeros((len(x), len(recurrent_kernel))),) * 2, np.zeros((*x.shape[:2], len(recurrent_kernel)))
    for t in reversed(range(x.shape[1])) if backward else range(x.shape[1]):
        states = step(kind, x[:, t], states, kernel, recurrent_kernel, bias)
        y[:, t] = states[0]
    return y, states


def stack(kind, x, layers, bidirectional):
    """Layers upon each other: y of the last, and all states (L*D, B, H)."""
    found = []
    for weights in layers:
        half = len(weights) // 2
        ways = [weights[:half], weights[half:]] if bidirectional else [weights]
        runs = [direction(kind, x, way, backward) for way, backward in zip(ways, (False, True), strict=False)]
        x = np.concatenate([y for y, _ in runs], axis=2)
        found += [states for _, states in runs]
    return {"y": x, **{f"state {i}": np.stack(states) for i, states in enumerate(zip(*found, strict=True))}}


def weights_of(kind, I, H, use_bias=True, bidirectional=False, num_layers=1):
    """For each layer what get_weights() gives, of N(0, 1)."""
    G, two = len(CELLS[kind].kind.gates), kind == "gru"
    layers = []
    for k in range(num_layers):
        columns = I if k == 0 else (1 + bidirectional) * H
        shapes = [(columns, G * H), (H, G * H), *[(2, G * H) if two else (G * H,)] * use_bias] * (1 + bidirectional)
        layers.append([normal(*shape, seed=10 * k + i) for i, shape in enumerate(shapes)])
    return layers


class Layer:
    """What Keras' layers and cells tell of themselves; the classes below have Keras' names."""

    def __init__(self, config=(), weights=(), **attributes):
        self._config, self._weights = dict(config), list(weights)
        self.__dict__.update(attributes)

    def call(self): ...

    def get_weights(self):
        return self._weights

    def get_config(self):
        return self._config


NAMES = ("SimpleRNN", "GRU", "LSTM", "SimpleRNNCell", "GRUCell", "LSTMCell", "RNN", "StackedRNNCells", "Bidirectional")
CLASSES = {name: type(name, (Layer,), {}) for name in (*NAMES, "CuDNNLSTM", "Dense", "Sequential")}


def cell(kind, weights, **settings):
    """A built cell."""
    name, own = KINDS[kind]
    config = {"trainable": True, "dropout": 0.0, "recurrent_dropout": 0.0, "kernel_regularizer": None, "seed": None}
    return CLASSES[f"{name}Cell"](config | (GATED if name != "SimpleRNN" else {}) | own | settings, weights)


def around(*cells, go_backwards=False, name="RNN", **settings):
    """A layer around a cell, or around a stack of them."""
    inner = cells[0] if len(cells) == 1 else CLASSES["StackedRNNCells"]({"trainable": True}, cells=cells)
    config = {"trainable": True, "go_backwards": go_backwards, "stateful": False, "unroll": True, **settings}
    return CLASSES[name](config, cell=inner)


def both_ways(forward, backward, merge_mode="concat"):
    config = {"trainable": True, "merge_mode": merge_mode}
    return CLASSES["Bidirectional"](config, forward_layer=forward, backward_layer=backward)


def built(kind, weights, bidirectional=False, go_backwards=False, **settings):
    """A built layer."""
    half, name = len(weights) // 2, KINDS[kind][0]
    if not bidirectional:
        return around(cell(kind, weights, **settings), name=name, go_backwards=go_backwards)
    ways = (cell(kind, weights[:half], **settings), go_backwards), (cell(kind, weights[half:], **settings), True)
    return both_ways(*(around(each, go_backwards=backward, name=name) for each, backward in ways))


def results(layer, x):
    y, state = layer(x)
    return {"y": y, **{f"state {i}": s for i, s in enumerate(arrays_of(state))}}


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("H", [1, 7, 18])
@pytest.mark.parametrize("kind", KINDS)
def test_from_keras(kind, H, use_bias, bidirectional, num_layers):
    weights = weights_of(kind, 5, H, use_bias, bidirectional, num_layers)
    x, ours = 0.5 * normal(3, 6, 5, seed=99), CELLS[kind].kind
    expected = stack(kind, x, weights, bidirectional)
    layer = from_keras(*weights, dtype="float64", **ours.options)
    assert type(layer) is ours.layer_class
    assert layer.kind is ours
    assert_close(results(layer, x), expected, 1e-12)
    told = from_keras(*(built(kind, each, bidirectional) for each in weights), dtype="float64", batch_first=False)
    y, _ = told(np.ascontiguousarray(x.swapaxes(0, 1)))
    np.testing.assert_array_equal(y.swapaxes(0, 1), layer(x)[0])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_to_keras(kind, bias, bidirectional, num_layers):
    """Both of our biases, which are random, reach Keras' equations."""
    options = {"num_layers": num_layers, "bias": bias, "bidirectional": bidirectional, "batch_first": True}
    layer = build(kind, 5, 7, **options, dtype="float64", seed=1)
    layer.parameters.flat[:] = normal(layer.parameters.flat.size)
    x = 0.5 * normal(3, 6, 5, seed=99)
    given = to_keras(layer)
    assert all(array.flags.c_contiguous for each in given for array in each)
    assert_close(results(layer, x), stack(kind, x, given, bidirectional), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind):
    weights = weights_of(kind, 5, 7, bidirectional=True, num_layers=2)
    there = to_keras(from_keras(*weights, dtype="float64", **CELLS[kind].kind.options))
    for arrays, expected in zip(there, weights, strict=True):
        for array, wanted in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(array, wanted, strict=True)


def test_the_weights_belong_to_the_layer():
    """They are copies, both ways, and of its dtype."""
    (weights,) = weights_of("gru", 5, 7)
    layer = from_keras(weights)
    assert layer.dtype == "float32"
    before = layer.state_dict()
    for array in (*weights, *to_keras(layer)[0]):
        array[...] = 0
    for name, value in before.items():
        assert value.any()
        np.testing.assert_array_equal(layer.parameters[name], value)


def test_arrays_by_name():
    (weights,) = weights_of("lstm", 5, 7)
    named = dict(zip(("kernel", "recurrent_kernel", "bias"), weights, strict=True))
    for chosen in (3, 2):
        given = dict(sorted(named.items(), key=lambda item: item[0] != "recurrent_kernel"))
        given = {name: given[name] for name in given if name in list(named)[:chosen]}
        expected = from_keras(weights[:chosen]).state_dict()
        for name, value in from_keras(given).state_dict().items():
            np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(ValueError, match=r"layers\[0\]: expected kernel, recurrent_kernel; missing recurrent_kernel"):
        from_keras({"kernel": weights[0], "recurrent_kernel": None})
    with pytest.raises(TypeError, match=r"layers\[0\]: bias: expected an array of real numbers, got list"):
        from_keras(named | {"bias": [[1], [2, 3]]})
    (weights,) = weights_of("gru", 5, 7, use_bias=False)
    layer = from_keras({"kernel": weights[0], "recurrent_kernel": weights[1], "bias": None})
    assert (layer.bias, layer.reset_after) == (False, True)


def test_a_layer_around_a_cell():
    """keras.layers.RNN has the settings of its cell below them; and a cell alone."""
    (weights,) = weights_of("gru_reset_before", 5, 7, use_bias=False)
    inner = cell("gru_reset_before", weights)
    assert not from_keras(around(inner)).reset_after
    assert not from_keras(inner).reset_after
    assert from_keras(weights).reset_after


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_of_cells(kind, use_bias):
    """As many layers; and those above and below it."""
    weights = weights_of(kind, 5, 7, use_bias, num_layers=3)
    expected = from_keras(*weights, **CELLS[kind].kind.options).state_dict()
    cells = [cell(kind, each) for each in weights]
    for layers in ([around(*cells)], [cells[0], around(*cells[1:])], [around(*cells[:2]), around(cells[2])]):
        layer = from_keras(*layers)
        assert layer.num_layers == 3
        for name, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, expected[name])


def test_stacks_that_we_do_not_have():
    lstm, gru, wide = (cell(kind, weights_of(kind, 7, H)[0]) for kind, H in (("lstm", 7), ("gru", 7), ("lstm", 8)))
    bare = cell("lstm", weights_of("lstm", 7, 7, use_bias=False)[0])
    two_cells = r"layers\[0\]: forward_layer: number of cells: expected 1, got 2"
    for layer, message in (
        (both_ways(around(lstm, lstm), around(lstm, lstm, go_backwards=True)), two_cells),
        (around(lstm, gru), r"layers\[0\]: expected \('LSTM', {}\), got \('GRU', {'reset_after': True}\)"),
        (around(lstm, wide), r"weight_ih_l1: expected shape \(28, 7\), got \(32, 7\)"),
        (around(lstm, bare), r"state_dict: expected .*; missing bias_ih_l1, bias_hh_l1"),
        (around(lstm, lstm, go_backwards=True), r"layers\[0\]: go_backwards: expected False, got True"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            from_keras(layer)


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
def test_lists_of_two_directions_or_of_two_cells(use_bias):
    """Their shapes tell them apart, but where I is H."""
    n, bias = (6, r", \(28,\)") if use_bias else (4, "")
    shapes = rf"expected shapes \(5, 28\), \(7, 28\){bias} again"
    apart = rf"\[{n // 2}:\]: {shapes}, or a list for each cell of a stack, got \(7, 28\), \(7, 28\){bias}"
    alike = f": expected bidirectional=True, or a list for each cell of a stack, got {n} arrays with I = H = 7"
    for I, message in ((5, apart), (7, alike)):
        first, second = weights_of("lstm", I, 7, use_bias, num_layers=2)
        with pytest.raises(ValueError, match=rf"^layers\[0\]{message}$"):
            from_keras(first + second)
    (weights,) = weights_of("lstm", 7, 7, use_bias, bidirectional=True)
    layer = from_keras(weights, bidirectional=True)
    assert layer.bidirectional
    told = from_keras(built("lstm", weights, bidirectional=True))
    np.testing.assert_array_equal(layer.parameters.flat, told.parameters.flat)


def test_three_cells_without_bias():
    """As many arrays as Bidirectional has with bias, and where H is 2 a kernel has the shape of a GRU's bias."""
    for H, I in ((7, 5), (2, 5)):
        arrays = [array for each in weights_of("gru", I, H, use_bias=False, num_layers=3) for array in each]
        with pytest.raises(ValueError, match=r"^layers\[0\]\[3:\]: expected shapes .* again, or a list for each cell"):
            from_keras(arrays)


def by_gate(weights, order):
    """A list as Keras 1 has it."""
    gates = [np.split(array, len(order), -1) for array in weights]
    return [array[gate] for gate in order for array in gates]


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize(("kind", "order"), [("gru_reset_before", "zrh"), ("lstm", "icfo")])
def test_lists_of_keras_1(kind, order, bidirectional):
    """Gate by gate, those of an LSTM as i, c, f, o."""
    (weights,) = weights_of(kind, 5, 7, bidirectional=bidirectional)
    order = [("zrh" if len(order) == 3 else "ifco").index(gate) for gate in order]
    old = [array for i in range(0, len(weights), 3) for array in by_gate(weights[i : i + 3], order)]
    assert len(old) == 3 * len(order) * (1 + bidirectional)
    warning = r"^layers\[0\]: not taken over: inner_activation, in Keras 1 hard_sigmoid if not set$"
    with pytest.warns(UserWarning, match=warning):
        found = from_keras(old)
    np.testing.assert_array_equal(found.parameters.flat, from_keras(weights).parameters.flat)
    assert getattr(found, "reset_after", False) is False


def test_lists_that_are_not_of_keras_1():
    """Those of stacks of SimpleRNN and of others."""
    shapes = r"\[3:\]: expected shapes \(5, 7\), \(7, 7\), \(7,\) again"
    for kind, I, message in (
        ("tanh", 5, shapes + r", or a list for each cell of a stack, got \(7, 7\), \(7, 7\), \(7,\)"),
        ("tanh", 7, ": expected .* side by side, or a list for each cell of a stack, got 9 arrays with I = H = 7"),
        ("lstm", 5, ": expected 2, 3, 4, 6 arrays, got 9"),
    ):
        arrays = [array for each in weights_of(kind, I, 7, num_layers=3) for array in each]
        with pytest.raises(ValueError, match=rf"^layers\[0\]{message}$"):
            from_keras(arrays)


def cudnn(weights):
    """A list as CuDNNGRU and CuDNNLSTM have it: each gate's memory that of its transpose, the biases in a row."""
    kernel, recurrent_kernel, bias = weights
    G = kernel.shape[1] // recurrent_kernel.shape[0]
    kernels = [np.array(list(gate.T.flat)).reshape(gate.shape) for gate in np.split(kernel, G, 1)]
    recurrent = [gate.T for gate in np.split(recurrent_kernel, G, 1)]
    return [np.hstack(kernels), np.hstack(recurrent), bias.ravel()]


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_lists_of_cudnn(kind, bidirectional):
    (weights,) = weights_of(kind, 5, 7, bidirectional=bidirectional)
    old, plain = [], []
    for i in range(0, len(weights), 3):
        kernel, recurrent_kernel, bias = weights[i : i + 3]
        pair = np.stack([bias, normal(28, seed=50)]) if kind == "lstm" else bias
        old += cudnn([kernel, recurrent_kernel, pair])
        plain += [kernel, recurrent_kernel, pair.sum(0) if kind == "lstm" else bias]
    x = 0.5 * normal(3, 6, 5, seed=99)
    layer = from_keras(old, reset_after=False, dtype="float64")
    assert getattr(layer, "reset_after", True)
    assert_close(results(layer, x), stack(kind, x, [plain], bidirectional), 1e-12)
    if kind == "lstm" and not bidirectional:
        told = from_keras(CLASSES["CuDNNLSTM"]({"go_backwards": False}, old), dtype="float64")
        np.testing.assert_array_equal(told.parameters.flat, layer.parameters.flat)


def test_the_memory_of_a_cudnn_kernel():
    """[[0, 1, 2], [3, 4, 5]] is there its transpose's memory in its own shape."""
    old = np.array([[0.0, 3, 1], [4, 2, 5]])
    layer = from_keras([np.tile(old, 4), np.zeros((3, 12)), np.zeros(24)])
    np.testing.assert_array_equal(layer.parameters["weight_ih_l0"][:3].T, [[0, 1, 2], [3, 4, 5]])


def test_settings_that_are_not_taken_over():
    """A line for each argument, each setting once; none for those that change no result."""
    (weights,) = weights_of("lstm", 5, 7)
    L2 = {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": 0.01}}
    inner = cell("lstm", weights, dropout=0.2, kernel_regularizer=L2, kernel_constraint={"class_name": "UnitNorm"})
    settings = r"dropout=0.2, kernel_regularizer=L2, kernel_constraint=UnitNorm"
    for layer, expected in (
        (inner, settings),
        (around(inner, stateful=True, unroll=False, use_cudnn="auto"), f"stateful=True, {settings}"),
        (around(cell("lstm", weights, recurrent_dropout=0.5, seed=1, unit_forget_bias=False)), "recurrent_dropout=0.5"),
        (
            around(cell("lstm", weights), activity_regularizer=L2, trainable=False),
            "trainable=False, activity_regularizer=L2",
        ),
        (both_ways(around(inner), around(inner, go_backwards=True)), settings),
    ):
        with pytest.warns(UserWarning) as found:
            from_keras(layer)
        (warning,) = found
        assert str(warning.message) == f"layers[0]: not taken over: {expected}"
        assert warning.filename == __file__
    with pytest.warns(UserWarning) as found:
        from_keras(weights, around(cell("lstm", weights_of("lstm", 7, 7)[0], dropout=0.1)))
    assert [str(each.message) for each in found] == ["layers[1]: not taken over: dropout=0.1"]


class OwnCall(CLASSES["LSTMCell"]):
    def call(self): ...


class Derived(CLASSES["LSTMCell"]):
    """Computes as its base does."""


def test_other_objects():
    (weights,) = weights_of("lstm", 5, 7)
    expected = "expected SimpleRNN, GRU, LSTM, RNN, Bidirectional or a cell of Keras, or its arrays"
    for value, got in (
        (None, "NoneType"),
        ("lstm", "str"),
        (3, "int"),
        (weights[0], "ndarray"),
        (iter(weights), "list_iterator"),
        (CLASSES["LSTM"], "type"),
        (CLASSES["Dense"]({}, weights[:2]), "Dense"),
        (CLASSES["Sequential"]({}, weights), "Sequential"),
        (OwnCall({}, weights), "OwnCall"),
        (around(OwnCall({}, weights)), "OwnCall"),
        (LSTM(5, 7), "fastrnn.layers.recurrent.LSTM"),
    ):
        with pytest.raises(TypeError, match=rf"^layers\[0\]: {expected}, got {got}$"):
            from_keras(value)
    assert from_keras(Derived(cell("lstm", weights).get_config(), weights)).hidden_size == 7
    for values, message in (
        ([weights, weights], "expected an array of real numbers, got list"),
        ([None] * 3, "expected an array of real numbers, got NoneType"),
        (["kernel"] * 3, "expected an array of real numbers, got str"),
        ([weights[0] + 1j, *weights[1:]], "expected an array of real numbers, got dtype complex128"),
        ([cell("lstm", weights)] * 2, "expected an array of real numbers, got LSTMCell"),
    ):
        with pytest.raises(TypeError, match=rf"^layers\[0\]\[0\]: {message}$"):
            from_keras(values)


def test_layers_without_weights():
    for layer, name in (
        (around(cell("lstm", [])), ""),
        (both_ways(around(cell("lstm", [])), around(cell("lstm", []), go_backwards=True)), " forward_layer:"),
        (around(cell("lstm", []), cell("lstm", [])), r" cells\[0\]:"),
    ):
        with pytest.raises(
            ValueError, match=rf"^layers\[0\]:{name} expected a built layer, got LSTMCell without weights$"
        ):
            from_keras(layer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:1], r"layers\[0\]: expected 2, 3, 4, 6, 9, 12, 18, 24 arrays, got 1"),
        (lambda w: [w[0][:, 1:], *w[1:]], r"layers\[0\]: kernel: expected shape \(5, 28\), got \(5, 27\)"),
        (lambda w: [w[0][0], *w[1:]], r"layers\[0\]: kernel: expected shape \(I, G\*H\), got \(28,\)"),
        (
            lambda w: [w[0], w[1][:, 1:], w[2]],
            r"layers\[0\]: recurrent_kernel: expected shape \(H, G\*H\) with G one of 1, 3, 4, got \(7, 27\)",
        ),
        (lambda w: [*w[:2], w[2][1:]], r"layers\[0\]: bias: expected shape \(28,\), got \(27,\)"),
        (lambda w: [*w[:2], np.stack([w[2]] * 2)], r"layers\[0\]: bias: expected shape \(28,\), got \(2, 28\)"),
        (
            lambda w: [*w, w[0][:3], *w[1:]],
            r"layers\[0\]\[3:\]: expected shapes \(5, 28\), \(7, 28\), \(28,\) again, or a list for each cell of a "
            r"stack, got \(3, 28\), \(7, 28\), \(28,\)",
        ),
    ],
)
def test_wrong_arrays(change, message):
    (weights,) = weights_of("lstm", 5, 7)
    with pytest.raises(ValueError, match="^" + message):
        from_keras(change(weights))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("lstm", {"activation": "relu"}, "activation: expected 'tanh', got 'relu'"),
        ("gru", {"recurrent_activation": "hard_sigmoid"}, "recurrent_activation: expected 'sigmoid', got 'hard_sig"),
        ("tanh", {"activation": "elu"}, "activation: expected one of tanh, relu, got 'elu'"),
        ("gru", {"go_backwards": True}, "go_backwards: expected False, got True"),
    ],
)
def test_settings_that_we_do_not_have(kind, settings, message):
    for bidirectional in (False, True):
        (weights,) = weights_of(kind, 5, 7, bidirectional=bidirectional)
        with pytest.raises(ValueError, match=rf"layers\[1\]: {'forward_layer: ' * bidirectional}{message}"):
            from_keras(built(kind, weights, bidirectional), built(kind, weights, bidirectional, **settings))


def test_two_directions_that_differ():
    (weights,) = weights_of("lstm", 5, 7)
    lstm, back = (around(cell("lstm", weights), go_backwards=each) for each in (False, True))
    relu = around(cell("lstm", weights, activation="relu"), go_backwards=True)
    gru = around(cell("gru", weights_of("gru", 5, 7)[0]), go_backwards=True)
    for ways, message in (
        (both_ways(lstm, back, merge_mode="sum"), "merge_mode: expected 'concat', got 'sum'"),
        (both_ways(lstm, relu), "backward_layer: activation: expected 'tanh', got 'relu'"),
        (both_ways(lstm, gru), r"backward_layer: expected \('LSTM', {}\), got \('GRU', {'reset_after': True}\)"),
        (both_ways(back, lstm), "forward_layer: go_backwards: expected False, got True"),
    ):
        with pytest.raises(ValueError, match=rf"^layers\[0\]: {message}$"):
            from_keras(ways)


def test_layers_that_do_not_fit_on_each_other():
    lstm, gru, wide = (weights_of(kind, 7, H)[0] for kind, H in (("lstm", 7), ("gru", 7), ("lstm", 8)))
    with pytest.raises(ValueError, match=r"weight_ih_l1: expected shape \(28, 7\), got \(32, 7\)"):
        from_keras(lstm, wide)
    with pytest.raises(ValueError, match=r"layers\[1\]: expected \('LSTM', {}\), got \('GRU', {'reset_after': True}\)"):
        from_keras(lstm, gru)
    one, two = (weights_of("lstm", 7, 7, bidirectional=each)[0] for each in (False, True))
    with pytest.raises(ValueError, match=r"layers\[1\]: number of directions: expected 1, got 2"):
        from_keras(one, two, bidirectional=True)
    with pytest.raises(ValueError, match="number of layers: expected an integer >= 1, got 0"):
        from_keras()


def test_parts_that_do_not_belong_together():
    """A layer of two directions upon one of one is not cut to fit."""
    (one,), (two,) = parts_of(LSTM(7, 7)), parts_of(LSTM(7, 7, bidirectional=True))
    with pytest.raises(ValueError, match="zip"):
        layer_of(LSTM(7, 7).kind, [one, two])


def test_layers_that_keras_does_not_have():
    with pytest.raises(ValueError, match="proj_size: expected 0, got 3"):
        to_keras(LSTM(5, 7, proj_size=3))
    with pytest.raises(ValueError, match="peepholes: expected False, got True"):
        to_keras(LSTM(5, 7, peepholes=True))
    with pytest.raises(TypeError, match="layer: expected RNN, GRU, LSTM, got Linear"):
        to_keras(Linear(5, 7))
    with pytest.raises(TypeError, match=r"layer: expected RNN, GRU, LSTM, got test_keras\.LSTM"):
        to_keras(CLASSES["LSTM"]())


def test_a_swapped_gate_is_seen():
    """The equations tell any two gates apart by far more than the tolerance."""
    x = 0.5 * normal(3, 6, 5, seed=99)
    for kind in ("gru", "gru_reset_before", "lstm"):
        (weights,), G = weights_of(kind, 5, 7), len(CELLS[kind].kind.gates)
        expected = stack(kind, x, [weights], False)["y"]
        for gate in range(1, G):
            order = [gate, *range(1, gate), 0, *range(gate + 1, G)]
            for i in range(3):
                swapped = [*weights]
                swapped[i] = np.concatenate([np.split(weights[i], G, -1)[j] for j in order], -1)
                assert relative_error(stack(kind, x, [swapped], False)["y"], expected) > 1e-3


def test_keras_is_not_imported(run_python):
    done = run_python("import sys, fastrnn.keras; assert 'keras' not in sys.modules and 'onnx' not in sys.modules")
    assert done.returncode == 0, done.stderr
