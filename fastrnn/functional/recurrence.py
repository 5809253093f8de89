"""One recurrent layer in one direction: over all rows at once, or step by step."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastrnn import threads
from fastrnn.functional.rows import gather
from fastrnn.kernels import recurrent as kernels
from fastrnn.kernels.cells import Projected, traits
from fastrnn.kernels.pack import padded
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros
from fastrnn.ragged import Steps

_NO_TOKENS = np.empty(0, np.int64)

# Their sums take longer in Python than the arithmetic of a small call in a kernel.
_forward_work = lru_cache(kernels.recurrent_forward_work)
_backward_work = lru_cache(kernels.recurrent_backward_work)


class Weights(NamedTuple):
    """The parameters of one recurrent layer in one direction, or their gradients; None where the layer has none."""

    W_ih: np.ndarray  # (G*H, I)
    W_hh: np.ndarray  # (G*H, P)
    b_ih: np.ndarray | None = None  # (G*H,)
    b_hh: np.ndarray | None = None  # (G*H,)
    W_hr: np.ndarray | None = None  # (P, H)
    peephole: np.ndarray | None = None  # (3, H)


@lru_cache(maxsize=512)
def _bounds(B, lengths, shards):
    """The first sequence of each shard, and the end; and the most of one shard: of as equal work as they come.

    lengths : descending, or () where all are equal
    """
    if lengths:
        work = np.cumsum(lengths)
        inner = [int(np.searchsorted(work, work[-1] * i / shards, side="right")) for i in range(1, shards)]
        bounds = np.array([0, *inner, B])
    else:
        bounds = np.array([B * i // shards for i in range(shards + 1)])
    return bounds, int(np.diff(bounds).max())


def _shards(lengths, shards):
    B = len(lengths)
    equal = shards == 1 or lengths[0] == lengths[-1]
    return _bounds(B, () if equal else tuple(lengths.tolist()), shards)


@lru_cache
def _traits(cell, peepholes, projected):
    tag = cell(((),) * peepholes) if peepholes else cell()
    return traits(Projected(tag) if projected else tag)


def _tag(cell, weights):
    """The cell's tag with the arrays that its arithmetic reads, and its traits."""
    tag = cell() if weights.peephole is None else cell(tuple(weights.peephole))
    tag = tag if weights.W_hr is None else Projected(tag)
    return tag, _traits(cell, 0 if weights.peephole is None else len(weights.peephole), weights.W_hr is not None)


def _message_weights(shape, weights, H):
    """(P, H): the projection, or the rows of W_hh whose gates the message feeds; flat, and empty without a message."""
    if weights.W_hr is not None:
        return weights.W_hr.ravel()
    fed = shape.hidden * H if shape.stages == 2 else len(weights.W_hh)
    return weights.W_hh[fed:].ravel()


