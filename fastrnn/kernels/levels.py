"""The nodes of one level of trees, some rows of it: products in blocks of rows, each followed by the cell's arithmetic.

See `forest` for what travels through the functions by name.
"""

from fastrnn.kernels.cells.shape import states
from fastrnn.kernels.cells.tree import Node, NodeGradients, Trace, node_backward, node_forward
from fastrnn.kernels.forest import fed_row, fed_size, gate_rows, hidden_rows, z_row
from fastrnn.kernels.jit import device
from fastrnn.kernels.matmul import ROW_BLOCK, Panels, Rows, by_rows, copy_row, repeated, tile_block
from fastrnn.kernels.pack import padded, panel_size, row_stride, split
from fastrnn.kernels.pointers import lanes, load_first, store_first
from fastrnn.kernels.simd import zeros


@device
def _level_shard(shard, shards, forest, level):
    """The rows of a level that a shard owns: the first one, and one past the last."""
    low = forest.levels[level]
    high = forest.levels[level + 1]
    return low + split(high - low, shards, shard), low + split(high - low, shards, shard + 1)


@device
def _node(forest, n):
    """The node of row n; a leaf has no slots."""
    inner = n - forest.levels[1]
    first = 0
    last = 0
    if inner >= 0:
        first = forest.first[inner]
        last = forest.first[inner + 1]
    return Node(forest.order[n], forest.children, first, last)


@device
def _project(begin, end, forest, sizes, x, columns, room, kept):
    """The inputs' part of the pre-activations in the first columns of the rows begin..end-1, which are gathered."""
    width, I = lanes(x), sizes.I
    x_row = row_stride(I, width)
    row = z_row(sizes, width)
    for n in range(begin, end):
        copy_row(kept.x + n * x_row, x + forest.order[n] * I, I)
    rows = by_rows(kept.x + begin * x_row, x_row)
    z = Rows(kept.z + begin * row, row)
    tile_block(end - begin, columns, I, rows, Panels(room.W_ih, panel_size(I, width)), repeated(room.bias), z)


@device
def project_inner(shard, shards, forest, sizes, x, room, kept):
    """The inputs' part of inner nodes, which doesn't wait for the children: blocks of rows from several levels."""
    leaves = forest.levels[1]
    low = leaves + split(sizes.M, shards, shard)
    high = leaves + split(sizes.M, shards, shard + 1)
    for n in range(low, high, ROW_BLOCK):
        _project(n, min(high, n + ROW_BLOCK), forest, sizes, x, z_row(sizes, lanes(x)), room, kept)


@device
def _gather_children(inner, forest, sizes, h, kept):
    """What an inner node's children feed: the sum of their h, or all side by side; and each h for its own gate."""
    width = lanes(h)
    H = sizes.H
    row = fed_row(sizes, lanes(h))
    first = forest.first[inner]
    last = forest.first[inner + 1]
    for unit in range(0, H, width):
        valid = H - unit
        total = zeros(h)
        for slot in range(first, last):
            child = forest.children[slot]
            h_k = load_first(h + (max(child, 0) * H + unit), valid if child >= 0 else 0)
            total = total + h_k
            if sizes.K > 0:
                store_first(kept.fed + (inner * row + (slot - first) * H + unit), h_k, valid)
            elif sizes.forgetting:
                store_first(kept.edges + (slot * row + unit), h_k, valid)
        if sizes.K == 0:
            store_first(kept.fed + (inner * row + unit), total, valid)


@device
def _forget_products(inner, rows, forest, sizes, W_f, z_f, kept):
    """The forget gates' pre-activations in the slots of some inner nodes, from their inputs' part in the Rows z_f."""
    width = lanes(kept.f)
    H = sizes.H
    K = sizes.K
    row = fed_row(sizes, lanes(kept.f))
    if K > 0:
        blocks = padded(H, width) // width
        for k in range(K):
            panels = Panels(W_f.data + k * blocks * W_f.size, W_f.size)
            f = kept.f + (inner * K + k) * H
            tile_block(rows, H, K * H, by_rows(kept.fed + inner * row, row), panels, z_f, Rows(f, K * H))
        return
    for q in range(rows):
        for slot in range(forest.first[inner + q], forest.first[inner + q + 1]):
            copy_row(kept.f + slot * H, z_f.data + q * z_f.row, H)
    for slot in range(forest.first[inner], forest.first[inner + rows], ROW_BLOCK):
        count = min(ROW_BLOCK, forest.first[inner + rows] - slot)
        f = Rows(kept.f + slot * H, H)
        tile_block(count, H, H, by_rows(kept.edges + slot * row, row), W_f, f, f)


