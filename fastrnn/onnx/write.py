"""A layer or a character model as an ONNX model."""

from os import PathLike

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fastrnn import checks
from fastrnn.exchange import classes, parts_of, reordered
from fastrnn.layers.sequence import Recurrent
from fastrnn.models import CharLM
from fastrnn.onnx.operators import OPERATORS

OPSET, IR_VERSION = 17, 8  # of onnx 1.12: old enough for every runtime in use


def export(layer: Recurrent | CharLM, path: str | PathLike[str] | None = None) -> onnx.ModelProto:
    """A layer, or a character model, as an ONNX model, which is saved if a path is given.

    Inputs and outputs have the names and shapes of the layer's, T and B being open: x (T, B, I), with batch_first
    (B, T, I), h0 (L*D, B, H) and for LSTM c0, all of them required; y (T, B, D*H), h_n and c_n. CharLM has tokens
    (T, B) int64 instead of x and logits (T, B, V) instead of y; its vocabulary is in the model's metadata_props.

    Parameters
    ----------
    layer : any number of layers and directions, with or without bias, GRU with either reset_after, LSTM with or without
        peepholes; dropout is off
    path : of the file to write, by custom *.onnx

    The model is of the layer's dtype. onnxruntime has RNN, GRU and LSTM in float32 only, and ends the process at B = 0.

    Raises ValueError: `proj_size: expected 0, got 3`, as ONNX's LSTM has no projection;
    TypeError: `layer: expected RNN, GRU, LSTM, CharLM, got Linear`.
    Source: ONNX operator set 17. Inverse: `load`.
    """
    kind = checks.kind("layer", layer, {**classes("onnx"), "CharLM": CharLM})
    rnn = layer.rnn if isinstance(layer, CharLM) else layer
    checks.kind("layer", rnn, classes("onnx"))
    checks.only("proj_size", rnn.proj_size, 0)
    graph = _Graph(rnn.dtype)
    if isinstance(layer, CharLM):
        _character_model(graph, layer)
    else:
        _layer(graph, rnn)
    whole = helper.make_graph(graph.nodes, kind, graph.inputs, graph.outputs, graph.constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(whole, producer_name="fastrnn", ir_version=IR_VERSION, opset_imports=[opset])
    if isinstance(layer, CharLM):
        helper.set_model_props(model, {"vocabulary": layer.vocabulary})
    if path is not None:
        onnx.save(model, path)
    return model


class _Graph:
    """Nodes, constants, inputs and outputs in the making."""

    def __init__(self, dtype):
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []
        self._real = helper.np_dtype_to_tensor_dtype(dtype)

    def constant(self, name, value):
        """The name of a constant."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator, inputs, outputs, **attributes):
        """A node, named after its first output."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, f"{operator}_{outputs[0]}", **attributes))

    def value(self, name, *shape, kind=None):
        """The description of an input or output; of the layer's dtype if no other is given."""
        return helper.make_tensor_value_info(name, kind or self._real, shape)


def _layer(graph, rnn):
    """x to y."""
    leading, x = ("B", "T") if rnn.batch_first else ("T", "B"), "x"
    graph.inputs.append(graph.value("x", *leading, rnn.input_size))
    graph.outputs.append(graph.value("y", *leading, (2 if rnn.bidirectional else 1) * rnn.hidden_size))
    if rnn.batch_first:
        x = "steps"
        graph.node("Transpose", ["x"], [x], perm=(1, 0, 2))
    _stack(graph, rnn, x, "y")


def _character_model(graph, model):
    """tokens to logits."""
    V, decoder = len(model.vocabulary), model.decoder.parameters
    graph.inputs.append(graph.value("tokens", "T", "B", kind=onnx.TensorProto.INT64))
    graph.outputs.append(graph.value("logits", "T", "B", V))
    if model.embedding:
        table = graph.constant("embedding.weight", model.embedding.parameters["weight"])
        graph.node("Gather", [table, "tokens"], ["rows"])
    else:
        depth, values = np.array(V), np.array([0, 1], model.rnn.dtype)
        graph.node("OneHot", ["tokens", graph.constant("V", depth), graph.constant("zero_one", values)], ["rows"])
    _stack(graph, model.rnn, "rows", "hidden")
    graph.node("MatMul", ["hidden", graph.constant("decoder.weight", decoder["weight"].T)], ["products"])
    graph.node("Add", ["products", graph.constant("decoder.bias", decoder["bias"])], ["logits"])


def _stack(graph, rnn, x, y):
    """All layers, from x (T, B, I) to y (T, B, D*H), or (B, T, D*H) with batch_first; and the states."""
    L, D, H, states = rnn.num_layers, 2 if rnn.bidirectional else 1, rnn.hidden_size, rnn.state_names
    for values, end in ((graph.inputs, "0"), (graph.outputs, "_n")):
        values += [graph.value(s + end, L * D, "B", H) for s in states]
    ends = [""] if L == 1 else [f"_l{k}" for k in range(L)]
    initial, final = ([[s + point + end for s in states] for end in ends] for point in ("0", "_n"))
    shape = graph.constant("shape", np.array([0, 0, D * H]))  # 0: as it is
    if L > 1:
        counts = graph.constant("directions", np.full(L, D))
        for s, names in zip(states, zip(*initial, strict=True), strict=True):
            graph.node("Split", [f"{s}0", counts], names, axis=0)
    for k, directions in enumerate(parts_of(rnn)):
        top = k == L - 1
        _operator(graph, rnn, k, directions, x, initial[k], [f"Y_l{k}", *final[k]])
        order = (2, 0, 1, 3) if top and rnn.batch_first else (0, 2, 1, 3)  # of Y (T, D, B, H)
        graph.node("Transpose", [f"Y_l{k}"], [f"Y_l{k}_rows"], perm=order)
        x = y if top else f"y_l{k}"
        graph.node("Reshape", [f"Y_l{k}_rows", shape], [x])
    if L > 1:
        for s, names in zip(states, zip(*final, strict=True), strict=True):
            graph.node("Concat", names, [f"{s}_n"], axis=0)


def _operator(graph, rnn, k, directions, x, initial, outputs):
    """The operator of layer k."""
    kind, order = rnn.kind.onnx, rnn.kind.order("onnx")
    stacks = {
        "W": [reordered(part["weight_ih"], order) for part in directions],
        "R": [reordered(part["weight_hh"], order) for part in directions],
    }
    if rnn.bias:
        biases = [[reordered(part[name], order) for name in ("bias_ih", "bias_hh")] for part in directions]
        stacks["B"] = [np.concatenate(each) for each in biases]
    own = rnn.kind
    if own.per_unit in directions[0]:
        rows = [dict(zip(own.weights, part[own.per_unit], strict=True)) for part in directions]
        stacks["P"] = [np.concatenate([each[name] for name in own.onnx.weights]) for each in rows]
    given = {name: graph.constant(f"{name}_l{k}", np.stack(stack)) for name, stack in stacks.items()}
    options = {"direction": "bidirectional" if rnn.bidirectional else "forward", "hidden_size": rnn.hidden_size}
    if any(each.onnx and each.onnx.activations != kind.activations for each in OPERATORS[kind.name]):
        options["activations"] = [name.capitalize() for name in kind.activations] * len(directions)
    inputs = [x, given["W"], given["R"], given.get("B", ""), "", *initial]
    if "P" in given:
        inputs.append(given["P"])
    graph.node(kind.name, inputs, outputs, **options, **kind.attributes)