def recurrent(
    cell: type,
    x: np.ndarray,
    initial: tuple[np.ndarray, ...],
    weights: Weights,
    steps: Steps,
    buffer: np.ndarray,
    column: int = 0,
    keep: bool = True,
    table: np.ndarray | None = None,
) -> tuple[tuple[np.ndarray, ...], Callable[..., tuple[np.ndarray | None, tuple[np.ndarray, ...]]], Callable[[], dict]]:
    """One layer in one direction over all rows.

    Parameters
    ----------
    cell : tag type of fastrnn.kernels.cells with G gates; projection and peepholes are chosen by `weights`
    x : (N, I), or tokens (N,), int64, that stand for one-hot rows of size I
    initial : h (B, P), then the cell's other states (B, H); P is H without a projection
    weights : as arrays of one dtype
    steps : the order of the rows
    buffer : (N+2*B, W), out: row B+n, from `column` on, receives h_t of row n; the B rows before and behind are room
        for the initial states
    keep : whether the backward pass, or `activations`, will be called
    table : (V, E) with tokens only: rows of an embedding that take the place of the one-hot rows (I = E)

    Returns final (like initial); pullback(dy or None, d_final, grads, d_table=None, limit=inf, d_hs=None, need_dx=True)
    that reads dy (N, W) from `column` on, fills those of the Weights grads that are not None, and returns dx (None for
    tokens, or where it isn't needed) and d_initial; and activations(), which gives copies (N, H) by name of what was
    kept. The pullback keeps every element of dL/dh_t, all that reaches h_t from y_t and from later steps, within
    -limit..limit, and writes it to d_hs (N, P).

    All arrays C-contiguous and of one dtype. Cost: 2*N*G*H*(I+P) flop forward, twice that backward; tokens cost no
    input product beyond the V rows of the table. Reference twin: fastrnn.reference.sequence.
    """
    W_ih, W_hh, b_ih, b_hh, W_hr, _ = weights
    tag, shape = _tag(cell, weights)
    G, S, A, F, C = len(shape.gates), len(shape.states), len(shape.saved), shape.hidden, shape.columns
    (B, P), I, H, N, two_stages = initial[0].shape, W_ih.shape[1], len(W_hh) // G, len(x), shape.stages == 2
    dtype, one_hot, lanes = buffer.dtype, x.ndim == 1, lanes_of(buffer.itemsize)
    none = empty(0, dtype)
    own, column_of_own = buffer, column
    if steps.order is not None:
        x = x[steps.order] if one_hot else gather(x, steps.order)
        own, column_of_own = empty((N + 2 * B, P), dtype), 0
    width = own.shape[1]
    tokens, inputs = (x, none) if one_hot else (_NO_TOKENS, x.ravel())
    rows, V = (none, 0) if table is None else (table.ravel(), len(table))
    message = _message_weights(shape, weights, H)
    W_ih, W_hh = W_ih.ravel(), W_hh.ravel()
    plan = threads.for_sequence(len(steps.count), B, N, F * H * P, dtype.itemsize)
    bounds, most_rows = _shards(steps.lengths, plan.row_shards)
    own[steps.start : steps.start + B, column_of_own : column_of_own + P] = initial[0]
    flat = own.ravel()
    y = flat[B * width + column_of_own :]
    start = _flat(initial)
    final, full = empty(start.size, dtype), padded(H, lanes)
    messages = empty(N * H, dtype) if keep and two_stages else none
    history = empty(N * (S - 1) * full, dtype) if keep and S > 1 else none
    kept = empty((N if keep else B if two_stages else 0) * A * full, dtype)
    work = scratch(
        _forward_work(B, I, H, P, V, G, F, C, S, two_stages, plan.row_shards, most_rows, plan.unit_shards, lanes),
        dtype,
    )
    kernels.recurrent_forward(
        plan.shards, inputs, tokens, rows, W_ih, W_hh, message, none if b_ih is None else b_ih,
        none if b_hh is None else b_hh, tag, start, steps.first, steps.count, bounds, y, width, final, messages,
        history, kept, keep, B, I, H, P, plan.unit_shards, most_rows, work,
    )  # fmt: skip
    if steps.order is not None:
        gather(own[B : B + N], steps.order, out=buffer[B : B + N], out_column=column)

    def pullback(dy, d_final, grads, d_table=None, limit=np.inf, d_hs=None, need_dx=True):
        need_dx = need_dx and not one_hot
        d_start, dx = empty(start.size, dtype), empty((N, I), dtype) if need_dx else none
        zero = zeros(max(I, H), dtype)
        if dy is None:
            dy, dy_row = zero, 0
        elif steps.order is not None:
            dy, dy_row = gather(dy, steps.order, column, P).ravel(), P
        else:
            dy, dy_row = dy.ravel()[column:], dy.shape[1]
        if isinstance(steps.previous, slice):
            h, h_row = flat[steps.previous.start * width + column_of_own :], width
        else:
            h, h_row = gather(own, steps.previous, column_of_own, P).ravel(), P
        dW_ih, dW_hh, d_b_ih, d_b_hh, d_W_hr, d_peephole = [none if d is None else d.ravel() for d in grads]
        d_message = d_W_hr if W_hr is not None else dW_hh[F * H * P :]
        own_d_hs = none if d_hs is None else d_hs if steps.order is None else empty(d_hs.shape, dtype)
        parts = max(plan.shards, threads.for_work(4 * N * G * H * H))
        V_rows = (V or I) if one_hot else 0
        work = scratch(
            _backward_work(N, B, I, H, P, V_rows, C, G, F, S, two_stages, shape.weights, lanes, parts), dtype
        )
        kernels.recurrent_backward(
            parts, y, width, h, h_row, inputs, tokens, rows, W_ih, W_hh, message, tag, start, steps.first, steps.count,
            bounds, messages, history, kept, dy, dy_row, _flat(d_final), limit, d_start, dx.ravel(), own_d_hs.ravel(),
            none if d_table is None else d_table.ravel(), dW_ih, dW_hh, d_message, d_b_ih, d_b_hh, d_peephole, zero,
            N, B, I, H, P, plan.unit_shards, work, parts,
        )  # fmt: skip
        if steps.order is not None and d_hs is not None:
            gather(own_d_hs, steps.order, out=d_hs)
        if steps.order is not None and need_dx:
            dx = gather(dx, steps.order)
        return dx if need_dx else None, _states(d_start, S, B, P, H)

    def activations():
        vectors = kept.reshape(N, full // lanes, A, lanes).transpose(2, 0, 1, 3).reshape(A, N, full)
        found = {name: v for name, v in zip(shape.saved, vectors, strict=True) if name in shape.gates}
        found |= dict(zip(shape.states[1:], history.reshape(N, S - 1, full).transpose(1, 0, 2), strict=True))
        order = slice(None) if steps.order is None else steps.order
        return {name: np.array(v[order, :H]) for name, v in found.items()}

    return _states(final, S, B, P, H), pullback, activations


def recurrent_layer(
    cell: type,
    x: np.ndarray,
    initial: Sequence[tuple[np.ndarray, ...]],
    weights: Sequence[Weights],
    steps: Sequence[Steps],
    keep: bool = True,
    table: np.ndarray | None = None,
) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]], Callable[..., tuple[np.ndarray | None, list]], Callable[[], list]]:
    """One layer in all its directions: y (N, D*P), the directions side by side, and what `recurrent` gives of each.

    initial, weights, steps: of each direction; the other arguments as in `recurrent`. The pullback(dy or None, d_final,
    grads, d_table=None, limit=inf, d_hs=None, need_dx=True) takes d_final, grads and d_hs of each direction.
    """
    D, P, B, N = len(steps), initial[0][0].shape[1], len(steps[0].lengths), len(x)
    buffer = empty((N + 2 * B, D * P), initial[0][0].dtype)
    runs = [recurrent(cell, x, initial[d], weights[d], steps[d], buffer, d * P, keep, table) for d in range(D)]
    final, pullbacks, activations = (list(each) for each in zip(*runs, strict=True))

    def pullback(dy, d_final, grads, d_table=None, limit=np.inf, d_hs=(None, None), need_dx=True):
        pulled = [p(dy, d_final[d], grads[d], d_table, limit, d_hs[d], need_dx) for d, p in enumerate(pullbacks)]
        dx = pulled[0][0]
        for other, _ in pulled[1:]:
            if dx is not None:
                dx += other
        return dx, [d_initial for _, d_initial in pulled]

    y = buffer[B : B + N]
    return (
        y,
        final,
        pullback,
        lambda: [{"h": y[:, d * P : (d + 1) * P].copy(), **kept()} for d, kept in enumerate(activations)],
    )


