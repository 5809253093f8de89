"""The values that a model holds: initializers, and what its nodes compute of these alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

STANDARD = ("", "ai.onnx")  # both names of ONNX's own domain
RANDOM = {"Bernoulli", "Dropout", "Multinomial"}  # and all that begins with Random

_FREE, _GROWTH = 1 << 26, 16  # bytes that may be computed: so many, and as a multiple of those that are read
_SMALL = 64  # elements of a shape, of axes and the like, which a result's size may depend on


class Constants:
    """The constants of a graph, and of those around it, by name; each is computed when it is asked for.

    All of a model together compute at most 64 MiB and sixteen times what they read, so that no small file grows large.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int, outer: Constants | None = None):
        self._nodes, self._opset, self._outer = graph.node, opset, outer
        self._root: Constants = outer._root if outer else self
        self._left = _FREE  # of the root counts
        self._values: dict[str, tuple[np.ndarray | None, str]] = {}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._tensors |= {
            node.output[0]: each.t for node in graph.node for each in node.attribute if _is_tensor(node, each)
        }
        origin = "an input of the graph" if outer else "an input of the model"
        self._given = {each.name: origin for each in graph.input}
        self._given |= {each.values.name: "a sparse tensor" for each in graph.sparse_initializer}
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._constant = {*self._tensors}
        for node in graph.node:
            if _repeatable(node) and all(map(self._is_constant, filter(None, node.input))):
                self._constant.update(filter(None, node.output))

    def within(self, body: onnx.GraphProto) -> Constants:
        """The constants of a graph in a node of this one."""
        return Constants(body, self._opset, self)

    def find(self, name: str) -> tuple[np.ndarray | None, str]:
        """The array of that name, or None and whence it comes."""
        if name not in self._values:
            for node in self._leading_to(name):
                self._values |= self._computed(node)
        if name not in self._values:
            self._values[name] = self._held(name)
        return self._values[name]

    def _is_constant(self, name):
        return name in self._constant or (self._outer is not None and self._outer._is_constant(name))

    def _leading_to(self, name):
        """The nodes that compute a constant, in the order of the graph."""
        wanted, found = {name} & self._constant - {*self._tensors}, []
        for node in reversed(self._nodes) if wanted else ():
            if any(each in wanted and each not in self._values for each in node.output):
                found.append(node)
                wanted.update(each for each in node.input if each and each not in self._tensors)
        return reversed(found)

    def _held(self, name):
        """What is not computed here."""
        if name in self._tensors:
            return self._read(self._tensors[name])
        if name in self._producers:
            return None, f"what {self._producers[name].op_type} computes"
        if name in self._given or self._outer is None:
            return None, self._given.get(name, "no value of the model")
        return self._outer.find(name)

    def _read(self, tensor):
        try:
            value = numpy_helper.to_array(tensor)
        except Exception as error:  # of NumPy, onnx or files: data may be too few, of no type, or elsewhere
            return None, f"what can't be read: {one_line(error)}"
        self._root._left += _GROWTH * value.nbytes
        return value, ""

    def _computed(self, node):
        """The outputs of a node of constants, by name."""
        names, origin = [*filter(None, node.output)], f"what {node.op_type} computes"
        feeds = {name: self.find(name)[0] for name in node.input if name}
        values = [None] * len(names)
        if all(value is not None for value in feeds.values()):
            try:
                size = _size(node, feeds, self._opset)
                if size > self._root._left:
                    origin += f", {size} bytes"
                else:
                    self._root._left -= size
                    values = _evaluated(node, names, feeds, self._opset)
            except Exception:  # an operator's own, of wrong inputs, or none such known
                pass
        return {name: (value, origin) for name, value in zip(names, values, strict=True)}


def bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The graphs in a node's attributes, as If, Loop and Scan have them, with the attributes' names."""
    for each in node.attribute:
        for graph in (*[each.g] * (each.type == onnx.AttributeProto.GRAPH), *each.graphs):
            yield each.name, graph


def operator(node: onnx.NodeProto) -> str:
    """The operator's name, behind its domain if that is not ONNX's own; what is no text in a file comes as bytes."""
    return f"{node.op_type}" if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def one_line(error: Exception) -> str:
    """What an error of other libraries says."""
    return " ".join(str(error).split())


def _is_tensor(node, attribute):
    """Of a node's attributes, the value of Constant."""
    own = node.op_type == "Constant" and node.domain in STANDARD
    return own and bool(node.output) and attribute.name == "value" and attribute.type == onnx.AttributeProto.TENSOR


def _repeatable(node):
    """An operator of ONNX itself that gives the same whenever it runs, and runs once."""
    random = node.op_type in RANDOM or operator(node).startswith("Random")
    return node.domain in STANDARD and not random and not any(bodies(node))


def _size(node, feeds, opset):
    """The bytes of all outputs, known before any is computed."""
    types = {
        name: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    }
    small = {name: numpy_helper.from_array(value) for name, value in feeds.items() if value.size <= _SMALL}
    schema, opsets = defs.get_schema(node.op_type, opset), [helper.make_opsetid("", opset)]
    found = shape_inference.infer_node_outputs(schema, node, types, small, opset_imports=opsets)
    return sum(_bytes(each.tensor_type) for each in found.values())


def _bytes(tensor):
    """Of a type with a shape."""
    dims = [each.dim_value if each.HasField("dim_value") else -1 for each in tensor.shape.dim]
    if not tensor.HasField("shape") or min(dims, default=0) < 0:
        raise ValueError("a shape that depends on values")
    return math.prod(dims) * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize


def _evaluated(node, names, feeds, opset):
    """The outputs of these names."""
    inputs, outputs = ([onnx.ValueInfoProto(name=each) for each in group] for group in (feeds, names))
    graph = helper.make_graph([node], "constants", inputs, outputs)
    graph.node[0].domain = ""
    if node.op_type == "DequantizeLinear":
        opset = max(opset, 19)  # the first that the evaluator has; it computes the same
    return ReferenceEvaluator(graph, opsets={"": opset}).run(None, feeds)
