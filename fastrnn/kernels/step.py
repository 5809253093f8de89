"""A layer that is fed step by step: its weights are packed once, and its states stay where they are."""

from typing import NamedTuple

from fastrnn.kernels.cells.shape import counts
from fastrnn.kernels.frame import Cut, Inputs, Kept, Order, PackedWeights, Sizes
from fastrnn.kernels.jit import Kernel, layout
from fastrnn.kernels.matmul import Panels
from fastrnn.kernels.pack import panel_size
from fastrnn.kernels.packed import layer_weights, pack_layer, packed_room
from fastrnn.kernels.pointers import lanes, pointer
from fastrnn.kernels.recurrent import kept_room
from fastrnn.kernels.sequence import forward_room, sequence_forward
from fastrnn.kernels.workspace import Elements, carve, room_size


class StepRoom(NamedTuple):
    """The memory of a layer that is fed step by step."""

    packed: Elements
    state: Elements  # h (B, P), and the other states (S-1, B, H)
    kept: Elements
    loop: Elements


@layout
def step_room(counts, sizes, width):
    """The memory of a layer that is fed step by step, at `Sizes`."""
    B, _, H, P = sizes
    return StepRoom(
        packed=room_size(packed_room(counts, sizes, 0, width), width),
        state=B * (P + (counts.S - 1) * H),
        kept=room_size(kept_room(counts, sizes, 1, False, width), width),
        loop=room_size(forward_room(counts, sizes, Cut(1, 1, B), width), width),
    )


@Kernel
def pack_step(W_ih, W_hh, W_hr, b_ih, b_hh, cell, numbers, arena):
    """Pack a layer's weights for `step`; parameters as there and in `recurrent_forward`."""
    sizes = Sizes(numbers[1], numbers[2], numbers[3], numbers[4])
    width = lanes(pointer(arena))
    room = carve(pointer(arena), step_room(counts(cell), sizes, width))
    packed = carve(room.packed, packed_room(counts(cell), sizes, 0, width))
    pack_layer(cell, sizes, layer_weights(cell, sizes, W_ih, W_hh, W_hr, b_ih, b_hh), packed, 1)


@Kernel
def step(x, y, arena, numbers, cell):
    """One step of a layer whose weights are packed and whose states stay where they are: no parallel region.

    Parameters (flat arrays)
    ----------
    x, y : (B, I), and out, (B, P)
    arena : step_room(...), where `pack_step` has put the weights
    numbers : the integers 0, B, I, H, P

    Cost: 2*B*H*(G*I + F*P) flop. Reference twin: fastrnn.reference.sequence.sequence_forward with T = 1.
    """
    sizes = Sizes(numbers[1], numbers[2], numbers[3], numbers[4])
    width = lanes(pointer(x))
    many = counts(cell)
    room = carve(pointer(arena), step_room(many, sizes, width))
    packed = carve(room.packed, packed_room(many, sizes, 0, width))
    parts = carve(room.kept, kept_room(many, sizes, 1, False, width))
    inputs = Inputs(pointer(x), numbers[:0], Panels(packed.ih, panel_size(sizes.I, width)))
    order = Order(numbers[:1], numbers[1:2], numbers[:2], Cut(1, 1, sizes.B))
    weights = PackedWeights(packed.hh, packed.message, packed.bias)
    to = Kept(pointer(y), sizes.P, parts.messages, parts.history, parts.saved, parts.sums)
    sequence_forward(cell, sizes, order, inputs, weights, room.state, room.state, to, False, room.loop)
