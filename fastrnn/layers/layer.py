"""What layers share: parameters with names, and their state dict."""

import inspect
from collections.abc import Mapping

import numpy as np

from fastrnn import checks
from fastrnn.parameters import Parameters


class Layer:
    """A holder of parameters of one dtype; calls keep no state, so several threads may use one layer."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: object) -> None:
        self.parameters = Parameters(shapes, checks.dtype(dtype))

    def __repr__(self) -> str:
        """The call that makes a layer like this one, without what is the default or about initial values."""
        constructor = next(c for c in type(self).__mro__ if c.__module__.startswith(f"{__package__}."))
        shown = []
        for name, argument in inspect.signature(constructor).parameters.items():
            value = getattr(self, name, argument.default)
            if value != argument.default:
                shown.append(f"{name}={value!s}" if argument.default is not argument.empty else f"{value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self.parameters.dtype

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters by name."""
        return {name: value.copy() for name, value in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Copy parameters from a mapping with exactly these names: NumPy arrays, or torch's CPU tensors.

        Raises ValueError: `state_dict: expected weight, bias; missing bias`,
        `weight: expected shape (3, 4), got (4, 3)`.
        """
        self.parameters.update(state)
