"""RNN, GRU and LSTM nodes of an ONNX model as layers."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fastrnn import checks
from fastrnn.exchange import layer_of, reordered
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.onnx.operators import ACTIVATIONS, GATES, PEEPHOLES

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
WEIGHTS = ("W", "R", "B", "P")
STATES = {"initial_h": "h0", "initial_c": "c0", "sequence_lens": "lengths"}  # as arguments of a layer


class Node(NamedTuple):
    """A node as a layer of its own, with what the model holds beside the weights.

    A node of direction "reverse" takes every sequence from its end: call the node, or give its layer sequences that
    are turned around.
    """

    name: str  # the node's, or if it has none that of its first output
    layer: RNN | GRU | LSTM  # one layer; batch_first where the node's layout is 1
    reverse: bool
    initial: Any  # where constant, the first state: h (D, B, H), for LSTM (h, c), of which either may be None
    lengths: np.ndarray | None  # sequence_lens (B,), where constant
    computed: tuple[str, ...]  # of h0, c0 and lengths those that the model computes: they are yours to give

    def __call__(
        self, x: np.ndarray, initial: Any = None, lengths: Sequence[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, Any]:
        """y (T, B, D*H) and the last state, of x (T, B, I), as `layer(x, initial, lengths=lengths)` has them.

        Where the layout is 1, B comes before T. The node's own initial state and lengths stand in for None. ONNX's Y
        is y.reshape(T, B, D, H) with the axes 1 and 2 exchanged.

        Raises ValueError: `x: expected shape (T, B, input_size), got (6, 5)`, and what the layer raises.
        """
        initial = self.initial if initial is None else initial
        lengths = self.lengths if lengths is None else lengths
        if not self.reverse:
            return self.layer(x, initial, lengths=lengths)
        x = checks.rank("x", x, "(T, B, input_size)", 3, 3)
        y, state = self.layer(_turned(x, lengths, self.layer.batch_first), initial, lengths=lengths)
        return _turned(y, lengths, self.layer.batch_first), state


def load(model: str | PathLike[str] | onnx.ModelProto, node: str | None = None) -> list[Node]:
    """The RNN, GRU and LSTM nodes of a model's graph, in its order, or the one with a name.

    Parameters
    ----------
    model : a file, or what onnx.load gives
    node : a node's name, or if it has none that of its first output

    W, R, B and P must be constants: initializers or Constant nodes. Directions, layouts and linear_before_reset are
    taken over; the dtype is that of W. Nodes one upon the other stay single layers.

    Raises ValueError: `node 'lstm': clip: expected None, got 5.0`, `node 'lstm': input_forget: expected 0, got 1`,
    `node 'lstm': activations: expected ['sigmoid', 'tanh', 'tanh'], got ['hardsigmoid', 'tanh', 'tanh']`,
    `node 'lstm': W: expected a constant, got what Transpose computes`, `node: expected one of lstm, got 'gru'`;
    TypeError: `node 'lstm': W: expected dtype float32 or float64, got float16`.
    Inverse: `export`.
    """
    graph = (model if isinstance(model, onnx.ModelProto) else onnx.load(model)).graph
    found = [each for each in graph.node if each.op_type in GATES and each.domain in ("", "ai.onnx")]
    names, constants = [each.name or next(filter(None, each.output)) for each in found], _Constants(graph)
    if node is not None:
        checks.choice("node", node, names)
    return [
        _read(name, each, constants) for name, each in zip(names, found, strict=True) if node is None or name == node
    ]


class _Constants:
    """The values that a graph holds by name."""

    def __init__(self, graph):
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output}

    def find(self, name):
        """The array of that name, or None and whence it comes."""
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name]), ""
        if name not in self._producers:
            return None, "an input of the model"
        node = self._producers[name]
        if node.op_type == "Identity":
            return self.find(node.input[0])
        values = [numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value"]
        return (values[0], "") if node.op_type == "Constant" and values else (None, f"what {node.op_type} computes")


def _read(name, node, constants):
    kind, label = node.op_type, f"node {name!r}"
    settings = {each.name: _text(helper.get_attribute_value(each)) for each in node.attribute}
    direction = settings.get("direction", "forward")
    checks.choice(f"{label}: direction", direction, ("forward", "reverse", "bidirectional"))
    checks.only(f"{label}: clip", settings.get("clip"), None)
    checks.only(f"{label}: input_forget", settings.get("input_forget", 0), 0)
    D, batch_first = 2 if direction == "bidirectional" else 1, settings.get("layout", 0) == 1
    options = {"batch_first": batch_first}
    own = ACTIVATIONS[kind]
    activations = [each.lower() for each in settings.get("activations") or own * D]  # names in any case
    if kind == "RNN":
        options["nonlinearity"] = checks.choice(f"{label}: activations", activations[0], ("tanh", "relu"))
        own = (activations[0],)
    checks.only(f"{label}: activations", activations, [*own] * D)
    if kind == "GRU":
        options["reset_after"] = settings.get("linear_before_reset", 0) != 0

    found = {place: constants.find(each) for place, each in zip(INPUTS, node.input, strict=False) if each}
    weights = {}
    for place in WEIGHTS:
        value, origin = found.get(place, (None, "none"))
        if place in found or place in "WR":
            checks.constant(f"{label}: {place}", value, origin)
            weights[place] = value
    layer = layer_of(kind, [_parts(kind, label, D, weights)], dtype=weights["W"].dtype, **options)
    checks.only(f"{label}: hidden_size", settings.get("hidden_size", layer.hidden_size), layer.hidden_size)

    held = {ours: found.get(place, (None, ""))[0] for place, ours in STATES.items()}
    computed = tuple([ours for place, ours in STATES.items() if place in found and held[ours] is None])
    states = [_state(held[f"{s}0"], batch_first, layer.dtype) for s in layer.state_names]
    initial = None if all(s is None for s in states) else layer.state_of(states)
    return Node(name, layer, direction == "reverse", initial, held["lengths"], computed)


def _text(value):
    """Attributes hold bytes."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def _parts(kind, label, D, weights):
    """The parameters of each direction."""
    order = GATES[kind]
    G, back = len(order), np.argsort(order)
    H = checks.rank(f"{label}: R", weights["R"], "(num_directions, G*H, H)", 3, 3).shape[2]
    I = checks.rank(f"{label}: W", weights["W"], "(num_directions, G*H, I)", 3, 3).shape[2]
    checks.dtype(weights["W"].dtype, f"{label}: W")
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
    arrays = {place: checks.real(f"{label}: {place}", value, shapes[place]) for place, value in weights.items()}
    parts = []
    for d in range(D):
        own = {place: value[d] for place, value in arrays.items()}
        part = {"weight_ih": reordered(own["W"], back), "weight_hh": reordered(own["R"], back)}
        if "B" in own:
            part |= {n: reordered(b, back) for n, b in zip(("bias_ih", "bias_hh"), np.split(own["B"], 2), strict=True)}
        if "P" in own:
            part["weight_ch"] = reordered(own["P"], PEEPHOLES).reshape(3, H)
        parts.append(part)
    return parts


def _state(value, batch_first, dtype):
    """(D, B, H) of a constant, which has B in front where the layout is 1."""
    return None if value is None else np.array(value.swapaxes(0, 1) if batch_first else value, dtype)


def _turned(x, lengths, batch_first):
    """Every sequence of x from its end to its start; what lies beyond a length stays."""
    T, B = x.shape[1::-1] if batch_first else x.shape[:2]
    lengths = np.full(B, T) if lengths is None else checks.lengths("lengths", lengths, T, B)
    t = np.arange(T)[:, None]
    taken = np.where(t < lengths, lengths - 1 - t, t)
    return np.take_along_axis(x, (taken.T if batch_first else taken)[..., None], 1 if batch_first else 0)
