"""TorchScript reads the source of a module's class: while it does so, fast modules are torch's own.

torch.jit.script has a protocol for such modules, `__prepare_scriptable__`, but keeps what that returns in the model
that it was given, and the constructor of a ScriptModule does not ask for it. Both make their modules by one function,
torch.jit._recursive.create_script_module, which is wrapped here, when fastrnn.torch is imported.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn
from torch.jit import ScriptModule, _recursive

from fastrnn.torch.modules import slow_class

_create = _recursive.create_script_module
_alone = threading.RLock()  # what one thread has made fast again, another may still be reading


@contextmanager
def _as_torchs(model: nn.Module) -> Iterator[None]:
    found = [(module, type(module)) for module in model.modules()]
    try:
        for module, kind in found:
            if (slow := slow_class(kind)) is not kind:
                module.__class__ = slow
        yield
    finally:
        for module, kind in found:
            if type(module) is not kind:
                module.__class__ = kind


@wraps(_create)
def _create_script_module(nn_module: nn.Module, *arguments: Any, **options: Any) -> ScriptModule:
    with _alone, _as_torchs(nn_module):
        return _create(nn_module, *arguments, **options)


_recursive.create_script_module = _create_script_module
