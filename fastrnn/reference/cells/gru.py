"""The GRU cell: h_t = (1 - z) n + z h_{t-1}, with r, z and n from x_t and h_{t-1}.

    r, z = sigmoid(a_r + W_hr h_{t-1} + b_hr), sigmoid(a_z + W_hz h_{t-1} + b_hz)      a = W_ih x_t + b_ih
    n = tanh(a_n + q)

Two forms differ in q: whether r resets the product W_hn h_{t-1} + b_hn, or h_{t-1} itself.

Source: Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine translation,
EMNLP 2014. Names and gate order r, z, n as torch.nn.GRU. Twin of fastrnn.kernels.cells.gru.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.reference.cells import State, cell_backward, cell_forward
from fastrnn.reference.matmul import column_sums
from fastrnn.reference.vmath import sigmoid, tanh

Gates = tuple[np.ndarray, np.ndarray, np.ndarray]


class Weights(NamedTuple):
    """The weights."""

    W_ih: np.ndarray  # (3H, I)
    W_hh: np.ndarray  # (3H, H)
    b_ih: np.ndarray  # (3H,)
    b_hh: np.ndarray  # (3H,)


class GRU(Weights):
    """q = r (W_hn h_{t-1} + b_hn), as torch.nn.GRU and Keras' reset_after."""

    gates, states = 3, 1

    def hidden_gates(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(W_hr, W_hz, W_hn), each (H, H), and (b_hr, b_hz, b_hn)."""
        return np.split(self.W_hh, 3), np.split(self.b_hh, 3)

    def candidate(self, W_hn: np.ndarray, b_hn: np.ndarray, r: np.ndarray, h_prev: np.ndarray) -> np.ndarray:
        """q (B, H)."""
        return r * (h_prev @ W_hn.T + b_hn)

    def candidate_backward(
        self, W_hn: np.ndarray, b_hn: np.ndarray, r: np.ndarray, h_prev: np.ndarray, dq: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """The gradients of the arguments: (dW_hn, db_hn, dr, dh_{t-1})."""
        reset = r * dq
        return reset.T @ h_prev, column_sums(reset), (h_prev @ W_hn.T + b_hn) * dq, reset @ W_hn


class GRUResetBefore(GRU):
    """q = W_hn (r h_{t-1}) + b_hn, as in the paper and Keras' reset_after=False."""

    def candidate(self, W_hn: np.ndarray, b_hn: np.ndarray, r: np.ndarray, h_prev: np.ndarray) -> np.ndarray:
        """q (B, H)."""
        return (r * h_prev) @ W_hn.T + b_hn

    def candidate_backward(
        self, W_hn: np.ndarray, b_hn: np.ndarray, r: np.ndarray, h_prev: np.ndarray, dq: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """The gradients of the arguments: (dW_hn, db_hn, dr, dh_{t-1})."""
        d_reset = dq @ W_hn
        return dq.T @ (r * h_prev), column_sums(dq), h_prev * d_reset, r * d_reset


@cell_forward.register
def forward(cell: GRU, x_t: np.ndarray, state: State) -> tuple[State, Gates]:
    """The equations above; saves r, z, n."""
    (h_prev,) = state
    (W_hr, W_hz, W_hn), (b_hr, b_hz, b_hn) = cell.hidden_gates()
    a_r, a_z, a_n = np.split(x_t @ cell.W_ih.T + cell.b_ih, 3, axis=1)
    r = sigmoid(a_r + h_prev @ W_hr.T + b_hr)
    z = sigmoid(a_z + h_prev @ W_hz.T + b_hz)
    n = tanh(a_n + cell.candidate(W_hn, b_hn, r, h_prev))
    return ((1 - z) * n + z * h_prev,), (r, z, n)


@cell_backward.register
def backward(
    cell: GRU, x_t: np.ndarray, state_prev: State, state: State, saved: Gates, d_state: State
) -> tuple[np.ndarray, State, GRU]:
    """The equations in reverse: da from dh_t, then dx_t = W_ih^T da, dW_ih = da x_t^T, db_ih = da; dq = da_n.

    dh_{t-1} gathers from h_t, q, r and z.
    """
    (h_prev,), (r, z, n), (dh,) = state_prev, saved, d_state
    (W_hr, W_hz, W_hn), (_, _, b_hn) = cell.hidden_gates()
    da_n = (1 - n * n) * (1 - z) * dh
    da_z = z * (1 - z) * (h_prev - n) * dh
    dW_hn, db_hn, dr, dh_q = cell.candidate_backward(W_hn, b_hn, r, h_prev, da_n)
    da_r = r * (1 - r) * dr
    dh_prev = z * dh + dh_q + da_r @ W_hr + da_z @ W_hz

    da = np.concatenate([da_r, da_z, da_n], axis=1)
    d_cell = type(cell)(
        W_ih=da.T @ x_t,
        W_hh=np.concatenate([da_r.T @ h_prev, da_z.T @ h_prev, dW_hn]),
        b_ih=column_sums(da),
        b_hh=np.concatenate([column_sums(da_r), column_sums(da_z), db_hn]),
    )
    return da @ cell.W_ih, (dh_prev,), d_cell
