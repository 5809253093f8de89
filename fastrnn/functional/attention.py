"""Dot-product attention within sequences."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import attention as kernels
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch

_work_size = lru_cache(kernels.attention_work)  # its sums take as long in Python as a small call in the kernel


def _forward(queries, memory, query_offsets, memory_offsets):
    """The context, the weights in one flat array, where each sequence's begin (B+1,), and backward(d_context)."""
    dtype = checks.floating("queries", queries)
    M, H = checks.sizes("queries", queries, "(M, H)", 0, 0)
    N, _ = checks.sizes("memory", memory, "(N, H)", 0, 0)
    queries, memory = checks.arrays(("queries", "memory"), (queries, memory), dtype, ((M, H), (N, H)))
    # copies, which nobody can change before the pullback
    query_offsets = checks.offsets("query_offsets", np.array(query_offsets), M)
    memory_offsets = checks.offsets("memory_offsets", np.array(memory_offsets), N)
    checks.together("memory_offsets", memory_offsets, len(query_offsets), "query_offsets")
    m, n = np.diff(query_offsets), np.diff(memory_offsets)
    ends = np.append(0, np.cumsum(m * n))
    count = threads.for_work(4 * int(ends[-1]) * H * dtype.itemsize / 4)
    most_queries, most_rows = int(m.max(initial=0)), int(n.max(initial=0))
    work_size = _work_size(H, most_queries, most_rows, lanes_of(dtype.itemsize), count)
    context, weights = empty((M, H), dtype), empty(int(ends[-1]), dtype)
    sequences = kernels.Sequences(
        queries.reshape(-1), memory.reshape(-1), weights, H, query_offsets, memory_offsets, ends[:-1]
    )
    kernels.attention_forward(*sequences, context=context.reshape(-1), work=scratch(work_size, dtype), threads=count)

    def backward(d_context):
        d_context = checks.array("d_context", d_context, dtype, M, H)
        d_queries, d_memory = empty((M, H), dtype), empty((N, H), dtype)
        kernels.attention_backward(
            *sequences, d_context=d_context.reshape(-1), d_queries=d_queries.reshape(-1),
            d_memory=d_memory.reshape(-1), work=scratch(work_size, dtype), threads=count,
        )  # fmt: skip
        return d_queries, d_memory

    return context, weights, ends, backward


def attention(
    queries: np.ndarray, memory: np.ndarray, query_offsets: np.ndarray, memory_offsets: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """context_i = sum_j softmax_j(query_i . memory_j) memory_j over the memory rows of i's own sequence.

    Parameters
    ----------
    queries : (M, H); memory : (N, H), sequence after sequence
    query_offsets, memory_offsets : (B+1,), int64: rows of sequence b are offsets[b] .. offsets[b+1]-1, as in Packed

    Returns the context (M, H), 0 where a sequence has no memory, and pullback(d_context) -> d_queries, d_memory.
    Raises ValueError: `memory: expected shape (9, 4), got (9, 5)`, `query_offsets: expected to start at 0, end at 10
    and never fall, got [0, 3, 9]`, `memory_offsets: expected 3, one for each of query_offsets, got 4`.
    Cost for m queries and n rows of a sequence: 4*m*n*H flop, twice that backward; m*n weights are kept.
    Source: Luong et al., EMNLP 2015, the score "dot". Reference twin: fastrnn.reference.attention.
    """
    context, _, _, backward = _forward(queries, memory, query_offsets, memory_offsets)
    return context, backward


def attention_weights(
    queries: np.ndarray, memory: np.ndarray, query_offsets: np.ndarray, memory_offsets: np.ndarray
) -> list[np.ndarray]:
    """softmax_j(query_i . memory_j) of each sequence (m, n), rows that add up to 1; parameters as of `attention`."""
    _, weights, ends, _ = _forward(queries, memory, query_offsets, memory_offsets)
    shapes = zip(np.diff(query_offsets), np.diff(memory_offsets), strict=True)
    return [weights[ends[b] : ends[b + 1]].reshape(shape) for b, shape in enumerate(shapes)]
