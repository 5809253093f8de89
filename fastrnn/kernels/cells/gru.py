"""The gated recurrent unit: h_t = (1 - z) n + z h_{t-1}, with the gates r and z = sigmoid of sums as the Elman cell's.

Reset after the product: n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn)), as torch.nn.GRU; reset before it:
n = tanh(W_in x_t + b_in + W_hn (r h_{t-1}) + b_hn), where r h_{t-1} is the cell's message.

Source: Cho et al., Learning phrase representations, EMNLP (2014), which resets before; gate order and signs as
torch.nn.GRU. Reference twin: fastrnn.reference.cells.gru.
"""

from typing import NamedTuple

from numba.extending import overload

from fastrnn.kernels.cells import (
    TRAITS,
    X_APART_H,
    X_H,
    X_MESSAGE,
    Traits,
    cell_backward,
    cell_forward,
    output_backward,
    output_forward,
)
from fastrnn.kernels.jit import device
from fastrnn.kernels.simd import fma
from fastrnn.kernels.vmath import sigmoid, tanh


class GRU(NamedTuple):
    """Reset after the product."""


class GRUResetBefore(NamedTuple):
    """Reset before the product."""


TRAITS[GRU] = Traits(
    gates={"r": X_H, "z": X_H, "n": X_APART_H}, states=("h",), saved=("r", "z", "n", "W_hn h + b_hn"), reads=("h_prev",)
)
TRAITS[GRUResetBefore] = Traits(
    gates={"r": X_H, "z": X_H, "n": X_MESSAGE}, states=("h",), saved=("r", "z", "n"), reads=("h_prev",)
)


@device
def mix(z, n, h_prev):
    """(1 - z) n + z h_{t-1}."""
    return fma(z, h_prev - n, n)


@device
def mix_backward(dh, z, n, h_prev):
    """The gradients of both pre-activations that are mixed, z's and n's."""
    return dh * (h_prev - n) * (z * (1.0 - z)), dh * (1.0 - z) * fma(-n, n, 1.0)


@overload(cell_forward)
def _(cell, unit, z, state):
    if cell.instance_class is GRU:

        def forward(cell, unit, z, state):
            z_r, z_z, x_n, h_n = z
            (h_prev,) = state
            r, z = sigmoid(z_r), sigmoid(z_z)
            n = tanh(fma(r, h_n, x_n))
            return (mix(z, n, h_prev),), (r, z, n, h_n)

        return forward
    if cell.instance_class is GRUResetBefore:

        def forward_message(cell, unit, z, state):
            z_r, z_z = z
            (h_prev,) = state
            r = sigmoid(z_r)
            return (r * h_prev,), (r, sigmoid(z_z))

        return forward_message


@overload(output_forward)
def _(cell, unit, z, h_prev, saved):
    if cell.instance_class is GRUResetBefore:

        def forward(cell, unit, z, h_prev, saved):
            n = tanh(z)
            return mix(saved[1], n, h_prev), (n,)

        return forward


@overload(output_backward)
def _(cell, unit, d_h, h_prev, saved):
    if cell.instance_class is GRUResetBefore:

        def backward(cell, unit, d_h, h_prev, saved):
            _, z, n = saved
            return mix_backward(d_h, z, n, h_prev)[1]

        return backward


@overload(cell_backward)
def _(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is GRU:

        def backward(cell, unit, d_state, state, state_prev, saved):
            (dh,) = d_state
            (h_prev,) = state_prev
            r, z, n, h_n = saved
            dz_z, dz_n = mix_backward(dh, z, n, h_prev)
            dz_r = dz_n * h_n * (r * (1.0 - r))
            return (dz_r, dz_z, dz_n, dz_n * r), (dh * z,)

        return backward
    if cell.instance_class is GRUResetBefore:

        def backward_message(cell, unit, d_state, state, state_prev, saved):
            dh, d_message = d_state
            (h_prev,) = state_prev
            r, z, n = saved
            dz_z, dz_n = mix_backward(dh, z, n, h_prev)
            dz_r = d_message * h_prev * (r * (1.0 - r))
            return (dz_r, dz_z, dz_n), (fma(d_message, r, dh * z),)

        return backward_message
