"""The time loop, forward and backward, of any cell: it knows time and rows, and no gate.

Twin of fastrnn.kernels.sequence. A step runs the rows of the batch that have not ended, so padding is never read.
"""

from typing import Any, NamedTuple

import numpy as np

from fastrnn.reference.cells import State, cell_backward, cell_forward, map_weights, result_dtype


class Step(NamedTuple):
    """What the backward pass wants of one step: the times and rows it took, and arrays with one row for each."""

    t: np.ndarray
    rows: np.ndarray
    state_prev: State
    state: State
    saved: tuple[np.ndarray, ...]


def sequence_forward(
    cell: Any, x: np.ndarray, initial: State, lengths: np.ndarray | None = None, reverse: bool = False
) -> tuple[np.ndarray, State, list[Step]]:
    """Run a cell over all steps: (y, final, steps).

    x (T, B, I); initial, final: the state, h (B, P) and others (B, H); lengths (B,) integers 0..T in any order, None
    for T; reverse: each row starts at its own end, so that its step s is at t = length - 1 - s.
    y (T, B, P): h_t, and 0 beyond a row's length. final: each row's state after its last step.
    """
    T, B, _ = x.shape
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    dtype = result_dtype(cell, x, *initial)
    final = tuple(s.astype(dtype) for s in initial)
    y = np.zeros((T, *final[0].shape), dtype)
    steps = []
    for s in range(T):
        rows = np.flatnonzero(s < lengths)
        t = lengths[rows] - 1 - s if reverse else np.full_like(rows, s)
        state_prev = tuple(each[rows] for each in final)
        state, saved = cell_forward(cell, x[t, rows], state_prev)
        for each, new in zip(final, state, strict=True):
            each[rows] = new
        y[t, rows] = state[0]
        steps.append(Step(t, rows, state_prev, state, saved))
    return y, final, steps


def sequence_backward(
    cell: Any,
    x: np.ndarray,
    steps: list[Step],
    dy: np.ndarray,
    d_final: State,
    limit: float = np.inf,
    d_hs: np.ndarray | None = None,
) -> tuple[np.ndarray, State, Any]:
    """The gradients (dx, d_initial, d_cell) from dy (T, B, P) and d_final; `steps` are sequence_forward's.

    dx (T, B, I) is 0 beyond a row's length; what dy holds there is not read. d_cell: a cell of gradients.
    limit: of the elements of dL/dh_t, real, before they go through the cell; d_hs (T, B, P), out, receives them.
    """
    dtype = result_dtype(cell, x, dy, *d_final)
    dx = np.zeros(x.shape, dtype)
    d_initial = tuple(d.astype(dtype) for d in d_final)
    d_cell = map_weights(lambda w: np.zeros(w.shape, dtype), cell)
    for t, rows, state_prev, state, saved in reversed(steps):
        dh, *d_others = (d[rows] for d in d_initial)
        dh = dh + dy[t, rows]
        if limit < np.inf:
            dh = np.clip(dh, -limit, limit)
        if d_hs is not None:
            d_hs[t, rows] = dh
        d_state = (dh, *d_others)
        dx[t, rows], d_state_prev, d_cell_s = cell_backward(cell, x[t, rows], state_prev, state, saved, d_state)
        for d, d_prev in zip(d_initial, d_state_prev, strict=True):
            d[rows] = d_prev
        d_cell = map_weights(np.add, d_cell, d_cell_s)
    return dx, d_initial, d_cell
