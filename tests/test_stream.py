"""Step by step: to the bit what the layer gives, from weights as they were packed."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn

LAYERS = {
    "tanh": (fastrnn.RNN, {}),
    "relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "gru": (fastrnn.GRU, {}),
    "gru, reset before": (fastrnn.GRU, {"reset_after": False}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm, no bias": (fastrnn.LSTM, {"bias": False}),
    "lstm, projection": (fastrnn.LSTM, {"proj_size": 7}),
    "lstm, peepholes": (fastrnn.LSTM, {"peepholes": True}),
}
by_layer = pytest.mark.parametrize("name", LAYERS)


def built(name, **options):
    Layer, own = LAYERS[name]
    return Layer(5, 19, seed=1, **own, **options)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@by_layer
@pytest.mark.parametrize(("num_layers", "batch"), [(1, None), (1, 3), (3, None), (2, 1)])
def test_steps_are_the_layer_to_the_bit(name, num_layers, batch):
    dtype = "float64" if name == "lstm" else "float32"
    layer = built(name, num_layers=num_layers, dtype=dtype)
    leading = () if batch is None else (batch,)
    x = np.random.default_rng(0).standard_normal((6, *leading, 5)).astype(dtype)
    y, state = layer(x)
    stream = layer.stream(batch)
    got = np.stack([stream(x_t) for x_t in x])
    np.testing.assert_array_equal(got, y, strict=True)
    for own, wanted in zip(parts(stream.state), parts(state), strict=True):
        np.testing.assert_array_equal(own, wanted, strict=True)


@by_layer
def test_a_state_can_be_given(name):
    layer = built(name, num_layers=2)
    x = np.random.default_rng(0).standard_normal((6, 3, 5), dtype=np.float32)
    y, _ = layer(x)
    stream = layer.stream(3)
    stream.state = layer(x[:4])[1]
    np.testing.assert_array_equal(stream(x[4]), y[4])
    kept = stream.state
    np.testing.assert_array_equal(stream(x[5]), y[5])
    stream.state = kept
    np.testing.assert_array_equal(stream(x[5]), y[5])
    stream.state = None if len(parts(kept)) == 1 else (None, None)
    np.testing.assert_array_equal(stream(x[0]), y[0])


@by_layer
def test_weights_are_read_when_asked_for(name):
    layer = built(name)
    x = np.random.default_rng(0).standard_normal((2, 5), dtype=np.float32)
    before, _ = layer(x)
    stream = layer.stream()
    layer.parameters.flat[:] *= np.float32(1.5)
    np.testing.assert_array_equal(stream(x[0]), before[0])
    stream.refresh()
    after, _ = layer(x[1:], stream.state)
    np.testing.assert_array_equal(stream(x[1]), after[0])
    assert not np.array_equal(after[0], before[1])


def test_results_are_the_callers():
    stream = built("lstm").stream()
    x = np.ones(5, np.float32)
    first = stream(x)
    kept, state = first.copy(), stream.state
    stream(x)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(state[0], stream.state[0])


@pytest.mark.parametrize("batch", [None, 2])
def test_inputs_of_any_layout(batch):
    layer = built("gru")
    leading = () if batch is None else (batch,)
    x = np.random.default_rng(0).standard_normal((*leading, 10), dtype=np.float32)[..., ::2]
    frozen = x.copy()
    frozen.flags.writeable = False
    results = [layer.stream(batch)(value) for value in (x.copy(), x, frozen)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@by_layer
@pytest.mark.parametrize("batch", [None, 3])
def test_branches(name, batch):
    """A copy goes on from the same state on the same weights; neither sees what the other does."""
    layer = built(name, num_layers=2)
    leading = () if batch is None else (batch,)
    x = np.random.default_rng(0).standard_normal((6, *leading, 5), dtype=np.float32)
    y, _ = layer(x)
    stream = layer.stream(batch)
    for x_t in x[:3]:
        stream(x_t)
    layer.parameters.flat[:] *= np.float32(1.5)
    branch = copy.copy(stream)
    for x_t in x[::-1]:
        branch(x_t)
    np.testing.assert_array_equal(np.stack([stream(x_t) for x_t in x[3:]]), y[3:])
    branch.refresh()
    state = branch.state
    expected, _ = layer(x[:1], state)
    np.testing.assert_array_equal(branch(x[0]), expected[0])
    stream.state = state
    assert not np.array_equal(stream(x[0]), expected[0])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deep", "pickle"]
)
@by_layer
def test_deep_copies_and_pickles(name, copied):
    """They bring their layer along, whose weights are what `refresh` reads, and run on the weights as they were."""
    layer = built(name)
    x = np.random.default_rng(0).standard_normal((5, 5), dtype=np.float32)
    y, _ = layer(x)
    stream = layer.stream()
    stream(x[0])
    layer.parameters.flat[:] *= np.float32(1.5)
    own, other = copied((layer, stream))
    layer.parameters.flat[:] = 0
    np.testing.assert_array_equal(np.stack([other(x_t) for x_t in x[1:]]), y[1:])
    other.refresh()
    expected, _ = own(x[:1], other.state)
    np.testing.assert_array_equal(other(x[0]), expected[0])
    np.testing.assert_array_equal(stream(x[1]), y[1])
    assert np.any(expected)


def test_parameters_that_take_the_place_of_others():
    layer, other, x = built("gru"), fastrnn.GRU(5, 19, seed=2), np.ones(5, np.float32)
    stream = layer.stream()
    layer.parameters = other.parameters
    stream.refresh()
    np.testing.assert_array_equal(stream(x), other(x[None])[0][0])


def test_repr():
    layer = built("lstm")
    assert repr(layer.stream()) == f"{layer!r}.stream()"
    assert repr(layer.stream(3)) == f"{layer!r}.stream(3)"


def test_errors():
    layer = built("lstm")
    stream = layer.stream()
    with pytest.raises(ValueError, match=r"^x: expected shape \(5,\), got \(6,\)$"):
        stream(np.ones(6, np.float32))
    with pytest.raises(TypeError, match=r"^x: expected dtype float32, got float64$"):
        stream(np.ones(5))
    with pytest.raises(ValueError, match=r"^x: expected shape \(2, 5\), got \(5,\)$"):
        layer.stream(2)(np.ones(5, np.float32))
    with pytest.raises(ValueError, match=r"^batch_size: expected an integer >= 1, got 0$"):
        layer.stream(0)
    with pytest.raises(ValueError, match=r"^stream: expected a layer in one direction, got a bidirectional one$"):
        fastrnn.GRU(2, 3, bidirectional=True).stream()
    with pytest.raises(ValueError, match=r"^h: expected shape \(num_layers, hidden_size\) = \(1, 19\), got \(19,\)$"):
        stream.state = (np.ones(19, np.float32), None)
    with pytest.raises(ValueError, match=r"^state: expected \(h, c\), got ndarray$"):
        stream.state = np.ones((1, 19), np.float32)
