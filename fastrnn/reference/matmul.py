"""Products of matrices. Twin of fastrnn.kernels.matmul."""

import numpy as np


def product(a: np.ndarray, b: np.ndarray, c0: np.ndarray | None = None) -> np.ndarray:
    """C0 + A B for a (M, K), b (K, N) and c0 (M, N), (N,) or None for zeros."""
    return a @ b if c0 is None else c0 + a @ b


def column_sums(a: np.ndarray) -> np.ndarray:
    """The sum of the rows of a (M, N): (N,)."""
    return a.sum(axis=0)
