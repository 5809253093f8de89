"""ONNX, with the package of that name (extra `onnx`): layers and CharLM as models, and nodes of models as layers.

fastrnn.onnx.export(lstm, "lstm.onnx")
(node,) = fastrnn.onnx.load("lstm.onnx")  # node.layer is an LSTM
"""

from fastrnn.onnx.read import Node, load
from fastrnn.onnx.write import export

__all__ = ["Node", "export", "load"]
