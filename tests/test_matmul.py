"""Whole products and column sums against NumPy: exact for integers, and to the bit for any way of cutting them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from cases import DTYPES, LINEAR, check, product
from numerics import relative_error

from fastrnn import functional, threads
from fastrnn.kernels import matmul
from fastrnn.kernels.target import lanes_of
from fastrnn.reference import matmul as reference

SIZES = (0, 1, 2, 15, 16, 17, 31, 33, 64, 65, 97, 129)
KINDS = ("nn", "nt", "tn")
BLOCK = matmul.K_BLOCK


def operand(shape, dtype, transposed, seed, integers=True, gap=0):
    """A matrix, laid out by columns if transposed, with `gap` elements between rows."""
    rng = np.random.default_rng((*shape, seed))
    rows, columns = reversed(shape) if transposed else shape
    memory = np.full((rows, columns + gap), np.nan, dtype)
    matrix = memory[:, :columns]
    matrix[...] = rng.integers(-4, 5, matrix.shape) if integers else rng.standard_normal(matrix.shape)
    return matrix.T if transposed else matrix


def operands(M, N, K, dtype, kind, **options):
    a = operand((M, K), dtype, kind[0] == "t", 1, **options)
    b = operand((K, N), dtype, kind[1] == "t", 2, **options)
    return a, b, operand((1, N), dtype, False, 3, integers=options.get("integers", True))


def rows_of(row, M):
    """M rows that are one row of memory."""
    return np.lib.stride_tricks.as_strided(row, (M, row.shape[1]), (0, row.itemsize))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "draws"), [(1, 400), (2, 40)])
def test_products_are_exact(dtype, kind, count, draws):
    """Sums of small integers have no rounding; workspace and result start as NaN."""
    for M, N, K in np.random.default_rng(0).choice(SIZES, (draws, 3)).tolist():
        a, b, bias = operands(M, N, K, dtype, kind)
        got = product(a, b, rows_of(bias, M), count)
        np.testing.assert_array_equal(got, reference.product(a, b, bias), err_msg=f"M {M}, N {N}, K {K}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_blocks_of_the_sum(dtype, kind, K):
    """Wide enough that K is cut into blocks of K_BLOCK."""
    N = matmul.B_BLOCK // BLOCK
    assert matmul.k_block(10 * BLOCK, N) == BLOCK
    for M, columns in ((1, N), (37, N + 3)):
        a, b, bias = operands(M, columns, K, dtype, kind)
        np.testing.assert_array_equal(product(a, b, rows_of(bias, M), 2), reference.product(a, b, bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_rows(dtype, kind):
    for M in (matmul.ROW_BLOCK - 1, matmul.ROW_BLOCK, 2 * matmul.ROW_BLOCK + 1):
        a, b, bias = operands(M, 18, 5, dtype, kind)
        np.testing.assert_array_equal(product(a, b, rows_of(bias, M)), reference.product(a, b, bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1024, 2048])
def test_crowded_strides(dtype, kind, stride):
    """Rows a multiple of 4 KiB apart take the way through a copy."""
    for M, N, K in ((5, 17, 33), (100, 7, 1000)):
        a = operand((M, K), dtype, kind[0] == "t", 1, gap=stride - (M if kind[0] == "t" else K))
        b = operand((K, N), dtype, kind[1] == "t", 2, gap=stride - (K if kind[1] == "t" else N))
        c0, c = (np.full((M, stride), np.nan, dtype) for _ in range(2))
        c0[:, :N] = 3
        got = product(a, b, c0[:, :N], 2, c[:, :N])
        np.testing.assert_array_equal(got, reference.product(a, b, c0[:, :N]))
        assert np.isnan(c[:, N:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_adding_to_the_result(dtype):
    for M, N, K in ((3, 5, 0), (17, 33, 20), (40, 520, BLOCK + 5)):
        a, b, _ = operands(M, N, K, dtype, "nn")
        c = operand((M, N), dtype, False, 3)
        expected = reference.product(a, b, c)
        np.testing.assert_array_equal(product(a, b, c, 1, c), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads_or_neighbours(dtype, kind):
    for M, N, K in ((1, 40, 50), (37, 70, 50), (130, 33, BLOCK + 9), (20, 515, BLOCK + 9)):
        a, b, bias = operands(M, N, K, dtype, kind, integers=False)
        whole = product(a, b, rows_of(bias, M))
        for count in (2, 3, 5):
            np.testing.assert_array_equal(product(a, b, rows_of(bias, M), count), whole)
        i, j = M // 2, N // 3
        part = product(a[i:], b[:, j:], rows_of(bias[:, j:], M - i))
        np.testing.assert_array_equal(part, whole[i:, j:])


@pytest.mark.parametrize("dtype", DTYPES)
@hypothesis.given(
    M=st.integers(0, 140), N=st.integers(0, 140), K=st.integers(0, 140), kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32), gap=st.integers(0, 3), count=st.integers(1, 4),
)  # fmt: skip
@hypothesis.settings(max_examples=100)
def test_errors_are_bounded(dtype, M, N, K, kind, seed, gap, count):
    """|error| <= gamma_K (|c0| + |A||B|): the bound of any order of summation, one rounding a term."""
    rng = np.random.default_rng(seed)
    a, b, bias = operands(M, N, K, dtype, kind, integers=False, gap=gap)
    a *= np.exp(rng.standard_normal(a.shape))
    got = product(a, b, rows_of(bias, M), count)
    exact = reference.product(a.astype(np.longdouble), b.astype(np.longdouble), bias.astype(np.longdouble))
    unit = 2 * K * np.finfo(dtype).eps / 2
    bound = unit / (1 - unit) * (np.abs(bias).astype(np.longdouble) + np.abs(a).astype(np.longdouble) @ np.abs(b))
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(5, 3, 2), (1, 1, 1), (40, 33, 65), (0, 3, 2), (3, 0, 2), (3, 2, 0)], ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_linear(dtype, size, count, monkeypatch):
    monkeypatch.setattr(threads, "for_work", lambda flops: count)
    monkeypatch.setattr(threads, "for_bytes", lambda size: count)
    check(LINEAR, size, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (1, 1), (7, 15), (40, 16), (100, 17), (33, 65)], ids=str)
def test_column_sums(dtype, size):
    M, N = size
    lanes = lanes_of(np.dtype(dtype).itemsize)
    a = np.random.default_rng(0).standard_normal(size).astype(dtype)
    expected = np.zeros(N, dtype)
    for row in a:
        expected = expected + row
    before = np.arange(N).astype(dtype)
    expected_on_top = before.copy()
    for row in a:
        expected_on_top = expected_on_top + row
    for count in (1, 2, 5):
        total, on_top = np.full(N + lanes, np.nan, dtype), np.full(N + lanes, np.nan, dtype)
        on_top[:N] = before
        for target, add in ((total, False), (on_top, True)):
            matmul.column_sums(a=a.reshape(-1), rows=M, columns=N, total=target, add=add, threads=count)
        np.testing.assert_array_equal(total[:N], expected)
        np.testing.assert_array_equal(on_top[:N], expected_on_top)
        assert np.isnan(total[N:]).all()
        assert np.isnan(on_top[N:]).all()
    assert relative_error(total[:N], reference.column_sums(a)) < 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_with_nan_spoils_only_itself(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((9, 21)).astype(dtype), rng.standard_normal((5, 21)).astype(dtype)
    clean, _ = functional.linear(x, weight, None)
    x[4, 2] = np.nan
    got, _ = functional.linear(x, weight, None)
    clean[4] = np.nan
    np.testing.assert_array_equal(got, clean)
