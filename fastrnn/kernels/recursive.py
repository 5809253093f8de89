"""A cell over trees, a call a pass: levels from the leaves to the roots, and back.

Nodes are taken in the computing order of fastrnn.trees, where a level is one block of rows, and the leaves are the
first; results and cotangents lie as the caller numbers the nodes. Threads share the rows of a level.

A cell has "own" gates, one each, and maybe a forget gate for each child (see `cells.tree`). Children are summed (K = 0)
or stand side by side by position (K of them); the own gates are fed P = H or K*H values by them. A forget gate is
fed by its child alone, or with K by all P.

A chain of sums begins at the bias, runs over the inputs and goes on over what the children feed, in that order,
whichever thread or tile computes it; children are summed in the order of their positions.
"""

import numpy as np

from fastrnn.kernels.cells import gates, states
from fastrnn.kernels.embedding import gather
from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.levels import backward_level, fed_size, forward_level, project_inner
from fastrnn.kernels.matmul import column_sums, product, product_work
from fastrnn.kernels.pack import pack_panel, pack_weights, padded, panel_size, row_stride, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, store


@layout
def packed_sizes(I, H, K, own, forgetting, width):
    """Elements of W_ih and W_hh in panels, and of the bias."""
    blocks = padded(H, width) // width
    hidden = own + forgetting * max(K, 1)
    bias = (own + forgetting) * blocks * width
    return bias // width * panel_size(I, width), hidden * blocks * panel_size(fed_size(H, K), width), bias


@layout
def kept_sizes(N, M, slots, I, H, K, own, forgetting, width):
    """Elements that forward hands to backward: rows of gates, what feeds them, the children's h, forget gates, x."""
    fed = row_stride(fed_size(H, K), width)
    summed = slots * fed if forgetting and K == 0 else 0
    gate_row = (own + forgetting) * padded(H, width)
    return N * gate_row, M * fed, summed, slots * H if forgetting else 0, N * row_stride(I, width)


@device
def _gate(panel, own, forgets, blocks):
    """The gate, as the parameters order them, and the block of units of a panel: the own gates' neighbours first."""
    if panel < own * blocks:
        gate = panel % own
        return gate + (forgets if gate > 0 else 0), panel // own
    return 1 + (panel - own * blocks) // blocks, panel % blocks


