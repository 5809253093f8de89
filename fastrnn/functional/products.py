"""Products of dense arrays."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import matmul
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import room_size
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch


@lru_cache
def _room_size(M, N, K, lanes, count):
    """Of `count` threads; its sums take longer in Python than a small product."""
    return room_size(matmul.product_room(matmul.Shape(M, N, K), lanes, count), lanes)


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
    dtype = checks.floating("c", c)
    M, N = checks.sizes("c", c, "(M, N)", 0, 0)
    checks.targets(("c",), (c,), dtype, ((M, N),))
    K = checks.sizes("a", a, "(K, M)" if a_transposed else "(M, K)", 0, 0)[0 if a_transposed else 1]
    shapes = (K, M) if a_transposed else (M, K), (N, K) if b_transposed else (K, N), None if c0 is None else (N,)
    a, b, c0 = checks.arrays(("a", "b", "c0"), (a, b, c0), dtype, shapes)
    _product(a, b, c, c0, a_transposed, b_transposed)


def _product(a, b, c, c0=None, a_transposed=False, b_transposed=False):
    M, N = c.shape
    K = a.shape[0] if a_transposed else a.shape[1]
    dtype = c.dtype
    count = threads.for_work(2 * M * N * K * c.itemsize / 4)
    work = scratch(_room_size(M, N, K, lanes_of(c.itemsize), count), dtype)
    c0 = np.zeros(N, dtype) if c0 is None else c0
    matmul.product(a=a, b=b, c0=c0, c=c, a_transposed=a_transposed, b_transposed=b_transposed, work=work, threads=count)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """y (N, O) = x (N, I) weight^T + bias; pullback(dy, d_weight, d_bias or None) writes both and returns dx.

    Raises ValueError: `x: expected shape (50, 9), got (50, 8)`, `d_weight: expected shape (19, 9), got (9, 19)`.
    Cost: 2*N*I*O flop, twice that backward. Reference twin: fastrnn.reference.matmul.product.
    """
    dtype = checks.floating("weight", weight)
    O, I = checks.sizes("weight", weight, "(O, I)", 0, 0)
    N, _ = checks.sizes("x", x, "(N, I)", 0, 0)
    shapes = ((O, I), None if bias is None else (O,))
    x, weight, bias = checks.arrays(("x", "weight", "bias"), (x, weight, bias), dtype, ((N, I), *shapes))
    x = x.view()
    weight = weight.view()  # whose shapes nobody can change before the pullback
    y = empty((N, O), dtype)
    _product(x, weight, y, bias, b_transposed=True)

    def pullback(dy, d_weight, d_bias):
        dy = checks.array("dy", dy, dtype, N, O)
        checks.targets(("d_weight", "d_bias"), (d_weight, d_bias), dtype, shapes)
        dx = empty((N, I), dtype)
        _product(dy, weight, dx)
        _product(dy, x, d_weight, a_transposed=True)
        if d_bias is not None:
            count = threads.for_bytes(dy.nbytes)
            matmul.column_sums(a=dy.reshape(-1), rows=N, columns=O, total=d_bias, add=False, threads=count)
        return dx

    return y, pullback
