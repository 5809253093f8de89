"""The nodes of one level of trees, some rows of it: products in blocks of rows, each followed by the cell's arithmetic.

Nodes are taken in the computing order of fastrnn.trees, where a level is one block of rows, and the leaves are the
first; results and cotangents lie as the caller numbers the nodes.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.kernels.cells import gates, states
from fastrnn.kernels.cells.tree import node_backward, node_forward
from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.matmul import ROW_BLOCK, copy_rows, tile_block
from fastrnn.kernels.pack import padded, panel_size, row_stride, split
from fastrnn.kernels.pointers import lanes, load_first, store_first
from fastrnn.kernels.simd import zeros


class Forest(NamedTuple):
    """Trees in the computing order, int64; M inner nodes."""

    order: np.ndarray  # (N,) the nodes
    place: np.ndarray  # (N,) its inverse
    levels: np.ndarray  # (levels+1,)
    first: np.ndarray  # (M+1,) bounds of each inner node's slots
    children: np.ndarray  # (slots,) the node in a slot, or -1
    carry: np.ndarray  # (N,) the row of `carry` that is a node's gradient, -1 for a root


@layout
def fed_size(H, K):
    """P."""
    return H * max(K, 1)


@device
def _project(forest, begin, end, x, I, W_ih, bias, z, z_row, columns, x_rows):
    """The inputs' part of the pre-activations in the first columns of the rows begin..end-1, which are gathered."""
    row, none, one = row_stride(I, lanes(z)), np.int64(0), np.int64(1)  # no literals: another tile_block for each
    for n in range(begin, end):
        copy_rows(x_rows + n * row, row, x + forest.order[n] * I, I, 1, I)
    size, at = panel_size(I, lanes(z)), z + begin * z_row
    tile_block(end - begin, I, x_rows + begin * row, row, one, W_ih, size, bias, none, at, z_row, columns)


@device
def project_inner(part, parts, forest, x, I, W_ih, bias, z, z_row, x_rows):
    """The inputs' part of inner nodes, which doesn't wait for the children: blocks of rows from several levels."""
    leaves = forest.levels[1]
    inner = forest.order.size - leaves
    low, high = leaves + split(inner, parts, part), leaves + split(inner, parts, part + 1)
    for n in range(low, high, ROW_BLOCK):
        _project(forest, n, min(high, n + ROW_BLOCK), x, I, W_ih, bias, z, z_row, z_row, x_rows)


@device
def _gather_children(forest, inner, h, H, K, fed, edges, row, keep_each):
    """What an inner node's children feed: the sum of their h, or all side by side; and each h for its own gate."""
    width = lanes(h)
    first, last = forest.first[inner], forest.first[inner + 1]
    for unit in range(0, H, width):
        valid, total = H - unit, zeros(h)
        for slot in range(first, last):
            child = forest.children[slot]
            h_k = load_first(h + (max(child, 0) * H + unit), valid if child >= 0 else 0)
            total = total + h_k
            if K > 0:
                store_first(fed + (inner * row + (slot - first) * H + unit), h_k, valid)
            elif keep_each:
                store_first(edges + (slot * row + unit), h_k, valid)
        if K == 0:
            store_first(fed + (inner * row + unit), total, valid)


@device
def _forget_products(forest, inner, rows, H, K, W_f, fed, edges, row, z_f, z_row, f):
    """The forget gates' pre-activations in the slots of some inner nodes, from their inputs' part."""
    width, one = lanes(f), np.int64(1)
    size = panel_size(fed_size(H, K), width)
    if K > 0:
        for k in range(K):
            tile_block(
                rows, K * H, fed + inner * row, row, one, W_f + k * padded(H, width) // width * size, size, z_f, z_row,
                f + (inner * K + k) * H, K * H, H,
            )  # fmt: skip
        return
    for q in range(rows):
        for slot in range(forest.first[inner + q], forest.first[inner + q + 1]):
            copy_rows(f + slot * H, H, z_f + q * z_row, z_row, 1, H)
    for slot in range(forest.first[inner], forest.first[inner + rows], ROW_BLOCK):
        count = min(ROW_BLOCK, forest.first[inner + rows] - slot)
        tile_block(count, H, edges + slot * row, row, one, W_f, size, f + slot * H, H, f + slot * H, H, H)


