"""A function of named arrays, whatever form its output has, as one of flat vectors."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Function:
    """`function` at the point `inputs`: (M,) numbers, all its outputs one after the other.

    Integers and bools among the inputs are constants. `inputs` holds the others, `names` and `shapes` describe the
    outputs, `base` (M,) is their value.
    """

    def __init__(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
        self._function = function
        given = {name: np.asarray(value) for name, value in inputs.items()}
        self.constants = {name: value for name, value in given.items() if value.dtype.kind in "iub"}
        self.inputs = {}
        for name, value in given.items():
            if name in self.constants:
                continue
            _refuse(name, value)
            self.inputs[name] = np.array(value, np.float64, order="C")
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: expected finite numbers, got {value[~np.isfinite(value)][0]}")
        output = self._call({})
        self._describe(output)
        self.base = self._flat(output)
        self._check_base()

    def _call(self, moved):
        return self._function(**{**self.inputs, **moved}, **self.constants)

    def _describe(self, output):
        self._kind: type | None
        if isinstance(output, Mapping):
            self._kind, self.names = dict, list(output)
        elif isinstance(output, (tuple, list)):
            self._kind, self.names = tuple, [f"output[{at}]" for at in range(len(output))]
        else:
            self._kind, self.names = None, ["output"]
        parts = self._parts(output)
        self.shapes = [np.shape(part) for part in parts]
        for name, part in zip(self.names, parts, strict=True):
            _refuse(name, np.asarray(part))

    def _parts(self, output):
        if self._kind is dict:
            return [output[name] for name in self.names]
        return list(output) if self._kind is tuple else [output]

    def _flat(self, output):
        return np.concatenate([np.ravel(part) for part in self._parts(output)] or [np.empty(0)])

    def _check_base(self):
        wrong = np.flatnonzero(~np.isfinite(self.base))
        if wrong.size:
            ends = np.cumsum([math.prod(shape) for shape in self.shapes])
            name = self.names[int(np.searchsorted(ends, wrong[0], "right"))]
            raise ValueError(f"function: expected finite outputs, got {self.base[wrong[0]]} in {name}")
        change = np.abs(self.at({}) - self.base).max(initial=0.0)
        if change > 1e-12 * np.abs(self.base).max(initial=0.0):
            raise ValueError(f"function: expected the same output twice, got a difference of {change:.1e} (dropout?)")

    def at(self, moved: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat output where some inputs have other values."""
        found = self._flat(self._call(moved))
        if found.size != self.base.size:
            raise ValueError(f"function: expected {self.base.size} numbers as before, got {found.size}")
        return found

    def complex_at(self, moved: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same for complex inputs, all of them; TypeError where an output stays real."""
        everything = {name: value.astype(np.complex128) for name, value in self.inputs.items()}
        output = self._call({**everything, **moved})
        for name, part in zip(self.names, self._parts(output), strict=True):
            if not np.iscomplexobj(part):
                raise TypeError(f"{name}: expected complex numbers, got {np.asarray(part).dtype.name}")
        return self._flat(output)

    def like_output(self, vector: np.ndarray) -> Any:
        """A vector (M,) in the form of the output."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        split = zip(np.split(vector, ends[:-1]), self.shapes, strict=True)
        parts = [part.reshape(shape) for part, shape in split]
        if self._kind is dict:
            return dict(zip(self.names, parts, strict=True))
        return tuple(parts) if self._kind is tuple else parts[0]


def _refuse(name, value):
    if value.dtype.newbyteorder("=") != np.float64:
        coarse = value.dtype.kind == "f" and value.dtype.itemsize < 8
        hint = ' (too coarse to difference: build the function with dtype="float64")' * coarse
        raise TypeError(f"{name}: expected dtype float64, got {value.dtype.name}{hint}")
