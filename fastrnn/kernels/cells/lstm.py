"""Long short-term memory: c_t = f c_{t-1} + i g, h_t = o tanh(c_t).

The gates i, f, o = sigmoid(z) and g = tanh(z), with z = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh; with peepholes
z_i += p_i c_{t-1}, z_f += p_f c_{t-1}, z_o += p_o c_t.

Source: Hochreiter & Schmidhuber, Neural Computation 9 (1997); the forget gate and peepholes: Gers, Schmidhuber &
Cummins, Neural Computation 12 (2000); gate order as torch.nn.LSTM. Reference twin: fastrnn.reference.cells.lstm.
"""

from typing import Any, NamedTuple

from numba.extending import overload

from fastrnn.kernels.cells import TRAITS, X_H, Traits, cell_backward, cell_forward, weights_backward
from fastrnn.kernels.pointers import load_first, pointer
from fastrnn.kernels.simd import fma, zeros
from fastrnn.kernels.vmath import sigmoid, tanh


class LSTM(NamedTuple):
    """Without peepholes."""


class PeepholeLSTM(NamedTuple):
    """With peepholes."""

    weights: tuple[Any, Any, Any]  # p_i, p_f, p_o, (H,) each


TRAITS[LSTM] = Traits(
    gates={"i": X_H, "f": X_H, "g": X_H, "o": X_H}, states=("h", "c"), saved=("i", "f", "g", "o", "tanh(c)")
)
TRAITS[PeepholeLSTM] = TRAITS[LSTM]._replace(weights=("p_i", "p_f", "p_o"))
_BOTH = LSTM, PeepholeLSTM


def peep(cell, gate, unit, z, c):
    """z + p c with the peephole weights of the gate i = 0, f = 1, o = 2; z without peepholes."""


@overload(peep, prefer_literal=True)
def _peep(cell, gate, unit, z, c):
    if cell.instance_class is LSTM:
        return lambda cell, gate, unit, z, c: z
    index = gate.literal_value

    def peeping(cell, gate, unit, z, c):
        p = cell.weights[index]
        return fma(load_first(pointer(p) + unit, p.size - unit), c, z)

    return peeping


@overload(cell_forward, jit_options={"forceinline": True})  # LLVM would call it, with all vectors through memory
def _(cell, unit, z, state):
    if cell.instance_class in _BOTH:

        def forward(cell, unit, z, state):
            z_i, z_f, z_g, z_o = z
            _, c_prev = state
            i = sigmoid(peep(cell, 0, unit, z_i, c_prev))
            f = sigmoid(peep(cell, 1, unit, z_f, c_prev))
            g = tanh(z_g)
            c = fma(f, c_prev, i * g)
            o = sigmoid(peep(cell, 2, unit, z_o, c))
            tanh_c = tanh(c)
            return (o * tanh_c, c), (i, f, g, o, tanh_c)

        return forward


@overload(cell_backward)
def _(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class in _BOTH:

        def backward(cell, unit, d_state, state, state_prev, saved):
            dh, dc = d_state
            _, c_prev = state_prev
            i, f, g, o, tanh_c = saved
            dz_o = dh * tanh_c * (o * (1.0 - o))
            dc = fma(dh * o, fma(-tanh_c, tanh_c, 1.0), dc)
            dc = peep(cell, 2, unit, dc, dz_o)
            dz_i = dc * g * (i * (1.0 - i))
            dz_f = dc * c_prev * (f * (1.0 - f))
            dz_g = dc * i * fma(-g, g, 1.0)
            dc_prev = peep(cell, 1, unit, peep(cell, 0, unit, dc * f, dz_i), dz_f)
            return (dz_i, dz_f, dz_g, dz_o), (zeros(dh), dc_prev)

        return backward


@overload(weights_backward)
def _(cell, sums, dz, state, state_prev, noted):
    if cell.instance_class is PeepholeLSTM:

        def peepholes_backward(cell, sums, dz, state, state_prev, noted):
            d_i, d_f, d_o = sums
            dz_i, dz_f, _, dz_o = dz
            _, c = state
            _, c_prev = state_prev
            return fma(dz_i, c_prev, d_i), fma(dz_f, c_prev, d_f), fma(dz_o, c, d_o)

        return peepholes_backward
