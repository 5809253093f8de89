"""Where arrays come from: aligned results, and scratch that is used again."""

import math
import threading

import numpy as np

_CACHE_LINE = 64
# Fresh pages cost more than the arithmetic of a small call; beyond this size they don't, and should not be held.
_KEPT_BYTES = 1 << 26

_kept = threading.local()


def aligned_empty(shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array whose first element starts a cache line, as full vectors like it."""
    count = shape if isinstance(shape, int) else math.prod(shape)
    buffer = np.empty(count + _CACHE_LINE // dtype.itemsize, dtype)
    start = -buffer.ctypes.data % _CACHE_LINE // dtype.itemsize
    return buffer[start : start + count].reshape(shape)


def scratch(purpose: str, count: int, dtype: np.dtype) -> np.ndarray:
    """`count` uninitialised elements, kept by this thread and handed out again for the same purpose.

    For what is dead before the next call with that purpose can begin: a kernel's workspace, never a result.
    """
    buffers = _kept.__dict__
    key = purpose, dtype.char
    buffer = buffers.get(key)
    if buffer is None or buffer.size < count:
        buffer = aligned_empty(count, dtype)
        if buffer.nbytes <= _KEPT_BYTES:
            buffers[key] = buffer
    return buffer[:count]


def zeros(count: int, dtype: np.dtype) -> np.ndarray:
    """At least `count` zeros that nobody may write."""
    buffers = _kept.__dict__
    buffer = buffers.get(dtype.char)
    if buffer is None or buffer.size < count:
        buffer = buffers[dtype.char] = np.zeros(count, dtype)
    return buffer
