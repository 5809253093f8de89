"""One recurrent layer in one direction: over all rows at once, or step by step."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks, threads
from fastrnn.functional.rows import picked
from fastrnn.kernels import recurrent as kernels
from fastrnn.kernels.cells import TRAITS, Projected, Traits, traits
from fastrnn.kernels.pack import padded
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros
from fastrnn.ragged import Steps

_GRADIENT_NAMES = ("d_W_ih", "d_W_hh", "d_b_ih", "d_b_hh", "d_W_hr", "d_peephole")
_COTANGENT_NAMES = ("d_h", "d_c")
_NO_TOKENS = np.empty(0, np.int64)
_NOTHING = {np.dtype(name): np.empty(0, name) for name in checks.DTYPES}

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


class _Layer(NamedTuple):
    """What a cell and the shapes of its weights say."""

    traits: Traits
    tag: Any  # without its arrays
    G: int
    S: int
    A: int
    F: int
    C: int
    I: int
    H: int
    P: int
    two_stages: bool
    shapes: tuple[tuple[int, ...] | None, ...]  # in the order of Weights; None for what there is not

    def states(self, B: int) -> tuple[tuple[int, int], ...]:
        """The shape of every state of B sequences."""
        return ((B, self.P), *[(B, self.H)] * (self.S - 1))


@lru_cache(maxsize=512)
def _layer(cell, W_ih, W_hh, b_ih, b_hh, W_hr, peephole):
    """The _Layer of a cell and its weights' shapes; whether there are biases and peepholes."""
    checks.member("cell", cell, tuple(TRAITS))
    own = TRAITS[cell]
    if own.message_gates or own.apart:
        checks.absent("W_hr", W_hr, f"for {cell.__name__}")
    if not cell._fields:
        checks.absent("peephole", peephole or None, f"for {cell.__name__}")
    _, I = checks.axes("W_ih", W_ih, "(G*H, I)", 0, 0)
    _, P = checks.axes("W_hh", W_hh, "(G*H, P) with P >= 1", 0, 1)
    _, H = (0, P) if W_hr is None else checks.axes("W_hr", W_hr, "(P, H) with H >= 1", 0, 1)
    tag, G = cell(((),) * 3) if peephole else cell(), len(own.gates)
    tag = tag if W_hr is None else Projected(tag)
    shape = traits(tag)
    shapes = (G * H, I), (G * H, P), (G * H,), (G * H,), (P, H), (3, H)
    present = True, True, b_ih, b_hh, W_hr is not None, peephole
    shapes = tuple([shape if there else None for shape, there in zip(shapes, present, strict=True)])
    sizes = G, len(shape.states), len(shape.saved), shape.hidden, shape.columns, I, H, P
    return _Layer(shape, tag, *sizes, shape.stages == 2, shapes)


class Bound(NamedTuple):
    """The weights of one layer in one direction, each compared with the others, as kernels take them: flat views."""

    layer: _Layer
    dtype: np.dtype
    tag: Any  # of the cell, with the arrays that its arithmetic reads
    W_ih: np.ndarray
    W_hh: np.ndarray
    message: np.ndarray  # (P, H): the projection, or the rows of W_hh whose gates the message feeds; or empty
    b_ih: np.ndarray
    b_hh: np.ndarray


