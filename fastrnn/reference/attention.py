"""Dot-product attention within sequences (Luong et al., EMNLP 2015). Twin of fastrnn.kernels.attention."""

from itertools import pairwise

import numpy as np

from fastrnn.reference.vmath import exp


def _sequences(query_offsets, memory_offsets):
    """The rows of queries and of memory of each sequence."""
    for (q0, q1), (r0, r1) in zip(pairwise(query_offsets), pairwise(memory_offsets), strict=True):
        yield slice(q0, q1), slice(r0, r1)


def attention_weights(queries: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """a_ij = softmax_j(query_i . memory_j) of one sequence: (m, n) of queries (m, H) and memory (n, H)."""
    scores = queries @ memory.T
    terms = exp(scores - scores.real.max(axis=1, keepdims=True, initial=-np.inf))
    return terms / terms.sum(axis=1, keepdims=True)


def attention_forward(
    queries: np.ndarray, memory: np.ndarray, query_offsets: np.ndarray, memory_offsets: np.ndarray
) -> np.ndarray:
    """context_i = sum_j a_ij memory_j (M, H), within each sequence; 0 where it has no memory.

    queries : (M, H); memory : (N, H); offsets : (B+1,) bounds of the sequences' rows
    """
    context = np.zeros_like(queries)
    for q, r in _sequences(query_offsets, memory_offsets):
        context[q] = attention_weights(queries[q], memory[r]) @ memory[r]
    return context


def attention_backward(
    queries: np.ndarray,
    memory: np.ndarray,
    d_context: np.ndarray,
    query_offsets: np.ndarray,
    memory_offsets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """d_queries (M, H) and d_memory (N, H) from d_context (M, H)."""
    d_queries, d_memory = np.zeros_like(queries), np.zeros_like(memory)
    for q, r in _sequences(query_offsets, memory_offsets):
        weights = attention_weights(queries[q], memory[r])
        d_weights = d_context[q] @ memory[r].T
        d_scores = weights * (d_weights - (weights * d_weights).sum(axis=1, keepdims=True))
        d_queries[q] = d_scores @ memory[r]
        d_memory[r] = d_scores.T @ queries[q] + weights.T @ d_context[q]
    return d_queries, d_memory
