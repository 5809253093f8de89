"""Vectors and pointers against NumPy, at every offset and up to the edge of readable memory."""

import math

import numpy as np
import pytest
from cases import DTYPES, fused
from llvmlite import ir
from numba.extending import intrinsic

from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.pointers import (
    address,
    element,
    lanes,
    load,
    load_else,
    load_first,
    load_many,
    load_many_first,
    pointer,
    prefetch,
    prefetch_write,
    set_element,
    store,
    store_first,
    store_many,
    store_many_first,
    transpose,
)
from fastrnn.kernels.simd import bits, fma, horner, select, sqrt, zeros
from fastrnn.kernels.target import lanes_of

COEFFICIENTS = (0.5, -1.5, 2.25, 0.1)
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 0.1, -3.5, 1e30, -1e30, 2.0, 7.0, -0.1]

pytestmark = pytest.mark.parametrize("dtype", DTYPES)


@intrinsic
def at_byte(typingctx, p, offset):
    """The address `offset` bytes after p."""

    def codegen(context, builder, sig, args):
        byte = builder.bitcast(args[0], ir.IntType(8).as_pointer())
        return builder.bitcast(builder.gep(byte, [args[1]]), args[0].type)

    return p(p, offset), codegen


@Kernel
def arithmetic(a, b, c, out):
    """Every operation on the vectors a, b, c: one row of out each."""
    width = lanes(pointer(a))
    x, y, z = load(pointer(a)), load(pointer(b)), load(pointer(c))
    p = pointer(out)
    store_many(
        p,
        width,
        (
            x + y, x - y, x * y, x / y, x + 1.5, 2.5 - x, 3 * x, x / 0.1,
            fma(x, y, z), fma(x, 2.0, 1.0), fma(0.1, y, z), sqrt(x), zeros(x), zeros(p), horner(x, COEFFICIENTS),
        ),
    )  # fmt: skip
    store_many(
        p + 15 * width,
        width,
        (
            select(x < y, x, y), select(x <= y, 1.0, z), select(x > y, x, 0.5), select(x >= 0.0, x, y),
            select(x == y, x, y), select(x > 1.0, x, y), bits(bits(x)),
        ),
    )  # fmt: skip


@Kernel
def integer_arithmetic(a, b, out):
    """Every operation on the integers that a and b are, shown as floats of the same bits."""
    width = lanes(pointer(a))
    x, y = bits(load(pointer(a))), bits(load(pointer(b)))
    store_many(
        pointer(out),
        width,
        (
            bits(x + y), bits(x - y), bits(x * y), bits(x & y), bits(x | y), bits(x ^ y), bits(x << 3), bits(x >> 3),
            bits(x & 255), bits(1 + x), bits(select(x < y, x, y)), bits(select(x >= y, x, y)),
            bits(select(x == y, x, y)),
        ),
    )  # fmt: skip


@Kernel
def move(source, source_byte, target, target_byte, n, other, way):
    """Copy a vector, whole (way 0) or its first n lanes (1, and 2 with the others read as `other`), and two (4, 5)."""
    p, q = at_byte(pointer(source), source_byte), at_byte(pointer(target), target_byte)
    if way == 0:
        store(q, load(p))
    elif way == 1:
        store_first(q, load_first(p, n), n)
    elif way == 2:
        store(q, load_else(p, n, other))
    elif way == 3:
        store(q, load_first(p, n))
    elif way == 4:
        store_many_first(q, n, load_many(p, n, 2), n)
    else:
        store_many(q, lanes(q), load_many_first(p, n, 2, n))


@Kernel
def transpose_block(source, stride, target):
    """target = the transpose of a block whose rows lie `stride` elements apart."""
    transpose(pointer(target), pointer(source), stride)


@Kernel
def single_elements(a, out):
    """The first element of a, doubled, and whether addresses count in bytes; both are prefetched, and beyond."""
    p, q = pointer(a), pointer(out)
    prefetch(p + 1000000000)
    prefetch_write(q + 1000000000)
    set_element(q, 2 * element(p))
    set_element(q + 1, 7)
    set_element(q + 2, address(q + 3) - address(q))


