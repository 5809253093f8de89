"""Where arrays come from: aligned results, scratch that is used again, and views of what nobody may write."""

import math
import threading
from typing import Any

import numpy as np

from fastrnn.kernels.target import TARGET

_CACHE_LINE = TARGET.line_bytes
_WORTH_ALIGNING = 1 << 15  # bytes; finding the address takes 2 us
# Fresh pages cost more than the arithmetic of a small call; beyond this size they don't, and should not be held.
_KEPT_BYTES = 1 << 26

_kept = threading.local()


def aligned_empty(shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array; a large one starts at a cache line, as full vectors like it."""
    count = shape if isinstance(shape, int) else math.prod(shape)
    if count * dtype.itemsize < _WORTH_ALIGNING:
        return np.empty(shape, dtype)
    buffer = np.empty(count + _CACHE_LINE // dtype.itemsize, dtype)
    start = -buffer.ctypes.data % _CACHE_LINE // dtype.itemsize
    return buffer[start : start + count].reshape(shape)


def scratch(count: int, dtype: np.dtype) -> np.ndarray:
    """`count` uninitialised elements that this thread hands out again at the next call: one kernel's workspace."""
    buffers: dict[Any, np.ndarray] = _kept.__dict__
    buffer = buffers.get(dtype)
    if buffer is None or buffer.size < count:
        buffer = aligned_empty(count, dtype)
        if buffer.nbytes <= _KEPT_BYTES:
            buffers[dtype] = buffer
    return buffer[:count]


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
