"""One registry of operations: how to draw their inputs, what computes them, and the reference that says what is right.

`case.draw(sizes, dtype, seed)` gives named arrays that `case.compiled` and `case.reference` take as arguments; both
return named arrays, gradients included. `check` compares the two.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from cells import CELLS
from numerics import Arrays, assert_close, relative_error, rounding_budget

from fastrnn import functional, optim, ragged
from fastrnn.functional import Weights
from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.matmul import Matrix, Rows, Shape, multiply, product_room
from fastrnn.kernels.pointers import pointer
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import room_size
from fastrnn.parameters import Parameters
from fastrnn.reference import embedding, loss, update
from fastrnn.reference import matmul as reference_matmul
from fastrnn.reference import sequence as reference_sequence
from fastrnn.reference import time_delay as reference_time_delay

DTYPES = ("float32", "float64")
TOLERANCE = 1e-13  # of float64, whose reference is float64 too


class Case(NamedTuple):
    """One operation with its gradients."""

    letters: str  # of the sizes
    shapes: Callable[..., dict[str, Any]]  # sizes -> name: shape of normal numbers, or (shape, below) of integers
    compiled: Callable[..., Arrays]
    reference: Callable[..., Arrays]

    def draw(self, sizes: tuple[int, ...], dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
        """Inputs of `dtype` for the given sizes; weights are scaled so that sums stay near 1."""
        rng, inputs = np.random.default_rng(seed), {}
        for name, shape in self.shapes(*sizes).items():
            if shape and isinstance(shape[0], tuple):
                inputs[name] = rng.integers(0, shape[1], shape[0])
            else:
                scale = max(shape[-1], 1) ** -0.5 if name.lower().startswith(("w", "per_unit")) else 1.0
                inputs[name] = (scale * rng.standard_normal(shape)).astype(dtype)
        return inputs


def wide(inputs: Arrays) -> dict[str, np.ndarray]:
    """The inputs in float64."""
    return {name: value if value.dtype.kind in "iu" else value.astype(np.float64) for name, value in inputs.items()}


def check(case: Case, sizes: tuple[int, ...], dtype: str, seed: int = 0, **options: Any) -> dict[str, float]:
    """The compiled operation against its reference; returns each output's error, as a part of what it may be.

    options: arguments of both that are not drawn.
    """
    inputs, reference = case.draw(sizes, dtype, seed), partial(case.reference, **options)
    before = {name: value.copy() for name, value in inputs.items()}
    got = case.compiled(**inputs, **options)
    for name, value in inputs.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was written to")
    expected = reference(**wide(inputs))
    if dtype == "float64":
        budget = dict.fromkeys(expected, TOLERANCE)
    else:
        budget = rounding_budget(reference, wide(inputs), np.dtype(dtype), seed=seed)
    assert got.keys() == expected.keys()
    for name in got:
        assert np.ndim(got[name]) == 0 or got[name].dtype == dtype, name
        assert_close({name: got[name]}, {name: expected[name]}, budget[name])
    return {name: float(relative_error(got[name], expected[name]) / budget[name]) for name in got}


def fused() -> bool:
    """Whether a multiply-add of this target rounds once."""
    a, b, c0 = np.array([[1 + 2.0**-52]]), np.array([[1 - 2.0**-52]]), np.array([-1.0])
    return functional.linear(a, b, c0)[0][0, 0] != 0


def _recurrent_shapes(cell, source, T, B, I, H, V=0):
    inputs = {
        "x": {"x": (T, B, I)},
        "tokens": {"x": ((T, B), I)},
        "table": {"x": ((T, B), V), "w_table": (V, I)},
    }[source]
    states, dy = cell.states(B, H), (T, B, cell.outputs(H))
    d_final = {f"d_{name}": shape for name, shape in states.items()}
    return inputs | states | cell.weights(I, H) | {"dy": dy} | d_final


def take(inputs: dict[str, Any], form: str, *names: str) -> tuple[Any, ...]:
    """The inputs that are called so, put into the form, out of `inputs`; those that are not there are left out."""
    return tuple(inputs.pop(form.format(name)) for name in names if form.format(name) in inputs)


def steps_of(
    T: int, B: int, lengths: Sequence[int] | None = None, reverse: bool = False
) -> tuple[ragged.Steps, np.ndarray]:
    """The steps of B sequences, and where (T, B) they have rows."""
    if lengths is None:
        return ragged.dense(T, B, reverse), np.full((T, B), True)
    lengths = np.asarray(lengths, np.int64)
    return ragged.ragged(lengths, reverse), np.arange(T)[:, None] < lengths


def recurrent(cell, x, dy, w_table=None, lengths=None, reverse=False, limit=np.inf, **arrays):
    """functional.recurrent, its pullback and activations, by name, with zeros beyond the lengths (B,), which descend.

    x (T, B, I), or tokens (T, B); dy (T, B, P), or None.
    """
    (T, B), dtype = x.shape[:2], arrays["W_hh"].dtype
    initial, d_final = (take(arrays, form, *cell.kind.states) for form in ("{}", "d_{}"))
    weights, steps, present = Weights(**arrays), *steps_of(T, B, lengths, reverse)
    N, P = np.count_nonzero(present), initial[0].shape[1]
    buffer = np.full((N + 2 * B, P), np.nan, dtype)
    final, pullback, activations = functional.recurrent(
        cell.tag, x[present], initial, weights, steps, buffer, table=w_table
    )
    gradients = Weights(*(w if w is None else np.full_like(w, np.nan) for w in weights))
    d_table = None if w_table is None else np.full_like(w_table, np.nan)
    d_hs = np.full((N, P), np.nan, dtype)
    dx, d_initial = pullback(None if dy is None else dy[present], d_final, gradients, d_table, limit, d_hs)
    result = {}
    kept = {f"kept {name}": rows for name, rows in activations().items()} | {"d_hs": d_hs}
    for name, rows in {"y": buffer[B : B + N], "dx": dx, **kept}.items():
        if rows is not None:
            result[name] = np.zeros((T, B, rows.shape[1]), rows.dtype)
            result[name][present] = rows
    return result | _named(cell, final, d_initial, gradients, d_table)


def _named(cell, final, d_initial, gradients, d_table):
    """What has no rows, by name."""
    result = {f"final {name}": state for name, state in zip(cell.kind.states, final, strict=True)}
    result |= {f"d_{name}": state for name, state in zip(cell.kind.states, d_initial, strict=True)}
    result |= {f"d_{name}": gradient for name, gradient in gradients._asdict().items() if gradient is not None}
    return result if d_table is None else result | {"d_table": d_table}


def reference_recurrent(cell, x, dy, w_table=None, lengths=None, reverse=False, limit=np.inf, **arrays):
    """The same from the reference, with tokens as one-hot rows."""
    tokens = x if x.dtype.kind == "i" else None
    if tokens is not None:
        x = (np.eye(arrays["W_ih"].shape[1]) if w_table is None else w_table)[tokens]
    initial, d_final = (take(arrays, form, *cell.kind.states) for form in ("{}", "d_{}"))
    weights = cell.reference(**arrays)
    lengths = None if lengths is None else np.asarray(lengths, np.int64)
    y, final, steps = reference_sequence.sequence_forward(weights, x, initial, lengths, reverse)
    d_hs = np.zeros(y.shape, np.result_type(y, dy))
    dx, d_initial, gradients = reference_sequence.sequence_backward(weights, x, steps, dy, d_final, limit, d_hs)
    d_table = None if w_table is None else embedding.scatter_add(tokens, dx, len(w_table))
    result = {"y": y, "d_hs": d_hs} | ({"dx": dx} if tokens is None else {})
    S = len(cell.kind.states)
    kept = [f"kept {name}" for name in (*cell.kept[S:], *cell.kind.states[1:])]
    result |= {name: np.zeros((*x.shape[:2], len(arrays["W_hh"]) // len(cell.kind.gates))) for name in kept}
    for step in steps:
        for name, rows in zip(kept, (*step.saved, *step.state[1:]), strict=True):
            result[name][step.t, step.rows] = rows
    return result | _named(cell, final, d_initial, gradients, d_table)


def by_name(names: Iterable[str], argument: str = "name") -> Any:
    """A test of each case, or cell; those with a trait that another case has, too, in the exhaustive run only."""
    import pytest

    rare = {"lstm_projected", "lstm_peepholes"}  # lstm_all has both
    marked = [pytest.param(name, marks=pytest.mark.exhaustive) if rare & {*name.split()} else name for name in names]
    return pytest.mark.parametrize(argument, marked)


def _recurrent_case(cell, source):
    return Case(
        "T, B, I, H" + ", V" * (source == "table"),
        partial(_recurrent_shapes, cell, source),
        partial(recurrent, cell),
        partial(reference_recurrent, cell),
    )


@Kernel
def _multiply(work, a, b, c0, c, shape, threads):
    """matmul.multiply of matrices whose data are arrays."""
    left, right = Matrix(pointer(a.data), a.row, a.column), Matrix(pointer(b.data), b.row, b.column)
    start, target = Rows(pointer(c0.data), c0.row), Rows(pointer(c.data), c.row)
    multiply(left, right, start, target, shape, pointer(work), threads)


def product(a, b, c0, count=1, c=None):
    """A product of arrays that are laid out in any way, on `count` threads; C goes to c, all NaN by default."""
    shape, lanes, dtype = Shape(len(a), b.shape[1], len(b)), lanes_of(a.itemsize), a.dtype
    c = np.full((shape.M, shape.N), np.nan, dtype) if c is None else c
    work = np.full(room_size(product_room(shape, lanes, count), lanes), np.nan, dtype)

    def flat(array):
        """The memory from the first element on, and the strides in elements."""
        strides = [stride // array.itemsize for stride in array.strides]
        size = sum((n - 1) * stride for n, stride in zip(array.shape, strides, strict=True)) + 1 if array.size else 0
        return np.lib.stride_tricks.as_strided(array, (size,), (array.itemsize,)), *strides

    left, right, start, target = Matrix(*flat(a)), Matrix(*flat(b)), Rows(*flat(c0)[:2]), Rows(*flat(c)[:2])
    _multiply(work=work, a=left, b=right, c0=start, c=target, shape=shape, threads=count)
    return c


def _linear(x, weight, bias, dy):
    y, pullback = functional.linear(x, weight, bias)
    d_weight, d_bias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    return {"y": y, "dx": pullback(dy, d_weight, d_bias), "d_weight": d_weight, "d_bias": d_bias}


def _reference_linear(x, weight, bias, dy):
    return {
        "y": reference_matmul.product(x, weight.T, bias),
        "dx": reference_matmul.product(dy, weight),
        "d_weight": reference_matmul.product(dy.T, x),
        "d_bias": reference_matmul.column_sums(dy),
    }


def _embedding(tokens, weight, dy):
    y, pullback = functional.embedding(tokens, weight)
    d_weight = np.full_like(weight, np.nan)
    pullback(dy, d_weight)
    return {"y": y, "d_weight": d_weight}


def _reference_embedding(tokens, weight, dy):
    return {"y": embedding.gather(weight, tokens), "d_weight": embedding.scatter_add(tokens, dy, len(weight))}


def _cross_entropy(logits, targets):
    value, pullback = functional.cross_entropy(logits, targets)
    return {"loss": value, "d_logits": pullback(1.0)}


def _reference_cross_entropy(logits, targets):
    return dict(zip(("loss", "d_logits"), loss.softmax_cross_entropy(logits, targets), strict=True))


def _linear_cross_entropy(x, weight, bias, targets):
    d_weight, d_bias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    value, dx = functional.linear_cross_entropy(x, weight, bias, targets, (d_weight, d_bias))
    assert functional.linear_cross_entropy(x, weight, bias, targets) == (value, None)
    return {"loss": value, "dx": dx, "d_weight": d_weight, "d_bias": d_bias}


def _reference_linear_cross_entropy(x, weight, bias, targets):
    value, (dx, d_weight, d_bias) = loss.linear_cross_entropy(x, weight, bias, targets)
    return {"loss": value, "dx": dx, "d_weight": d_weight, "d_bias": d_bias}


def _time_delay(x, weight, bias, dy, lengths=None, shifts=None):
    """functional.time_delay and its pullback by name, with zeros beyond the lengths (B,), which descend."""
    steps, present = steps_of(*x.shape[:2], lengths)
    y, pullback = functional.time_delay(x[present], weight, bias, steps, _centred(weight, shifts))
    d_weight, d_bias = np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    result = {"y": np.zeros_like(dy), "dx": np.zeros_like(x), "d_weight": d_weight, "d_bias": d_bias}
    result["y"][present], result["dx"][present] = y, pullback(dy[present], d_weight, d_bias)
    return result


def _reference_time_delay(x, weight, bias, dy, lengths=None, shifts=None):
    T, B = x.shape[:2]
    lengths, shifts = np.full(B, T) if lengths is None else np.array(lengths), _centred(weight, shifts)
    y = reference_time_delay.time_delay_forward(x, weight, bias, lengths, shifts)
    gradients = reference_time_delay.time_delay_backward(x, weight, dy, lengths, shifts)
    return {"y": y} | dict(zip(("dx", "d_weight", "d_bias"), gradients, strict=True))


def _centred(weight, shifts):
    taps = weight.shape[2]
    return np.arange(taps) - (taps - 1) // 2 if shifts is None else np.array(shifts)


def _update(Optimizer, options, parameters, grads):
    """The parameters and the optimiser's state after a step for each row of grads; SGD has one with momentum only."""
    p, g = (Parameters({"p": parameters.shape}, parameters.dtype) for _ in range(2))
    p["p"] = parameters
    optimizer = Optimizer(p, **options)
    for row in grads:
        g["p"] = row
        optimizer.step(g)
    state = optimizer.state_dict()
    return {"parameters": p.flat.copy(), **{name: state[name] for name in _moments(Optimizer, options)}}