def vectors(dtype, count, seed=0):
    """Rows of normal numbers, as wide as a register."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, lanes_of(np.dtype(dtype).itemsize))).astype(dtype)


def special(dtype):
    """Pairs of special values, cut into registers."""
    values = np.array(SPECIAL, dtype)
    a, b = (v.reshape(-1, lanes_of(values.itemsize)) for v in np.meshgrid(values, values))
    return zip(a, b, strict=True)


def assert_same_bits(got, expected):
    """Equal to the bit, any NaN for a NaN."""
    got, expected = np.broadcast_arrays(got, expected)
    integers = f"i{got.itemsize}"
    same = (got.view(integers) == expected.view(integers)) | (np.isnan(got) & np.isnan(expected))
    assert same.all(), (got[~same], expected[~same])


def test_arithmetic(dtype):
    T = np.dtype(dtype).type
    cases = [vectors(dtype, 2), *special(dtype)]
    for a, b in cases:
        c = np.round(vectors(dtype, 1, seed=1)[0])
        out = np.full((22, a.size), np.nan, dtype)
        arithmetic(a=a, b=b, c=c, out=out.reshape(-1))
        with np.errstate(all="ignore"):
            expected = [
                a + b, a - b, a * b, a / b, a + T(1.5), T(2.5) - a, 3 * a, a / T(0.1),
                None, None, None, np.sqrt(a), 0 * np.ones_like(a), 0 * np.ones_like(a), None,
                np.where(a < b, a, b), np.where(a <= b, T(1), c), np.where(a > b, a, T(0.5)), np.where(a >= 0, a, b),
                np.where(a == b, a, b), np.where(a > 1, a, b), a,
            ]  # fmt: skip
        for row, wanted in zip(out, expected, strict=True):
            if wanted is not None:
                assert_same_bits(row, wanted)


def test_multiply_adds(dtype):
    """Of integers, where they are exact, and of numbers near 1, where a second rounding shows."""
    a, b, c = np.round(8 * vectors(dtype, 3))
    out = np.full((22, a.size), np.nan, dtype)
    arithmetic(a=a, b=b, c=c, out=out.reshape(-1))
    np.testing.assert_array_equal(out[8], a * b + c)
    np.testing.assert_array_equal(out[9], a * 2 + 1)
    polynomial = np.polynomial.polynomial.polyval(a.astype(np.longdouble), COEFFICIENTS)
    np.testing.assert_allclose(out[14].astype(np.longdouble), polynomial, rtol=4 * np.finfo(dtype).eps, atol=0)

    eps = np.finfo(dtype).eps
    a[:], b[:], c[:] = 1 + eps, 1 - eps, -1
    arithmetic(a=a, b=b, c=c, out=out.reshape(-1))
    assert_same_bits(out[8], np.full_like(a, -(eps**2) if fused() else 0))
    b[:], c[:] = 10, -1
    arithmetic(a=a, b=b, c=c, out=out.reshape(-1))
    tenth = np.dtype(dtype).type(0.1)
    exact = float(np.longdouble(tenth) * 10 - 1)
    assert_same_bits(out[10], np.full_like(a, exact if fused() else tenth * 10 - 1))


def test_integer_arithmetic(dtype):
    integers = np.dtype(f"i{np.dtype(dtype).itemsize}")
    rng = np.random.default_rng(0)
    bounds = np.iinfo(integers)
    for _ in range(20):
        x, y = rng.integers(bounds.min, bounds.max, (2, lanes_of(integers.itemsize)), integers, endpoint=True)
        x[0], y[-1] = y[0], bounds.min
        out = np.full((13, x.size), -1, integers)
        integer_arithmetic(a=x.view(dtype), b=y.view(dtype), out=out.reshape(-1).view(dtype))
        with np.errstate(over="ignore"):
            expected = [
                x + y, x - y, x * y, x & y, x | y, x ^ y, x << 3, x >> 3, x & 255, x + 1,
                np.where(x < y, x, y), np.where(x >= y, x, y), np.where(x == y, x, y),
            ]  # fmt: skip
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("way", range(6))
def test_moves_at_every_byte_offset(dtype, way):
    """Two vectors of room, canaries around; 4 and 5 move two vectors, n elements apart, and 5 writes them whole."""
    size = np.dtype(dtype).itemsize
    width = lanes_of(size)
    data = np.random.default_rng(way).standard_normal(4 * width).astype(dtype).view(np.uint8)
    canary = np.random.default_rng(9).integers(0, 256, 4 * width * size, np.uint8)
    for source_byte in range(width * size):
        target_byte = width * size - 1 - source_byte
        for n in range(width + 3) if way else [width]:
            target = canary.copy()
            move(
                source=data.view(dtype), source_byte=source_byte, target=target.view(dtype), target_byte=target_byte,
                n=n, other=-2.5, way=way,
            )  # fmt: skip
            count = min(n, width)
            values = data[source_byte:][: width * size].copy()
            if way >= 2:
                values[count * size :] = np.full(width - count, -2.5 if way == 2 else 0, dtype).view(np.uint8)
            expected = canary.copy()
            if way >= 4:
                for row in range(2):
                    start = row * (n if way == 4 else width) * size
                    moved = data[source_byte + row * n * size :][: count * size]
                    expected[target_byte + start :][: width * size * (way == 5)] = 0
                    expected[target_byte + start :][: count * size] = moved
            else:
                written = count if way == 1 else width
                expected[target_byte:][: written * size] = values[: written * size]
            np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("way", [1, 2, 3, 5])
def test_lanes_beyond_the_count_are_not_touched(dtype, way, fenced):
    width, count = lanes_of(np.dtype(dtype).itemsize), 2 if way == 5 else 1
    for n in range(width + 1):
        source = fenced(count * n, dtype)
        source[:] = np.arange(source.size)
        target = fenced(n if way == 1 else count * width, dtype).reshape(count, -1)
        move(source=source, source_byte=0, target=target.reshape(-1), target_byte=0, n=n, other=9.0, way=way)
        np.testing.assert_array_equal(target[:, :n], source.reshape(count, n))
        np.testing.assert_array_equal(target[:, n:], 9 if way == 2 else 0)


@pytest.mark.parametrize("count", [1 << 31, 1 << 32, (1 << 40) + 1])
@pytest.mark.parametrize("way", [1, 2, 3])
def test_huge_counts_are_whole_vectors(dtype, way, count):
    source = vectors(dtype, 1)[0]
    target = np.zeros_like(source)
    move(source=source, source_byte=0, target=target, target_byte=0, n=count, other=9.0, way=way)
    np.testing.assert_array_equal(target, source)


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_transpose(dtype, extra, fenced):
    width = lanes_of(np.dtype(dtype).itemsize)
    stride = width + extra
    source = fenced((width - 1) * stride + width, dtype)
    source[:] = np.arange(source.size)
    target = fenced(width * width, dtype)
    transpose_block(source=source, stride=stride, target=target)
    block = np.lib.stride_tricks.as_strided(source, (width, width), (stride * source.itemsize, source.itemsize))
    np.testing.assert_array_equal(target.reshape(width, width), block.T)


def test_single_elements(dtype, fenced):
    a, out = fenced(1, dtype), fenced(4, dtype)
    a[0] = math.pi
    single_elements(a=a, out=out)
    np.testing.assert_array_equal(out, [2 * a[0], 7, 3 * a.itemsize, 0])


def test_a_misaligned_array(dtype):
    """Arrays at odd addresses are another type to Numba; they compile and mean the same."""
    width = lanes_of(np.dtype(dtype).itemsize)
    memory = np.zeros((width + 1) * np.dtype(dtype).itemsize, np.uint8)
    a, out = memory[1 : 1 - np.dtype(dtype).itemsize].view(dtype), np.zeros(4, dtype)
    a[0] = 1.25
    single_elements(a=a, out=out)
    assert out[0] == 2.5
