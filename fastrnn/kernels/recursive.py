"""A cell over trees, a call a pass: levels from the leaves to the roots, and back.

Nodes are taken in the computing order of fastrnn.trees, where a level is one block of rows, and the leaves are the
first; results and cotangents lie as the caller numbers the nodes. Threads share the rows of a level.

A cell has "own" gates, one each, and maybe a forget gate for each child (see `cells.tree`). Children are summed (K = 0)
or stand side by side by position (K of them); the own gates are fed P = H or K*H values by them. A forget gate is
fed by its child alone, or with K by all P.

A chain of sums begins at the bias, runs over the inputs and goes on over what the children feed, in that order,
whichever thread or tile computes it; children are summed in the order of their positions.
"""

from fastrnn.kernels.cells.shape import gates, states
from fastrnn.kernels.embedding import gather
from fastrnn.kernels.forest import (
    Sizes,
    States,
    backward_room,
    fed_row,
    fed_size,
    forward_room,
    gate_rows,
    hidden_rows,
    kept_room,
)
from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.levels import backward_level, forward_level, project_inner
from fastrnn.kernels.matmul import Rows, Shape, by_rows, column_sums, copy_row, multiply, repeated, transposed, zero_row
from fastrnn.kernels.pack import pack_panel, pack_transposed, panel_size, row_stride, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store
from fastrnn.kernels.target import TARGET
from fastrnn.kernels.workspace import carve

LEVEL_FLOPS = TARGET.level_flops


@device
def _sizes(cell, forest, I, H):
    N = forest.order.size
    M = forest.first.size - 1
    slots = forest.children.size
    forgetting = states(cell) - 1
    return Sizes(N, M, slots, I, H, forest.K, gates(cell) - forgetting, forgetting)


@device
def _gate(panel, own, forgets, blocks):
    """The gate, as the parameters order them, and the block of units of a panel: the own gates' neighbours first."""
    if panel < own * blocks:
        gate = panel % own
        return gate + (forgets if gate > 0 else 0), panel // own
    return 1 + (panel - own * blocks) // blocks, panel % blocks


