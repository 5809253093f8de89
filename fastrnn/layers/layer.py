"""What layers share: parameters with names, and their state dict."""

import inspect
import sys
from collections.abc import Mapping

import numpy as np

from fastrnn import checks
from fastrnn.parameters import Parameters

# What the shapes of a layer's parameters say, or follow from.
_BUILT = frozenset((
    "input_size", "hidden_size", "proj_size", "num_layers", "bidirectional", "bias", "nonlinearity", "reset_after",
    "peepholes", "cell", "children", "in_features", "out_features", "num_embeddings", "embedding_dim", "in_channels",
    "out_channels", "kernel_size",
))  # fmt: skip


class Layer:
    """A holder of parameters of one dtype; calls keep no state, so several threads may use one layer.

    What a layer was built with can't be assigned, other parameters of the same names and shapes can. Raises ValueError:
    `hidden_size: expected 18 that was built, got 7`, `parameters: expected {'weight': (2, 3)}, got {'weight': (3, 2)}`.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: object) -> None:
        self._parameters = Parameters(shapes, checks.dtype(dtype))

    def __setattr__(self, name: str, value: object) -> None:
        if name in _BUILT and name in self.__dict__:
            checks.unchanged(name, value, self.__dict__[name])
        super().__setattr__(name, value)

    @property
    def parameters(self) -> Parameters:
        """All weights and biases by name."""
        return self._parameters

    @parameters.setter
    def parameters(self, value: Parameters) -> None:
        checks.instance("parameters", value, Parameters)
        checks.same_shapes("parameters", value.shapes, self._parameters.shapes)
        self._parameters = value

    def __repr__(self) -> str:
        """The call that makes a layer like this one, without what is the default or about initial values."""
        exported = vars(sys.modules[__package__])
        constructor = next((c for c in type(self).__mro__ if exported.get(c.__name__) is c), type(self))
        shown = []
        for name, argument in inspect.signature(constructor).parameters.items():
            value = getattr(self, name, argument.default)
            if value != argument.default:
                shown.append(f"{name}={value!s}" if argument.default is not argument.empty else f"{value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self._parameters.dtype

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters by name."""
        return {name: value.copy() for name, value in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Copy parameters from a mapping with exactly these names: NumPy arrays, or torch's CPU tensors.

        Raises ValueError: `state_dict: expected weight, bias; missing bias`,
        `weight: expected shape (3, 4), got (4, 3)`.
        """
        self.parameters.update(state)