def _moments(Optimizer, options):
    return () if Optimizer is optim.SGD and "momentum" not in options else Optimizer.moments


def _reference_update(function, Optimizer, options, parameters, grads):
    state = [np.zeros_like(parameters) for _ in Optimizer.moments]
    for step, row in enumerate(grads, 1):
        steps = (step,) if len(state) == 2 else ()
        parameters, *state = function(parameters, row, *state, *steps, **options)
    return {"parameters": parameters, **dict(zip(_moments(Optimizer, options), state, strict=False))}


def _update_case(Optimizer, function, **options):
    return Case(
        "n, steps",
        lambda n, steps: {"parameters": (n,), "grads": (steps, n)},
        partial(_update, Optimizer, options),
        partial(_reference_update, function, Optimizer, options),
    )


# Tokens look up the inputs' part, which no cell has a say in but for its biases and its gradients' columns.
SOURCES = {"x": tuple(CELLS), "tokens": ("tanh", "gru", "lstm_all"), "table": ("tanh", "gru", "gru_reset_before")}

RECURRENT = {
    f"recurrent {cell} {source}": _recurrent_case(CELLS[cell], source) for source in SOURCES for cell in SOURCES[source]
}

LINEAR = Case(
    "N, I, O",
    lambda N, I, O: {"x": (N, I), "weight": (O, I), "bias": (O,), "dy": (N, O)},
    _linear,
    _reference_linear,
)