@device
def _pack(shard, shards, weight, columns, H, own, forgets, panels):
    """Rows of `columns` weights, H of each gate, to panels."""
    width = lanes(panels)
    rows = transposed(by_rows(weight, columns))
    blocks = -(-H // width)
    size = panel_size(columns, width)
    count = (own + forgets) * blocks
    for p in range(split(count, shards, shard), split(count, shards, shard + 1)):
        gate, block = _gate(p, own, forgets, blocks)
        unit = block * width
        source = weight + (gate * H + unit) * columns
        pack_panel(panels + p * size, source, rows.row, rows.column, columns, min(width, H - unit))


@device
def _pack_bias(b_ih, b_hh, H, own, forgetting, bias):
    width = lanes(bias)
    blocks = -(-H // width)
    for p in range((own + forgetting) * blocks):
        gate, block = _gate(p, own, forgetting, blocks)
        at = gate * H + block * width
        valid = H - block * width
        total = load_first(pointer(b_ih) + at, min(valid, b_ih.size))  # zeros without biases
        store(bias + p * width, total + load_first(pointer(b_hh) + at, min(valid, b_hh.size)))


@device
def _level_shards(forest, level, weight, threads):
    """Shards of a level, each of them with enough rows to be worth a thread; weight: W_hh."""
    flops = 2 * weight.size * weight.itemsize / 4  # of a row, in float32
    least = max(1, int(LEVEL_FLOPS / flops))
    return max(1, min(threads, (forest.levels[level + 1] - forest.levels[level]) // least))


@Kernel
def recursive_forward(x, weights, cell, forest, h, c, kept, work, threads):
    """Run a cell over trees.

    Parameters (flat arrays)
    ----------
    x : (N, I), h : (N, H), out, c : (N, H), out, or empty: as the caller numbers the nodes
    weights : TreeWeights
    cell : the tag
    forest : the trees, a Forest
    kept : out, room_size(kept_room(...)) elements for the backward pass, or empty
    work : room_size(forward_room(...)) elements

    Cost: 2*N*G*H*I flop and for each of M inner nodes 2*G*H*P, or 2*H*H*(3 + its children) with a gate for each summed
    child. Reference twin: fastrnn.reference.recursive.recursive_forward.
    """
    width = lanes(pointer(x))
    N = forest.order.size
    H = h.size // forest.order.size
    sizes = _sizes(cell, forest, x.size // N, H)
    room = carve(pointer(work), forward_room(sizes, kept.size > 0, width))
    own = sizes.own
    forgetting = sizes.forgetting
    forgets = sizes.forgetting * max(sizes.K, 1)
    share(threads, _pack, (threads, pointer(weights.W_ih), sizes.I, H, own, forgetting, room.W_ih))
    share(threads, _pack, (threads, pointer(weights.W_hh), fed_size(H, sizes.K), H, own, forgets, room.W_hh))
    _pack_bias(weights.b_ih, weights.b_hh, H, own, forgetting, room.bias)
    trace = carve(pointer(kept) if kept.size > 0 else room.kept, kept_room(sizes, width))
    share(threads, project_inner, (threads, forest, sizes, pointer(x), room, trace))
    state = States(pointer(h), pointer(c))
    for level in range(forest.levels.size - 1):
        shards = _level_shards(forest, level, weights.W_hh, threads)
        share(shards, forward_level, (shards, level, cell, forest, sizes, pointer(x), state, room, trace))


@device
def _hidden_gradient(forest, sizes, kept, room, dW_hh, threads):
    """The gradient of W_hh."""
    width = lanes(dW_hh)
    H = sizes.H
    K = sizes.K
    M = sizes.M
    P = fed_size(sizes.H, sizes.K)
    dz_row = row_stride(gate_rows(sizes), width)
    row = fed_row(sizes, width)
    inner = room.dz + forest.levels[1] * dz_row
    fed = by_rows(kept.fed, row)
    zero = repeated(room.zero)
    dz = transposed(by_rows(inner, dz_row))
    multiply(dz, fed, zero, Rows(dW_hh, P), Shape(H, P, M), room.product, threads)
    if sizes.forgetting:
        forgets = max(K, 1)
        d_f = transposed(by_rows(room.d_f, row))
        source, rows = (fed, M) if K > 0 else (by_rows(kept.edges, row), sizes.slots)
        multiply(d_f, source, zero, Rows(dW_hh + H * P, P), Shape(forgets * H, P, rows), room.product, threads)
        last = transposed(by_rows(inner + 2 * H, dz_row))
        target = Rows(dW_hh + (1 + forgets) * H * P, P)
        multiply(last, fed, zero, target, Shape(2 * H, P, M), room.product, threads)


@device
def _input_gradients(forest, sizes, kept, room, W_ih, dW_ih, threads):
    """The gradients of W_ih and, in the computing order, of x: of a leaf no forget gate takes part."""
    width = lanes(dW_ih)
    I = sizes.I
    H = sizes.H
    G = gate_rows(sizes)
    leaves = forest.levels[1]
    dz_row = row_stride(G, width)
    x_row = row_stride(I, width)
    zero = repeated(room.zero)
    dz, inner = by_rows(room.dz, dz_row), by_rows(room.dz + leaves * dz_row, dz_row)
    x, inner_x, weight = by_rows(kept.x, x_row), by_rows(kept.x + leaves * x_row, x_row), by_rows(W_ih, I)
    to_weight, to_x, to_inner_x = Rows(dW_ih, I), Rows(room.dx, I), Rows(room.dx + leaves * I, I)
    multiply(transposed(inner), inner_x, zero, to_weight, Shape(G, I, sizes.M), room.product, threads)
    multiply(transposed(dz), x, to_weight, to_weight, Shape(H, I, leaves), room.product, threads)
    multiply(inner, weight, zero, to_inner_x, Shape(sizes.M, I, G), room.product, threads)
    multiply(dz, weight, zero, to_x, Shape(leaves, I, H), room.product, threads)
    if sizes.forgetting:
        last = by_rows(room.dz + 2 * H, dz_row)
        to_last = Rows(dW_ih + 2 * H * I, I)
        multiply(transposed(last), x, to_last, to_last, Shape(2 * H, I, leaves), room.product, threads)
        last_weight = by_rows(W_ih + 2 * H * I, I)
        multiply(last, last_weight, to_x, to_x, Shape(leaves, I, 2 * H), room.product, threads)


@device
def _cotangent(d, H, zero):
    """Rows of a state's cotangent, or zeros."""
    return Rows(pointer(d), H) if d.size > 0 else repeated(zero)


@Kernel
def recursive_backward(h, c, weights, cell, forest, kept, dh, dc, dx, grads, work, threads):
    """The gradients of the inputs and of the weights.

    Parameters (as `recursive_forward`, and)
    ----------
    kept : what it wrote
    dh, dc : the cotangents of h and c, or empty for 0
    dx, grads : as x and the weights, out
    work : room_size(backward_room(...)) elements

    Cost: twice the flop of forward. Reference twin: fastrnn.reference.recursive.recursive_backward.
    """
    width = lanes(pointer(h))
    N = forest.order.size
    H = h.size // forest.order.size
    sizes = _sizes(cell, forest, dx.size // N, H)
    P = fed_size(H, sizes.K)
    room = carve(pointer(work), backward_room(sizes, width, threads))
    trace = carve(pointer(kept), kept_room(sizes, width))
    pack_transposed(pointer(weights.W_hh), hidden_rows(sizes), P, room.W_hh, threads)
    zero_row(room.zero, max(sizes.I, P))
    state = States(pointer(h), pointer(c))
    d_state = States(_cotangent(dh, H, room.zero), _cotangent(dc, H, room.zero))
    for level in range(forest.levels.size - 2, -1, -1):
        shards = _level_shards(forest, level, weights.W_hh, threads)
        share(shards, backward_level, (shards, level, cell, forest, sizes, state, d_state, trace, room))
    _hidden_gradient(forest, sizes, trace, room, pointer(grads.W_hh), threads)
    dz_row = row_stride(gate_rows(sizes), width)
    column_sums(room.dz, N, dz_row, room.sums, False, threads)
    copy_row(pointer(grads.b_ih), room.sums, grads.b_ih.size)
    copy_row(pointer(grads.b_hh), room.sums, grads.b_hh.size)
    _input_gradients(forest, sizes, trace, room, pointer(weights.W_ih), pointer(grads.W_ih), threads)
    gather(room.dx, sizes.I, forest.place, sizes.I, dx, sizes.I, threads)
