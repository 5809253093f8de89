"""RNN, GRU and LSTM nodes of an ONNX model as layers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, inliner

from fastrnn import checks
from fastrnn.exchange import layer_of, reordered
from fastrnn.layers.sequence import Recurrent
from fastrnn.onnx.constants import STANDARD, Constants, bodies, one_line, operator
from fastrnn.onnx.operators import OPERATORS, saturation

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
WEIGHTS = ("W", "R", "B", "P")
ATTRIBUTES = ("activations", "clip", "direction", "hidden_size", "input_forget", "layout", "linear_before_reset")
STATES = {"initial_h": "h0", "initial_c": "c0", "sequence_lens": "lengths"}  # as arguments of a layer


class Node(NamedTuple):
    """A node as a layer of its own, with what the model holds beside the weights.

    A node of direction "reverse" takes every sequence from its end: call the node, or give its layer sequences that
    are turned around.
    """

    name: str  # as `load` calls it
    layer: Recurrent  # one layer; batch_first where the node's layout is 1
    reverse: bool
    initial: Any  # where constant, the first state: h (D, B, H), for LSTM (h, c), of which either may be None
    lengths: np.ndarray | None  # sequence_lens (B,), where constant
    computed: tuple[str, ...]  # of h0, c0 and lengths those that the model computes: they are yours to give

    def __call__(
        self, x: np.ndarray, initial: Any = None, lengths: Sequence[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, Any]:
        """y (T, B, D*H) and the last state, of x (T, B, I), as `layer(x, initial, lengths=lengths)` has them.

        Where the layout is 1, B comes before T. The node's own initial state and lengths stand in for None. ONNX's Y
        is y.reshape(T, B, D, H) with the axes 1 and 2 exchanged. A sequence of length 0 ends in its initial state, as
        one of no steps does; onnxruntime gives 0 there, and ONNX doesn't say.

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
    """The RNN, GRU and LSTM nodes of a model, in its order, or those of a name.

    Parameters
    ----------
    model : a file, or what onnx.load gives
    node : a node's name, or if it has none that of its first output. Nodes in the bodies of If, Loop and Scan are
        named after those too: `loop/body/lstm`, `if/then_branch/lstm`. Calls of the model's own functions are replaced
        by what they do

    W, R, B and P must be constants: initializers, or what operators of ONNX compute of nothing else, and in a body also
    those outside of it. Directions, layouts and linear_before_reset are taken over; the dtype is that of W. Nodes one
    upon the other stay single layers.

    clip is passed over where it can't act: from `operators.saturation` on, 17.4 for GRU and LSTM in float32 and 37.5 in
    float64 (RNN with tanh 9.02 and 19.1), it changes a gate by no more than half an ulp below 1, 2^-25 or 2^-54.
    activation_alpha and activation_beta are none of our activations'.

    Raises ValueError: `lstm.onnx: not read: ...` for a file that is no ONNX model, or not all of one;
    `lstm.onnx: expected nodes RNN, GRU or LSTM, got 2 MatMul, 1 Add`, which is never an empty list;
    `node 'lstm': operator: expected one of RNN, GRU, LSTM, got 'com.microsoft.DynamicQuantizeLSTM'`,
    `node 'lstm': clip: expected a number >= 17.3287, got 5`, `node 'lstm': input_forget: expected 0, got 1`,
    `node 'lstm': activations: expected ['sigmoid', 'tanh', 'tanh'], got ['hardsigmoid', 'tanh', 'tanh']`,
    `node 'lstm': W: expected a constant, got what MatMul computes`, `node: expected one of lstm, got 'gru'`;
    TypeError: `node 'lstm': W: expected dtype float32 or float64, got float16`; OSError where a file can't be opened.
    Inverse: `export`.
    """
    kind = checks.kind("model", model, {"ModelProto": onnx.ModelProto, "str": str, "PathLike": PathLike})
    label = "model" if kind == "ModelProto" else str(model)
    whole = _whole(label, model)
    opset = max((each.version for each in whole.opset_import if each.domain in STANDARD), default=1)
    everything = [*_walk(whole.graph, Constants(whole.graph, opset))]
    found = [each for each in everything if any(name in f"{each[1].op_type}" for name in OPERATORS)]
    checks.some(label, "nodes RNN, GRU or LSTM", found, Counter(operator(each) for _, each, _ in everything))
    if node is not None:
        checks.choice("node", node, [name for name, *_ in found])
    return [_read(*each) for each in found if node in (None, each[0])]


def _whole(label, model):
    """A model that has a graph, and no functions of its own."""
    try:
        found = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
        whole = inliner.inline_local_functions(found) if found.functions else found
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of protobuf, its text formats, or onnx
        raise ValueError(f"{label}: not read: {one_line(error)}") from error
    return whole


def _walk(
    graph: onnx.GraphProto, constants: Constants, prefix: str = ""
) -> Iterator[tuple[str, onnx.NodeProto, Constants]]:
    """All nodes, those in bodies behind what they are in, with their names and the constants in their reach."""
    for node in graph.node:
        name = f"{prefix}{next(filter(None, (node.name, *node.output)), node.op_type)}"
        yield name, node, constants
        for attribute, body in bodies(node):
            yield from _walk(body, constants.within(body), f"{name}/{attribute}/")