@device
def _pack_part(part, parts, weight, K, H, own, forgets, panels):
    width = lanes(panels)
    blocks, one = -(-H // width), np.int64(1)  # not a literal, for which the packing would be compiled again
    count, size = (own + forgets) * blocks, panel_size(K, width)
    for p in range(split(count, parts, part), split(count, parts, part + 1)):
        gate, block = _gate(p, own, forgets, blocks)
        unit = block * width
        pack_panel(panels + p * size, weight + (gate * H + unit) * K, one, K, K, min(width, H - unit))


@device
def _pack_bias(b_ih, b_hh, H, own, forgetting, bias):
    width = lanes(bias)
    blocks = -(-H // width)
    for p in range((own + forgetting) * blocks):
        gate, block = _gate(p, own, forgetting, blocks)
        at, valid = gate * H + block * width, H - block * width
        total = load_first(pointer(b_ih) + at, min(valid, b_ih.size))  # zeros without biases
        store(bias + p * width, total + load_first(pointer(b_hh) + at, min(valid, b_hh.size)))


@device
def _level_parts(rows, parts, least):
    """Threads for a level, with `least` rows each."""
    return max(1, min(parts, rows // least))


@Kernel
def recursive_forward(x, W_ih, W_hh, b_ih, b_hh, cell, forest, h, c, kept, I, H, K, least, work, parts):
    """Run a cell over trees.

    Parameters (flat arrays; N nodes, G gates, the forget gate counted once)
    ----------
    x : (N, I), h : (N, H), out, c : (N, H), out, or empty: as the caller numbers the nodes
    W_ih : (G*H, I); W_hh : (G*H, H), or with K children by position the rows of i, f_1..f_K, g, o: ((3+K)*H, K*H)
    b_ih, b_hh : (G*H,) each, or empty
    cell : the tag
    forest : the trees, a Forest
    kept : out, sum(kept_sizes(...)) elements for the backward pass
    least : rows of a level that are worth a thread
    work : sum(packed_sizes(...)) elements

    Cost: 2*N*G*H*I flop and for each of M inner nodes 2*G*H*P, or 2*H*H*(3 + its children) with a gate for each summed
    child. Reference twin: fastrnn.reference.recursive.recursive_forward.
    """
    width = lanes(pointer(x))
    N, M, full = forest.order.size, forest.first.size - 1, padded(H, width)
    forgetting = states(cell) - 1
    own = gates(cell) - forgetting
    z_row, P = gates(cell) * full, fed_size(H, K)
    ih, hh, _ = packed_sizes(I, H, K, own, forgetting, width)
    W_i, W_h, bias = pointer(work), pointer(work[ih:]), pointer(work[ih + hh :])
    z_size, fed_rows, edge_rows, f_size, _ = kept_sizes(N, M, forest.children.size, I, H, K, own, forgetting, width)
    z, fed, edges = pointer(kept), pointer(kept[z_size:]), pointer(kept[z_size + fed_rows :])
    f = pointer(kept[z_size + fed_rows + edge_rows :])
    x_rows = pointer(kept[z_size + fed_rows + edge_rows + f_size :])
    share(parts, _pack_part, (parts, pointer(W_ih), I, H, own, forgetting, W_i))
    share(parts, _pack_part, (parts, pointer(W_hh), P, H, own, forgetting * max(K, 1), W_h))
    _pack_bias(b_ih, b_hh, H, own, forgetting, bias)
    share(parts, project_inner, (parts, forest, pointer(x), I, W_i, bias, z, z_row, x_rows))
    for level in range(forest.levels.size - 1):
        low, high = forest.levels[level], forest.levels[level + 1]
        shares = _level_parts(high - low, parts, least)
        share(
            shares, forward_level,
            (shares, low, high, cell, forest, pointer(x), I, H, K, W_i, W_h, bias, z, z_row, pointer(h), pointer(c),
             fed, edges, f, x_rows),
        )  # fmt: skip


@layout
def backward_sizes(N, M, slots, I, H, K, own, forgetting, width, parts):
    """Elements of the workspace of `recursive_backward`: W_hh in panels, dz and its sums, the forget gates' gradients,
    those of the children's sums, h and c, of x in the computing order, and the products' own workspace."""
    P, forgets = fed_size(H, K), forgetting * max(K, 1)
    hidden, row = (own + forgets) * H, row_stride((own + forgetting) * H, width)
    products = max(
        product_work(hidden, P, max(M, slots), width, parts),
        product_work((own + forgetting) * H, I, N, width, parts),
        product_work(N, I, (own + forgetting) * H, width, parts),
    )
    return (
        padded(P, width) // width * panel_size(hidden, width),
        N * row,
        row,
        (M if K > 0 else slots) * forgetting * row_stride(P, width),
        M * P if forgetting and K == 0 else 0,
        (slots if forgetting or K > 0 else M) * H,
        slots * forgetting * H,
        N * I,
        products,
    )


@Kernel
def recursive_backward(
    W_ih, W_hh, cell, forest, h, c, kept, dh, dh_row, dc, dc_row, dx, dW_ih, dW_hh, d_b_ih, d_b_hh, zero, I, H, K,
    least, work, parts,
):  # fmt: skip
    """The gradients of the inputs and of the weights.

    Parameters (as `recursive_forward`, and)
    ----------
    dh, dc : the cotangents of a node's h and c at node*dh_row and node*dc_row; a row of 0 repeats one row, of zeros
    dx, dW_ih, dW_hh, d_b_ih, d_b_hh : as x and the weights, out; biases that don't exist are empty
    zero : at least max(I, P) zeros
    work : sum(backward_sizes(...)) elements

    Cost: twice the flop of forward. Reference twin: fastrnn.reference.recursive.recursive_backward.
    """
    width = lanes(pointer(h))
    N, M, slots, leaves = forest.order.size, forest.first.size - 1, forest.children.size, forest.levels[1]
    none, one = np.int64(0), np.int64(1)  # not literals, for which the product would be compiled again
    forgetting = states(cell) - 1
    own, P = gates(cell) - forgetting, fed_size(H, K)
    G, forgets = gates(cell) * H, forgetting * max(K, 1)
    z_row, dz_row, d_f_row = gates(cell) * padded(H, width), row_stride(G, width), row_stride(P, width)
    fed_row, x_row = d_f_row, row_stride(I, width)
    z_size, fed_rows, edge_rows, f_size, _ = kept_sizes(N, M, slots, I, H, K, own, forgetting, width)
    fed, rest = kept[z_size:], kept[z_size + fed_rows :]
    edges, f, x = rest, rest[edge_rows:], rest[edge_rows + f_size :]
    panels, dz_size, sums_size, d_f_size, d_sums_size, carry_size, c_size, dx_size, _ = backward_sizes(
        N, M, slots, I, H, K, own, forgetting, width, parts
    )
    dz, rest = work[panels:], work[panels + dz_size :]
    sums, rest = rest[:sums_size], rest[sums_size:]
    d_f, rest = rest, rest[d_f_size:]
    d_sums, rest = rest, rest[d_sums_size:]
    carry, rest = rest, rest[carry_size:]
    d_slots, rest = rest, rest[c_size:]
    d_rows, rest = rest[:dx_size], rest[dx_size:]
    pack_weights(W_hh, P, one, (own + forgets) * H, P, one, work, parts)
    for level in range(forest.levels.size - 2, -1, -1):
        low, high = forest.levels[level], forest.levels[level + 1]
        shares = _level_parts(high - low, parts, least)
        share(
            shares, backward_level,
            (shares, low, high, cell, forest, H, K, pointer(work), pointer(zero), pointer(kept), z_row, pointer(h),
             pointer(c), pointer(f), pointer(dh), dh_row, pointer(dc), dc_row, pointer(dz), dz_row, pointer(d_f),
             d_f_row, pointer(d_sums), pointer(carry), pointer(d_slots)),
        )  # fmt: skip
    inner = dz[leaves * dz_row :]
    product(inner, one, dz_row, fed, fed_row, one, zero, none, dW_hh, P, H, P, M, rest, parts)
    if forgetting:
        source, rows = (fed, M) if K > 0 else (edges, slots)
        product(
            d_f, one, d_f_row, source, fed_row, one, zero, none, dW_hh[H * P :], P, forgets * H, P, rows, rest, parts
        )
        last = dW_hh[(1 + forgets) * H * P :]
        product(inner[2 * H :], one, dz_row, fed, fed_row, one, zero, none, last, P, 2 * H, P, M, rest, parts)
    column_sums(dz, N, dz_row, sums, np.bool_(False), parts)
    d_b_ih[:] = sums[: d_b_ih.size]
    d_b_hh[:] = sums[: d_b_hh.size]
    product(inner, one, dz_row, x[leaves * x_row :], x_row, one, zero, none, dW_ih, I, G, I, M, rest, parts)
    product(dz, one, dz_row, x, x_row, one, dW_ih, I, dW_ih, I, H, I, leaves, rest, parts)
    product(inner, dz_row, one, W_ih, I, one, zero, none, d_rows[leaves * I :], I, M, I, G, rest, parts)
    product(dz, dz_row, one, W_ih, I, one, zero, none, d_rows, I, leaves, I, H, rest, parts)
    if forgetting:
        last, W_last, d_last = dz[2 * H :], W_ih[2 * H * I :], dW_ih[2 * H * I :]
        product(last, one, dz_row, x, x_row, one, d_last, I, d_last, I, 2 * H, I, leaves, rest, parts)
        product(last, dz_row, one, W_last, I, one, d_rows, I, d_rows, I, leaves, I, 2 * H, rest, parts)
    gather(d_rows, I, forest.place, I, dx, I, parts)
