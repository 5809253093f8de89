"""A cell over trees, node by node. Twin of fastrnn.kernels.recursive.

Children are summed, or stand side by side by their positions (K of them): h~ (P,) is what the gates read. The Elman
cell takes h~ as it takes h_{t-1}; the LSTM has a forget gate for each child:

    z = W_ih x + b_ih + W_hh h~ + b_hh      i, o = sigmoid(z_i), sigmoid(z_o)      g = tanh(z_g)
    f_k = sigmoid(W_if x + b_if + W_hf h_k + b_hf), or with K sigmoid(W_if x + b_if + W_hf,k h~ + b_hf)
    c = i g + sum_k f_k c_k      h = o tanh(c)

Source: Tai, Socher & Manning, Improved semantic representations from tree-structured long short-term memory networks,
ACL 2015, eq. 2-8 and 9-14. Gate order as torch.nn.LSTM; with K the rows of W_hh are those of i, f_1, ..., f_K, g, o.
"""

from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from fastrnn.reference.cells import State, map_weights, result_dtype
from fastrnn.reference.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.reference.cells.lstm import LSTM
from fastrnn.reference.vmath import sigmoid, tanh


class Node(NamedTuple):
    """A node's number and its children's numbers and positions, in the order of the latter."""

    number: int
    children: np.ndarray
    positions: np.ndarray


def children_first(parents: np.ndarray, positions: np.ndarray) -> list[Node]:
    """All nodes, none before its children."""
    order = [int(root) for root in np.flatnonzero(parents < 0)]
    nodes = []
    for number in order:  # grows
        children = np.flatnonzero(parents == number)
        children = children[np.argsort(positions[children])]
        nodes.append(Node(number, children, positions[children]))
        order += children.tolist()
    return nodes[::-1]


def joined(h: np.ndarray, positions: np.ndarray, K: int) -> np.ndarray:
    """h~ of the children's h (n, H)."""
    if K == 0:
        return h.sum(axis=0)
    places = np.zeros((K, h.shape[1]), h.dtype)
    places[positions] = h
    return places.reshape(-1)


def parted(d_joined: np.ndarray, positions: np.ndarray, K: int) -> np.ndarray:
    """The gradients (n, H) of the children's h from that of h~."""
    return np.tile(d_joined, (len(positions), 1)) if K == 0 else d_joined.reshape(K, -1)[positions]


@singledispatch
def node_forward(cell: Any, x: np.ndarray, state: State, positions: np.ndarray, K: int) -> tuple[State, State]:
    """A node's state and what its backward step wants back, from x (I,) and the children's state, arrays (n, H)."""
    raise NotImplementedError(f"no reference for trees of the cell {type(cell).__name__}")


@singledispatch
def node_backward(
    cell: Any, x: np.ndarray, state: State, positions: np.ndarray, K: int, own: State, saved: State, d_own: State
) -> tuple[np.ndarray, State, Any]:
    """(dx, the gradients of the children's state, d_cell) from those of the node's own state."""
    raise NotImplementedError(f"no reference for trees of the cell {type(cell).__name__}")


@node_forward.register
def _elman(
    cell: ElmanTanh | ElmanRelu, x: np.ndarray, state: State, positions: np.ndarray, K: int
) -> tuple[State, State]:
    h = joined(state[0], positions, K)
    return (cell.f(cell.W_ih @ x + cell.b_ih + cell.W_hh @ h + cell.b_hh),), (h,)


@node_backward.register
def _elman_backward(
    cell: ElmanTanh | ElmanRelu, x: np.ndarray, state: State, positions: np.ndarray, K: int, own: State, saved: State,
    d_own: State,
) -> tuple[np.ndarray, State, Any]:  # fmt: skip
    dz = cell.f_backward(own[0], d_own[0])
    d_cell = type(cell)(W_ih=np.outer(dz, x), W_hh=np.outer(dz, saved[0]), b_ih=dz, b_hh=dz)
    return cell.W_ih.T @ dz, (parted(cell.W_hh.T @ dz, positions, K),), d_cell


def _hidden_weights(W_hh, H):
    """W_i, W_f, W_g, W_o, of which W_f has H rows for each position."""
    return W_hh[:H], W_hh[H : -2 * H], W_hh[-2 * H : -H], W_hh[-H:]


