"""Cells over trees: what travels together through their kernels, by name, and the workspaces.

Nodes are taken in the computing order of fastrnn.trees, where a level is one block of rows, and the leaves are the
first; states and cotangents lie as the caller numbers the nodes. Data are pointers, and strides count elements.
"""

from typing import Any, NamedTuple

from fastrnn.kernels.jit import layout
from fastrnn.kernels.matmul import Shape, product_room
from fastrnn.kernels.pack import padded, panel_size, row_stride
from fastrnn.kernels.workspace import Elements, room_size


class Forest(NamedTuple):
    """Trees in the computing order, int64 arrays; N nodes, M of them inner nodes."""

    order: Any  # (N,) the nodes
    place: Any  # (N,) its inverse
    levels: Any  # (levels+1,) the first row of each, and N
    first: Any  # (M+1,) bounds of each inner node's slots
    children: Any  # (slots,) the node in a slot, or -1
    carry: Any  # (N,) the row of BackwardRoom.carry that is a node's gradient, -1 for a root
    K: int  # places for children, which stand side by side by their positions; 0: children are summed


class Sizes(NamedTuple):
    """Of a cell over trees; P is the width of what the children feed."""

    N: int  # nodes
    M: int  # inner nodes
    slots: int  # of all inner nodes
    I: int  # inputs
    H: int  # units
    K: int  # as of Forest
    own: int  # gates that a node has one of
    forgetting: int  # 1 if a node also has a forget gate for each child, else 0


class TreeWeights(NamedTuple):
    """The weights of a cell of G gates, the forget gate counted once, or their gradients: flat arrays."""

    W_ih: Any  # (G*H, I)
    W_hh: Any  # (G*H, H), or with K the rows of i, f_1..f_K, g, o: ((3+K)*H, K*H), and (H, K*H) of an Elman cell
    b_ih: Any  # (G*H,), or empty
    b_hh: Any  # (G*H,), or empty


class States(NamedTuple):
    """Of all nodes: pointers to (N, H), or as cotangents Rows; what a cell doesn't have is not touched."""

    h: Any
    c: Any


class Kept(NamedTuple):
    """What the forward pass hands to the backward pass."""

    z: Elements  # rows `z_row` apart: see cells.tree
    fed: Elements  # of inner nodes, rows (P,): what their children feed
    edges: Elements  # of slots, rows (H,) as far apart: the child's h, where it is summed and has a gate of its own
    f: Elements  # (slots, H) forget gates
    x: Elements  # rows (I,) in the computing order


class ForwardRoom(NamedTuple):
    """Workspace of `recursive_forward`."""

    W_ih: Elements  # in panels
    W_hh: Elements  # in panels
    bias: Elements  # of both, in the panels' order
    kept: Elements  # a Kept, where the caller asks for none


class BackwardRoom(NamedTuple):
    """Workspace of `recursive_backward`."""

    W_hh: Elements  # in panels
    dz: Elements  # rows (G*H,): gradients of pre-activations
    sums: Elements  # of these rows
    d_f: Elements  # rows (P,) of inner nodes, with summed children of slots: gradients of forget gates
    d_sums: Elements  # (M, H) of what summed children feed, where they also have gates of their own
    carry: Elements  # (slots, H) of the children's h, or (M, H) where all of a node get the same
    d_c: Elements  # (slots, H) of the children's c
    dx: Elements  # (N, I) in the computing order
    zero: Elements  # max(I, P) zeros
    product: Elements  # of the largest product


@layout
def fed_size(H, K):
    """P."""
    return H * max(K, 1)


@layout
def gate_rows(sizes):
    """G*H."""
    return (sizes.own + sizes.forgetting) * sizes.H


@layout
def hidden_rows(sizes):
    """Rows of W_hh."""
    return (sizes.own + sizes.forgetting * max(sizes.K, 1)) * sizes.H


@layout
def z_row(sizes, width):
    """Elements from row to row of z."""
    return (sizes.own + sizes.forgetting) * padded(sizes.H, width)


@layout
def fed_row(sizes, width):
    """Elements from row to row of what is P wide."""
    return row_stride(fed_size(sizes.H, sizes.K), width)


@layout
def kept_room(sizes, width):
    """What the forward pass hands to the backward pass."""
    summed = sizes.forgetting if sizes.K == 0 else 0
    row = fed_row(sizes, width)
    return Kept(
        z=sizes.N * z_row(sizes, width),
        fed=sizes.M * row,
        edges=summed * sizes.slots * row,
        f=sizes.forgetting * sizes.slots * sizes.H,
        x=sizes.N * row_stride(sizes.I, width),
    )


@layout
def forward_room(sizes, keep, width):
    """The workspace of `recursive_forward`; keep: whether the caller has memory for what is kept."""
    blocks = padded(sizes.H, width) // width
    H = sizes.H
    bias = z_row(sizes, width)
    return ForwardRoom(
        W_ih=bias // width * panel_size(sizes.I, width),
        W_hh=hidden_rows(sizes) // H * blocks * panel_size(fed_size(H, sizes.K), width),
        bias=bias,
        kept=0 if keep else room_size(kept_room(sizes, width), width),
    )


@layout
def backward_room(sizes, width, threads):
    """The workspace of `recursive_backward`."""
    N, M, slots, I, H, K, _, forgetting = sizes
    P = fed_size(H, K)
    G = gate_rows(sizes)
    hidden = hidden_rows(sizes)
    row = row_stride(G, width)
    W_hh = room_size(product_room(Shape(hidden, P, max(M, slots)), width, threads), width)
    W_ih = room_size(product_room(Shape(G, I, N), width, threads), width)
    inputs = room_size(product_room(Shape(N, I, G), width, threads), width)
    return BackwardRoom(
        W_hh=padded(P, width) // width * panel_size(hidden, width),
        dz=N * row,
        sums=row,
        d_f=forgetting * (M if K > 0 else slots) * fed_row(sizes, width),
        d_sums=M * P if forgetting and K == 0 else 0,
        carry=(slots if forgetting or K > 0 else M) * H,
        d_c=forgetting * slots * H,
        dx=N * I,
        zero=max(I, P),
        product=max(W_hh, W_ih, inputs),
    )
