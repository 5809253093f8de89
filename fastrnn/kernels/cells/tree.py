"""Cells over trees: one node's arithmetic for a vector of units, where h_{t-1} has become the children's h.

An Elman node is an Elman step. An LSTM node has a forget gate for each child, c = i g + sum_k f_k c_k; its other gates,
"own" ones, are one each. A node's row of pre-activations holds for each block of `lanes` units the vectors of its own
gates i, g, o side by side, behind them those of f without the children's part.

Source: Tai, Socher & Manning, Improved semantic representations from tree-structured long short-term memory networks,
ACL 2015. Reference twin: fastrnn.reference.recursive.
"""

from numba.extending import overload

from fastrnn.kernels.cells import cell_backward, cell_forward
from fastrnn.kernels.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.kernels.cells.lstm import LSTM
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


def node_forward(cell, unit, H, full, z, h, c, node, f, children, first, last):
    """h and c of a node, for the units from `unit` on.

    z: the node's row, in, and out what the backward pass wants; full: its units, padded. h, c: (N, H), `node` the row.
    f: (slots, H) the pre-activations of the forget gates, out the gates; the node has the slots first..last-1.
    """


def node_backward(cell, unit, H, full, d_h, d_c, z, h, c, node, f, children, first, last, dz, d_f, d_f_step, d_slots):
    """The gradients of a node's pre-activations from those of its h and c, for the units from `unit` on.

    d_h, d_c: vectors. dz: the node's row, out: the gates in the order of the parameters, f summed over the children.
    d_f: out: the gradient of each slot's forget gate, d_f_step apart. d_slots: (slots, H), out: of each child's c.
    """


_ELMAN = (ElmanTanh, ElmanRelu)


@overload(node_forward)
def _elman_forward(cell, unit, H, full, z, h, c, node, f, children, first, last):
    if cell.instance_class in _ELMAN:

        def forward(cell, unit, H, full, z, h, c, node, f, children, first, last):
            new, _ = cell_forward(cell, unit, (load(z + unit),), (zeros(z),))
            store_first(h + (node * H + unit), new[0], H - unit)

        return forward


@overload(node_backward, jit_options={"forceinline": True})  # LLVM would call it, with its vectors through memory
def _elman_backward(
    cell, unit, H, full, d_h, d_c, z, h, c, node, f, children, first, last, dz, d_f, d_f_step, d_slots
):  # fmt: skip
    if cell.instance_class in _ELMAN:

        def backward(
            cell, unit, H, full, d_h, d_c, z, h, c, node, f, children, first, last, dz, d_f, d_f_step, d_slots
        ):  # fmt: skip
            own = load_first(h + (node * H + unit), H - unit)
            d_gates, _ = cell_backward(cell, unit, (d_h,), (own,), (zeros(d_h),), ())
            store_first(dz + unit, d_gates[0], H - unit)

        return backward


@overload(node_forward)
def _lstm_forward(cell, unit, H, full, z, h, c, node, f, children, first, last):
    if cell.instance_class is LSTM:

        def forward(cell, unit, H, full, z, h, c, node, f, children, first, last):
            width, valid, at = lanes(z), H - unit, z + 3 * unit
            z_i, z_g, z_o = load_many(at, width, 3)
            i, g, o = sigmoid(z_i), tanh(z_g), sigmoid(z_o)
            total = i * g
            for slot in range(first, last):
                if children[slot] >= 0:
                    gate = f + (slot * H + unit)
                    f_k = sigmoid(load_first(gate, valid))
                    store_first(gate, f_k, valid)
                    total = fma(f_k, load_first(c + (children[slot] * H + unit), valid), total)
            tanh_c = tanh(total)
            store_many(at, width, (i, g, o))
            store(z + (3 * full + unit), tanh_c)
            store_first(c + (node * H + unit), total, valid)
            store_first(h + (node * H + unit), o * tanh_c, valid)

        return forward


@overload(node_backward, jit_options={"forceinline": True})
def _lstm_backward(
    cell, unit, H, full, d_h, d_c, z, h, c, node, f, children, first, last, dz, d_f, d_f_step, d_slots
):  # fmt: skip
    if cell.instance_class is LSTM:

        def backward(
            cell, unit, H, full, d_h, d_c, z, h, c, node, f, children, first, last, dz, d_f, d_f_step, d_slots
        ):  # fmt: skip
            width, valid = lanes(z), H - unit
            i, g, o = load_many(z + 3 * unit, width, 3)
            tanh_c = load(z + (3 * full + unit))
            dz_o = d_h * tanh_c * (o * (1.0 - o))
            d_c = fma(d_h * o, fma(tanh_c * -1.0, tanh_c, 1.0), d_c)
            dz_i = d_c * g * (i * (1.0 - i))
            dz_g = d_c * i * fma(g * -1.0, g, 1.0)
            dz_f = zeros(z)
            for slot in range(first, last):
                d_gate = zeros(z)
                if children[slot] >= 0:
                    f_k = load_first(f + (slot * H + unit), valid)
                    c_k = load_first(c + (children[slot] * H + unit), valid)
                    d_gate = d_c * c_k * (f_k * (1.0 - f_k))
                    store_first(d_slots + (slot * H + unit), d_c * f_k, valid)
                store_first(d_f + ((slot - first) * d_f_step + unit), d_gate, valid)
                dz_f = dz_f + d_gate
            store_many_first(dz + unit, H, (dz_i, dz_f, dz_g, dz_o), valid)

        return backward
