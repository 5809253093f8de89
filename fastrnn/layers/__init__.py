"""Layers: torch-shaped objects that hold parameters; `layer(x)` is inference, `layer.vjp(x)` returns its pullback."""

from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.linear import Linear
from fastrnn.layers.recurrent import RNN

__all__ = ["RNN", "Dropout", "Embedding", "Linear"]
