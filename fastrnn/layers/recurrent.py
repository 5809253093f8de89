"""Recurrent layers and their single steps: torch.nn's constructors, names, shapes and initial values."""

from typing import Any

from fastrnn import checks, kinds
from fastrnn.layers.cell import Cell
from fastrnn.layers.sequence import Recurrent


class RNN(Recurrent):
    """Elman layers: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), each layer fed by the one below.

    Parameters
    ----------
    input_size, hidden_size : I and H
    num_layers : L
    nonlinearity : f, "tanh" or "relu"
    bias : have b_ih and b_hh
    batch_first : x and y are (B, T, ...) instead of (T, B, ...); states are not
    dropout : probability of zeroing the output of every layer but the last, in `vjp` only; with one layer it does
        nothing, and a UserWarning says so
    bidirectional : D = 2: a second direction from the last step to the first, beside the first one's columns
    dtype : "float32" or "float64"
    seed : of the initial values, U(-1/sqrt(H), 1/sqrt(H)), and of dropout

    Parameters by name, for each layer k, and again with _reverse: weight_ih_l{k} (H, I or D*H), weight_hh_l{k} (H, H),
    bias_ih_l{k} (H,), bias_hh_l{k} (H,).

    Source: Elman, Cognitive Science 14 (1990); conventions of torch.nn.RNN. Reference twin:
    fastrnn.reference.recurrent with the cells of fastrnn.reference.cells.elman.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.nonlinearity = checks.choice("nonlinearity", nonlinearity, kinds.choices("RNN", "nonlinearity"))
        super().__init__(
            kinds.chosen("RNN", nonlinearity=nonlinearity), input_size, hidden_size, num_layers, batch_first,
            bidirectional, bias=bias, dropout=dropout, dtype=dtype, seed=seed,
        )  # fmt: skip


class GRU(Recurrent):
    """Gated recurrent units: h_t = (1 - z) n + z h_{t-1}, each layer fed by the one below.

    r, z = sigmoid(W_i. x_t + b_i. + W_h. h_{t-1} + b_h.), n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn)); without
    reset_after n = tanh(W_in x_t + b_in + W_hn (r h_{t-1}) + b_hn).

    Parameters
    ----------
    reset_after : r scales the hidden part of n, as in torch and Keras; or h_{t-1} before the product, as in the paper
    others : as in RNN

    Parameters by name, for each layer k, and again with _reverse, the gates r, z, n one after another: weight_ih_l{k}
    (3*H, I or D*H), weight_hh_l{k} (3*H, H), bias_ih_l{k} (3*H,), bias_hh_l{k} (3*H,).

    Source: Cho et al., EMNLP 2014; conventions of torch.nn.GRU. Reference twin: fastrnn.reference.recurrent with the
    cells of fastrnn.reference.cells.gru.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.reset_after = checks.flag("reset_after", reset_after)
        super().__init__(
            kinds.chosen("GRU", reset_after=self.reset_after), input_size, hidden_size, num_layers, batch_first,
            bidirectional, bias=bias, dropout=dropout, dtype=dtype, seed=seed,
        )  # fmt: skip


class LSTM(Recurrent):
    """Long short-term memory: c_t = f c_{t-1} + i g and h_t = o tanh(c_t), each layer fed by the one below.

    i, f, o = sigmoid(z) and g = tanh(z), z = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh.

    Parameters
    ----------
    proj_size : P; if not 0, h_t = W_hr (o tanh(c_t)) with P < H columns
    peepholes : add p_i c_{t-1} to z_i, p_f c_{t-1} to z_f and p_o c_t to z_o
    forget_bias : value that b_ih + b_hh of the gate f starts from; random as all others if None
    others : as in RNN

    Parameters by name, for each layer k, and again with _reverse, the gates i, f, g, o one after another:
    weight_ih_l{k} (4*H, I or D*P), weight_hh_l{k} (4*H, P), bias_ih_l{k} (4*H,), bias_hh_l{k} (4*H,), with proj_size
    weight_hr_l{k} (P, H), with peepholes weight_ch_l{k} (3, H) for i, f, o.

    Source: Hochreiter & Schmidhuber, Neural Computation 9 (1997); Gers & Schmidhuber, IJCNN 2000 (peepholes); Sak et
    al., Interspeech 2014 (projection); conventions of torch.nn.LSTM. Reference twin: fastrnn.reference.recurrent with
    the cell of fastrnn.reference.cells.lstm.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peepholes: bool = False,
        forget_bias: float | None = None,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.peepholes = checks.flag("peepholes", peepholes)
        super().__init__(
            kinds.chosen("LSTM"), input_size, hidden_size, num_layers, batch_first, bidirectional, bias=bias,
            dropout=dropout, proj_size=proj_size, per_unit=self.peepholes, forget_bias=forget_bias,
            dtype=dtype, seed=seed,
        )  # fmt: skip


class RNNCell(Cell):
    """One step of an RNN of one layer: h' = f(W_ih x + b_ih + W_hh h + b_hh).

    Parameters as in fastrnn.RNN. By name: weight_ih (H, I), weight_hh (H, H), bias_ih (H,), bias_hh (H,).

    Source: conventions of torch.nn.RNNCell. Reference twin: fastrnn.reference.cells.elman.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.nonlinearity = checks.choice("nonlinearity", nonlinearity, kinds.choices("RNN", "nonlinearity"))
        kind = kinds.chosen("RNN", nonlinearity=nonlinearity)
        super().__init__(kind, input_size, hidden_size, bias=bias, dtype=dtype, seed=seed)


class GRUCell(Cell):
    """One step of a GRU of one layer.

    Parameters as in fastrnn.GRU. By name, the gates r, z, n one after another: weight_ih (3*H, I), weight_hh (3*H, H),
    bias_ih (3*H,), bias_hh (3*H,).

    Source: conventions of torch.nn.GRUCell. Reference twin: fastrnn.reference.cells.gru.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.reset_after = checks.flag("reset_after", reset_after)
        kind = kinds.chosen("GRU", reset_after=self.reset_after)
        super().__init__(kind, input_size, hidden_size, bias=bias, dtype=dtype, seed=seed)


class LSTMCell(Cell):
    """One step of an LSTM of one layer.

    Parameters as in fastrnn.LSTM. By name, the gates i, f, g, o one after another: weight_ih (4*H, I), weight_hh
    (4*H, H), bias_ih (4*H,), bias_hh (4*H,), with peepholes weight_ch (3, H).

    Source: conventions of torch.nn.LSTMCell. Reference twin: fastrnn.reference.cells.lstm.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        peepholes: bool = False,
        forget_bias: float | None = None,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.peepholes = checks.flag("peepholes", peepholes)
        super().__init__(
            kinds.chosen("LSTM"), input_size, hidden_size, bias=bias, per_unit=self.peepholes, forget_bias=forget_bias,
            dtype=dtype, seed=seed,
        )  # fmt: skip
