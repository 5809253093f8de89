"""The recurrent layers as tests want them: one of every kind, arguments for it, all it computes, and what it should."""

from typing import Any

import numpy as np
from numerics import Arrays
from oracles import normal, rnn_results, rnn_vjp

from fastrnn import GRU, LSTM, RNN

# kind: class, options, the reference's cell
KINDS: dict[str, tuple[type, dict[str, Any], str]] = {
    "tanh": (RNN, {}, "tanh"),
    "relu": (RNN, {"nonlinearity": "relu"}, "relu"),
    "gru": (GRU, {}, "gru"),
    "gru_reset_before": (GRU, {"reset_after": False}, "gru_reset_before"),
    "lstm": (LSTM, {}, "lstm"),
    "lstm_projected": (LSTM, {"proj_size": -1}, "lstm"),
    "lstm_all": (LSTM, {"proj_size": -1, "peepholes": True}, "lstm"),
}
ROWS = ("y", "h_n", "c_n", "dx", "dh0", "dc0")  # results with an axis of the batch, the second one


def build(kind: str, input_size: int, hidden_size: int, **options: Any) -> Any:
    """A layer; a proj_size of -1 is one less than the hidden size."""
    Layer, own, _ = KINDS[kind]
    options = {"seed": 0} | own | options
    if options.get("proj_size") == -1:
        options["proj_size"] = hidden_size - 1
    return Layer(input_size, hidden_size, **options)


def small(kind: str, dtype: Any = "float32", **options: Any) -> Any:
    """A layer with every boundary inside: two layers, more units than a vector has lanes."""
    return build(kind, 5, 18, **{"num_layers": 2} | options, dtype=dtype)


def arguments(layer: Any, T: int, B: int, seed: int = 0) -> dict[str, np.ndarray]:
    """x, h0, dy, dh_n, and for LSTM c0, dc_n, of a layer's dtype; time first whatever the layer says."""
    D = 2 if layer.bidirectional else 1
    L, H, P = layer.num_layers * D, layer.hidden_size, layer.proj_size or layer.hidden_size
    shapes = {"x": (T, B, layer.input_size), "h0": (L, B, P), "dy": (T, B, D * P), "dh_n": (L, B, P)}
    if isinstance(layer, LSTM):
        shapes |= {"c0": (L, B, H), "dc_n": (L, B, H)}
    return {name: normal(*shape, seed=seed + i, dtype=layer.dtype) for i, (name, shape) in enumerate(shapes.items())}


def state_in(given: Arrays) -> Any:
    """The initial state as a layer wants it."""
    return (given["h0"], given["c0"]) if "c0" in given else given["h0"]


def d_state_in(given: Arrays) -> Any:
    """The cotangent of the last state as a pullback wants it."""
    return (given["dh_n"], given["dc_n"]) if "dc_n" in given else given["dh_n"]


def results(layer: Any, given: Arrays, **options: Any) -> dict[str, np.ndarray]:
    """All that a layer's vjp computes, by name; options: of vjp."""
    return rnn_results(lambda x, initial: layer.vjp(x, initial, **options), **given)


def inference(layer: Any, given: Arrays, **options: Any) -> dict[str, np.ndarray]:
    """All that a call computes."""
    y, state = layer(given["x"], state_in(given), **options)
    return {"y": y} | (dict(zip(("h_n", "c_n"), state, strict=True)) if "c0" in given else {"h_n": state})


def expected_results(
    kind: str, parameters: Arrays, given: Arrays, lengths: Any = None, masks: tuple[np.ndarray, ...] = ()
) -> dict[str, np.ndarray]:
    """The same by the reference."""
    cell = KINDS[kind][2]
    lengths = None if lengths is None else np.array(lengths, int)
    return rnn_results(lambda x, initial: rnn_vjp(parameters, x, initial, cell, masks, lengths), **given)


def rows_of(found: Arrays, rows: Any) -> dict[str, np.ndarray]:
    """Of the results with an axis of the batch, these sequences."""
    return {name: found[name][:, rows] for name in ROWS if name in found}


def beyond(lengths: Any, T: int) -> np.ndarray:
    """(T, B) whether a step is padding."""
    return np.arange(T)[:, None] >= np.array(lengths, int)
