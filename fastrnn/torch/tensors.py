"""Which tensors the kernels take, when they take them, and how their memory is shared."""

import ctypes
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastrnn import checks

DTYPES = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}
_NUMPY = DTYPES | {torch.int64: np.dtype("int64")}
_PLAIN = (Tensor, nn.Parameter)
_functorch = torch._C._functorch


def eager() -> bool:
    """Whether operations run as they are called."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or _functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
    )


def fit(tensors: Sequence[Any], shapes: Sequence[Sequence[int]], dtype: torch.dtype) -> bool:
    """Whether all are ordinary tensors in this machine's memory, of these shapes and this dtype.

    Raises RuntimeError where storages have been freed or cut, which torch reads beyond their end, or is killed by:
    `tensor of shape (18, 6): expected a storage of 432 bytes, got 0`.
    """
    if len(tensors) != len(shapes):
        return False
    for t, shape in zip(tensors, shapes, strict=True):
        if (
            type(t) not in _PLAIN
            or t.dtype is not dtype
            or not t.is_cpu
            or t.layout is not torch.strided
            or t.shape != shape
            or t.is_neg()
        ):
            return False
        needed = t.storage_offset() * dtype.itemsize + (t.nbytes if t.is_contiguous() else _reach(t))
        if (size := t.untyped_storage().nbytes()) < needed:
            if t._is_zerotensor():
                return False
            checks.storage(f"tensor of shape {tuple(shape)}", size, needed)
    return True


def _reach(tensor):
    """Bytes from the first element to the end of the last."""
    steps = [(n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)]
    return (sum(steps) + 1) * tensor.itemsize if tensor.numel() else 0


class Memory(ctypes.Array):
    """Memory from an address on, and the storage that holds it."""

    _type_, _length_ = ctypes.c_char, sys.maxsize
    __slots__ = ("storage",)


def array(tensor: Tensor) -> np.ndarray:
    """A fitting tensor's numbers, C-contiguous: its own memory where that is.

    Unlike `Tensor.numpy` it leaves a storage that can be resized one.
    """
    tensor = tensor if tensor.is_contiguous() else tensor.contiguous()
    memory = Memory.from_address(tensor.data_ptr())
    memory.storage = tensor.untyped_storage()
    return np.ndarray(tensor.shape, _NUMPY[tensor.dtype], memory)


def places(arrays: Iterable[np.ndarray]) -> list[tuple[int, int]]:
    """Where the storages behind arrays lie, and their sizes: others, once one has been resized."""
    storages = [a.base.storage for a in arrays]
    return [(storage.data_ptr(), storage.nbytes()) for storage in storages]


def batched(cotangents: Iterable[Tensor]) -> bool:
    """Whether any stands for many, as autograd.grad(is_grads_batched=True) gives them."""
    return any(map(_functorch.is_legacy_batchedtensor, cotangents))
