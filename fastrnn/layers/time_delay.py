"""A layer that sees a few neighbours in time."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn import checks, functional
from fastrnn.layers.batch import X, taken
from fastrnn.layers.layer import Layer
from fastrnn.parameters import Parameters

Lengths = Sequence[int] | np.ndarray | None

_FARTHEST = 1 << 62  # steps that a shift may be, with room to add it to a step


class TimeDelay(Layer):
    """A convolution over time: y_t = bias + sum_j W_j x_{t + j*dilation - left}, W_j = weight[:, :, j].

    left is (kernel_size - 1)*dilation with causal, so that y_t sees nothing after t, and half of that, rounded down,
    without. Outputs have as many steps as inputs; beyond the ends of its own sequence a window holds zeros.

    Parameters
    ----------
    in_channels, out_channels : sizes I and O
    kernel_size : k, steps that an output sees
    dilation : steps between two of them
    causal : the last of them is the output's own step; else the middle one is
    bias : add a bias
    batch_first : arrays are (B, T, width) instead of (T, B, width)
    dtype : "float32" or "float64"
    seed : of the initial values, U(-1/sqrt(I*k), 1/sqrt(I*k)) as torch.nn.Conv1d

    Parameters by name: weight (O, I, k), bias (O,).

    Source: Waibel et al., IEEE Trans. ASSP 37 (1989); parameters and alignment of torch.nn.Conv1d with padding="same".
    Reference twin: fastrnn.reference.time_delay.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        causal: bool = False,
        bias: bool = True,
        batch_first: bool = False,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.in_channels = checks.integer("in_channels", in_channels, 1)
        self.out_channels = checks.integer("out_channels", out_channels, 1)
        self.kernel_size = checks.integer("kernel_size", kernel_size, 1)
        self.dilation = checks.integer("dilation", dilation, 1)
        checks.integer("dilation", dilation, 1, max(_FARTHEST // self.kernel_size, 1))
        self.causal, self.bias = checks.flag("causal", causal), checks.flag("bias", bias)
        self.batch_first = checks.flag("batch_first", batch_first)
        shapes = {"weight": (self.out_channels, self.in_channels, self.kernel_size), "bias": (self.out_channels,)}
        super().__init__(shapes if bias else {"weight": shapes["weight"]}, dtype)
        bound = (self.in_channels * self.kernel_size) ** -0.5
        self.parameters.flat[:] = checks.generator(seed).uniform(-bound, bound, self.parameters.flat.size)

    @property
    def shifts(self) -> np.ndarray:
        """(k,) int64: the step that W_j sees, counted from the output's."""
        reach = (self.kernel_size - 1) * self.dilation
        return np.arange(self.kernel_size) * self.dilation - (reach if self.causal else reach // 2)

    def _run(self, x, lengths):
        batch, rows = taken(x, self.batch_first, lengths, self.dtype, self.in_channels, "in_channels")
        p = self.parameters.views()
        y, pullback = functional.time_delay(rows, p["weight"], p.get("bias"), batch.steps(False), self.shifts)
        return batch, batch.put(y), pullback

    def __call__(self, x: X, *, lengths: Lengths = None) -> X:
        """y, as `vjp` describes it."""
        return self._run(x, lengths)[1]

    def vjp(self, x: X, *, lengths: Lengths = None) -> tuple[X, Callable[..., tuple[X, Parameters]]]:
        """y, and pullback(dy, grads=None) -> dx, grads.

        Parameters
        ----------
        x : (T, B, I), or (B, T, I) with batch_first, or unbatched (T, I), or a Packed
        lengths : (B,) steps of each sequence, 0..T in any order; T if None. What lies beyond is not read, its outputs
            and gradients are 0

        Returns y laid out as x, (T, B, O); pullback takes dy like it and returns dx like x, and `grads`, new ones if
        None, overwritten.

        Raises ValueError: `x: expected shape (T, B, in_channels) or (T, in_channels) = (4, 3, 5), got (4, 3, 6)`,
        `lengths: expected 0 <= length <= 50, got 51`, `lengths: expected None with a Packed x, got [3, 2]`,
        `dy: expected shape (4, 3, 7), got (4, 3, 5)`; TypeError: `x: expected dtype float32, got float64`.
        Cost: 2*N*O*I*k flop for N steps of all sequences together, twice that backward.
        """
        batch, y, backward = self._run(x, lengths)

        def pullback(dy, grads=None):
            dy = batch.take("dy", dy, self.dtype, self.out_channels)
            grads = self.parameters.gradients(grads)
            own = grads.views()
            return batch.put(backward(dy, own["weight"], own.get("bias"))), grads

        return y, pullback