def bound(cell: type, weights: Weights) -> Bound:
    """Weights once and for all: the arrays are read at every call, but not compared again.

    Raises ValueError: `W_hh: expected shape (72, 18), got (72, 19)`; TypeError: `b_ih: expected dtype float32, got
    float64`.
    """
    W_ih, W_hh, b_ih, b_hh, W_hr, peephole = weights
    dtype, shape_of = checks.floating("W_hh", W_hh), checks.shape_of
    layer = _layer(
        cell, shape_of(W_ih), shape_of(W_hh), b_ih is not None, b_hh is not None,
        None if W_hr is None else shape_of(W_hr), peephole is not None,
    )  # fmt: skip
    W_ih, W_hh, b_ih, b_hh, W_hr, peephole = checks.arrays(Weights._fields, weights, dtype, layer.shapes)
    tag, none = layer.tag, _NOTHING[dtype]
    message = W_hh[layer.F * layer.H :].ravel() if layer.two_stages else none
    if peephole is not None:
        tag = cell(tuple(peephole))
    if W_hr is not None:
        message, tag = W_hr.ravel(), tag if peephole is None else Projected(tag)
    b_ih, b_hh = none if b_ih is None else b_ih.ravel(), none if b_hh is None else b_hh.ravel()
    return Bound(layer, dtype, tag, W_ih.ravel(), W_hh.ravel(), message, b_ih, b_hh)


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
    own = weights if type(weights) is Bound else bound(cell, weights)
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
    if len(initial) != layer.S:
        checks.together("initial", initial, layer.S, "the states")
    initial = checks.arrays(layer.traits.states, initial, dtype, layer.states(steps.B))
    x, table = _inputs(x, table, dtype, steps.N, layer.I)
    return x, initial, table


