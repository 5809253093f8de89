"""A cell over trees."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import checks, threads
from fastrnn.functional.weights import Weights
from fastrnn.kernels import recursive as kernels
from fastrnn.kernels.cells import traits
from fastrnn.kernels.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.kernels.cells.lstm import LSTM
from fastrnn.kernels.forest import (
    Forest,
    Sizes,
    TreeWeights,
    backward_room,
    fed_size,
    forward_room,
    hidden_rows,
    kept_room,
)
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import room_size
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch
from fastrnn.trees import Trees

CELLS = (ElmanTanh, ElmanRelu, LSTM)  # that are taken over trees


# The sums of these sizes take as long in Python as a small tree in the kernel.


@lru_cache(1 << 10)
def _forward_sizes(sizes, keep, lanes):
    """Elements of the workspace, and of what is kept."""
    kept = room_size(kept_room(sizes, lanes), lanes) if keep else 0
    return room_size(forward_room(sizes, keep, lanes), lanes), kept


@lru_cache(1 << 10)
def _backward_size(sizes, lanes, count):
    """Elements of the workspace of `count` threads."""
    return room_size(backward_room(sizes, lanes, count), lanes)


def recursive(
    cell: type, x: np.ndarray, trees: Trees, weights: Weights, K: int = 0, keep: bool = True
) -> tuple[tuple[np.ndarray, ...], Callable[..., np.ndarray]]:
    """A cell from the leaves of trees to their roots.

    Parameters
    ----------
    cell : tag type of fastrnn.kernels.cells: ElmanTanh, ElmanRelu or LSTM, G gates
    x : (N, I), a row a node
    weights : W_ih (G*H, I), W_hh (G*H, H), or with K ((G-1+K)*H, K*H) for LSTM and (H, K*H) for Elman, biases (G*H,)
    K : places for children, which stand side by side by their positions; 0: children are summed
    keep : whether the backward pass will be called

    Returns every node's state, (h,) or (h, c), each (N, H), and pullback(d_state, grads), which fills the Weights grads
    and returns dx; d_state is like the state, None for zeros in place of any array. All arrays C-contiguous and of one
    dtype.

    Raises ValueError: `W_hh: expected shape (72, 18), got (72, 19)`, `x: expected shape (7, 5), got (7, 6)`.
    Cost: see fastrnn.kernels.recursive. Reference twin: fastrnn.reference.recursive.
    """
    checks.instance("trees", trees, Trees)
    checks.member("cell", cell, CELLS)
    W_ih, W_hh, *_ = weights
    dtype = checks.floating("W_hh", W_hh)
    N = len(trees)
    K = checks.integer("K", K, 0)
    I, columns = (
        checks.sizes("W_ih", W_ih, "(G*H, I)", 0, 0)[1],
        checks.sizes("W_hh", W_hh, "(rows, max(K, 1)*H) with H >= 1", 1, max(K, 1))[1],
    )
    tag = cell()
    shape = traits(cell())
    lanes = lanes_of(dtype.itemsize)
    forgetting = len(shape.states) - 1
    H = columns // max(K, 1)
    none = np.empty(0, dtype)
    forest = Forest._make([*trees.followed(K, each=bool(forgetting or K)), K])
    M = N - trees.leaves
    slots = len(forest.children)
    own = len(shape.gates) - forgetting
    sizes = Sizes(N, M, slots, I, H, K, own, forgetting)
    G = (own + forgetting) * H
    shapes = (G, I), (hidden_rows(sizes), fed_size(H, K)), (G,), (G,)
    shapes = *[None if w is None else s for w, s in zip(weights, shapes, strict=False)], None, None
    x, *weights = checks.arrays(("x", *Weights._fields), (x, *weights), dtype, ((N, I), *shapes))
    x = x.reshape(-1)
    weights = TreeWeights(*[none if w is None else w.reshape(-1) for w in weights[:4]])
    count = threads.for_work(2 * N * (weights.W_hh.size + weights.W_ih.size) * dtype.itemsize / 4)
    h, c = empty((N, H), dtype), empty((N, H) if forgetting else (0, H), dtype)
    work_size, kept_size = _forward_sizes(sizes, bool(keep), lanes)
    kept = empty(kept_size, dtype)
    h_rows = h.reshape(-1)
    c_rows = c.reshape(-1)
    kernels.recursive_forward(
        x=x, weights=weights, cell=tag, forest=forest, h=h_rows, c=c_rows, kept=kept,
        work=scratch(work_size, dtype), threads=count,
    )  # fmt: skip

    def pullback(d_state, grads):
        checks.only("keep", bool(keep), True)
        names = [f"d{name}" for name in shape.states]
        d_state = checks.parts("d_state", d_state, names)
        d_state = checks.arrays(names, d_state, dtype, [None if d is None else (N, H) for d in d_state])
        checks.targets([f"d_{name}" for name in Weights._fields], grads, dtype, shapes)
        dx = empty((N, I), dtype)
        dh, dc, *_ = (none if d is None else d.reshape(-1) for d in (*d_state, None))
        kernels.recursive_backward(
            h=h_rows, c=c_rows, weights=weights, cell=tag, forest=forest, kept=kept, dh=dh, dc=dc, dx=dx.reshape(-1),
            grads=TreeWeights(*[none if d is None else d.reshape(-1) for d in grads[:4]]),
            work=scratch(_backward_size(sizes, lanes, count), dtype), threads=count,
        )  # fmt: skip
        return dx

    return (h, c) if forgetting else (h,), pullback