@device
def forward_level(
    part, parts, low, high, cell, forest, x, I, H, K, W_ih, W_hh, bias, z, z_row, h, c, fed, edges, f, x_rows
):  # fmt: skip
    """The rows low..high-1 of one level."""
    width, one = lanes(z), np.int64(1)
    full, forgetting = padded(H, width), states(cell) > 1
    own = gates(cell) - forgetting
    P, leaves = fed_size(H, K), forest.levels[1]
    row, size = row_stride(P, width), panel_size(P, width)
    start, stop = low + split(high - low, parts, part), low + split(high - low, parts, part + 1)
    for begin in range(start, stop, ROW_BLOCK):
        rows, inner, at = min(ROW_BLOCK, stop - begin), begin - leaves, z + begin * z_row
        if inner >= 0:
            for m in range(inner, inner + rows):
                _gather_children(forest, m, h, H, K, fed, edges, row, forgetting)
            tile_block(rows, P, fed + inner * row, row, one, W_hh, size, at, z_row, at, z_row, own * full)
            if forgetting:
                W_f = W_hh + own * full // width * size
                _forget_products(forest, inner, rows, H, K, W_f, fed, edges, row, at + own * full, z_row, f)
        else:  # a leaf's forget gates meet nothing
            _project(forest, begin, begin + rows, x, I, W_ih, bias, z, z_row, own * full, x_rows)
        for n in range(begin, begin + rows):
            first, last = (forest.first[n - leaves], forest.first[n - leaves + 1]) if inner >= 0 else (0, 0)
            for unit in range(0, H, width):
                node_forward(
                    cell, unit, H, full, z + n * z_row, h, c, forest.order[n], f, forest.children, first, last
                )  # fmt: skip


@device
def _children_products(forest, inner, rows, own, H, K, W_hh, zero, dz, dz_row, d_f, d_f_row, d_sums, carry):
    """What the children of some inner nodes get through the products: a row of `carry` for each child, or with summed
    children that have no gates for each parent."""
    width, none, one = lanes(dz), np.int64(0), np.int64(1)
    P, forgets = fed_size(H, K), max(K, 1)
    size = panel_size((own + forgets * (own > 1)) * H, width)
    each = own > 1 and K == 0
    at = (d_sums if each else carry) + inner * P
    tile_block(rows, H, dz, dz_row, one, W_hh, size, zero, none, at, P, P)
    if own == 1:
        return
    if K > 0:
        tile_block(rows, K * H, d_f + inner * d_f_row, d_f_row, one, W_hh + H * width, size, at, P, at, P, P)
    tile_block(rows, 2 * H, dz + 2 * H, dz_row, one, W_hh + (1 + forgets) * H * width, size, at, P, at, P, P)
    if not each:
        return
    for q in range(rows):
        for slot in range(forest.first[inner + q], forest.first[inner + q + 1]):
            copy_rows(carry + slot * H, H, at + q * H, H, 1, H)
    for slot in range(forest.first[inner], forest.first[inner + rows], ROW_BLOCK):
        count, at = min(ROW_BLOCK, forest.first[inner + rows] - slot), carry + slot * H
        tile_block(count, H, d_f + slot * d_f_row, d_f_row, one, W_hh + H * width, size, at, H, at, H, H)


@device
def backward_level(
    part, parts, low, high, cell, forest, H, K, W_hh, zero, z, z_row, h, c, f, dh, dh_row, dc, dc_row, dz, dz_row, d_f,
    d_f_row, d_sums, carry, d_slots,
):  # fmt: skip
    """The rows low..high-1 of one level."""
    width, leaves, full = lanes(z), forest.levels[1], padded(H, lanes(z))
    forgetting = states(cell) > 1
    start, stop = low + split(high - low, parts, part), low + split(high - low, parts, part + 1)
    for begin in range(start, stop, ROW_BLOCK):
        rows, inner = min(ROW_BLOCK, stop - begin), begin - leaves
        for n in range(begin, begin + rows):
            node, own, first, last, d_gates = forest.order[n], forest.carry[n], 0, 0, d_f
            if inner >= 0:
                first, last = forest.first[n - leaves], forest.first[n - leaves + 1]
                d_gates = d_f + (n - leaves if K > 0 else first) * d_f_row
            for unit in range(0, H, width):
                valid = H - unit
                from_above = valid if own >= 0 else 0
                d_h = load_first(dh + (node * dh_row + unit), valid)
                d_h = d_h + load_first(carry + (max(own, 0) * H + unit), from_above)
                d_c = zeros(z)
                if forgetting:
                    d_c = load_first(dc + (node * dc_row + unit), valid)
                    d_c = d_c + load_first(d_slots + (max(own, 0) * H + unit), from_above)
                node_backward(
                    cell, unit, H, full, d_h, d_c, z + n * z_row, h, c, node, f, forest.children, first, last,
                    dz + n * dz_row, d_gates, H if K > 0 else d_f_row, d_slots,
                )  # fmt: skip
        if inner >= 0:
            _children_products(
                forest, inner, rows, gates(cell) - forgetting, H, K, W_hh, zero, dz + begin * dz_row, dz_row, d_f,
                d_f_row, d_sums, carry,
            )  # fmt: skip
