"""Step by step with weights packed once: for control loops, audio and sampling, where a call must take microseconds."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import empty, ndarray

from fastrnn import checks, functional
from fastrnn.parameters import Parameters

if TYPE_CHECKING:
    from fastrnn.layers.sequence import Recurrent


class Stream:
    """A recurrent layer that is fed one step at a time and keeps its own state: `layer.stream()` makes one.

    `y = stream(x)` takes x (I,), or (B, I) in a stream of a batch, and returns y (P,) or (B, P), to the bit what the
    layer returns for the same steps in one call. `stream.state` is a copy of the state, shaped as the layer's, and can
    be assigned. It runs on weights as they were when it was made; `stream.refresh()` reads the layer's again.

    copy.copy(stream) is a branch: another stream of the same layer, that goes on from the same state on the same
    weights. A deep copy and a pickle bring a layer of their own along, and run on other CPUs, too.

    Not for several threads at once. Cost: 2*B*G*H*(I+P) flop a layer and step, in the calling thread.
    """

    def __init__(self, layer: "Recurrent", batch: tuple[int, ...]) -> None:
        self._layer = layer
        self._batch = batch
        self._build(_copied(layer.parameters))

    def _build(self, weights):
        """Everything that follows from the layer, the size of the batch and the weights (Parameters)."""
        own = self._layer._weights(weights)
        B = self._batch[0] if self._batch else 1
        steppers = [functional.stepper(self._layer._cell, each, B) for each in own]
        self._steps, self._arguments, self._states, self._packs = zip(*steppers, strict=True)
        P = self._layer._widths[0]
        self._dtype = self._layer.dtype
        self._shape, self._output = (*self._batch, self._layer.input_size), (*self._batch, P)
        self._between = [np.empty(B * P, self._dtype) for _ in self._steps[1:]]
        self._single, self._step, self._own = len(own) == 1 and not self._batch, self._steps[0], self._arguments[0]
        self._pack(weights)

    def _pack(self, weights):
        self._weights = weights
        for pack, own in zip(self._packs, self._layer._weights(weights), strict=True):
            pack(own)

    def __getstate__(self) -> dict[str, Any]:
        """What packed weights and compiled steps follow from."""
        return {"layer": self._layer, "batch": self._batch, "weights": self._weights, "state": self.state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layer = state["layer"]
        self._batch = state["batch"]
        self._build(state["weights"])
        self.state = state["state"]

    def __repr__(self) -> str:
        return f"{self._layer!r}.stream({self._batch[0] if self._batch else ''})"

    @property
    def state(self) -> Any:
        """h (L, P), in a stream of a batch (L, B, P); for LSTM (h, c)."""
        arrays = [np.stack(layers).reshape(len(layers), *self._batch, -1) for layers in zip(*self._states, strict=True)]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    @state.setter
    def state(self, value: Any) -> None:
        for layers, new in zip(
            zip(*self._states, strict=True), self._layer._checked_state(value, self._batch), strict=True
        ):
            for own, source in zip(layers, new, strict=True):
                own[...] = source

    def refresh(self) -> None:
        """Read the layer's weights again; the state stays."""
        self._pack(_copied(self._layer.parameters))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The output after the next step.

        Raises ValueError: `x: expected shape (64,), got (65,)`; TypeError: `x: expected dtype float32, got float64`.
        """
        if type(x) is not ndarray or x.shape != self._shape or x.dtype is not self._dtype or not x.flags.carray:
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


def _copied(parameters: Parameters) -> Parameters:
    """The same values, which nobody else writes."""
    new = parameters.empty_like()
    new.flat[:] = parameters.flat
    return new
