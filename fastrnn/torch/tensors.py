"""Which tensors the kernels take, when they take them, and how their memory is shared."""

import ctypes
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._dynamo.guards import TensorGuards

from fastrnn import checks

DTYPES = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}
_PLAIN = (Tensor, nn.Parameter)
_functorch = torch._C._functorch
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch


def eager() -> bool:
    """Whether operations run as they are called."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or _functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._dispatch_tls_is_dispatch_key_included(_PRE_DISPATCH)  # whose modes are on a stack of their own
    )


def fit(tensors: Sequence[Any], shapes: Sequence[Sequence[int]], dtype: torch.dtype) -> bool:
    """Whether all are ordinary tensors in this machine's memory, of these shapes and this dtype."""
    if len(tensors) != len(shapes):
        return False
    for t, shape in zip(tensors, shapes, strict=True):
        if (
            type(t) not in _PLAIN
            or t.dtype is not dtype
            or not t.is_cpu
            or t.layout is not torch.strided
            or t.shape != shape
        ):
            return False
    return True


class Shapes(tuple):
    """Shapes that are looked for at every call. Tensors are compared with the last ones that fitted by the guards of
    torch's compiled code, which look at all tensors in one step: type, dtype, device, layout and shape.
    """

    def __new__(cls, shapes: Iterable[tuple[int, ...]]) -> "Shapes":
        self = super().__new__(cls, shapes)
        self._guards = {}
        return self

    def fit(self, tensors: Sequence[Any], dtype: torch.dtype) -> bool:
        """As the function."""
        if (guard := self._guards.get(dtype)) is not None and len(tensors) == len(self) and guard.check(*tensors):
            return True
        found = fit(tensors, self, dtype)
        if found and all(t.is_contiguous() for t in tensors):
            sizes, strides = [[*t.shape] for t in tensors], [[*t.stride()] for t in tensors]
            self._guards[dtype] = TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
        return found


def check_storage(tensor: Tensor) -> None:
    """What has been freed or cut is refused: torch reads beyond the end of it, or is killed.

    Raises RuntimeError: `tensor of shape (18, 6): expected a storage of 432 bytes, got 0`.
    """
    last = sum([(n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)])
    needed = (tensor.storage_offset() + last + 1) * tensor.itemsize if tensor.numel() else 0
    checks.storage(f"tensor of shape {tuple(tensor.shape)}", tensor.untyped_storage().nbytes(), needed)


class Memory(ctypes.Array):
    """Memory from an address on, and the storage that holds it."""

    _type_, _length_ = ctypes.c_char, sys.maxsize
    __slots__ = ("storage",)


def array(tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The numbers of a tensor that has this shape and dtype, C-contiguous: its own memory where that is.

    Unlike `Tensor.numpy` it leaves a storage that can be resized one. Raises what `check_storage` does.
    """
    if not tensor.is_contiguous():
        check_storage(tensor)
        tensor = tensor.contiguous()
    address, storage = tensor.data_ptr(), tensor.untyped_storage()
    memory = Memory.from_address(address)
    memory.storage = storage
    found = np.ndarray(shape, dtype, memory)
    if storage.nbytes() != found.nbytes or storage.data_ptr() != address:  # a part of it, or more than is there
        check_storage(tensor)
        return array(tensor.clone(), shape, dtype) if tensor.is_neg() or not address else found
    return found


def places(arrays: Iterable[np.ndarray]) -> list[tuple[int, int]]:
    """Where the storages behind arrays lie, and their sizes: others, once one has been resized."""
    storages = [a.base.storage for a in arrays]
    return [(storage.data_ptr(), storage.nbytes()) for storage in storages]


def batched(cotangents: Iterable[Tensor]) -> bool:
    """Whether any stands for many, as autograd.grad(is_grads_batched=True) gives them."""
    return any(map(_functorch.is_legacy_batchedtensor, cotangents))
