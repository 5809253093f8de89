"""Which tensors the kernels take, when they take them, and how their memory is shared."""

from collections.abc import Iterable, Sequence
from operator import mul
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastrnn import checks

DTYPES: dict[torch.dtype, np.dtype] = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}
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


def ordinary(value: Any) -> bool:
    """Whether a value is an ordinary tensor in this machine's memory, of a dtype that the kernels take."""
    return type(value) in _PLAIN and value.dtype in DTYPES and value.is_cpu and value.layout is torch.strided


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


def check_storage(tensor: Tensor) -> None:
    """What has been freed or cut is refused: torch reads beyond the end of it, or is killed.

    Raises RuntimeError: `tensor of shape (18, 6): expected a storage of 432 bytes, got 0`.
    """
    steps = tensor.stride()
    last = sum(map(mul, tensor.shape, steps)) - sum(steps)
    needed = (tensor.storage_offset() + last + 1) * tensor.itemsize if tensor.numel() else 0
    if (size := tensor.untyped_storage().nbytes()) < needed:
        checks.storage(f"tensor of shape {tuple(tensor.shape)}", size, needed)


def array(tensor: Tensor) -> np.ndarray:
    """A fitting tensor's numbers, C-contiguous: its own memory where that is, which torch then neither moves nor frees.

    A storage can't be resized after this; what tries is told so by torch. Raises what `check_storage` does.
    """
    if not tensor.is_contiguous():
        check_storage(tensor)
        return tensor.contiguous().numpy(force=True)
    found = tensor.numpy(force=True)
    if tensor.storage_offset() * found.itemsize + found.nbytes > tensor.untyped_storage().nbytes():
        check_storage(tensor)
    return found


def batched(cotangents: Iterable[Tensor]) -> bool:
    """Whether any stands for many, as autograd.grad(is_grads_batched=True) gives them."""
    return any(map(_functorch.is_legacy_batchedtensor, cotangents))
