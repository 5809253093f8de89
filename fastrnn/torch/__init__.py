"""torch.nn's recurrent modules over fastrnn's kernels: the same classes, parameters and numbers, sooner.

model = fastrnn.torch.LSTM(64, 128)  # in place of torch.nn.LSTM
print(fastrnn.torch.accelerate(model))  # or: every RNN, GRU and LSTM inside a model
fastrnn.torch.install()  # or: every one that is made from now on
"""

from fastrnn.torch import scripting  # noqa: F401
from fastrnn.torch.modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastrnn.torch.replace import Report, accelerate, install, restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Report", "accelerate", "install", "restore"]
