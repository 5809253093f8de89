"""The Elman cell: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), f = tanh or relu.

Source: Elman, Finding structure in time, Cognitive Science 14 (1990); names as torch.nn.RNN.
Reference twin: fastrnn.reference.cells.elman.
"""

from typing import NamedTuple

from numba.extending import overload

from fastrnn.kernels import vmath
from fastrnn.kernels.cells import TRAITS, X_H, Traits, cell_backward, cell_forward
from fastrnn.kernels.simd import fma, select, zeros


class ElmanTanh(NamedTuple):
    """f = tanh."""


class ElmanRelu(NamedTuple):
    """f = relu."""


TRAITS[ElmanTanh] = TRAITS[ElmanRelu] = Traits(gates={"h": X_H}, states=("h",), reads=("h",))


@overload(cell_forward)
def _(cell, unit, z, state):
    if cell.instance_class is ElmanTanh:
        return lambda cell, unit, z, state: ((vmath.tanh(z[0]),), ())
    if cell.instance_class is ElmanRelu:
        return lambda cell, unit, z, state: ((select(z[0] <= 0.0, 0.0, z[0]),), ())


@overload(cell_backward)
def _(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is ElmanTanh:

        def tanh_backward(cell, unit, d_state, state, state_prev, saved):
            (dh,) = d_state
            (h,) = state
            return (dh * fma(-h, h, 1.0),), (zeros(dh),)

        return tanh_backward
    if cell.instance_class is ElmanRelu:

        def relu_backward(cell, unit, d_state, state, state_prev, saved):
            (dh,) = d_state
            (h,) = state
            return (select(h > 0.0, dh, 0.0),), (zeros(dh),)

        return relu_backward
