"""Products of dense arrays."""

from collections.abc import Callable

import numpy as np

from fastrnn import threads
from fastrnn.kernels import matmul
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros


def product(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    *,
    c0: np.ndarray | None = None,
    a_transposed: bool = False,
    b_transposed: bool = False,
) -> None:
    """c = c0 + a b (2-D, C-contiguous); c0: a row (bias), or None for 0.

    Cost: 2*M*N*K flop, and a copy of b. Reference twin: fastrnn.reference.matmul.product.
    """
    (M, N), K, dtype = c.shape, a.shape[0] if a_transposed else a.shape[1], c.dtype
    a_row, a_k = (1, a.shape[1]) if a_transposed else (a.shape[1], 1)
    b_k, b_n = (1, b.shape[1]) if b_transposed else (b.shape[1], 1)
    parts = threads.for_work(2 * M * N * K * c.itemsize / 4)
    work = scratch(matmul.product_work(M, N, K, lanes_of(c.itemsize), parts), dtype)
    c0 = zeros(N, dtype) if c0 is None else c0
    matmul.product(
        parts, a.reshape(-1), a_row, a_k, b.reshape(-1), b_k, b_n, c0, 0, c.reshape(-1), N, M, N, K, work, parts
    )


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """y (N, O) = x (N, I) weight^T + bias; pullback(dy, d_weight, d_bias or None) writes both and returns dx.

    Cost: 2*N*I*O flop, twice that backward. Reference twin: fastrnn.reference.matmul.product.
    """
    y = empty((len(x), len(weight)), x.dtype)
    product(x, weight, y, c0=bias, b_transposed=True)

    def pullback(dy, d_weight, d_bias):
        dx = empty(x.shape, x.dtype)
        product(dy, weight, dx)
        product(dy, x, d_weight, a_transposed=True)
        if d_bias is not None:
            parts = threads.for_bytes(dy.nbytes)
            matmul.column_sums(parts, dy.reshape(-1), *dy.shape, d_bias, False, parts)
        return dx

    return y, pullback
