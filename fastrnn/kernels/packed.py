"""A layer's weights in panels and its biases in tile order, as the forward loop reads them."""

from typing import NamedTuple

from fastrnn.kernels.cells.shape import apart, gates, hidden, outputs, projected, recurrent
from fastrnn.kernels.frame import Weights
from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.pack import pack_weights, padded, panel_size
from fastrnn.kernels.pointers import lanes, load_first, pointer, store
from fastrnn.kernels.workspace import Elements


class PackedRoom(NamedTuple):
    """A layer's weights as the forward loop reads them."""

    ih: Elements
    hh: Elements
    message: Elements
    bias: Elements
    table: Elements  # the rows of a table, that went through W_ih and the biases


@layout
def packed_room(counts, sizes, V, width):
    """The memory of packed weights; V: rows of a table, or 0."""
    _, I, H, P = sizes
    blocks = padded(sizes.H, width) // width
    return PackedRoom(
        ih=counts.G * blocks * panel_size(I, width),
        hh=counts.F * blocks * panel_size(P, width),
        message=counts.outputs * padded(P, width) // width * panel_size(H, width),
        bias=counts.C * blocks * width,
        table=counts.G * blocks * panel_size(V, width) if V > 0 else 0,
    )


@device
def _pack_bias(cell, b_ih, b_hh, H, bias):
    """Both biases of each gate, added; of gates whose hidden part is kept apart, that part's behind all others."""
    width, G, Q = lanes(bias), gates(cell), apart(cell)
    full = padded(H, width)
    together = hidden(cell) - Q
    for g in range(G):
        own_hidden = together <= g < hidden(cell)
        for u in range(0, full, width):
            total = load_first(pointer(b_ih) + (g * H + u), min(H - u, b_ih.size))  # zeros without biases
            other = load_first(pointer(b_hh) + (g * H + u), min(H - u, b_hh.size) if g < recurrent(cell) else 0)
            store(bias + (u * G + g * width), total if own_hidden else total + other)
            if own_hidden:
                store(bias + (G * full + u * Q + (g - together) * width), other)


@device
def pack_layer(cell, sizes, weights, packed, threads):
    """Weights into panels, biases into tile order; packed: a PackedRoom. Cost: every weight read and written once."""
    pack_weights(weights.W_ih, sizes.I, sizes.H, gates(cell), packed.ih, threads)
    pack_weights(weights.W_hh, sizes.P, sizes.H, hidden(cell), packed.hh, threads)
    if outputs(cell):
        pack_weights(weights.W_message, sizes.H, sizes.P, 1, packed.message, threads)
    _pack_bias(cell, weights.b_ih, weights.b_hh, sizes.H, packed.bias)


@device
def layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh):
    """Weights of arrays as Python has them."""
    message = pointer(W_hh) + hidden(cell) * sizes.H * sizes.P  # the rows of the gate that it feeds
    if projected(cell):
        message = pointer(W_hr)
    return Weights(pointer(W_ih), pointer(W_hh), message, b_ih, b_hh)
