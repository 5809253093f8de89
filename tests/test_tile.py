"""Every shape of the register tile, for exact sums, for one chain of multiply-adds an element, and at its edges."""

import numpy as np
import pytest
from cases import DTYPES, fused
from numerics import fma32

from fastrnn.kernels import tile
from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.pack import panel_size
from fastrnn.kernels.pointers import pointer
from fastrnn.kernels.target import lanes_of
from fastrnn.reference import matmul as reference

K_SIZES = (0, 1, 2, 3, 16, 33)

pytestmark = pytest.mark.parametrize("dtype", DTYPES)


@Kernel
def run(p, panel, a, a_row, a_k, c0, c0_row, c, c_row, rows, vectors, K, tail):
    """One tile over whole arrays."""
    tile.tile(
        rows, vectors, K, pointer(a), a_row, a_k, pointer(p), panel, pointer(c0), c0_row, pointer(c), c_row, tail
    )  # fmt: skip


def width_of(dtype):
    return lanes_of(np.dtype(dtype).itemsize)


def panels(b, size):
    """b (K, N) in panels `size` elements apart, NaN between them."""
    K, N = b.shape
    width = width_of(b.dtype)
    packed = np.full((N // width, size), np.nan, b.dtype)
    packed[:, : K * width] = b.reshape(K, N // width, width).swapaxes(0, 1).reshape(N // width, K * width)
    return packed.reshape(-1)


def operands(dtype, rows, vectors, K, integers, seed=0):
    """A (rows, K), B (K, N) and C0 (rows, N)."""
    rng = np.random.default_rng((rows, vectors, K, seed))
    N = vectors * width_of(dtype)
    shapes = (rows, K), (K, N), (rows, N)
    return [rng.integers(-8, 9, s).astype(dtype) if integers else rng.standard_normal(s).astype(dtype) for s in shapes]


def compute(a, b, c0, tail, a_transposed=False, alias=False, bias=False, c_extra=3):
    """C of a tile, in rows with room behind them that must stay as it is."""
    rows, K = a.shape
    width, N = width_of(a.dtype), b.shape[1]
    columns = N - width + tail
    size = panel_size(K, width)
    c = np.full((rows, N + c_extra), np.nan, a.dtype)
    start, start_row = c0[:, :columns].copy(), columns
    if bias:
        start, start_row = c0[0, :columns].copy(), 0
    if alias:
        c[:, :columns] = c0[0, :columns] if bias else c0[:, :columns]
        start, start_row = c, c.shape[1]
    a, strides = (np.ascontiguousarray(a.T), (1, rows)) if a_transposed else (a, (K, 1))
    run(
        p=panels(b, size), panel=size, a=a.reshape(-1), a_row=strides[0], a_k=strides[1], c0=start.reshape(-1),
        c0_row=start_row, c=c.reshape(-1), c_row=c.shape[1], rows=rows, vectors=N // width, K=K, tail=tail,
    )  # fmt: skip
    assert np.isnan(c[:, columns:]).all()
    return c[:, :columns]


def test_every_shape_is_exact(dtype):
    """Sums of small integers have no rounding: equal to the bit, whatever the strides, the tail, and C0's place."""
    width = width_of(dtype)
    for rows, vectors in tile.shapes():
        for K in K_SIZES:
            a, b, c0 = operands(dtype, rows, vectors, K, integers=True)
            tail = 1 + (rows + 5 * vectors + K) % width
            for option in ({}, {"a_transposed": True}, {"alias": True}, {"bias": True}):
                start = c0[:1].repeat(rows, 0) if option.get("bias") else c0
                expected = reference.product(a, b, start)[:, : c0.shape[1] - width + tail]
                np.testing.assert_array_equal(compute(a, b, c0, tail, **option), expected, err_msg=f"{rows}x{vectors}")


def test_every_tail(dtype):
    width = width_of(dtype)
    for rows, vectors in ((1, 1), (2, tile.widest(2))):
        a, b, c0 = operands(dtype, rows, vectors, 5, integers=True)
        for tail in range(1, width + 1):
            expected = reference.product(a, b, c0)[:, : c0.shape[1] - width + tail]
            np.testing.assert_array_equal(compute(a, b, c0, tail), expected)


def test_every_element_is_one_chain(dtype):
    """Bits are those of c0 + a0 b0, + a1 b1, ..., for every shape; so they don't depend on the shape."""
    eps, width = np.finfo(dtype).eps, width_of(dtype)
    for rows, vectors in tile.shapes():
        for K in (1, 2, 3, 33):
            a, b, c0 = operands(dtype, rows, vectors, K, integers=False)
            got = compute(a, b, c0, width)
            if dtype == "float32":
                chain = c0
                for k in range(K):
                    left, right = np.broadcast_arrays(a[:, k, None], b[k])
                    chain = fma32(left, right, chain) if fused() else left * right + chain
                np.testing.assert_array_equal(got, chain)
            exact = reference.product(a.astype(np.longdouble), b.astype(np.longdouble), c0.astype(np.longdouble))
            bound = K * eps / 2 / (1 - K * eps / 2) * (np.abs(c0) + np.abs(a) @ np.abs(b))
            assert (np.abs(got - exact) <= (1 if fused() else 2) * bound).all()
            last = compute(a[-1:], b[:, -width:], c0[-1:, -width:], width)
            np.testing.assert_array_equal(last, got[-1:, -width:])


def test_memory_beyond_the_operands_is_not_touched(dtype, fenced):
    """All arrays end, or begin, at the edge of readable memory; the panel's last row does too."""
    width = width_of(dtype)

    def edged(array, at_end):
        copy = fenced(array.size, dtype, at_end)
        copy[:] = array.reshape(-1)
        return copy

    for rows, vectors in ((1, 1), (3, 2), (tile.TARGET.max_rows, 1), (1, tile.widest(1))):
        for K, tail in ((0, 1), (1, width), (7, width - 1), (7, 1)):
            a, b, c0 = operands(dtype, rows, vectors, K, integers=True)
            columns = c0.shape[1] - width + tail
            expected = reference.product(a, b, c0)[:, :columns]
            for at_end in (True, False):
                c = edged(np.full((rows, columns), np.nan), at_end)
                p, a_edged, start = (edged(each, at_end) for each in (panels(b, K * width), a, c0[:, :columns]))
                run(
                    p=p, panel=K * width, a=a_edged, a_row=K, a_k=1, c0=start, c0_row=columns, c=c, c_row=columns,
                    rows=rows, vectors=vectors, K=K, tail=tail,
                )  # fmt: skip
                np.testing.assert_array_equal(c.reshape(rows, columns), expected)


def test_every_alignment(dtype):
    """Operands at every element of a cache line and, as arrays of another type, at odd bytes."""
    size, width = np.dtype(dtype).itemsize, width_of(dtype)
    a, b, c0 = operands(dtype, 2, 2, 9, integers=True)
    expected = reference.product(a, b, c0)
    for offset in [*range(0, 64, size), 1, 3]:
        arrays = []
        for array in (panels(b, 9 * width), a, c0, np.zeros_like(c0)):
            memory = np.zeros(array.nbytes + 128, np.uint8)
            start = -memory.ctypes.data % 64 + offset
            view = memory[start : start + array.nbytes].view(dtype)
            view[:] = array.reshape(-1)
            arrays.append(view)
        p, a_moved, c0_moved, c = arrays
        run(
            p=p, panel=9 * width, a=a_moved, a_row=9, a_k=1, c0=c0_moved, c0_row=2 * width, c=c, c_row=2 * width,
            rows=2, vectors=2, K=9, tail=width,
        )  # fmt: skip
        np.testing.assert_array_equal(c.reshape(expected.shape), expected)


def test_not_a_number_stays_in_its_row_and_column(dtype):
    a, b, c0 = operands(dtype, 4, 1, 5, integers=True)
    clean = compute(a, b, c0, width_of(dtype))
    a[1, 2], b[3, 4], c0[0, 0] = np.nan, np.inf, -np.inf
    got = compute(a, b, c0, width_of(dtype))
    touched = np.zeros_like(got, bool)
    touched[1], touched[:, 4], touched[0, 0] = True, True, True
    np.testing.assert_array_equal(got[~touched], clean[~touched])
    assert not np.isfinite(got[touched]).any()
