"""Weights from and to Keras 3, which is not imported: what travels are the arrays of its layers' `get_weights()`.

lstm = fastrnn.keras.from_keras(model.get_layer("lstm"))
model.get_layer("lstm").set_weights(*fastrnn.keras.to_keras(lstm))

Keras has kernel (I, G*H), recurrent_kernel (H, G*H) and bias (G*H,), the gates of a GRU as z, r, h and those of an LSTM
as i, f, c, o. A GRU with reset_after has bias (2, 3*H), of the inputs and of the hidden state. All others have one
bias, which becomes b_ih beside a b_hh of 0; on the way back it is b_ih + b_hh.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.exchange import KINDS, Part, layer_of, parts_of, reordered
from fastrnn.layers import GRU, LSTM, RNN

# By the number of gates: whose they are, and where each of them lies in the other order (both ways the same).
GATES: dict[int, tuple[str, tuple[int, ...]]] = {1: ("RNN", (0,)), 3: ("GRU", (1, 0, 2)), 4: ("LSTM", (0, 1, 2, 3))}
ORDERS = dict(GATES.values())


def from_keras(
    *layers: Any,
    nonlinearity: str = "tanh",
    reset_after: bool = True,
    batch_first: bool = True,
    dtype: Any = "float32",
) -> RNN | GRU | LSTM:
    """A layer with the weights of Keras' SimpleRNN, GRU or LSTM, or of Bidirectional around one; of several, a stack.

    Parameters
    ----------
    layers : from the first to the last, each a built layer (also RNN around a cell), or the list that its
        `get_weights()` gives: kernel (I, G*H), recurrent_kernel (H, G*H), with use_bias bias, and for Bidirectional
        those of the backward layer behind; or, of one direction, a mapping with these names
    nonlinearity : "tanh" or "relu", of SimpleRNN; a built layer knows its own
    reset_after : of a GRU without bias; a bias and a built layer know their own
    batch_first : x and y are (B, T, ...), as Keras has them
    dtype : "float32" or "float64"

    Returns RNN, GRU or LSTM, as the recurrent kernel has 1, 3 or 4 gates. Its y is Keras' with return_sequences; of
    its state (L*D, B, H), [k*D] is what layer k's forward direction returns with return_state, [k*D + 1] the backward.

    Raises ValueError: `layers[0]: expected 2, 3, 4, 6 arrays, got 5`,
    `layers[0]: recurrent_kernel: expected shape (H, G*H) with G one of 1, 3, 4, got (10, 41)`,
    `layers[0]: bias: expected shape (40,), got (41,)`, `layers[0]: activation: expected 'tanh', got 'relu'`, and so on
    for what fastrnn's layers don't do: go_backwards, and a merge_mode that is not concat;
    `layers[1]: expected ('LSTM', {}), got ('GRU', {'reset_after': True})` and
    `weight_ih_l1: expected shape (40, 20), got (40, 10)` for layers that don't fit on each other.
    Source: the equations of keras.layers.SimpleRNN, GRU and LSTM.
    """
    checks.integer("number of layers", len(layers), 1)
    named = {f"layers[{k}]": layer for k, layer in enumerate(layers)}
    found = [_read(name, layer, nonlinearity, reset_after) for name, layer in named.items()]
    kind, options, _ = found[0]
    for name, (*own, _) in zip(named, found, strict=True):
        checks.only(name, tuple(own), (kind, options))
    return layer_of(kind, [parts for _, _, parts in found], batch_first=batch_first, dtype=dtype, **options)


def to_keras(layer: RNN | GRU | LSTM) -> list[list[np.ndarray]]:
    """For each layer of a stack, what `set_weights` of Keras' layer takes, for Bidirectional of both directions.

    Keras' layers are SimpleRNN with the activation of `nonlinearity`, GRU with the same reset_after, or LSTM;
    use_bias is `bias`.

    Raises TypeError: `layer: expected RNN, GRU, LSTM, got Linear`; ValueError for what Keras doesn't have:
    `proj_size: expected 0, got 3`, `peepholes: expected False, got True`.
    """
    kind = checks.kind("layer", layer, KINDS)
    checks.only("proj_size", layer.proj_size, 0)
    checks.only("peepholes", getattr(layer, "peepholes", False), False)
    two_biases = getattr(layer, "reset_after", False)
    return [
        [array for part in directions for array in _arrays(part, ORDERS[kind], two_biases)]
        for directions in parts_of(layer)
    ]


def _arrays(part, order, two_biases):
    """kernel, recurrent_kernel and, where there are any, bias."""
    own = {name: reordered(value, order) for name, value in part.items()}
    arrays = [np.ascontiguousarray(own[name].T) for name in ("weight_ih", "weight_hh")]
    if "bias_ih" in own:
        biases = own["bias_ih"], own["bias_hh"]
        arrays.append(np.stack(biases) if two_biases else sum(biases))
    return arrays


def _read(name, layer, nonlinearity, reset_after) -> tuple[str, dict[str, Any], list[Part]]:
    """The kind of a layer, options of the constructor, and its parts."""
    arrays = layer.get_weights() if hasattr(layer, "get_weights") else layer
    if isinstance(arrays, Mapping):
        names = ("kernel", "recurrent_kernel", *["bias"] * ("bias" in arrays))
        checks.same_names(name, arrays, dict.fromkeys(names))
        arrays = [arrays[each] for each in names]
    n = checks.as_many(name, arrays, (2, 3, 4, 6))
    size = n if n < 4 else n // 2
    parts = [_part(name, *arrays[i : i + size]) for i in range(0, n, size)]
    kind, _ = GATES[checks.gates(name, arrays[1], tuple(GATES))[0]]
    if hasattr(layer, "get_config"):
        nonlinearity, reset_after = _settings(name, layer.get_config(), nonlinearity, reset_after)
    if size == 3:
        reset_after = np.ndim(arrays[2]) == 2
    options = {"RNN": {"nonlinearity": nonlinearity}, "GRU": {"reset_after": reset_after}, "LSTM": {}}
    return kind, options[kind], parts


def _part(name, kernel, recurrent_kernel, bias=None):
    """The parameters of one direction."""
    G, H = checks.gates(f"{name}: recurrent_kernel", recurrent_kernel, tuple(GATES))
    I = checks.rank(f"{name}: kernel", kernel, "(I, G*H)", 2, 2).shape[0]
    _, order = GATES[G]
    part = {
        "weight_ih": reordered(checks.real(f"{name}: kernel", kernel, (I, G * H)).T, order),
        "weight_hh": reordered(checks.real(f"{name}: recurrent_kernel", recurrent_kernel, (H, G * H)).T, order),
    }
    if bias is not None:
        shape = (2, G * H) if G == 3 and np.ndim(bias) == 2 else (G * H,)
        bias = checks.real(f"{name}: bias", bias, shape)
        biases = bias if len(shape) == 2 else (bias, np.zeros_like(bias))
        part |= {n: reordered(b, order) for n, b in zip(("bias_ih", "bias_hh"), biases, strict=True)}
    return part


def _settings(name, config, nonlinearity, reset_after) -> tuple[str, bool]:
    """nonlinearity and reset_after of Keras' configuration of a layer, in which all else is as fastrnn has it."""
    if "merge_mode" in config:
        checks.only(f"{name}: merge_mode", config["merge_mode"], "concat")
        forward, backward = (config[place]["config"] for place in ("layer", "backward_layer"))
        for key in ("activation", "recurrent_activation", "reset_after"):
            checks.only(f"{name}: backward_layer: {key}", backward.get(key), forward.get(key))
        config = forward
    config = config | config.get("cell", {}).get("config", {})  # RNN around a cell
    checks.only(f"{name}: go_backwards", config.get("go_backwards"), False)
    if "recurrent_activation" not in config:
        return checks.choice(f"{name}: activation", config.get("activation"), ("tanh", "relu")), reset_after
    checks.only(f"{name}: activation", config["activation"], "tanh")
    checks.only(f"{name}: recurrent_activation", config["recurrent_activation"], "sigmoid")
    return nonlinearity, config.get("reset_after", reset_after)
