"""Weights from and to Keras 3, which is not imported: what travels are the arrays of its layers' `get_weights()`.

lstm = fastrnn.keras.from_keras(model.get_layer("lstm"))
model.get_layer("lstm").set_weights(*fastrnn.keras.to_keras(lstm))

Keras has kernel (I, G*H), recurrent_kernel (H, G*H) and bias (G*H,), the gates of a GRU as z, r, h and those of an LSTM
as i, f, c, o. A GRU with reset_after has bias (2, 3*H), of the inputs and of the hidden state. All others have one
bias, which becomes b_ih beside a b_hh of 0; on the way back it is b_ih + b_hh.

Older lists are told by their shapes. CuDNNGRU and CuDNNLSTM of Keras 2 have bias (2*G*H,), and kernels in which each
gate's memory is that of its transpose. Keras 1 has kernel (I, H), recurrent kernel (H, H) and bias (H,) gate by gate,
z, r, h or i, c, f, o.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.exchange import Part, classes, layer_of, parts_of, reordered
from fastrnn.kinds import KINDS, Kind
from fastrnn.layers.sequence import Recurrent

# What Keras has too, and where each gate lies in the other order (both ways the same), by their number: arrays, which
# is all that a list has, tell no more.
OURS = [kind for kind in KINDS.values() if kind.keras]
ORDERS = {len(kind.gates): kind.order("keras") for kind in OURS}
NONLINEARITIES = [kind.options["nonlinearity"] for kind in OURS if "nonlinearity" in kind.options]

COUNTS = (2, 3, 4, 6)  # of arrays, in one direction and in two
KERAS_1 = {9: (0, 1, 2), 12: (0, 2, 1, 3)}  # by the number of one direction's arrays, where each of today's gates lies
COUNTS_1 = tuple(D * n for D in (1, 2) for n in KERAS_1)

LAYERS = tuple(dict.fromkeys(kind.keras.name for kind in OURS if kind.keras))
CELLS = (*[f"{name}Cell" for name in LAYERS], "CuDNNGRU", "CuDNNLSTM")  # the last two are layers without a cell
AROUND_CELLS = (*LAYERS, "RNN")
CLASSES = ("Bidirectional", "StackedRNNCells", *CELLS, *AROUND_CELLS)

# Settings that act in training or between calls, and what they are where they do nothing.
IDLE: dict[str, Any] = {
    "trainable": True,
    "stateful": False,
    "dropout": 0,
    "recurrent_dropout": 0,
    **{f"{name}_regularizer": None for name in ("kernel", "recurrent", "bias", "activity")},
    **{f"{name}_constraint": None for name in ("kernel", "recurrent", "bias")},
}


def from_keras(
    *layers: Any,
    nonlinearity: str = "tanh",
    reset_after: bool = True,
    bidirectional: bool = False,
    batch_first: bool = True,
    dtype: Any = "float32",
) -> Recurrent:
    """A layer with the weights of Keras' SimpleRNN, GRU or LSTM, or of Bidirectional around one; of several, a stack.

    Parameters
    ----------
    layers : from the first to the last, each a built layer (also a cell, RNN around one, and RNN around a stack of
        them, which is as many layers), or the list that its `get_weights()` gives: kernel (I, G*H), recurrent_kernel
        (H, G*H), with use_bias bias, and for Bidirectional those of the backward layer behind; or, of one direction, a
        mapping with these names. The arrays of a stack of cells are given as a list for each cell
    nonlinearity : "tanh" or "relu", of SimpleRNN; a built layer knows its own
    reset_after : of a GRU without bias; a bias and a built layer know their own
    bidirectional : lists of 4 or 6 arrays are of two directions; to be said where I = H, as two cells have the same
    batch_first : x and y are (B, T, ...), as Keras has them
    dtype : "float32" or "float64", whatever Keras computes in

    Returns RNN, GRU or LSTM, as the recurrent kernel has 1, 3 or 4 gates. Its y is Keras' with return_sequences; of
    its state (L*D, B, H), [k*D] is what layer k's forward direction returns with return_state, [k*D + 1] the backward.
    With `lengths`, which stand for masks at the end, y is 0 beyond them, as with zero_output_for_mask.

    Results don't depend on unroll, use_cudnn, implementation, seeds and initialisers (unit_forget_bias is one), which
    are passed over. Of what acts in training or between calls, a UserWarning tells:
    `layers[0]: not taken over: stateful=True, dropout=0.2, kernel_regularizer=L2`. Lists say nothing of activations:
    they are taken for tanh and sigmoid, though before Keras 2.3 hard_sigmoid was what had not been set. Of Keras 1 a
    UserWarning says so: `layers[0]: not taken over: inner_activation, in Keras 1 hard_sigmoid if not set`.

    Raises ValueError: `layers[0]: expected 2, 3, 4, 6, 9, 12, 18, 24 arrays, got 5`,
    `layers[0]: expected a built layer, got LSTMCell without weights`,
    `layers[0]: recurrent_kernel: expected shape (H, G*H) with G one of 1, 3, 4, got (10, 41)`,
    `layers[0]: bias: expected shape (40,), got (41,)`, `layers[0]: activation: expected 'tanh', got 'relu'`, and so on
    for what fastrnn's layers don't do: go_backwards, a merge_mode that is not concat, Bidirectional around a stack;
    `layers[0][3:]: expected shapes (5, 28), (7, 28), (28,) again, or a list for each cell of a stack, got ...`, where
    I = H `layers[0]: expected bidirectional=True, or a list for each cell of a stack, got 6 arrays with I = H = 7`;
    `layers[1]: expected ('LSTM', {}), got ('GRU', {'reset_after': True})` and
    `weight_ih_l1: expected shape (40, 20), got (40, 10)` for layers that don't fit on each other.
    Raises TypeError:
    `layers[0]: expected SimpleRNN, GRU, LSTM, RNN, Bidirectional or a cell of Keras, or its arrays, got Dense`.
    Source: the equations of keras.layers.SimpleRNN, GRU and LSTM.
    """
    checks.integer("number of layers", len(layers), 1)
    options = {
        "nonlinearity": checks.choice("nonlinearity", nonlinearity, NONLINEARITIES),
        "reset_after": checks.flag("reset_after", reset_after),
    }
    found, messages = [], []
    for k, layer in enumerate(layers):
        own = _read(f"layers[{k}]", layer, options, bidirectional)
        found += own
        for each in own:
            checks.only(f"layers[{k}]", each.known, found[0].known)
            checks.only(f"layers[{k}]: number of directions", len(each.parts), len(found[0].parts))
        if left := dict.fromkeys(setting for each in own for setting in each.left):
            messages.append(f"layers[{k}]: not taken over: {', '.join(left)}")
    parts = [each.parts for each in found]
    made = layer_of(found[0].kind, parts, batch_first=batch_first, dtype=dtype)
    for message in messages:
        warnings.warn(message, stacklevel=2)
    return made


def to_keras(layer: Recurrent) -> list[list[np.ndarray]]:
    """For each layer of a stack, what `set_weights` of Keras' layer takes, for Bidirectional of both directions.

    Keras' layers are SimpleRNN with the activation of `nonlinearity`, GRU with the same reset_after, or LSTM;
    use_bias is `bias`. RNN around a stack of cells takes all of these lists in one.

    Raises TypeError: `layer: expected RNN, GRU, LSTM, got Linear`; ValueError for what Keras doesn't have:
    `proj_size: expected 0, got 3`, `peepholes: expected False, got True`.
    """
    checks.kind("layer", layer, classes("keras"))
    checks.only("proj_size", layer.proj_size, 0)
    checks.only("peepholes", getattr(layer, "peepholes", False), False)
    order, two_biases = layer.kind.order("keras"), getattr(layer, "reset_after", False)
    return [
        [array for part in directions for array in _arrays(part, order, two_biases)] for directions in parts_of(layer)
    ]


def _arrays(part, order, two_biases):
    """kernel, recurrent_kernel and, where there are any, bias."""
    own = {name: reordered(value, order) for name, value in part.items()}
    arrays = [np.ascontiguousarray(own[name].T) for name in ("weight_ih", "weight_hh")]
    if "bias_ih" in own:
        biases = own["bias_ih"], own["bias_hh"]
        arrays.append(np.stack(biases) if two_biases else np.add(*biases))
    return arrays


class _Layer(NamedTuple):
    """One layer of a stack."""

    kind: Kind
    parts: list[Part]
    left: list[str]  # settings that are not taken over

    @property
    def known(self) -> tuple[str, Mapping[str, Any]]:
        """Its kind, as a message shows it."""
        return self.kind.layer_name, self.kind.options


def _read(name: str, layer: Any, options: dict[str, Any], bidirectional: bool) -> list[_Layer]:
    """The layers that one argument gives."""
    if isinstance(layer, Mapping):
        given = {each: array for each, array in layer.items() if array is not None}
        names = ("kernel", "recurrent_kernel", *["bias"] * ("bias" in given))
        checks.same_names(name, given, dict.fromkeys(names))
        arrays = [checks.numbers(f"{name}: {each}", given[each]) for each in names]
        return [_layer(name, [arrays], options, [])]
    if isinstance(layer, (list, tuple)):
        directions, left = _directions(name, layer, bidirectional)
        return [_layer(name, directions, options, left)]
    return _built(name, layer, go_backwards=False)


def _built(name: str, layer: Any, go_backwards: bool) -> list[_Layer]:
    """The layers that a layer or a cell of Keras is."""
    expected = f"{', '.join(AROUND_CELLS)}, Bidirectional or a cell of Keras, or its arrays"
    kind, config = checks.of_keras(name, layer, CLASSES, expected), layer.get_config()
    if kind == "StackedRNNCells":
        return [each for i, cell in enumerate(layer.cells) for each in _built(f"{name}: cells[{i}]", cell, False)]
    left = [f"{key}={_shown(config[key])}" for key, idle in IDLE.items() if config.get(key, idle) != idle]
    if kind == "Bidirectional":
        checks.only(f"{name}: merge_mode", config["merge_mode"], "concat")
        forward = _one(f"{name}: forward_layer", layer.forward_layer, False)
        backward = _one(f"{name}: backward_layer", layer.backward_layer, True)
        checks.only(f"{name}: backward_layer", backward.known, forward.known)
        return [_Layer(forward.kind, forward.parts + backward.parts, left + forward.left + backward.left)]
    checks.only(f"{name}: go_backwards", config.get("go_backwards", go_backwards), go_backwards)
    if kind in AROUND_CELLS:
        return [each._replace(left=left + each.left) for each in _built(name, layer.cell, go_backwards)]
    arrays = checks.built(name, layer)
    checks.as_many(name, arrays, (2, 3))
    return [_layer(name, [arrays], _settings(name, config), left)]


def _one(name: str, layer: Any, go_backwards: bool) -> _Layer:
    """A direction, which meets the other one above each layer here, and in Keras above all cells."""
    found = _built(name, layer, go_backwards)
    checks.only(f"{name}: number of cells", len(found), 1)
    return found[0]


def _settings(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a cell, all else of which is as fastrnn has it; CuDNN's layers have none."""
    activation = config.get("activation", "tanh")
    if "recurrent_activation" in config:
        checks.only(f"{name}: activation", activation, "tanh")
        checks.only(f"{name}: recurrent_activation", config["recurrent_activation"], "sigmoid")
    else:
        checks.choice(f"{name}: activation", activation, NONLINEARITIES)
    return {"nonlinearity": activation, "reset_after": config.get("reset_after", True)}