@device
def forward_level(shard, shards, level, cell, forest, sizes, x, state, room, kept):
    """The rows of one level; state: States; room: ForwardRoom."""
    width = lanes(x)
    H = sizes.H
    P = fed_size(sizes.H, sizes.K)
    leaves = forest.levels[1]
    row = z_row(sizes, width)
    fed = fed_row(sizes, width)
    size = panel_size(P, width)
    own = sizes.own * padded(H, width)  # the own gates' columns
    start, stop = _level_shard(shard, shards, forest, level)
    for begin in range(start, stop, ROW_BLOCK):
        rows = min(ROW_BLOCK, stop - begin)
        inner = begin - leaves
        z = Rows(kept.z + begin * row, row)
        if inner >= 0:
            for m in range(inner, inner + rows):
                _gather_children(m, forest, sizes, state.h, kept)
            tile_block(rows, own, P, by_rows(kept.fed + inner * fed, fed), Panels(room.W_hh, size), z, z)
            if states(cell) > 1:
                W_f = Panels(room.W_hh + own // width * size, size)
                _forget_products(inner, rows, forest, sizes, W_f, Rows(z.data + own, row), kept)
        else:  # a leaf's forget gates meet nothing
            _project(begin, begin + rows, forest, sizes, x, own, room, kept)
        for n in range(begin, begin + rows):
            node = _node(forest, n)
            trace = Trace(kept.z + n * row, kept.f, state.h, state.c)
            for unit in range(0, H, width):
                node_forward(cell, unit, H, node, trace)


@device
def _children_products(begin, rows, forest, sizes, room):
    """What the children of some inner nodes get through the products: a row of `carry` for each child, or with summed
    children that have no gates for each parent."""
    width = lanes(room.dz)
    H = sizes.H
    K = sizes.K
    P = fed_size(sizes.H, sizes.K)
    row = row_stride(gate_rows(sizes), width)
    d_f_row = fed_row(sizes, width)
    size = panel_size(hidden_rows(sizes), width)
    inner = begin - forest.levels[1]
    dz = room.dz + begin * row
    each = sizes.forgetting and K == 0
    target = Rows((room.d_sums if each else room.carry) + inner * P, P)
    tile_block(rows, P, H, by_rows(dz, row), Panels(room.W_hh, size), repeated(room.zero), target)
    if not sizes.forgetting:
        return
    W_f, W_last = Panels(room.W_hh + H * width, size), Panels(room.W_hh + (1 + max(K, 1)) * H * width, size)
    if K > 0:
        tile_block(rows, P, K * H, by_rows(room.d_f + inner * d_f_row, d_f_row), W_f, target, target)
    tile_block(rows, P, 2 * H, by_rows(dz + 2 * H, row), W_last, target, target)
    if not each:
        return
    for q in range(rows):
        for slot in range(forest.first[inner + q], forest.first[inner + q + 1]):
            copy_row(room.carry + slot * H, target.data + q * H, H)
    for slot in range(forest.first[inner], forest.first[inner + rows], ROW_BLOCK):
        count = min(ROW_BLOCK, forest.first[inner + rows] - slot)
        carry = Rows(room.carry + slot * H, H)
        tile_block(count, H, H, by_rows(room.d_f + slot * d_f_row, d_f_row), W_f, carry, carry)


@device
def backward_level(shard, shards, level, cell, forest, sizes, state, d_state, kept, room):
    """The rows of one level; state, d_state: States; room: BackwardRoom."""
    width = lanes(room.dz)
    H = sizes.H
    leaves = forest.levels[1]
    row = z_row(sizes, width)
    dz_row = row_stride(gate_rows(sizes), width)
    d_f_row = fed_row(sizes, width)
    start, stop = _level_shard(shard, shards, forest, level)
    for begin in range(start, stop, ROW_BLOCK):
        rows = min(ROW_BLOCK, stop - begin)
        for n in range(begin, begin + rows):
            node = _node(forest, n)
            own = forest.carry[n]
            trace = Trace(kept.z + n * row, kept.f, state.h, state.c)
            d_f = room.d_f + (max(n - leaves, 0) if sizes.K > 0 else node.first) * d_f_row
            gradients = NodeGradients(room.dz + n * dz_row, d_f, H if sizes.K > 0 else d_f_row, room.d_c)
            for unit in range(0, H, width):
                valid = H - unit
                from_above = valid if own >= 0 else 0
                d_h = load_first(d_state.h.data + (node.row * d_state.h.row + unit), valid)
                d_h = d_h + load_first(room.carry + (max(own, 0) * H + unit), from_above)
                d_c = zeros(d_h)
                if states(cell) > 1:
                    d_c = load_first(d_state.c.data + (node.row * d_state.c.row + unit), valid)
                    d_c = d_c + load_first(room.d_c + (max(own, 0) * H + unit), from_above)
                node_backward(cell, unit, H, node, d_h, d_c, trace, gradients)
        if begin >= leaves:
            _children_products(begin, rows, forest, sizes, room)
