"""Rows picked by index."""

from collections.abc import Callable

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import embedding as kernels
from fastrnn.memory import aligned_empty as empty


def picked(
    source: np.ndarray,
    index: np.ndarray,
    column: int = 0,
    width: int | None = None,
    out: np.ndarray | None = None,
    out_column: int = 0,
) -> np.ndarray:
    """`gather` for indices that are known to fit."""
    D = source.shape[1] if width is None else width
    out = empty((len(index), D), source.dtype) if out is None else out
    kernels.gather(
        source=source.reshape(-1)[column:], source_row=source.shape[1], index=index, D=D,
        out=out.reshape(-1)[out_column:], out_row=out.shape[1],
        threads=threads.for_bytes(2 * len(index) * D * source.itemsize),
    )  # fmt: skip
    return out


def gather(
    source: np.ndarray,
    index: np.ndarray,
    column: int = 0,
    width: int | None = None,
    out: np.ndarray | None = None,
    out_column: int = 0,
) -> np.ndarray:
    """Rows (n, D) of source (V, W) by index (n,), integers below V, and rows of 0 where it is negative.

    D = width columns are read from `column` on, all by default, and written to `out` from `out_column` on, or returned.
    Raises ValueError: `index: expected index < 5, got 5`, `width: expected an integer in 0..40, got 41`.
    Cost: n*D elements copied. Reference twin: fastrnn.reference.embedding.gather.
    """
    dtype = checks.floating("source", source)
    shape = checks.sizes("source", source, "(V, W)", 0, 0)
    source = checks.array("source", source, dtype, *shape)
    index = checks.indices("index", index, shape[0])
    column = checks.integer("column", column, 0, shape[1])
    D = checks.integer("width", shape[1] if width is None else width, 0, shape[1] - column)
    if out is not None:
        columns = checks.sizes("out", out, "(n, columns)", 0, 0)[1]
        checks.targets(("out",), (out,), dtype, ((len(index), columns),))
        checks.integer("out_column", out_column, 0, columns - D)
    return picked(source, index, column, D, out, out_column if out is not None else 0)


def embedding(tokens: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Callable[..., None]]:
    """Rows (N, D) of weight (V, D) by tokens (N,), integers below V; pullback(dy, d_weight) writes d_weight.

    Raises ValueError: `tokens: expected 0 <= token < 65, got 70`, `dy: expected shape (50, 8), got (50, 9)`.
    Cost: N*D elements copied. Reference twin: fastrnn.reference.embedding.
    """
    dtype = checks.floating("weight", weight)
    V, D = checks.sizes("weight", weight, "(V, D)", 0, 0)
    (N,) = checks.sizes("tokens", tokens, "(N,)", 0)
    tokens = checks.tokens("tokens", np.array(tokens), V, N)  # a copy, which nobody can change before the pullback
    y = picked(checks.array("weight", weight, dtype, V, D), tokens)

    def pullback(dy, d_weight):
        dy = checks.array("dy", dy, dtype, N, D)
        checks.targets(("d_weight",), (d_weight,), dtype, ((V, D),))
        d_weight[...] = 0
        count = threads.for_bytes(2 * dy.nbytes)
        kernels.scatter_add(
            d_rows=dy.reshape(-1), tokens=tokens, D=D, d_weight=d_weight.reshape(-1), threads=count
        )  # fmt: skip

    return y, pullback
