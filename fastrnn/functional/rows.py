"""Rows picked by index."""

from collections.abc import Callable

import numpy as np

from fastrnn import threads
from fastrnn.kernels import embedding as kernels
from fastrnn.memory import aligned_empty as empty


def gather(
    source: np.ndarray,
    index: np.ndarray,
    column: int = 0,
    width: int | None = None,
    out: np.ndarray | None = None,
    out_column: int = 0,
) -> np.ndarray:
    """Rows (n, D) of source (V, W) by index (n,), int64, and rows of 0 where it is negative.

    D = width columns are read from `column` on, all by default, and written to `out` from `out_column` on, or returned.
    Cost: n*D elements copied. Reference twin: fastrnn.reference.embedding.gather.
    """
    D = source.shape[1] if width is None else width
    out = empty((len(index), D), source.dtype) if out is None else out
    parts = threads.for_bytes(2 * len(index) * D * source.itemsize)
    flat, target = source.reshape(-1)[column:], out.reshape(-1)[out_column:]
    kernels.gather(parts, flat, source.shape[1], index, D, target, out.shape[1], parts)
    return out


def embedding(tokens: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Callable[..., None]]:
    """Rows (N, D) of weight (V, D) by tokens (N,), int64; pullback(dy, d_weight) writes d_weight.

    Cost: N*D elements copied. Reference twin: fastrnn.reference.embedding.
    """
    y = gather(weight, tokens)

    def pullback(dy, d_weight):
        parts = threads.for_bytes(2 * dy.nbytes)
        d_weight[...] = 0
        kernels.scatter_add(parts, dy.reshape(-1), tokens, weight.shape[1], d_weight.reshape(-1), parts)

    return y, pullback
