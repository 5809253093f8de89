"""torch.nn's recurrent modules over fastrnn's kernels: the same classes, parameters and numbers, sooner.

model = fastrnn.torch.LSTM(64, 128)  # in place of torch.nn.LSTM
print(fastrnn.torch.accelerate(model))  # or: every RNN, GRU, LSTM and cell inside a model
"""

from fastrnn.torch.modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastrnn.torch.replace import Report, accelerate, restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Report", "accelerate", "restore"]
