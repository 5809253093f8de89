"""Cells over trees: one node's arithmetic for a vector of units, where h_{t-1} has become the children's h.

An Elman node is an Elman step. An LSTM node has a forget gate for each child, c = i g + sum_k f_k c_k; its other gates,
"own" ones, are one each. A node's row of pre-activations holds for each block of `lanes` units the vectors of its own
gates i, g, o side by side, behind them those of f without the children's part.

Source: Tai, Socher & Manning, Improved semantic representations from tree-structured long short-term memory networks,
ACL 2015. Reference twin: fastrnn.reference.recursive.
"""

from typing import Any, NamedTuple

from numba.extending import overload

from fastrnn.kernels.cells import cell_backward, cell_forward
from fastrnn.kernels.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.kernels.cells.lstm import LSTM
from fastrnn.kernels.pack import padded
from fastrnn.kernels.pointers import (
    lanes,
    load,
    load_first,
    load_many,
    store,
    store_first,
    store_many,
    store_many_first,
)
from fastrnn.kernels.simd import fma, zeros
from fastrnn.kernels.vmath import sigmoid, tanh


class Node(NamedTuple):
    """A node of some trees, and its children."""

    row: int  # of h and c: its number
    children: Any  # (slots,) the node in a slot, or -1, an array
    first: int  # its slots are first..last-1
    last: int


class Trace(NamedTuple):
    """What the forward pass writes, and the backward pass reads again."""

    z: Any  # the node's row: pre-activations, which become what the backward pass wants of them
    f: Any  # (slots, H) pre-activations of the forget gates, which become the gates
    h: Any  # (N, H)
    c: Any  # (N, H)


class NodeGradients(NamedTuple):
    """Where the gradients of a node go."""

    dz: Any  # its row: the gates in the order of the parameters, f summed over the children
    f: Any  # its first slot's forget gate, the others `f_row` apart
    f_row: int
    c: Any  # (slots, H) of each child's c


def node_forward(cell, unit, H, node, trace):
    """h and c of a node, for the units from `unit` on."""


def node_backward(cell, unit, H, node, d_h, d_c, trace, gradients):
    """The gradients of a node's pre-activations from those of its h and c, vectors, for the units from `unit` on."""


_ELMAN = (ElmanTanh, ElmanRelu)


@overload(node_forward)
def _elman_forward(cell, unit, H, node, trace):
    if cell.instance_class in _ELMAN:

        def forward(cell, unit, H, node, trace):
            new, _ = cell_forward(cell, unit, (load(trace.z + unit),), (zeros(trace.z),))
            store_first(trace.h + (node.row * H + unit), new[0], H - unit)

        return forward


@overload(node_backward, jit_options={"forceinline": True})  # LLVM would call it, with its vectors through memory
def _elman_backward(cell, unit, H, node, d_h, d_c, trace, gradients):
    if cell.instance_class in _ELMAN:

        def backward(cell, unit, H, node, d_h, d_c, trace, gradients):
            h = load_first(trace.h + (node.row * H + unit), H - unit)
            dz, _ = cell_backward(cell, unit, (d_h,), (h,), (zeros(d_h),), ())
            store_first(gradients.dz + unit, dz[0], H - unit)

        return backward


@overload(node_forward)
def _lstm_forward(cell, unit, H, node, trace):
    if cell.instance_class is LSTM:

        def forward(cell, unit, H, node, trace):
            width = lanes(trace.z)
            valid = H - unit
            z = trace.z + 3 * unit
            z_i, z_g, z_o = load_many(z, width, 3)
            i, g, o = sigmoid(z_i), tanh(z_g), sigmoid(z_o)
            c = i * g
            for slot in range(node.first, node.last):
                child = node.children[slot]
                if child >= 0:
                    gate = trace.f + (slot * H + unit)
                    f_k = sigmoid(load_first(gate, valid))
                    store_first(gate, f_k, valid)
                    c = fma(f_k, load_first(trace.c + (child * H + unit), valid), c)
            tanh_c = tanh(c)
            store_many(z, width, (i, g, o))
            store(trace.z + (3 * padded(H, width) + unit), tanh_c)
            store_first(trace.c + (node.row * H + unit), c, valid)
            store_first(trace.h + (node.row * H + unit), o * tanh_c, valid)

        return forward


@overload(node_backward, jit_options={"forceinline": True})
def _lstm_backward(cell, unit, H, node, d_h, d_c, trace, gradients):
    if cell.instance_class is LSTM:

        def backward(cell, unit, H, node, d_h, d_c, trace, gradients):
            width = lanes(trace.z)
            valid = H - unit
            i, g, o = load_many(trace.z + 3 * unit, width, 3)
            tanh_c = load(trace.z + (3 * padded(H, width) + unit))
            dz_o = d_h * tanh_c * (o * (1.0 - o))
            d_c = fma(d_h * o, fma(-tanh_c, tanh_c, 1.0), d_c)
            dz_i = d_c * g * (i * (1.0 - i))
            dz_g = d_c * i * fma(-g, g, 1.0)
            dz_f = zeros(d_c)
            for slot in range(node.first, node.last):
                child = node.children[slot]
                d_gate = zeros(d_c)
                if child >= 0:
                    f_k = load_first(trace.f + (slot * H + unit), valid)
                    c_k = load_first(trace.c + (child * H + unit), valid)
                    d_gate = d_c * c_k * (f_k * (1.0 - f_k))
                    store_first(gradients.c + (slot * H + unit), d_c * f_k, valid)
                store_first(gradients.f + ((slot - node.first) * gradients.f_row + unit), d_gate, valid)
                dz_f = dz_f + d_gate
            store_many_first(gradients.dz + unit, H, (dz_i, dz_f, dz_g, dz_o), valid)

        return backward
