"""Rows of a table by token, and their gradient. Twin of fastrnn.kernels.embedding."""

import numpy as np


def gather(weight: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The rows of weight (V, E) that tokens (...) name: (..., E); a negative one names a row of 0."""
    return np.where((tokens >= 0)[..., None], weight[tokens], 0)


def scatter_add(tokens: np.ndarray, d_rows: np.ndarray, num_embeddings: int) -> np.ndarray:
    """The gradient (V, E) of the table from that of the gathered rows (..., E): a token's rows are summed."""
    d_weight = np.zeros((num_embeddings, d_rows.shape[-1]), d_rows.dtype)
    np.add.at(d_weight, tokens, d_rows)
    return d_weight
