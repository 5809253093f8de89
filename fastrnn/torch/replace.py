"""A whole model's recurrent modules turned into fast ones, and back: only their class changes."""

from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from fastrnn.torch.modules import FAST, SLOW, fast_class
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
    `state_dict` does not change. What is fast already stays so. A class derived from torch's keeps all its methods, and
    what they call as super().forward is fast. Left are modules on other devices or of other dtypes, compiled ones, and
    cells where they are not asked for.

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


def restore(model: nn.Module) -> tuple[str, ...]:
    """Give every fast module inside a model, or the model itself, torch's class again; returns their names."""
    _check(model)
    found = []
    for name, module in model.named_modules():
        kind = _torch_class(module)
        if kind in SLOW:
            _become(module, SLOW[kind])
            found.append(name or SLOW[kind].__name__)
    return tuple(found)


def _check(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _misfit(module: nn.Module) -> str | None:
    """Why the kernels don't take the parameters."""
    for parameter in module.parameters():
        if parameter.device.type != "cpu":
            return f"on device {parameter.device}, expected cpu"
        if parameter.dtype not in DTYPES:
            return f"of dtype {parameter.dtype}, expected torch.float32 or torch.float64"
    return None


def _torch_class(module: nn.Module) -> type:
    """A module's class, below the one that a parametrisation puts on top."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _become(module: nn.Module, kind: type) -> None:
    if parametrize.is_parametrized(module):  # by a class of its own, which copies of the module share
        own = type(module)
        kind = type(own.__name__, (kind,), {k: v for k, v in vars(own).items() if k not in ("__dict__", "__weakref__")})
    module.__class__ = kind
