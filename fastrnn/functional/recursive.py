"""A cell over trees."""

from collections.abc import Callable

import numpy as np

from fastrnn import checks, threads
from fastrnn.functional.recurrence import Weights
from fastrnn.kernels import recursive as kernels
from fastrnn.kernels.cells import traits
from fastrnn.kernels.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.kernels.cells.lstm import LSTM
from fastrnn.kernels.levels import Forest, fed_size
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros
from fastrnn.trees import Trees

_SHARE_FLOPS = 5e5  # of a level's products, float32: 5 us, below which a thread more costs what it brings


CELLS = (ElmanTanh, ElmanRelu, LSTM)  # that are taken over trees


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
    dtype, N, K = checks.floating("W_hh", W_hh), len(trees), checks.integer("K", K, 0)
    I, columns = (
        checks.sizes("W_ih", W_ih, "(G*H, I)", 0, 0)[1],
        checks.sizes("W_hh", W_hh, "(rows, max(K, 1)*H) with H >= 1", 1, max(K, 1))[1],
    )
    tag, shape, lanes = cell(), traits(cell()), lanes_of(dtype.itemsize)
    G, forgetting, H = len(shape.gates), len(shape.states) - 1, columns // max(K, 1)
    own, none, P = G - forgetting, np.empty(0, dtype), fed_size(H, K)
    shapes = (G * H, I), ((own + forgetting * max(K, 1)) * H, P), (G * H,), (G * H,)
    shapes = *[None if w is None else s for w, s in zip(weights, shapes, strict=False)], None, None
    x, *weights = checks.arrays(("x", *Weights._fields), (x, *weights), dtype, ((N, I), *shapes))
    x, (W_ih, W_hh, b_ih, b_hh) = x.reshape(-1), [none if w is None else w.reshape(-1) for w in weights[:4]]
    forest = Forest(*trees.followed(K, each=bool(forgetting or K)))
    M, slots = N - trees.leaves, len(forest.children)
    flops = 2 * len(W_hh) * dtype.itemsize / 4  # of an inner node
    least = max(1, int(_SHARE_FLOPS / flops))
    parts = threads.for_work(N * flops + 2 * N * len(W_ih) * dtype.itemsize / 4)
    h, c = empty((N, H), dtype), empty((N, H) if forgetting else (0, H), dtype)
    sizes = (I, H, K, own, forgetting, lanes)
    kept_size, packed_size = sum(kernels.kept_sizes(N, M, slots, *sizes)), sum(kernels.packed_sizes(*sizes))
    work = scratch(packed_size + (0 if keep else kept_size), dtype)
    kept = empty(kept_size, dtype) if keep else work[packed_size:]
    h_rows, c_rows = h.reshape(-1), c.reshape(-1)
    kernels.recursive_forward(
        parts, x, W_ih, W_hh, b_ih, b_hh, tag, forest, h_rows, c_rows, kept, I, H, K, least, work, parts
    )

    def pullback(d_state, grads):
        checks.only("keep", bool(keep), True)
        names = [f"d{name}" for name in shape.states]
        d_state = checks.parts("d_state", d_state, names)
        d_state = checks.arrays(names, d_state, dtype, [None if d is None else (N, H) for d in d_state])
        checks.targets([f"d_{name}" for name in Weights._fields], grads, dtype, shapes)
        dx, zero = empty((N, I), dtype), zeros(max(I, P), dtype)
        dW_ih, dW_hh, d_b_ih, d_b_hh, *_ = (none if d is None else d.reshape(-1) for d in grads)
        work = scratch(sum(kernels.backward_sizes(N, M, slots, *sizes, parts)), dtype)
        rows = [(zero, 0) if d is None else (d.reshape(-1), H) for d in (*d_state, None)]
        (dh, dh_row), (dc, dc_row) = rows[:2]
        kernels.recursive_backward(
            parts, W_ih, W_hh, tag, forest, h_rows, c_rows, kept, dh, dh_row, dc, dc_row, dx.reshape(-1),
            dW_ih, dW_hh, d_b_ih, d_b_hh, zero, I, H, K, least, work, parts,
        )  # fmt: skip
        return dx

    return (h, c) if forgetting else (h,), pullback
