"""A cell over trees."""

from collections.abc import Callable

import numpy as np

from fastrnn import threads
from fastrnn.functional.recurrence import Weights
from fastrnn.kernels import recursive as kernels
from fastrnn.kernels.cells import traits
from fastrnn.kernels.levels import Forest, fed_size
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros
from fastrnn.trees import Trees

_SHARE_FLOPS = 5e5  # of a level's products, float32: 5 us, below which a thread more costs what it brings


def _forest(trees, K, each):
    """The trees as kernels have them; each: whether every child has its own row of gradients, or all of a parent."""
    slots = trees.slots(K)
    return Forest(
        trees.order, trees.place, trees.levels, slots.first, slots.children, slots.own if each else trees.above
    )


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

    Cost: see fastrnn.kernels.recursive. Reference twin: fastrnn.reference.recursive.
    """
    (N, I), dtype, lanes = x.shape, x.dtype, lanes_of(x.itemsize)
    W_ih, W_hh, b_ih, b_hh, *_ = weights
    tag, shape = cell(), traits(cell())
    G, forgetting = len(shape.gates), len(shape.states) - 1
    H, own = len(W_ih) // G, G - forgetting
    none, P = np.empty(0, dtype), fed_size(H, K)
    forest = _forest(trees, K, bool(forgetting or K))
    M, slots = N - trees.leaves, len(forest.children)
    W_ih, W_hh = W_ih.reshape(-1), W_hh.reshape(-1)
    flops = 2 * len(W_hh) * x.itemsize / 4  # of an inner node
    least = max(1, int(_SHARE_FLOPS / flops))
    parts = threads.for_work(N * flops + 2 * N * len(W_ih) * x.itemsize / 4)
    h, c = empty((N, H), dtype), empty((N, H) if forgetting else (0, H), dtype)
    sizes = (I, H, K, own, forgetting, lanes)
    kept_size, packed_size = sum(kernels.kept_sizes(N, M, slots, *sizes)), sum(kernels.packed_sizes(*sizes))
    work = scratch(packed_size + (0 if keep else kept_size), dtype)
    kept = empty(kept_size, dtype) if keep else work[packed_size:]
    kernels.recursive_forward(
        parts, x.reshape(-1), W_ih, W_hh, none if b_ih is None else b_ih, none if b_hh is None else b_hh, tag, forest,
        h.reshape(-1), c.reshape(-1), kept, I, H, K, least, work, parts,
    )  # fmt: skip

    def pullback(d_state, grads):
        dx, zero = empty((N, I), dtype), zeros(max(I, P), dtype)
        dW_ih, dW_hh, d_b_ih, d_b_hh, *_ = (none if d is None else d.reshape(-1) for d in grads)
        work = scratch(sum(kernels.backward_sizes(N, M, slots, *sizes, parts)), dtype)
        rows = [(zero, 0) if d is None else (d.reshape(-1), H) for d in (*d_state, None)]
        (dh, dh_row), (dc, dc_row) = rows[:2]
        kernels.recursive_backward(
            parts, W_ih, W_hh, tag, forest, h.reshape(-1), c.reshape(-1), kept, dh, dh_row, dc, dc_row, dx.reshape(-1),
            dW_ih, dW_hh, d_b_ih, d_b_hh, zero, I, H, K, least, work, parts,
        )  # fmt: skip
        return dx

    return (h, c) if forgetting else (h,), pullback
