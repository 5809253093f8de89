"""A whole model's recurrent modules turned into fast ones, and back: only their class changes."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules import rnn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.utils import parametrize

from fastrnn.torch.modules import FAST, SLOW, fast_class, rebased
from fastrnn.torch.tensors import DTYPES

_NAMES = {kind.__name__ for kind in FAST}


class Report(NamedTuple):
    """What `accelerate` did, by the modules' names; the model itself goes by its class's name."""

    replaced: tuple[str, ...]
    left: dict[str, str]  # and why

    def __str__(self) -> str:
        lines = [f"replaced {len(self.replaced)}: {', '.join(self.replaced) or 'nothing'}"]
        return "\n".join(lines + [f"left {name}: {reason}" for name, reason in self.left.items()])


def accelerate(model: nn.Module, cells: bool = False) -> Report:
    """Let every RNN, GRU and LSTM inside a model, or the model itself, run fastrnn's kernels from now on.

    Parameters
    ----------
    model : anything made of modules
    cells : RNNCell, GRUCell and LSTMCell, too. A single step leaves a kernel little to save: forward and backward of
        one run at 0.4 to 1.0 times torch's speed with up to 64 sequences, at 0.9 to 1.3 times with 256 and more

    The modules stay the objects they are, with their parameters, hooks and buffers: an optimiser goes on working, and
    `state_dict` does not change. What is fast already stays so. Left are modules on other devices or of other dtypes or
    types of parameters, ScriptModules, those that have a forward of their own (other libraries' hooks and wrappers set
    one), and cells where they are not asked for.

    A class derived from torch's keeps all its methods, and what they call as super().forward is fast. One whose forward
    never does so is replaced as well, though no kernel runs: that can't be told before it is called. Nor do kernels run
    in what torch.compile compiles, which is torch's code.

    Raises TypeError: `model: expected a torch.nn.Module, got list`.
    """
    _check(model)
    replaced, left = [], {}
    for name, module in model.named_modules():
        name, kind = name or type(module).__name__, _torch_class(module)
        if getattr(module, "original_name", None) in _NAMES:
            left[name] = "a ScriptModule, whose code is fixed"
        elif (fast := fast_class(kind)) is None:
            continue
        elif isinstance(module, nn.RNNCellBase) and not cells:
            left[name] = "a single step, in which torch is as fast: cells=True replaces it all the same"
        elif reason := _misfit(module):
            left[name] = reason
        else:
            _become(module, fast)
            replaced.append(name)
    return Report(tuple(replaced), left)


class Restored(tuple[str, ...]):
    """The names of modules that have torch's class again; as a context manager, of those that have it until its end."""

    _modules: Sequence[tuple[nn.Module, type]]  # each with its fast class

    def __enter__(self) -> "Restored":
        for module, fast in self._modules:
            _exchange(module, fast, SLOW[fast])
        return self

    def __exit__(self, *_: object) -> None:
        for module, fast in self._modules:
            _exchange(module, SLOW[fast], fast)


def restore(model: nn.Module) -> Restored:
    """Give every fast module inside a model, or the model itself, torch's class again; returns their names.

    `with restore(model):` does so for a block, behind which the same modules are fast again, whatever happened within.
    This is for tools that ask for torch's exact classes and pass fast modules by (`quantize_dynamic` and torch's other
    quantisation, opacus' validator), and for `torch.save` of a whole model that is to be loaded without fastrnn, whose
    classes a pickle of fast modules names. `state_dict`, copies, TorchScript, `torch.export` and ONNX don't need it.
    Modules of your own classes that derive from fast ones stay what they are.

    Raises TypeError: `model: expected a torch.nn.Module, got list`.
    """
    _check(model)
    found = {name: m for name, m in model.named_modules() if _torch_class(m) in SLOW}
    modules = [(module, _torch_class(module)) for module in found.values()]
    restored = Restored([name or SLOW[fast].__name__ for name, (_, fast) in zip(found, modules, strict=True)])
    restored._modules = modules
    return restored.__enter__()


class Installed:
    """What `install` returns: `remove()`, or the end of a `with` block, undoes it."""

    def __init__(self, cells: bool) -> None:
        self.cells = cells
        _installed.append(self)

    def remove(self) -> None:
        """New modules are torch's again, unless somebody else's `install` still holds."""
        if self in _installed:
            _installed.remove(self)

    def __enter__(self) -> "Installed":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


_installed: list[Installed] = []


def install(cells: bool = False) -> Installed:
    """Let every torch.nn.RNN, GRU and LSTM made from now on be fast, for networks that a library builds out of sight.

    with fastrnn.torch.install():  # or once, for a whole program: fastrnn.torch.install()
        forecaster.fit(series)

    Parameters
    ----------
    cells : RNNCell, GRUCell and LSTMCell, too; see `accelerate`

    `remove()` of what it returns, or the end of the block, undoes it; what was made stays fast. It holds in all
    threads, and may be nested: new modules are fast as long as one of the calls holds. Classes derived from torch's are
    as `accelerate` makes them, on all devices and of all dtypes. Copies and pickles have the class of their originals:
    a slow module loaded within stays slow.

    torch.nn's classes stay what they are, and nothing of torch's is replaced: its
    `register_module_parameter_registration_hook` tells of the first parameter of each module, which is fast from there
    on. That hook stays when the last `install` is undone, and does nothing.
    """
    _watch()
    return Installed(cells)


@cache
def _watch():
    return register_module_parameter_registration_hook(_made)


def _made(module, name, parameter):
    """Before a module's first parameter it is under construction, and nobody else has it."""
    if not _installed or module._parameters:
        return
    fast = fast_class(type(module))
    if fast and (not isinstance(module, nn.RNNCellBase) or any([each.cells for each in _installed])):
        module.__class__ = fast


def _check(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _misfit(module: nn.Module) -> str | None:
    """Why no kernel would run."""
    if "forward" in vars(module):
        return "a forward of its own hides its class's: accelerate the model before it gets one"
    base: Any = next(each for each in type(module).__mro__ if each.__module__ == rnn.__name__)
    if getattr(base.forward, "__globals__", None) is not vars(rnn):
        return f"torch.nn.{base.__name__}.forward is not torch's: something has replaced it"
    for parameter in module.parameters():
        if parameter.device.type != "cpu":
            return f"on device {parameter.device}, expected cpu"
        if parameter.dtype not in DTYPES:
            return f"of dtype {parameter.dtype}, expected torch.float32 or torch.float64"
        if type(parameter) is not nn.Parameter:
            return f"of type {type(parameter).__name__}, expected Parameter"
    return None


def _torch_class(module: nn.Module) -> type:
    """A module's class, below the one that a parametrisation puts on top."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _become(module: nn.Module, kind: type) -> None:
    if parametrize.is_parametrized(module):  # by a class of its own, which copies of the module share
        kind = rebased(type(module), kind)
    module.__class__ = kind


def _exchange(module: nn.Module, old: type, new: type) -> None:
    if _torch_class(module) is old:
        _become(module, new)