def _flat(states):
    """h (B, P) and the other states (B, H) in one flat array."""
    return states[0].ravel() if len(states) == 1 else np.concatenate([state.ravel() for state in states])


def _states(flat, S, B, P, H):
    """The inverse of `_flat`: views."""
    return (flat.reshape(B, P),) if S == 1 else (flat[: B * P].reshape(B, P), *flat[B * P :].reshape(S - 1, B, H))


def stepper(
    cell: type, weights: Weights, B: int
) -> tuple[Callable[..., None], tuple[Any, ...], tuple[np.ndarray, ...], Callable[[Weights], None]]:
    """Single steps of a layer whose weights are packed once.

    weights : what they are like; the values are those that are packed

    Returns step and its last arguments: step(x, y, *arguments) reads x (B*I,) and writes y (B*P,), both C-contiguous
    and of the weights' dtype, which it doesn't look at; the state, h (B, P) and others (B, H), that a step reads and
    writes, 0 at first; and pack(weights), to be called first, and when the weights have changed.

    Cost: 2*B*G*H*(I+P) flop a step, in this thread. Reference twin: fastrnn.reference.cells.cell_forward.
    """
    own = weights if weights.peephole is None else weights._replace(peephole=weights.peephole.copy())
    tag, shape = _tag(cell, own)
    G, S, A, F, C = len(shape.gates), len(shape.states), len(shape.saved), shape.hidden, shape.columns
    I, P, H, dtype = weights.W_ih.shape[1], weights.W_hh.shape[1], len(weights.W_hh) // G, weights.W_hh.dtype
    sizes = kernels.step_sizes(B, I, H, P, G, F, C, S, A, shape.stages == 2, lanes_of(dtype.itemsize))
    arena = empty(sum(sizes), dtype)
    ih, hh, message, bias, state, _, _ = np.split(arena, np.cumsum(sizes)[:-1])
    state[:] = 0
    none, arguments = np.empty(0, dtype), (arena, np.array([0, B, I, H, P]), tag)

    def pack(weights):
        if own.peephole is not None:
            own.peephole[:] = weights.peephole
        kernels.pack_layer(
            1, weights.W_ih.reshape(-1), weights.W_hh.reshape(-1), _message_weights(shape, weights, H),
            none if weights.b_ih is None else weights.b_ih, none if weights.b_hh is None else weights.b_hh, none, tag,
            I, H, P, ih, hh, message, bias, none, none, 1,
        )  # fmt: skip

    step = kernels.step.resolved(empty(B * I, dtype), empty(B * P, dtype), *arguments)
    return step, arguments, _states(state, S, B, P, H), pack