def _shown(setting):
    """Keras describes objects by mappings."""
    return setting["class_name"] if isinstance(setting, Mapping) else setting


def _directions(name, arrays, bidirectional):
    """Of a list, the arrays of each direction, and the settings that it leaves open."""
    n = checks.as_many(name, arrays, COUNTS + COUNTS_1)
    arrays = [checks.numbers(f"{name}[{i}]", each) for i, each in enumerate(arrays)]
    G, H = checks.gates(f"{name}: recurrent_kernel", arrays[1], tuple(ORDERS))
    by_gate = n in COUNTS_1
    if by_gate and G > 1:
        checks.as_many(name, arrays, COUNTS)
    size = n if n < 4 or n in KERAS_1 else n // 2
    if n > 3:  # A stack of cells may have as many arrays, but above the first cell I is H.
        checks.repeated(name, [each.shape for each in arrays], 3 if by_gate else size)
        if by_gate or not bidirectional:
            wanted = "the gates of Keras 1 side by side" if by_gate else "bidirectional=True"
            checks.no_stack(name, wanted, n, arrays[0], H)
    directions = [arrays[i : i + size] for i in range(0, n, size)]
    if not by_gate:
        return directions, []
    sides = [[np.hstack([way[3 * j + i] for j in KERAS_1[size]]) for i in range(3)] for way in directions]
    return sides, ["inner_activation, in Keras 1 hard_sigmoid if not set"]


