"""Forward and backward of one step of each cell, as functions of vectors, against the reference cells."""

import numpy as np
import pytest
from cases import DTYPES, elman_cell
from numerics import relative_error

from fastrnn.kernels.cells import TRAITS, cell_backward, cell_forward, load_gates, load_saved, load_states
from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.simd import lanes, pointer, store_many
from fastrnn.kernels.target import lanes_of
from fastrnn.reference.cells import cell_backward as reference_backward
from fastrnn.reference.cells import cell_forward as reference_forward

CELLS = ("tanh", "relu")
EXTREMES = [0.0, -0.0, 1e4, -1e4, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 30.0, -30.0, 88.0, -88.0, 0.5, -0.5, 1e-5]

pytestmark = [pytest.mark.parametrize("name", CELLS), pytest.mark.parametrize("dtype", DTYPES)]


@Kernel
def step(z, state, cell, new_state, saved):
    """One vector of units forward; rows of the arrays are the tuples."""
    width = lanes(pointer(z))
    state, keep = cell_forward(cell, 0, load_gates(cell, pointer(z), width), load_states(cell, pointer(state), width))
    store_many(pointer(new_state), width, state)
    store_many(pointer(saved), width, keep)


@Kernel
def step_backward(d_state, state, state_prev, saved, cell, dz, d_state_prev):
    """The same step backward."""
    width = lanes(pointer(d_state))
    d_gates, d_prev = cell_backward(
        cell,
        0,
        load_states(cell, pointer(d_state), width),
        load_states(cell, pointer(state), width),
        load_states(cell, pointer(state_prev), width),
        load_saved(cell, pointer(saved), width),
    )
    store_many(pointer(dz), width, d_gates)
    store_many(pointer(d_state_prev), width, d_prev)


def compiled(name, z, d_h):
    """h, dz and the element-wise part of the gradient of the previous state; z and d_h: one row of units."""
    tag, _ = elman_cell(name)
    _, S, A = TRAITS[tag]
    width, dtype = lanes_of(z.itemsize), z.dtype
    h, dz, d_prev = (np.full(len(z), np.nan, dtype) for _ in range(3))
    cell = tag()
    for i in range(0, len(z), width):
        part = slice(i, i + width)
        kept = np.empty(A * width, dtype)
        step(1, z[part], np.zeros(S * width, dtype), cell, h[part], kept)
        step_backward(1, d_h[part], h[part], np.zeros(S * width, dtype), kept, cell, dz[part], d_prev[part])
    return h, dz, d_prev


def expected(name, z, d_h):
    """The same from the reference: a cell whose pre-activations are its inputs."""
    _, Cell = elman_cell(name)
    z, d_h = z.astype(np.float64), d_h.astype(np.float64)
    cell, state_prev = Cell(np.eye(1), np.zeros((1, 1)), np.zeros(1), np.zeros(1)), (np.zeros((len(z), 1)),)
    state, saved = reference_forward(cell, z[:, None], state_prev)
    dz, d_prev, _ = reference_backward(cell, z[:, None], state_prev, state, saved, (d_h[:, None],))
    return state[0][:, 0], dz[:, 0], d_prev[0][:, 0]


def test_random_values(name, dtype):
    z, d_h = 2 * np.random.default_rng(0).standard_normal((2, 1024)).astype(dtype)
    for got, wanted in zip(compiled(name, z, d_h), expected(name, z, d_h), strict=True):
        assert relative_error(got, wanted) < 4 * np.finfo(dtype).eps


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_extreme_values(name, dtype):
    """Saturated units have slope 0, not NaN; NaN and infinities are where the mathematics has them."""
    z, d_h = (v.reshape(-1).astype(dtype) for v in np.meshgrid(EXTREMES, [1.0, -2.5, 0.0, 1e30]))
    with np.errstate(all="ignore"):
        h, dz, d_prev = compiled(name, z, d_h)
        wanted_h, wanted_dz, wanted_d_prev = (v.astype(dtype) for v in expected(name, z, d_h))
    np.testing.assert_allclose(h, wanted_h, rtol=4 * np.finfo(dtype).eps, atol=0)
    number = ~np.isnan(z)  # relu passes NaN on, and a NaN's slope is the cell's to choose
    np.testing.assert_allclose(dz[number], wanted_dz[number], rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-37)
    np.testing.assert_array_equal(d_prev[number], wanted_d_prev[number])
    saturated = np.abs(z) >= 30
    if name == "tanh":
        np.testing.assert_array_equal(dz[saturated], 0)
        assert np.isnan(dz[np.isnan(z)]).all()
    assert np.isnan(h[np.isnan(z)]).all()


def test_slope_where_relu_ends(name, dtype):
    """At 0 relu has slope 0 on both sides of the sign; tanh has slope 1."""
    z = np.resize(np.array([0.0, -0.0], dtype), 64)
    _, dz, _ = compiled(name, z, np.full(64, 3, dtype))
    np.testing.assert_array_equal(dz, 3 if name == "tanh" else 0)