@node_forward.register
def _lstm(cell: LSTM, x: np.ndarray, state: State, positions: np.ndarray, K: int) -> tuple[State, State]:
    h_k, c_k = state
    h = joined(h_k, positions, K)
    a_i, a_f, a_g, a_o = np.split(cell.W_ih @ x + cell.b_ih + cell.b_hh, 4)
    W_i, W_f, W_g, W_o = _hidden_weights(cell.W_hh, len(a_i))
    i, g, o = sigmoid(a_i + W_i @ h), tanh(a_g + W_g @ h), sigmoid(a_o + W_o @ h)
    f = sigmoid(a_f + (h_k @ W_f.T if K == 0 else (W_f @ h).reshape(K, -1)[positions]))
    c = i * g + (f * c_k).sum(axis=0)
    return (o * tanh(c), c), (h, i, f, g, o)


@node_backward.register
def _lstm_backward(
    cell: LSTM, x: np.ndarray, state: State, positions: np.ndarray, K: int, own: State, saved: State, d_own: State
) -> tuple[np.ndarray, State, LSTM]:
    (h_k, c_k), (_, c), (h, i, f, g, o), (dh, dc) = state, own, saved, d_own
    H = len(c)
    W_i, W_f, W_g, W_o = _hidden_weights(cell.W_hh, H)
    tanh_c = tanh(c)
    dz_o = o * (1 - o) * tanh_c * dh
    dc = dc + o * (1 - tanh_c * tanh_c) * dh
    dz_i, dz_g = i * (1 - i) * g * dc, (1 - g * g) * i * dc
    dz_f = f * (1 - f) * c_k * dc
    d_joined = W_i.T @ dz_i + W_g.T @ dz_g + W_o.T @ dz_o
    if K == 0:
        dh_k = parted(d_joined, positions, K) + dz_f @ W_f
        dW_f = dz_f.T @ h_k
    else:
        dz_places = np.zeros((K, H), dz_f.dtype)
        dz_places[positions] = dz_f
        dh_k = parted(d_joined + W_f.T @ dz_places.reshape(-1), positions, K)
        dW_f = np.outer(dz_places, h)
    dz = np.concatenate([dz_i, dz_f.sum(axis=0), dz_g, dz_o])
    dW_hh = np.concatenate([np.outer(dz_i, h), dW_f, np.outer(dz_g, h), np.outer(dz_o, h)])
    d_cell = LSTM(W_ih=np.outer(dz, x), W_hh=dW_hh, b_ih=dz, b_hh=dz)
    return cell.W_ih.T @ dz, (dh_k, f * dc), d_cell


def recursive_forward(
    cell: Any, x: np.ndarray, parents: np.ndarray, positions: np.ndarray, K: int = 0
) -> tuple[State, list[tuple[Node, State]]]:
    """(state, tape): the state of every node, h (N, H) and of LSTM c (N, H).

    x (N, I); parents, positions (N,): as of fastrnn.Trees; K: places for children, or 0 for their sum.
    """
    H, dtype = len(cell.W_ih) // cell.gates, result_dtype(cell, x)
    state = tuple(np.zeros((len(x), H), dtype) for _ in range(cell.states))
    tape = []
    for node in children_first(parents, positions):
        below = tuple(s[node.children] for s in state)
        own, saved = node_forward(cell, x[node.number], below, node.positions, K)
        for s, value in zip(state, own, strict=True):
            s[node.number] = value
        tape.append((node, saved))
    return state, tape


def recursive_backward(
    cell: Any, x: np.ndarray, state: State, tape: list[tuple[Node, State]], d_state: State, K: int = 0
) -> tuple[np.ndarray, Any]:
    """The gradients (dx, d_cell) from those of every node's state; state and tape are recursive_forward's."""
    dtype = result_dtype(cell, x, *d_state)
    dx, d_state = np.zeros(x.shape, dtype), tuple(d.astype(dtype) for d in d_state)
    d_cell = map_weights(lambda w: np.zeros(w.shape, dtype), cell)
    for (number, children, positions), saved in reversed(tape):
        below, own, d_own = (
            tuple(s[at] for s in of) for of, at in ((state, children), (state, number), (d_state, number))
        )
        dx[number], d_below, d_node = node_backward(cell, x[number], below, positions, K, own, saved, d_own)
        for d, more in zip(d_state, d_below, strict=True):
            d[children] += more
        d_cell = map_weights(np.add, d_cell, d_node)
    return dx, d_cell
