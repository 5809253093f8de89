"""Forward and backward of one step of each cell, as functions of vectors, against the reference cells."""

import numpy as np
import pytest
from cases import DTYPES
from cells import CELLS
from numerics import relative_error

from fastrnn.kernels.cells import (
    X_APART_H,
    X_MESSAGE,
    Projected,
    cell_backward,
    cell_forward,
    output_backward,
    output_forward,
    traits,
)
from fastrnn.kernels.cells.shape import hidden, load_gates, load_rest, load_saved, load_states, with_message
from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.pointers import lanes, load, pointer, store, store_many
from fastrnn.reference.cells import cell_backward as reference_backward
from fastrnn.reference.cells import cell_forward as reference_forward

EXTREMES = [0.0, -0.0, 1e4, -1e4, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 30.0, -30.0, 88.0, -88.0, 0.5, -0.5, 1e-5]
# What a unit's h, or message, counts for where a product with it is part of the arithmetic: exact in binary.
WEIGHT, PEEPHOLES = 0.5, (0.25, -0.5, 2.0)

by_cell = pytest.mark.parametrize("name", CELLS)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


@Kernel
def step(z, state, cell, new_state, saved):
    """The first stage: rows of the arrays are the tuples, of n units."""
    width, n = lanes(pointer(z)), state.shape[1]
    for unit in range(0, n, width):
        at = pointer(z) + unit
        before = load_states(cell, pointer(state) + unit, n)
        after, keep = cell_forward(cell, unit, load_gates(cell, at, n, at + hidden(cell) * n), before)
        store_many(pointer(new_state) + unit, n, after)
        store_many(pointer(saved) + unit, n, keep)


@Kernel
def output(z, state, saved, cell, h, more):
    """The second stage."""
    width, n = lanes(pointer(z)), state.shape[1]
    for unit in range(0, n, width):
        keep = load_saved(cell, pointer(saved) + unit, n)
        new_h, more_keep = output_forward(cell, unit, load(pointer(z) + unit), load(pointer(state) + unit), keep)
        store(pointer(h) + unit, new_h)
        store_many(pointer(more) + unit, n, more_keep)


@Kernel
def output_backwards(d_h, state, saved, cell, d_product):
    """The second stage backward."""
    width, n = lanes(pointer(d_h)), state.shape[1]
    for unit in range(0, n, width):
        keep = load_saved(cell, pointer(saved) + unit, n)
        d_z = output_backward(cell, unit, load(pointer(d_h) + unit), load(pointer(state) + unit), keep)
        store(pointer(d_product) + unit, d_z)


@Kernel
def step_backwards(d_state, d_message, new_state, state, saved, cell, dz, d_state_prev):
    """The first stage backward."""
    width, n = lanes(pointer(d_state)), state.shape[1]
    for unit in range(0, n, width):
        d_after = (load(pointer(d_state) + unit),) + load_rest(cell, pointer(d_state) + (n + unit), n)  # noqa: RUF005
        d_columns, d_before = cell_backward(
            cell,
            unit,
            with_message(cell, d_after, pointer(d_message) + unit),
            load_states(cell, pointer(new_state) + unit, n),
            load_states(cell, pointer(state) + unit, n),
            load_saved(cell, pointer(saved) + unit, n),
        )
        store_many(pointer(dz) + unit, n, d_columns)
        store_many(pointer(d_state_prev) + unit, n, d_before)


def compiled(name, x, state, d_state):
    """(new state, dx, d_state_prev) of n units apart; x: (G, n), their inputs; state, d_state: (S, n).

    h_{t-1} reaches only the gate that is made of parts, or of a message, and there with the factor WEIGHT.
    """
    own, n, dtype = CELLS[name], x.shape[1], x.dtype
    cell = own.tag(tuple(np.full(n, p, dtype) for p in PEEPHOLES)) if own.peepholes else own.tag()
    cell = Projected(cell) if own.projected else cell
    shape = traits(cell)

    def empty(rows):
        return np.full((rows, n), np.nan, dtype)

    weight, G, apart = np.array(WEIGHT, dtype), len(shape.gates), shape.fed(X_APART_H)
    front, message_gate = G - apart, shape.fed(X_MESSAGE)
    z = np.concatenate([x[:front], weight * state[:1], x[front:]]) if apart else x
    after, saved, dz, before = empty(len(state)), empty(len(shape.saved)), empty(shape.columns), empty(len(state))
    step(z, state, cell, after, saved)
    message, d_product = after.copy(), empty(1)
    if shape.outputs:
        product = weight * message[:1] + (x[-1:] if message_gate else 0)
        output(product, state, saved, cell, after, saved[-1:] if message_gate else empty(1))
        output_backwards(d_state, state, saved, cell, d_product)
    step_backwards(d_state, weight * d_product, message, state, saved, cell, dz, before)
    if apart:
        before[0] += weight * dz[G]
    return after, dz[:G], before


