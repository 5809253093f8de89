"""Step by step with weights packed once: for control loops, audio and sampling, where a call must take microseconds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import empty, ndarray

from fastrnn import checks, functional
from fastrnn.functional import Weights


class Stream:
    """A recurrent layer that is fed one step at a time and keeps its own state: `layer.stream()` makes one.

    `y = stream(x)` takes x (I,), or (B, I) in a stream of a batch, and returns y (P,) or (B, P), to the bit what the
    layer returns for the same steps in one call. `stream.state` is a copy of the state, shaped as the layer's, and can
    be assigned. It runs on weights as they were when it was made; `stream.refresh()` reads them again.

    Not for several threads at once. Cost: 2*B*G*H*(I+P) flop a layer and step, in the calling thread.
    """

    def __init__(
        self,
        cell: type,
        weights: Sequence[Weights],
        batch: tuple[int, ...],
        checked: Callable[[Any], Sequence[np.ndarray]],
    ) -> None:
        B = batch[0] if batch else 1
        steppers = [functional.stepper(cell, own, B) for own in weights]
        self._steps, self._arguments, self._states, self._packs = zip(*steppers, strict=True)
        I, P, self._dtype = weights[0].W_ih.shape[1], weights[0].W_hh.shape[1], weights[0].W_hh.dtype
        self._shape, self._output, self._checked = (*batch, I), (*batch, P), checked
        self._between = [np.empty(B * P, self._dtype) for _ in self._steps[1:]]
        self._single, self._step, self._own = len(steppers) == 1 and not batch, self._steps[0], self._arguments[0]
        self.refresh()

    @property
    def state(self) -> Any:
        """h (L, P), in a stream of a batch (L, B, P); for LSTM (h, c)."""
        batch = self._shape[:-1]
        arrays = [np.stack(layers).reshape(len(layers), *batch, -1) for layers in zip(*self._states, strict=True)]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    @state.setter
    def state(self, value: Any) -> None:
        for layers, new in zip(zip(*self._states, strict=True), self._checked(value), strict=True):
            for own, source in zip(layers, new, strict=True):
                own[...] = source

    def refresh(self) -> None:
        """Read the layer's weights again; the state stays."""
        for pack in self._packs:
            pack()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The output after the next step.

        Raises ValueError: `x: expected shape (64,), got (65,)`; TypeError: `x: expected dtype float32, got float64`.
        """
        if type(x) is not ndarray or x.shape != self._shape or x.dtype is not self._dtype or not x.flags.c_contiguous:
            x = checks.array("x", x, self._dtype, *self._shape)
        y = empty(self._output, self._dtype)
        if self._single:  # 0.4 us less
            self._step(x, y, *self._own)
            return y
        rows = x.reshape(-1)
        for step, arguments, target in zip(self._steps, self._arguments, [*self._between, y.reshape(-1)], strict=True):
            step(rows, target, *arguments)
            rows = target
        return y
