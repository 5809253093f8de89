"""One recurrent layer in one direction: over all rows at once, or step by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks, threads
from fastrnn.functional.rows import picked
from fastrnn.functional.weights import NOTHING, Bound, Weights, bound
from fastrnn.kernels import recurrent as kernels
from fastrnn.kernels import step as stepping
from fastrnn.kernels.frame import CALL, Cut
from fastrnn.kernels.pack import padded
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import carve, room_size
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch
from fastrnn.ragged import Steps

_GRADIENT_NAMES = tuple(f"d_{name}" for name in Weights._fields)
_NO_TOKENS = np.empty(0, np.int64)


def _bounds(B, lengths, shards):
    """The first sequence of each shard, and the end; of as equal work as they come.

    lengths : descending, or () where all are equal
    """
    if not lengths:
        return np.array([B * i // shards for i in range(shards + 1)])
    work = np.cumsum(lengths)
    inner = [int(np.searchsorted(work, work[-1] * i / shards, side="right")) for i in range(1, shards)]
    return np.array([0, *inner, B])


class _Read(NamedTuple):
    """Arguments of the kernels of a layer, by their names."""

    x: np.ndarray
    tokens: np.ndarray
    table: np.ndarray


class _Gradients(NamedTuple):
    """Arguments of recurrent_backward, by their names."""

    dW_ih: np.ndarray
    dW_hh: np.ndarray
    d_b_ih: np.ndarray
    d_b_hh: np.ndarray
    dW_hr: np.ndarray
    d_per_unit: np.ndarray


class _Places(NamedTuple):
    """Arguments of the kernels of a layer that follow from the sizes of a call, by their names."""

    bounds: np.ndarray
    call: np.ndarray


@dataclass(frozen=True, eq=False)  # itself a key
class _Call:
    """What the sizes of a call say: sums that take longer in Python than the arithmetic of a small call in a kernel."""

    places: _Places
    cut: Cut
    work: int  # elements
    kept: int  # elements


@lru_cache(maxsize=512)
def _forward_call(layer, N, B, V, keep, y_row, lanes, lengths, row_shards, unit_shards):
    """V: rows of a table, or 0; lengths: as of `_bounds`."""
    sizes = layer.sizes(B)
    bounds = _bounds(B, lengths, row_shards)
    cut = Cut(row_shards, unit_shards, int(np.diff(bounds).max()))
    numbers = np.array([(N, *sizes, V, *cut[1:], keep, y_row, 0, 0)], CALL)
    kept = room_size(kernels.kept_room(layer.counts, sizes, N, keep, lanes), lanes)
    work = room_size(kernels.layer_forward_room(layer.counts, sizes, cut, V, lanes), lanes)
    return _Call(_Places(bounds, numbers), cut, work, kept)


@lru_cache(maxsize=512)
def _backward_call(layer, forward, V, h_row, dy_row, lanes, count):
    """forward: the _Call; V: rows of a table, or of one-hot tokens; count: of threads."""
    numbers = forward.places.call.copy()
    numbers["V"] = V
    numbers["h_row"] = h_row
    numbers["dy_row"] = dy_row
    N, B = int(numbers["N"][0]), int(numbers["B"][0])
    room = kernels.layer_backward_room(layer.counts, layer.sizes(B), forward.cut, N, V, lanes, count)
    return _Call(_Places(forward.places.bounds, numbers), forward.cut, room_size(room, lanes), 0)


def _inputs(x, table, dtype, N, I):
    """x (N, I) and no table; or tokens (N,), a copy that nobody can change before the pullback, and their table."""
    if len(checks.shape_of(x)) != 1:
        if table is not None:
            checks.absent("table", checks.shape_of(table), "without tokens")
        return checks.array("x", x, dtype, N, I), None
    below = I
    if table is not None:
        below, _ = checks.sizes("table", table, "(V, E) with both >= 1", 1, 1)
        table = checks.array("table", table, dtype, below, I)
    return checks.tokens("tokens", np.array(x), below, N), table


def recurrent(
    cell: type,
    x: np.ndarray,
    initial: tuple[np.ndarray, ...],
    weights: Weights | Bound,
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
    x : (N, I), or tokens (N,), integers, that stand for one-hot rows of size I
    initial : h (B, P), then the cell's other states (B, H); P is H without a projection
    weights : as arrays of one dtype; or what `bound` made of them
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

    What is read is of one dtype, what is written C-contiguous too. Raises ValueError: `W_hh: expected shape (72, 18),
    got (72, 19)`, `h: expected shape (3, 18), got (2, 18)`, `tokens: expected 0 <= token < 65, got 70`, `d_W_ih:
    expected a C-contiguous array to write to, got strides (4, 288)`.
    Cost: 2*N*G*H*(I+P) flop forward, twice that backward; tokens cost no input product beyond the V rows of the table.
    Reference twin: fastrnn.reference.sequence.
    """
    own = weights if isinstance(weights, Bound) else bound(cell, weights)
    checks.instance("steps", steps, Steps)
    _, W = checks.sizes("buffer", buffer, "(N+2*B, W)", 0, 0)
    checks.targets(("buffer",), (buffer,), own.dtype, ((steps.N + 2 * steps.B, W),))
    column = checks.integer("column", column, 0, W - own.layer.P)
    x, initial, table = _compared(own, x, initial, steps, table)
    final, pull, activations = _run(own, x, initial, steps, buffer, column, keep, table)

    def pullback(dy, d_final, grads, d_table=None, limit=np.inf, d_hs=None, need_dx=True):
        dy, d_final = _compared_back(own, steps, W, table, keep, dy, d_final, grads, d_table, d_hs)
        return pull(dy, d_final, grads, d_table, limit, d_hs, need_dx)

    return final, pullback, _kept(activations, keep)