EMBEDDING = Case(
    "N, V, D",
    lambda N, V, D: {"tokens": ((N,), V), "weight": (V, D), "dy": (N, D)},
    _embedding,
    _reference_embedding,
)

CROSS_ENTROPY = Case(
    "N, V",
    lambda N, V: {"logits": (N, V), "targets": ((N,), V)},
    _cross_entropy,
    _reference_cross_entropy,
)

LINEAR_CROSS_ENTROPY = Case(
    "N, H, V",
    lambda N, H, V: {"x": (N, H), "weight": (V, H), "bias": (V,), "targets": ((N,), V)},
    _linear_cross_entropy,
    _reference_linear_cross_entropy,
)

TIME_DELAY = Case(
    "T, B, I, O, k",
    lambda T, B, I, O, k: {"x": (T, B, I), "weight": (O, I, k), "bias": (O,), "dy": (T, B, O)},
    _time_delay,
    _reference_time_delay,
)

# The powers of these betas are exact, whatever computes them.
UPDATES = {
    "SGD": _update_case(optim.SGD, update.sgd, lr=0.1),
    "SGD momentum": _update_case(optim.SGD, update.sgd, lr=0.1, momentum=0.9, weight_decay=0.2),
    "SGD Nesterov": _update_case(optim.SGD, update.sgd, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
    "Adagrad": _update_case(optim.Adagrad, update.adagrad, lr=0.1, eps=0.01),
    "RMSprop": _update_case(optim.RMSprop, update.rmsprop, lr=0.1, alpha=0.9, eps=0.01),
    "Adam": _update_case(optim.Adam, update.adam, lr=0.1, betas=(0.75, 0.875), eps=0.01, weight_decay=0.2),
    "AdamW": _update_case(optim.AdamW, update.adamw, lr=0.1, betas=(0.75, 0.875), eps=0.01, weight_decay=0.2),
}

CASES = {
    **RECURRENT,
    "linear": LINEAR,
    "embedding": EMBEDDING,
    "cross_entropy": CROSS_ENTROPY,
    "linear_cross_entropy": LINEAR_CROSS_ENTROPY,
    "time_delay": TIME_DELAY,
    **UPDATES,
}
