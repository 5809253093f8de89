"""Products of dense arrays."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import matmul
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros

_product_work = lru_cache(matmul.product_work)  # whose sums take longer in Python than a small product


def product(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    *,
    c0: np.ndarray | None = None,
    a_transposed: bool = False,
    b_transposed: bool = False,
) -> None:
    """c = c0 + a b (2-D); c0: a row (bias), or None for 0.

    Raises ValueError: `b: expected shape (9, 19), got (8, 19)`.
    Cost: 2*M*N*K flop, and a copy of b. Reference twin: fastrnn.reference.matmul.product.
    """
    dtype, (M, N) = checks.floating("c", c), checks.sizes("c", c, "(M, N)", 0, 0)
    checks.targets(("c",), (c,), dtype, ((M, N),))
    K = checks.sizes("a", a, "(K, M)" if a_transposed else "(M, K)", 0, 0)[0 if a_transposed else 1]
    shapes = (K, M) if a_transposed else (M, K), (N, K) if b_transposed else (K, N), None if c0 is None else (N,)
    a, b, c0 = checks.arrays(("a", "b", "c0"), (a, b, c0), dtype, shapes)
    _product(a, b, c, c0, a_transposed, b_transposed)


def _product(a, b, c, c0=None, a_transposed=False, b_transposed=False):
    (M, N), K, dtype = c.shape, a.shape[0] if a_transposed else a.shape[1], c.dtype
    a_row, a_k = (1, a.shape[1]) if a_transposed else (a.shape[1], 1)
    b_k, b_n = (1, b.shape[1]) if b_transposed else (b.shape[1], 1)
    parts = threads.for_work(2 * M * N * K * c.itemsize / 4)
    work = scratch(_product_work(M, N, K, lanes_of(c.itemsize), parts), dtype)
    c0 = zeros(N, dtype) if c0 is None else c0
    matmul.product(
        parts, a.reshape(-1), a_row, a_k, b.reshape(-1), b_k, b_n, c0, 0, c.reshape(-1), N, M, N, K, work, parts
    )


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """y (N, O) = x (N, I) weight^T + bias; pullback(dy, d_weight, d_bias or None) writes both and returns dx.

    Raises ValueError: `x: expected shape (50, 9), got (50, 8)`, `d_weight: expected shape (19, 9), got (9, 19)`.
    Cost: 2*N*I*O flop, twice that backward. Reference twin: fastrnn.reference.matmul.product.
    """
    dtype, (O, I) = checks.floating("weight", weight), checks.sizes("weight", weight, "(O, I)", 0, 0)
    (N, _), shapes = checks.sizes("x", x, "(N, I)", 0, 0), ((O, I), None if bias is None else (O,))
    x, weight, bias = checks.arrays(("x", "weight", "bias"), (x, weight, bias), dtype, ((N, I), *shapes))
    x, weight = x.view(), weight.view()  # whose shapes nobody can change before the pullback
    y = empty((N, O), dtype)
    _product(x, weight, y, bias, b_transposed=True)

    def pullback(dy, d_weight, d_bias):
        dy = checks.array("dy", dy, dtype, N, O)
        checks.targets(("d_weight", "d_bias"), (d_weight, d_bias), dtype, shapes)
        dx = empty((N, I), dtype)
        _product(dy, weight, dx)
        _product(dy, x, d_weight, a_transposed=True)
        if d_bias is not None:
            parts = threads.for_bytes(dy.nbytes)
            matmul.column_sums(parts, dy.reshape(-1), N, O, d_bias, False, parts)
        return dx

    return y, pullback