def _read(name, node, constants):
    label = f"node {name!r}"
    kinds = OPERATORS[checks.choice(f"{label}: operator", operator(node), tuple(OPERATORS))]
    attributes = [each for each in node.attribute if each.name in ATTRIBUTES]
    settings = {each.name: _text(helper.get_attribute_value(each)) for each in attributes}
    direction = settings.get("direction", "forward")
    checks.choice(f"{label}: direction", direction, ("forward", "reverse", "bidirectional"))
    checks.only(f"{label}: input_forget", settings.get("input_forget", 0), 0)
    batch_first = checks.integer(f"{label}: layout", settings.get("layout", 0), 0, 1) == 1
    D = 2 if direction == "bidirectional" else 1
    kind = _kind(label, kinds, settings, D)

    found = {place: constants.find(each) for place, each in zip(INPUTS, node.input, strict=False) if each}
    weights = {}
    for place in WEIGHTS:
        value, origin = found.get(place, (None, "none"))
        if place in found or place in "WR":
            checks.constant(f"{label}: {place}", value, origin)
            weights[place] = value
    dtype = checks.dtype(weights["W"].dtype, f"{label}: W")
    if "clip" in settings:
        least = max(saturation(each, dtype) for each in kind.onnx.activations)
        checks.number(f"{label}: clip", settings["clip"], least)
    layer = layer_of(kind, [_parts(kind, label, D, weights)], dtype=dtype, batch_first=batch_first)
    checks.only(f"{label}: hidden_size", settings.get("hidden_size", layer.hidden_size), layer.hidden_size)

    held = {ours: found.get(place, (None, ""))[0] for place, ours in STATES.items()}
    computed = tuple([ours for place, ours in STATES.items() if place in found and held[ours] is None])
    states = [_state(f"{label}: initial_{s}", held[f"{s}0"], layer, D) for s in layer.state_names]
    initial = None if all(s is None for s in states) else layer.state_of(states)
    return Node(name, layer, direction == "reverse", initial, held["lengths"], computed)


def _kind(label, kinds, settings, D):
    """Of the kinds that an operator computes the one that its settings choose."""
    known = list(dict.fromkeys(kind.onnx.activations for kind in kinds))
    found = [str(each).lower() for each in settings.get("activations") or known[0] * D]  # names in any case
    own = known[0]
    if len(known) > 1:
        own = (checks.choice(f"{label}: activations", found[0], [name for (name,) in known]),)
    checks.only(f"{label}: activations", found, [*own] * D)
    attributes = {"linear_before_reset": int(settings.get("linear_before_reset", 0) != 0)}
    return next(k for k in kinds if k.onnx.activations == own and k.onnx.attributes.items() <= attributes.items())


def _text(value):
    """Attributes hold bytes."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _parts(kind, label, D, weights):
    """The parameters of each direction."""
    order = kind.order("onnx")
    G, back = len(order), np.argsort(order)
    H = checks.rank(f"{label}: R", weights["R"], "(num_directions, G*H, H)", 3, 3).shape[2]
    I = checks.rank(f"{label}: W", weights["W"], "(num_directions, G*H, I)", 3, 3).shape[2]
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, len(kind.onnx.weights) * H)}
    like = weights["W"].dtype
    arrays = {place: checks.array(f"{label}: {place}", value, like, *shapes[place]) for place, value in weights.items()}
    parts = []
    for d in range(D):
        own = {place: value[d] for place, value in arrays.items()}
        part = {"weight_ih": reordered(own["W"], back), "weight_hh": reordered(own["R"], back)}
        if "B" in own:
            part |= {n: reordered(b, back) for n, b in zip(("bias_ih", "bias_hh"), np.split(own["B"], 2), strict=True)}
        if "P" in own:
            rows = dict(zip(kind.onnx.weights, own["P"].reshape(-1, H), strict=True))
            part[kind.per_unit] = np.stack([rows[name] for name in kind.weights])
        parts.append(part)
    return parts


def _state(name, value, layer, D):
    """(D, B, H) of a constant, which has B in front where the layout is 1."""
    if value is None:
        return None
    shape = (None, D, layer.hidden_size) if layer.batch_first else (D, None, layer.hidden_size)
    found = checks.array(name, value, layer.dtype, *shape)
    return np.array(found.swapaxes(0, 1) if layer.batch_first else found)


def _turned(x, lengths, batch_first):
    """Every sequence of x from its end to its start; what lies beyond a length stays."""
    T, B = x.shape[1::-1] if batch_first else x.shape[:2]
    lengths = np.full(B, T) if lengths is None else checks.lengths("lengths", lengths, T, B)
    t = np.arange(T)[:, None]
    taken = np.where(t < lengths, lengths - 1 - t, t)
    return np.take_along_axis(x, (taken.T if batch_first else taken)[..., None], 1 if batch_first else 0)
