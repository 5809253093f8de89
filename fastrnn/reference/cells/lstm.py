"""The LSTM cell, with a projection of its output and with peepholes where it has their weights.

    i, f, o = sigmoid(z_i + p_i c_{t-1}), sigmoid(z_f + p_f c_{t-1}), sigmoid(z_o + p_o c_t)      g = tanh(z_g)
    c_t = f c_{t-1} + i g      m_t = o tanh(c_t)      h_t = W_hr m_t, or m_t

Sources: Hochreiter and Schmidhuber, Long short-term memory, Neural Computation 9 (1997); the forget gate f: Gers,
Schmidhuber, Cummins, Learning to forget, Neural Computation 12 (2000); the peepholes p: Gers and Schmidhuber, Recurrent
nets that time and count, IJCNN 2000; the projection W_hr: Sak, Senior, Beaufays, Long short-term memory recurrent
neural network architectures for large scale acoustic modeling, Interspeech 2014. Names and gate order i, f, g, o as
torch.nn.LSTM. Twin of fastrnn.kernels.cells.lstm.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.reference.cells import State, cell_backward, cell_forward
from fastrnn.reference.matmul import column_sums
from fastrnn.reference.vmath import sigmoid, tanh


class Weights(NamedTuple):
    """The weights; h is P wide: as many as W_hr has rows, or H."""

    W_ih: np.ndarray  # (4H, I)
    W_hh: np.ndarray  # (4H, P)
    b_ih: np.ndarray  # (4H,)
    b_hh: np.ndarray  # (4H,)
    W_hr: np.ndarray | None = None  # (P, H)
    per_unit: np.ndarray | None = None  # (3, H): p_i, p_f, p_o


class LSTM(Weights):
    """The states are h (B, P) and c (B, H)."""

    gates, states = 4, 2

    @property
    def peepholes(self) -> np.ndarray | tuple[int, int, int]:
        """p_i, p_f, p_o, which are 0 in a cell without."""
        return (0, 0, 0) if self.per_unit is None else self.per_unit


Gates = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@cell_forward.register
def forward(cell: LSTM, x_t: np.ndarray, state: State) -> tuple[State, Gates]:
    """z_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, and the equations above; saves i, f, g, o."""
    h_prev, c_prev = state
    p_i, p_f, p_o = cell.peepholes
    z_i, z_f, z_g, z_o = np.split(x_t @ cell.W_ih.T + cell.b_ih + h_prev @ cell.W_hh.T + cell.b_hh, 4, axis=1)
    i, f, g = sigmoid(z_i + p_i * c_prev), sigmoid(z_f + p_f * c_prev), tanh(z_g)
    c = f * c_prev + i * g
    o = sigmoid(z_o + p_o * c)
    m = o * tanh(c)
    h = m if cell.W_hr is None else m @ cell.W_hr.T
    return (h, c), (i, f, g, o)


@cell_backward.register
def backward(
    cell: LSTM, x_t: np.ndarray, state_prev: State, state: State, saved: Gates, d_state: State
) -> tuple[np.ndarray, State, LSTM]:
    """The equations in reverse, dc_t gathering from c_{t+1}, m_t and o; then dz goes through W_ih and W_hh.

    dx_t = W_ih^T dz, dh_{t-1} = W_hh^T dz; dW_ih = dz x_t^T, dW_hh = dz h_{t-1}^T, db = dz.
    """
    (h_prev, c_prev), (_, c), (i, f, g, o), (dh, dc) = state_prev, state, saved, d_state
    p_i, p_f, p_o = cell.peepholes
    tanh_c = tanh(c)
    dm = dh if cell.W_hr is None else dh @ cell.W_hr
    dz_o = o * (1 - o) * tanh_c * dm
    dc = dc + o * (1 - tanh_c * tanh_c) * dm + p_o * dz_o
    dz_i = i * (1 - i) * g * dc
    dz_f = f * (1 - f) * c_prev * dc
    dz_g = (1 - g * g) * i * dc
    dc_prev = f * dc + p_i * dz_i + p_f * dz_f

    dz = np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
    db = column_sums(dz)
    d_cell = LSTM(
        W_ih=dz.T @ x_t,
        W_hh=dz.T @ h_prev,
        b_ih=db,
        b_hh=db,
        W_hr=None if cell.W_hr is None else dh.T @ (o * tanh_c),
        per_unit=None
        if cell.per_unit is None
        else np.stack([column_sums(dz_i * c_prev), column_sums(dz_f * c_prev), column_sums(dz_o * c)]),
    )
    return dz @ cell.W_ih, (dz @ cell.W_hh, dc_prev), d_cell
