"""Weights from and to Keras: against Keras' equations, written here once more and in its own order of gates."""

import numpy as np
import pytest
from numerics import assert_close, relative_error
from oracles import arrays_of, normal

from fastrnn import GRU, LSTM, RNN, Linear
from fastrnn.keras import from_keras, to_keras

# kind: how Keras names it and its settings, the number of gates, the class and options here
KINDS = {
    "tanh": ("SimpleRNN", {"activation": "tanh"}, 1, RNN, {}),
    "relu": ("SimpleRNN", {"activation": "relu"}, 1, RNN, {"nonlinearity": "relu"}),
    "gru": ("GRU", {"reset_after": True}, 3, GRU, {}),
    "gru_reset_before": ("GRU", {"reset_after": False}, 3, GRU, {"reset_after": False}),
    "lstm": ("LSTM", {}, 4, LSTM, {}),
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
    G, two = KINDS[kind][2], kind == "gru"
    layers = []
    for k in range(num_layers):
        columns = I if k == 0 else (1 + bidirectional) * H
        shapes = [(columns, G * H), (H, G * H), *[(2, G * H) if two else (G * H,)] * use_bias] * (1 + bidirectional)
        layers.append([normal(*shape, seed=10 * k + i) for i, shape in enumerate(shapes)])
    return layers


class Built:
    """What Keras' built layers tell of themselves."""

    def __init__(self, kind, weights, bidirectional=False, **settings):
        name, own, *_ = KINDS[kind]
        config = {"go_backwards": False, **(GATED if name != "SimpleRNN" else {}), **own, **settings}
        self._weights, self._config = weights, config
        if bidirectional:
            layers = {"layer": {"config": config}, "backward_layer": {"config": config | {"go_backwards": True}}}
            self._config = {"merge_mode": "concat", **layers}

    def get_weights(self):
        return self._weights

    def get_config(self):
        return self._config


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
    x, (_, _, _, Layer, options) = 0.5 * normal(3, 6, 5, seed=99), KINDS[kind]
    expected = stack(kind, x, weights, bidirectional)
    layer = from_keras(*weights, dtype="float64", **options)
    assert type(layer) is Layer
    assert_close(results(layer, x), expected, 1e-12)
    built = from_keras(*(Built(kind, each, bidirectional) for each in weights), dtype="float64", batch_first=False)
    y, _ = built(np.ascontiguousarray(x.swapaxes(0, 1)))
    np.testing.assert_array_equal(y.swapaxes(0, 1), layer(x)[0])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_to_keras(kind, bias, bidirectional, num_layers):
    """Both of our biases, which are random, reach Keras' equations."""
    Layer, options = KINDS[kind][3:]
    layer = Layer(
        5, 7, num_layers, bias=bias, bidirectional=bidirectional, batch_first=True, dtype="float64", seed=1, **options
    )
    layer.parameters.flat[:] = normal(layer.parameters.flat.size)
    x = 0.5 * normal(3, 6, 5, seed=99)
    given = to_keras(layer)
    assert all(array.flags.c_contiguous for each in given for array in each)
    assert_close(results(layer, x), stack(kind, x, given, bidirectional), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind):
    weights = weights_of(kind, 5, 7, bidirectional=True, num_layers=2)
    there = to_keras(from_keras(*weights, dtype="float64", **KINDS[kind][4]))
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
        from_keras({"kernel": weights[0]})


def test_a_layer_around_a_cell():
    """keras.layers.RNN has the settings of its cell below them."""
    (weights,) = weights_of("gru_reset_before", 5, 7, use_bias=False)
    layer = Built("gru_reset_before", weights)
    layer._config = {"go_backwards": False, "cell": {"config": {**GATED, "reset_after": False}}}
    assert not from_keras(layer).reset_after
    assert from_keras(weights).reset_after
    layer._config = {"go_backwards": False, "cell": {"config": {"cells": []}}}
    with pytest.raises(ValueError, match=r"layers\[0\]: activation: expected one of tanh, relu, got None"):
        from_keras(layer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:1], r"layers\[0\]: expected 2, 3, 4, 6 arrays, got 1"),
        (lambda w: [w[0][:, 1:], *w[1:]], r"layers\[0\]: kernel: expected shape \(5, 28\), got \(5, 27\)"),
        (lambda w: [w[0][0], *w[1:]], r"layers\[0\]: kernel: expected shape \(I, G\*H\), got \(28,\)"),
        (
            lambda w: [w[0], w[1][:, 1:], w[2]],
            r"layers\[0\]: recurrent_kernel: expected shape \(H, G\*H\) with G one of 1, 3, 4, got \(7, 27\)",
        ),
        (lambda w: [*w[:2], w[2][1:]], r"layers\[0\]: bias: expected shape \(28,\), got \(27,\)"),
        (lambda w: [*w[:2], np.stack([w[2]] * 2)], r"layers\[0\]: bias: expected shape \(28,\), got \(2, 28\)"),
        (lambda w: [*w, w[0][:3], *w[1:]], r"weight_ih_l0_reverse: expected shape \(28, 5\), got \(28, 3\)"),
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
        with pytest.raises(ValueError, match=r"layers\[1\]: " + message):
            from_keras(Built(kind, weights, bidirectional), Built(kind, weights, bidirectional, **settings))


def test_two_directions_that_differ():
    (weights,) = weights_of("lstm", 5, 7, bidirectional=True)
    layer = Built("lstm", weights, bidirectional=True)
    layer._config["merge_mode"] = "sum"
    with pytest.raises(ValueError, match=r"layers\[0\]: merge_mode: expected 'concat', got 'sum'"):
        from_keras(layer)
    layer = Built("lstm", weights, bidirectional=True)
    layer._config["backward_layer"]["config"]["activation"] = "relu"
    with pytest.raises(ValueError, match=r"layers\[0\]: backward_layer: activation: expected 'tanh', got 'relu'"):
        from_keras(layer)


def test_layers_that_do_not_fit_on_each_other():
    lstm, gru, wide = (weights_of(kind, 7, H)[0] for kind, H in (("lstm", 7), ("gru", 7), ("lstm", 8)))
    with pytest.raises(ValueError, match=r"weight_ih_l1: expected shape \(28, 7\), got \(32, 7\)"):
        from_keras(lstm, wide)
    with pytest.raises(ValueError, match=r"layers\[1\]: expected \('LSTM', {}\), got \('GRU', {'reset_after': True}\)"):
        from_keras(lstm, gru)
    with pytest.raises(ValueError, match="number of layers: expected an integer >= 1, got 0"):
        from_keras()


def test_layers_that_keras_does_not_have():
    with pytest.raises(ValueError, match="proj_size: expected 0, got 3"):
        to_keras(LSTM(5, 7, proj_size=3))
    with pytest.raises(ValueError, match="peepholes: expected False, got True"):
        to_keras(LSTM(5, 7, peepholes=True))
    with pytest.raises(TypeError, match="layer: expected RNN, GRU, LSTM, got Linear"):
        to_keras(Linear(5, 7))


def test_a_swapped_gate_is_seen():
    """The equations tell any two gates apart by far more than the tolerance."""
    x = 0.5 * normal(3, 6, 5, seed=99)
    for kind in ("gru", "gru_reset_before", "lstm"):
        (weights,), G = weights_of(kind, 5, 7), KINDS[kind][2]
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
