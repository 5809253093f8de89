"""The Elman cell: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), f = tanh or relu.

Source: Elman, Finding structure in time, Cognitive Science 14 (1990); names as torch.nn.RNN.
Twin of fastrnn.kernels.cells.elman.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.reference.cells import State, cell_backward, cell_forward
from fastrnn.reference.matmul import column_sums
from fastrnn.reference.vmath import tanh


class Elman(NamedTuple):
    """The weights."""

    W_ih: np.ndarray  # (H, I)
    W_hh: np.ndarray  # (H, H)
    b_ih: np.ndarray  # (H,)
    b_hh: np.ndarray  # (H,)


class ElmanTanh(Elman):
    """f = tanh."""

    gates = states = 1

    def f(self, z: np.ndarray) -> np.ndarray:
        """h = f(z)."""
        return tanh(z)

    def f_backward(self, h: np.ndarray, dh: np.ndarray) -> np.ndarray:
        """dz = f'(z) dh, with f'(z) = 1 - h^2."""
        return (1 - h * h) * dh


class ElmanRelu(Elman):
    """f = relu, with slope 0 at 0."""

    gates = states = 1

    def f(self, z: np.ndarray) -> np.ndarray:
        """h = f(z)."""
        return np.where(z.real <= 0, 0, z)

    def f_backward(self, h: np.ndarray, dh: np.ndarray) -> np.ndarray:
        """dz = f'(z) dh, with f'(z) = 1 where h > 0."""
        return np.where(h.real > 0, dh, 0)


@cell_forward.register
def forward(cell: ElmanTanh | ElmanRelu, x_t: np.ndarray, state: State) -> tuple[State, tuple[()]]:
    """h_t = f(z_t), z_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh."""
    (h_prev,) = state
    z = x_t @ cell.W_ih.T + cell.b_ih + h_prev @ cell.W_hh.T + cell.b_hh
    return (cell.f(z),), ()


@cell_backward.register
def backward(
    cell: ElmanTanh | ElmanRelu, x_t: np.ndarray, state_prev: State, state: State, saved: tuple[()], d_state: State
) -> tuple[np.ndarray, State, ElmanTanh | ElmanRelu]:
    """dz = f'(z_t) dh_t; dx_t = W_ih^T dz, dh_{t-1} = W_hh^T dz; dW_ih = dz x_t^T, dW_hh = dz h_{t-1}^T, db = dz."""
    (h_prev,), (h_t,), (dh,) = state_prev, state, d_state
    dz = cell.f_backward(h_t, dh)
    db = column_sums(dz)
    d_cell = type(cell)(W_ih=dz.T @ x_t, W_hh=dz.T @ h_prev, b_ih=db, b_hh=db)
    return dz @ cell.W_ih, (dz @ cell.W_hh,), d_cell
