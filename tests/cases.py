"""One registry of operations: how to draw their inputs, what computes them, and the reference that says what is right.

`case.draw(sizes, dtype, seed)` gives named arrays that `case.compiled` and `case.reference` take as arguments; both
return named arrays, gradients included. `check` compares the two.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numerics import Arrays, assert_close, relative_error, rounding_budget

from fastrnn import functional, optim, threads
from fastrnn.kernels import matmul, sequence
from fastrnn.kernels.cells import TRAITS, elman
from fastrnn.kernels.target import lanes_of
from fastrnn.parameters import Parameters
from fastrnn.reference import embedding, loss, update
from fastrnn.reference import matmul as reference_matmul
from fastrnn.reference import sequence as reference_sequence
from fastrnn.reference.cells import elman as reference_elman

DTYPES = ("float32", "float64")
SERIAL = threads.Plan(1, 1, 1)
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
                scale = max(shape[-1], 1) ** -0.5 if name.lower().startswith("w") else 1.0
                inputs[name] = (scale * rng.standard_normal(shape)).astype(dtype)
        return inputs


def wide(inputs: Arrays) -> dict[str, np.ndarray]:
    """The inputs in float64."""
    return {name: value if value.dtype.kind in "iu" else value.astype(np.float64) for name, value in inputs.items()}


def check(case: Case, sizes: tuple[int, ...], dtype: str, seed: int = 0) -> dict[str, float]:
    """The compiled operation against its reference; returns each output's error, as a part of what it may be."""
    inputs = case.draw(sizes, dtype, seed)
    before = {name: value.copy() for name, value in inputs.items()}
    got = case.compiled(**inputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was written to")
    expected = case.reference(**wide(inputs))
    if dtype == "float64":
        budget = dict.fromkeys(expected, TOLERANCE)
    else:
        budget = rounding_budget(case.reference, wide(inputs), np.dtype(dtype), seed=seed)
    assert got.keys() == expected.keys()
    for name in got:
        assert np.ndim(got[name]) == 0 or got[name].dtype == dtype, name
        assert_close({name: got[name]}, {name: expected[name]}, budget[name])
    return {name: float(relative_error(got[name], expected[name]) / budget[name]) for name in got}


def fused() -> bool:
    """Whether a multiply-add of this target rounds once."""
    a, b, c0 = np.array([[1 + 2.0**-52]]), np.array([[1 - 2.0**-52]]), np.array([-1.0])
    return functional.linear(a, b, c0)[0][0, 0] != 0


def elman_cell(case: str) -> tuple[type, type]:
    """The tags, compiled and reference, of a case's name."""
    name = "ElmanRelu" if "relu" in case else "ElmanTanh"
    return getattr(elman, name), getattr(reference_elman, name)


def _recurrent_shapes(source, T, B, I, H, V=0):
    inputs = {
        "x": {"x": (T, B, I)},
        "tokens": {"x": ((T, B), I)},
        "table": {"x": ((T, B), V), "w_table": (V, I)},
    }[source]
    weights = {"W_ih": (H, I), "W_hh": (H, H), "bias": (H,)}
    return inputs | {"initial": (1, B, H)} | weights | {"dy": (T, B, H), "d_final": (1, B, H)}


def recurrent(tag, x, initial, W_ih, W_hh, bias, dy, d_final, w_table=None):
    """functional.recurrent and its pullback."""
    y, final, pullback = functional.recurrent(tag, x, initial, W_ih, W_hh, bias, w_table)
    gradients = {f"d_{n}": np.full_like(w, np.nan) for n, w in {"W_ih": W_ih, "W_hh": W_hh, "bias": bias}.items()}
    if w_table is not None:
        gradients["d_table"] = np.full_like(w_table, np.nan)
    dx, d_initial = pullback(dy, d_final, *gradients.values())
    if dx is not None:
        gradients["dx"] = dx
    return {"y": y, "final": final, "d_initial": d_initial, **gradients}


def reference_recurrent(Cell, x, initial, W_ih, W_hh, bias, dy, d_final, w_table=None, lengths=None):
    """The same from the reference, with tokens as one-hot rows; a sequence may end early."""
    tokens = x if x.dtype.kind == "i" else None
    if tokens is not None:
        x = (np.eye(W_ih.shape[1]) if w_table is None else w_table)[tokens]
    cell = Cell(W_ih, W_hh, bias, np.zeros_like(bias))
    y, final, steps = reference_sequence.sequence_forward(cell, x, tuple(initial), lengths)
    dx, d_initial, d_cell = reference_sequence.sequence_backward(cell, x, steps, dy, tuple(d_final))
    result = {"y": y, "final": np.stack(final), "d_initial": np.stack(d_initial)}
    result |= {"d_W_ih": d_cell.W_ih, "d_W_hh": d_cell.W_hh, "d_bias": d_cell.b_ih}
    if w_table is not None:
        result["d_table"] = embedding.scatter_add(tokens, dx, len(w_table))
    return result if tokens is not None else result | {"dx": dx}


def _recurrent_case(name, source):
    tag, Cell = elman_cell(name)
    return Case(
        "T, B, I, H" + ", V" * (source == "table"),
        partial(_recurrent_shapes, source),
        partial(recurrent, tag),
        partial(reference_recurrent, Cell),
    )


def ragged(tag, x, initial, W_ih, W_hh, bias, dy, d_final, count, plan=SERIAL):
    """The kernels of the time loop on sequences that end early, without the products that follow.

    x (T, B, I) and dy (T, B, H) are dense; step t has the rows 0..count[t]-1. Returns y and dz, 0 where there is no
    row, final and d_initial.
    """
    (T, B, I), H, dtype = x.shape, W_hh.shape[1], x.dtype
    lanes, (G, S, A) = lanes_of(x.itemsize), TRAITS[tag]
    count = np.asarray(count, np.int64)
    present = np.arange(B) < count[:, None]
    first, N = np.cumsum(count) - count, int(count.sum())

    def empty(*shape):
        return np.full(shape, np.nan, dtype)

    full = -(-H // lanes) * lanes
    y, final, d_initial, dz = empty(N, H), empty(S, B, H), empty(S, B, H), empty(N, G * H)
    history, kept, none = empty(N * (S - 1) * full), empty(N * A * full), empty(0)
    W_hh, initial, cut = W_hh.reshape(-1), initial.reshape(-1), (plan.stretch, plan.row_shards, plan.unit_shards)
    sequence.sequence_forward(
        plan.shards, x[present].reshape(-1), np.empty(0, np.int64), none, W_ih.reshape(-1), W_hh, bias, tag(), initial,
        first, count, y.reshape(-1), H, final.reshape(-1), history, kept, B, I, H, *cut,
        empty(sequence.forward_work(B, I, H, 0, G, S, plan.row_shards, plan.unit_shards, lanes)),
    )  # fmt: skip
    sequence.sequence_backward(
        plan.shards, y.reshape(-1), H, W_hh, tag(), initial, first, count, history, kept, dy[present].reshape(-1), H,
        d_final.reshape(-1), d_initial.reshape(-1), dz.reshape(-1), B, H, *cut,
        empty(sequence.backward_work(B, H, G, S, lanes)),
    )  # fmt: skip
    result = {"y": np.zeros((T, B, H), dtype), "dz": np.zeros((T, B, G * H), dtype)}
    result["y"][present], result["dz"][present] = y, dz
    return result | {"final": final, "d_initial": d_initial}


def product(a, b, c0, parts=1, c=None):
    """matmul.product of arrays that are laid out in any way; C goes to c, all NaN by default."""
    (M, K), N, dtype = a.shape, b.shape[1], a.dtype
    c = np.full((M, N), np.nan, dtype) if c is None else c
    work = np.full(matmul.product_work(M, N, K, lanes_of(dtype.itemsize), parts), np.nan, dtype)

    def flat(array):
        """The memory from the first element on, and the strides in elements."""
        strides = [stride // array.itemsize for stride in array.strides]
        size = sum((n - 1) * stride for n, stride in zip(array.shape, strides, strict=True)) + 1 if array.size else 0
        return np.lib.stride_tricks.as_strided(array, (size,), (array.itemsize,)), *strides

    flat_c, c_row, _ = flat(c)
    matmul.product(parts, *flat(a), *flat(b), *flat(c0)[:2], flat_c, c_row, M, N, K, work, parts)
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


RECURRENT = {
    f"recurrent {cell} {source}": _recurrent_case(cell, source)
    for cell in ("tanh", "relu")
    for source in ("x", "tokens", "table")
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

UPDATES = {
    "SGD": _update_case(optim.SGD, update.sgd, lr=0.1),
    "SGD momentum": _update_case(optim.SGD, update.sgd, lr=0.1, momentum=0.9, weight_decay=0.2),
    "SGD Nesterov": _update_case(optim.SGD, update.sgd, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
    "Adagrad": _update_case(optim.Adagrad, update.adagrad, lr=0.1, eps=0.01),
    "RMSprop": _update_case(optim.RMSprop, update.rmsprop, lr=0.1, alpha=0.9, eps=0.01),
    "Adam": _update_case(optim.Adam, update.adam, lr=0.1, betas=(0.8, 0.9), eps=0.01, weight_decay=0.2),
    "AdamW": _update_case(optim.AdamW, update.adamw, lr=0.1, betas=(0.8, 0.9), eps=0.01, weight_decay=0.2),
}

CASES = {
    **RECURRENT,
    "linear": LINEAR,
    "embedding": EMBEDDING,
    "cross_entropy": CROSS_ENTROPY,
    "linear_cross_entropy": LINEAR_CROSS_ENTROPY,
    **UPDATES,
}