def _compared(weights, x, initial, steps, table):
    """What a call reads, as it fits the weights."""
    layer, dtype = weights.layer, weights.dtype
    if len(initial) != layer.counts.S:
        checks.together("initial", initial, layer.counts.S, "the states")
    initial = checks.arrays(layer.traits.states, initial, dtype, layer.states(steps.B))
    x, table = _inputs(x, table, dtype, steps.N, layer.I)
    return x, initial, table


def _compared_back(weights, steps, W, table, keep, dy, d_final, grads, d_table, d_hs):
    """What a pullback reads, as it fits the call, and what it writes is looked at."""
    layer, dtype, N = weights.layer, weights.dtype, steps.N
    checks.only("keep", bool(keep), True)
    if len(d_final) != layer.counts.S:
        checks.together("d_final", d_final, layer.counts.S, "the states")
    d_final = checks.arrays([f"d_{name}" for name in layer.traits.states], d_final, dtype, layer.states(steps.B))
    dy = None if dy is None else checks.array("dy", dy, dtype, N, W)
    checks.targets(_GRADIENT_NAMES, grads, dtype, layer.shapes)
    if d_table is not None or d_hs is not None:
        shapes = None if table is None else (len(table), layer.I), (N, layer.P)
        checks.targets(("d_table", "d_hs"), (d_table, d_hs), dtype, shapes)
    return dy, d_final


def _kept(activations, keep):
    """The activations of a call that kept them."""

    def found():
        checks.only("keep", bool(keep), True)
        return activations()

    return found


