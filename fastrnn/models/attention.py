"""Which rows of a memory a query looks at: dot-product attention over sequences of unequal lengths."""

from collections.abc import Callable

import numpy as np


def attention_weights(
    queries: np.ndarray, memory: np.ndarray, query_offsets: np.ndarray, key_offsets: np.ndarray
) -> list[np.ndarray]:
    """The weights (queries, keys) of every sequence, dimensionless: softmax(q_i . m_j) over j; see `attention`."""
    return [_weights(queries[q], memory[k]) for q, k in _slices(query_offsets, key_offsets)]


def attention(
    queries: np.ndarray, memory: np.ndarray, query_offsets: np.ndarray, key_offsets: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """context (N, H), rows of the memory as queries weigh them, and pullback(d_context) -> d_queries, d_memory.

    Parameters
    ----------
    queries : (N, H), those of the first sequence, then those of the second, and so on
    memory : (M, H), keys and values in one, likewise; a sequence without any gives contexts of 0
    query_offsets, key_offsets : (B+1,) int64, the bounds of the sequences

    Source: Luong, Pham, Manning, EMNLP 2015, eq. 7 and 8 (dot). Cost: 4*H flop for a pair of query and key, 10*H
    backward.
    """
    parts = _slices(query_offsets, key_offsets)
    weights, context = attention_weights(queries, memory, query_offsets, key_offsets), np.empty_like(queries)
    for (q, k), a in zip(parts, weights, strict=True):
        np.matmul(a, memory[k], out=context[q])

    def pullback(d_context):
        d_queries, d_memory = np.empty_like(queries), np.empty_like(memory)
        for (q, k), a in zip(parts, weights, strict=True):
            d_a = d_context[q] @ memory[k].T
            d_scores = a * (d_a - (a * d_a).sum(axis=1, keepdims=True))
            np.matmul(d_scores, memory[k], out=d_queries[q])
            d_memory[k] = a.T @ d_context[q] + d_scores.T @ queries[q]
        return d_queries, d_memory

    return context, pullback


def _slices(*offsets):
    """The slices of every sequence."""
    bounds = [list(map(slice, each[:-1].tolist(), each[1:].tolist())) for each in offsets]
    return list(zip(*bounds, strict=True))


def _weights(queries, memory):
    scores = queries @ memory.T
    scores -= scores.max(axis=1, keepdims=True, initial=-np.inf)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=1, keepdims=True)
