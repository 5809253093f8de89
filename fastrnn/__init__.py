"""fastrnn: recurrent networks trained on CPUs, in compiled kernels behind torch-shaped layers."""

from fastrnn import models, optim
from fastrnn.layers import RNN, Dropout, Embedding, Linear
from fastrnn.loss import cross_entropy
from fastrnn.parameters import Parameters
from fastrnn.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "RNN",
    "Dropout",
    "Embedding",
    "Linear",
    "Parameters",
    "cross_entropy",
    "get_num_threads",
    "models",
    "optim",
    "set_num_threads",
]