def _run(weights, x, initial, steps, buffer, column, keep, table):
    """`recurrent` of arrays that are known to fit."""
    layer, dtype, arguments = weights
    counts, I, P, B, N = layer.counts, layer.I, layer.P, steps.B, steps.N
    steps_rows, previous, order = steps.followed
    lanes = lanes_of(dtype.itemsize)
    keep = bool(keep)
    one_hot = x.ndim == 1
    none = NOTHING[dtype]
    own, own_column = buffer, column
    if order is not None:
        x = x[order] if one_hot else picked(x, order)
        own = empty((N + 2 * B, P), dtype)
        own_column = 0
    y_row = own.shape[1]
    rows, V = (none, 0) if table is None else (table.ravel(), len(table))
    read = _Read(none, x, rows) if one_hot else _Read(x.ravel(), _NO_TOKENS, rows)
    plan = threads.for_sequence(len(steps_rows.first), B, N, counts.F * layer.H * P, dtype.itemsize)
    lengths = () if steps.equal or plan.row_shards == 1 else tuple(steps.lengths.tolist())
    call = _forward_call(layer, N, B, V, keep, y_row, lanes, lengths, *plan)
    own[steps.start : steps.start + B, own_column : own_column + P] = initial[0]
    flat = own.ravel()
    y = flat[B * y_row + own_column :]
    start = _flat(initial)
    kept = empty(call.kept, dtype)
    final = empty(start.size, dtype)
    kernels.recurrent_forward(
        *arguments, *steps_rows, *call.places, *read, initial=start, y=y, final=final, kept=kept,
        work=scratch(call.work, dtype), threads=plan.shards,
    )  # fmt: skip
    if order is not None:
        picked(own[B : B + N], order, out=buffer[B : B + N], out_column=column)

    def pullback(dy, d_final, grads, d_table=None, limit=np.inf, d_hs=None, need_dx=True):
        need_dx = need_dx and not one_hot
        d_start = empty(start.size, dtype)
        dx = empty((N, I), dtype) if need_dx else none
        if dy is None:
            dy = np.zeros(P, dtype)
            dy_row = 0
        elif order is not None:
            dy = picked(dy, order, column, P).ravel()
            dy_row = P
        else:
            dy, dy_row = dy.ravel()[column:], dy.shape[1]
        if isinstance(previous, slice):
            h = flat[previous.start * y_row + own_column :]
            h_row = y_row
        else:
            h = picked(own, previous, own_column, P).ravel()
            h_row = P
        gradients = _Gradients._make([none if d is None else d.ravel() for d in grads])
        own_d_hs = none if d_hs is None else d_hs if order is None else empty(d_hs.shape, dtype)
        shards = max(plan.shards, threads.for_work(4 * N * counts.G * layer.H * layer.H))
        V_rows = (V or I) if one_hot else 0
        back = _backward_call(layer, call, V_rows, h_row, dy_row, lanes, shards)
        kernels.recurrent_backward(
            *arguments, *steps_rows, *back.places, *read, *gradients, initial=start, y=y, h=h, kept=kept,
            dy=dy, d_final=_flat(d_final), limit=limit, d_initial=d_start, dx=dx.ravel(),
            d_table=none if d_table is None else d_table.ravel(), d_hs=own_d_hs.ravel(),
            work=scratch(back.work, dtype), threads=shards,
        )  # fmt: skip
        if order is not None and d_hs is not None:
            picked(own_d_hs, order, out=d_hs)
        if order is not None and need_dx:
            dx = picked(dx, order)
        return dx if need_dx else None, _states(d_start, layer, B)

    def activations():
        A = counts.A
        full = padded(layer.H, lanes)
        parts = carve(kept, kernels.kept_room(counts, layer.sizes(B), N, True, lanes))
        vectors = parts.saved.reshape(N, full // lanes, A, lanes).transpose(2, 0, 1, 3).reshape(A, N, full)
        states = parts.history.reshape(N, counts.S - 1, full).transpose(1, 0, 2)
        found = {name: v for name, v in zip(layer.traits.saved, vectors, strict=False) if name in layer.traits.gates}
        found |= dict(zip(layer.traits.states[1:], states, strict=True))
        picked_rows = slice(None) if order is None else order
        return {name: np.array(v[picked_rows, : layer.H]) for name, v in found.items()}

    return _states(final, layer, B), pullback, activations


def recurrent_layer(
    cell: type,
    x: np.ndarray,
    initial: Sequence[tuple[np.ndarray, ...]],
    weights: Sequence[Weights | Bound],
    steps: Sequence[Steps],
    keep: bool = True,
    table: np.ndarray | None = None,
) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]], Callable[..., tuple[np.ndarray | None, list]], Callable[[], list]]:
    """One layer in all its directions: y (N, D*P), the directions side by side, and what `recurrent` gives of each.

    initial, weights, steps: of each direction; the other arguments as in `recurrent`. The pullback(dy or None, d_final,
    grads, d_table=None, limit=inf, d_hs=None, need_dx=True) takes d_final, grads and d_hs of each direction.
    """
    D = checks.as_many("steps", steps, (1, 2))
    if not len(initial) == len(weights) == D:
        checks.together("initial", initial, D, "the steps")
        checks.together("weights", weights, D, "the steps")
    own = [w if isinstance(w, Bound) else bound(cell, w) for w in weights]
    for each in steps:
        checks.instance("steps", each, Steps)
    P, B, N, dtype = own[0].layer.P, steps[0].B, steps[0].N, own[0].dtype
    for w, each in zip(own[1:], steps[1:], strict=True):
        checks.only("steps", (each.N, each.B), (N, B))
        checks.only("weights", (w.layer.shapes, w.dtype), (own[0].layer.shapes, dtype))
    compared = [_compared(own[d], x, initial[d], steps[d], table) for d in range(D)]
    x, _, table = compared[0]
    initial = [each[1] for each in compared]
    y, final, pull, activations = run_layer(own, x, initial, steps, keep, table)

    def pullback(dy, d_final, grads, d_table=None, limit=np.inf, d_hs=(None, None), need_dx=True):
        if not len(d_final) == len(grads) == D:
            checks.together("d_final", d_final, D, "the steps")
            checks.together("grads", grads, D, "the steps")
        ends = []
        for d in range(D):
            dy, end = _compared_back(own[d], steps[d], D * P, table, keep, dy, d_final[d], grads[d], d_table, d_hs[d])
            ends.append(end)
        return pull(dy, ends, grads, d_table, limit, d_hs, need_dx)

    return y, final, pullback, _kept(activations, keep)