def _compared_back(weights, steps, W, table, keep, dy, d_final, grads, d_table, d_hs):
    """What a pullback reads, as it fits the call, and what it writes is looked at."""
    layer, dtype, N = weights.layer, weights.dtype, steps.N
    checks.only("keep", bool(keep), True)
    if len(d_final) != layer.S:
        checks.together("d_final", d_final, layer.S, "the states")
    d_final = checks.arrays(_COTANGENT_NAMES[: layer.S], d_final, dtype, layer.states(steps.B))
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
    layer, dtype, tag, W_ih, W_hh, message, b_ih, b_hh = weights
    shape, _, G, S, A, F, C, I, H, P, two_stages, shapes = layer
    first, count, previous, order = steps.followed
    B, N, lanes, keep = steps.B, steps.N, lanes_of(dtype.itemsize), bool(keep)
    one_hot, none = x.ndim == 1, _NOTHING[dtype]
    own, column_of_own = buffer, column
    if order is not None:
        x = x[order] if one_hot else picked(x, order)
        own, column_of_own = empty((N + 2 * B, P), dtype), 0
    width = own.shape[1]
    tokens, inputs = (x, none) if one_hot else (_NO_TOKENS, x.ravel())
    rows, V = (none, 0) if table is None else (table.ravel(), len(table))
    plan = threads.for_sequence(len(count), B, N, F * H * P, dtype.itemsize)
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
        plan.shards, inputs, tokens, rows, W_ih, W_hh, message, b_ih, b_hh, tag, start, first, count, bounds, y, width,
        final, messages, history, kept, keep, B, I, H, P, plan.unit_shards, most_rows, work,
    )  # fmt: skip
    if order is not None:
        picked(own[B : B + N], order, out=buffer[B : B + N], out_column=column)

    def pullback(dy, d_final, grads, d_table=None, limit=np.inf, d_hs=None, need_dx=True):
        need_dx = need_dx and not one_hot
        d_start, dx = empty(start.size, dtype), empty((N, I), dtype) if need_dx else none
        zero = zeros(max(I, H), dtype)
        if dy is None:
            dy, dy_row = zero, 0
        elif order is not None:
            dy, dy_row = picked(dy, order, column, P).ravel(), P
        else:
            dy, dy_row = dy.ravel()[column:], dy.shape[1]
        if isinstance(previous, slice):
            h, h_row = flat[previous.start * width + column_of_own :], width
        else:
            h, h_row = picked(own, previous, column_of_own, P).ravel(), P
        dW_ih, dW_hh, d_b_ih, d_b_hh, d_W_hr, d_peephole = [none if d is None else d.ravel() for d in grads]
        d_message = dW_hh[F * H * P :] if shapes[4] is None else d_W_hr
        own_d_hs = none if d_hs is None else d_hs if order is None else empty(d_hs.shape, dtype)
        parts = max(plan.shards, threads.for_work(4 * N * G * H * H))
        V_rows = (V or I) if one_hot else 0
        work = scratch(
            _backward_work(N, B, I, H, P, V_rows, C, G, F, S, two_stages, shape.weights, lanes, parts), dtype
        )
        kernels.recurrent_backward(
            parts, y, width, h, h_row, inputs, tokens, rows, W_ih, W_hh, message, tag, start, first, count,
            bounds, messages, history, kept, dy, dy_row, _flat(d_final), limit, d_start, dx.ravel(), own_d_hs.ravel(),
            none if d_table is None else d_table.ravel(), dW_ih, dW_hh, d_message, d_b_ih, d_b_hh, d_peephole, zero,
            N, B, I, H, P, plan.unit_shards, work, parts,
        )  # fmt: skip
        if order is not None and d_hs is not None:
            picked(own_d_hs, order, out=d_hs)
        if order is not None and need_dx:
            dx = picked(dx, order)
        return dx if need_dx else None, _states(d_start, S, B, P, H)

    def activations():
        vectors = kept.reshape(N, full // lanes, A, lanes).transpose(2, 0, 1, 3).reshape(A, N, full)
        found = {name: v for name, v in zip(shape.saved, vectors, strict=True) if name in shape.gates}
        found |= dict(zip(shape.states[1:], history.reshape(N, S - 1, full).transpose(1, 0, 2), strict=True))
        rows = slice(None) if order is None else order
        return {name: np.array(v[rows, :H]) for name, v in found.items()}

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
    D = checks.as_many("steps", steps, (1, 2))
    if not len(initial) == len(weights) == D:
        checks.together("initial", initial, D, "the steps")
        checks.together("weights", weights, D, "the steps")
    own = [w if type(w) is Bound else bound(cell, w) for w in weights]
    for each in steps:
        checks.instance("steps", each, Steps)
    P, B, N, dtype = own[0].layer.P, steps[0].B, steps[0].N, own[0].dtype
    for w, each in zip(own[1:], steps[1:], strict=True):
        checks.only("steps", (each.N, each.B), (N, B))
        checks.only("weights", (w.layer.shapes, w.dtype), (own[0].layer.shapes, dtype))
    compared = [_compared(own[d], x, initial[d], steps[d], table) for d in range(D)]
    (x, _, table), initial = compared[0], [each[1] for each in compared]
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
    final, pullbacks, activations = [run[0] for run in runs], [run[1] for run in runs], [run[2] for run in runs]

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
    B, peephole = checks.integer("B", B, 1), weights.peephole
    own = weights if peephole is None else weights._replace(peephole=np.array(peephole))
    layer, dtype, tag, *_ = bound(cell, own)
    _, _, G, S, A, F, C, I, H, P, two_stages, shapes = layer
    sizes = kernels.step_sizes(B, I, H, P, G, F, C, S, A, two_stages, lanes_of(dtype.itemsize))
    arena = empty(sum(sizes), dtype)
    ih, hh, message, bias, state, _, _ = np.split(arena, np.cumsum(sizes)[:-1])
    state[:] = 0
    none, arguments = np.empty(0, dtype), (arena, np.array([0, B, I, H, P]), tag)

    def pack(weights):
        given = bound(cell, weights)
        checks.only("weights", (given.layer.shapes, given.dtype), (shapes, dtype))
        if peephole is not None:
            own.peephole[:] = weights.peephole
        kernels.pack_layer(
            1, given.W_ih, given.W_hh, given.message, given.b_ih, given.b_hh, none, tag, I, H, P, ih, hh, message, bias,
            none, none, 1,
        )  # fmt: skip

    step = kernels.step.resolved(empty(B * I, dtype), empty(B * P, dtype), *arguments)
    return step, arguments, _states(state, S, B, P, H), pack