def expected(name, x, state, d_state):
    """The same from the reference: a cell of one unit, whose pre-activations are its inputs, and n sequences."""
    own, G = CELLS[name], len(x)
    weights = {"W_ih": np.eye(G), "W_hh": np.zeros((G, 1)), "b_ih": np.zeros(G), "b_hh": np.zeros(G)}
    weights["W_hh"][-1] = WEIGHT if own.traits.fed(X_APART_H, X_MESSAGE) else 0
    weights |= {"W_hr": np.full((1, 1), WEIGHT)} if own.projected else {}
    weights |= {"per_unit": np.array(PEEPHOLES)[:, None]} if own.peepholes else {}
    # 0 times another gate's infinity would be NaN; at 1e5 sigmoid and tanh are what they are at infinity
    x = x.astype(np.float64) if G == 1 else np.clip(x.astype(np.float64), -1e5, 1e5)
    cell, x = own.reference(**weights), x.T
    state, d_state = (tuple(rows.astype(np.float64)[..., None]) for rows in (state, d_state))
    new_state, saved = reference_forward(cell, x, state)
    dx, d_before, _ = reference_backward(cell, x, state, new_state, saved, d_state)
    return np.stack(new_state)[..., 0], dx.T, np.stack(d_before)[..., 0]


@by_dtype
@by_cell
def test_random_values(name, dtype):
    shape, rng = CELLS[name].traits, np.random.default_rng(0)
    x, state, d_state = (
        2 * rng.standard_normal((len(rows), 1024)).astype(dtype) for rows in (shape.gates, shape.states, shape.states)
    )
    for got, wanted in zip(compiled(name, x, state, d_state), expected(name, x, state, d_state), strict=True):
        for row, wanted_row in zip(got, wanted, strict=True):
            assert relative_error(row, wanted_row) < 8 * np.finfo(dtype).eps


@by_dtype
@by_cell
def test_extreme_values(name, dtype):
    """Saturated gates have slope 0, not NaN; NaN and infinities are where the mathematics has them, in their lane."""
    shape, rng = CELLS[name].traits, np.random.default_rng(0)
    x = rng.choice(np.array(EXTREMES, dtype), (len(shape.gates), 4096))
    state = rng.choice(np.array([0.0, 1.0, -1.0, 0.375, -30.0], dtype), (len(shape.states), 4096))
    d_state = rng.choice(np.array([1.0, -2.5, 0.0, 1e30], dtype), (len(shape.states), 4096))
    with np.errstate(all="ignore"):
        got, wanted = compiled(name, x, state, d_state), expected(name, x, state, d_state)
    broken = np.isnan(x).any(axis=0)
    assert np.isnan(got[0][0][broken]).all()
    # gradients are sums of cotangents times c, peepholes and the like
    rooms = (1, *[64 * np.maximum(1, np.abs(d_state).max(axis=0).astype(np.float64))[~broken]] * 2)
    for values, wanted_values, room in zip(got, wanted, rooms, strict=True):
        close = np.isclose(
            values[:, ~broken].astype(np.float64), wanted_values[:, ~broken], 8 * np.finfo(dtype).eps,
            8 * np.finfo(dtype).eps * room,
        )  # fmt: skip
        assert close.all()
    if name != "relu":
        saturated = (np.abs(x) >= 1e4) & ~broken
        assert saturated.any()
        np.testing.assert_array_equal(got[1][saturated], 0)


@by_dtype
@pytest.mark.parametrize(("name", "slope"), [("tanh", 1), ("relu", 0)])
def test_slopes_at_0(name, slope, dtype):
    """On both sides of the sign."""
    x = np.resize(np.array([[0.0, -0.0]], dtype), (1, 64))
    _, dx, _ = compiled(name, x, np.zeros_like(x), np.full_like(x, 3))
    np.testing.assert_array_equal(dx, 3 * slope)
