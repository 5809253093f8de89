"""fastrnn: recurrent networks trained on CPUs, in compiled kernels behind torch-shaped layers."""

from fastrnn import gradcheck, models, optim
from fastrnn.flow import clip_steps, gradient_flow
from fastrnn.layers import GRU, LSTM, RNN, Dropout, Embedding, GRUCell, Linear, LSTMCell, Recursive, RNNCell, TimeDelay
from fastrnn.loss import cross_entropy
from fastrnn.parameters import Parameters
from fastrnn.ragged import Packed
from fastrnn.threads import get_num_threads, set_num_threads
from fastrnn.trees import Trees

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "Packed",
    "Parameters",
    "RNNCell",
    "Recursive",
    "TimeDelay",
    "Trees",
    "clip_steps",
    "cross_entropy",
    "get_num_threads",
    "gradcheck",
    "gradient_flow",
    "models",
    "optim",
    "set_num_threads",
]