def run_layer(
    weights: Sequence[Bound],
    x: np.ndarray,
    initial: Sequence[Sequence[np.ndarray]],
    steps: Sequence[Steps],
    keep: bool = True,
    table: np.ndarray | None = None,
) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]], Callable[..., tuple[np.ndarray | None, list]], Callable[[], list]]:
    """`recurrent_layer` for callers that have compared all arrays themselves, at the call and at the pullback.

    Tokens, which few callers have looked at, are compared here and copied.
    """
    D, P, B, N, dtype = len(steps), weights[0].layer.P, steps[0].B, steps[0].N, weights[0].dtype
    if x.ndim == 1:
        x, table = _inputs(x, table, dtype, N, weights[0].layer.I)
    buffer = empty((N + 2 * B, D * P), dtype)
    runs = [_run(weights[d], x, initial[d], steps[d], buffer, d * P, keep, table) for d in range(D)]
    final = [run[0] for run in runs]
    pullbacks = [run[1] for run in runs]
    activations = [run[2] for run in runs]

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


def _states(flat, layer, B):
    """The inverse of `_flat`: views."""
    S, H, P = layer.counts.S, layer.H, layer.P
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
    B = checks.integer("B", B, 1)
    per_unit = weights.per_unit
    own = weights if per_unit is None else weights._replace(per_unit=np.array(per_unit))
    layer, dtype, arguments = bound(cell, own)
    sizes = layer.sizes(B)
    lanes = lanes_of(dtype.itemsize)
    room = stepping.step_room(layer.counts, sizes, lanes)
    arena = empty(room_size(room, lanes), dtype)
    state = carve(arena, room).state
    state[:] = 0
    last = arena, np.array([0, *sizes]), arguments.cell

    def pack(weights):
        given = bound(cell, weights)
        checks.only("weights", (given.layer.shapes, given.dtype), (layer.shapes, dtype))
        if own.per_unit is not None:
            own.per_unit[:] = weights.per_unit
        stepping.pack_step(*given.arguments, numbers=last[1], arena=arena)

    step = stepping.step.resolved(empty(B * layer.I, dtype), empty(B * layer.P, dtype), *last)
    return step, last, _states(state, layer, B), pack
