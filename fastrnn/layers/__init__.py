"""Layers: torch-shaped objects that hold parameters; `layer(x)` is inference, `layer.vjp(x)` returns its pullback."""

from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.linear import Linear
from fastrnn.layers.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastrnn.layers.recursive import Recursive
from fastrnn.layers.time_delay import TimeDelay

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "RNNCell",
    "Recursive",
    "TimeDelay",
]
