"""Which tensors the kernels take, when they take them, and how their memory is shared."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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


def fit(tensors: Iterable[Any], dtype: torch.dtype) -> bool:
    """Whether all are ordinary tensors in this machine's memory, of one dtype that the kernels take."""
    if dtype not in DTYPES:
        return False
    for t in tensors:
        if type(t) not in _PLAIN or t.dtype is not dtype or not t.is_cpu or t.layout is not torch.strided:
            return False
    return True


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers, C-contiguous: its own memory where that is."""
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy(force=True)


def batched(cotangents: Iterable[Tensor]) -> bool:
    """Whether any stands for many, as autograd.grad(is_grads_batched=True) gives them."""
    return any(map(_functorch.is_legacy_batchedtensor, cotangents))