def _layer(name: str, directions: Sequence[Any], options: dict[str, Any], left: list[str]) -> _Layer:
    """A layer of the arrays of its directions; options: of all kinds, which arrays don't tell but for a bias."""
    parts = [_part(name, *arrays) for arrays in directions]
    G, H = checks.gates(name, directions[0][1], tuple(ORDERS))
    if len(directions[0]) == 3:
        options = options | {"reset_after": np.size(directions[0][2]) == 2 * G * H}
    return _Layer(next(kind for kind in OURS if len(kind.gates) == G and kind.suits(options)), parts, left)


def _part(name: str, kernel: Any, recurrent_kernel: Any, bias: Any = None) -> Part:
    """The parameters of one direction."""
    G, H = checks.gates(f"{name}: recurrent_kernel", recurrent_kernel, tuple(ORDERS))
    I = checks.rank(f"{name}: kernel", kernel, "(I, G*H)", 2, 2).shape[0]
    part = {
        "weight_ih": checks.real(f"{name}: kernel", kernel, (I, G * H)).T,
        "weight_hh": checks.real(f"{name}: recurrent_kernel", recurrent_kernel, (H, G * H)).T,
    }
    if bias is not None:
        cudnn, pair = G > 1 and np.shape(bias) == (2 * G * H,), G == 3 and np.ndim(bias) == 2
        bias = checks.real(f"{name}: bias", bias, (2 * G * H,) if cudnn else (2, G * H) if pair else (G * H,))
        biases = bias.reshape(2, -1) if cudnn or pair else (bias, np.zeros_like(bias))
        if cudnn:
            part = {n: np.concatenate([gate.T for gate in np.split(value, G)]) for n, value in part.items()}
            part["weight_ih"] = part["weight_ih"].reshape(G * H, I)
        part |= zip(("bias_ih", "bias_hh"), biases, strict=True)
    return {n: reordered(value, ORDERS[G]) for n, value in part.items()}
