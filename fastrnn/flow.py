"""How gradients flow back through time: their norms, step by step, and a limit on each step's.

Both hold for every pullback that the caller's thread runs within the block, of any layer or model:

    with fastrnn.gradient_flow() as flow:
        loss, grads = model.loss_and_gradients(batch)
    flow[0].norms  # of the last layer, whose gradient comes first
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.memory import aligned_empty


class Flow(NamedTuple):
    """dL/dh_t of one layer in one direction: all that reaches h_t, from y_t and from the steps after it."""

    layer: Any  # the RNN, GRU, LSTM or cell
    index: int  # type: ignore[assignment] # of the layer in its stack; tuples have a method of that name
    reverse: bool
    t: np.ndarray  # (N,) the step of each row
    d_h: np.ndarray  # (N, P) in the units of the loss over those of h

    @property
    def norms(self) -> np.ndarray:
        """(T,) the 2-norm of each step's gradient, over all sequences and units."""
        squares = np.einsum("np,np->n", self.d_h, self.d_h, dtype=np.float64)
        return np.sqrt(np.bincount(self.t, squares))

    def __str__(self) -> str:
        return f"layer {self.index}{', reverse' * self.reverse}"

    @property
    def first_bad(self) -> int | None:
        """The step at which the first gradient that is not finite was met on the way back, None for none."""
        bad = self.t[~np.isfinite(self.d_h).all(axis=1)]
        return None if not len(bad) else int(bad.min() if self.reverse else bad.max())


def first_bad(run: Callable[[], object]) -> str:
    """Where on its way back a gradient stops being finite while `run` computes it, in words; empty if it doesn't.

    In words: `first at step 17 of layer 0 of LSTM`, the layer counted from the input.
    """
    with gradient_flow() as flows:
        run()
    for each in flows:
        if each.first_bad is not None:
            return f"first at step {each.first_bad} of {each} of {type(each.layer).__name__}"
    return ""


_limit: ContextVar[float] = ContextVar("limit", default=np.inf)
_flows: ContextVar[list[Flow] | None] = ContextVar("flows", default=None)


@contextmanager
def gradient_flow() -> Iterator[list[Flow]]:
    """Keep dL/dh_t of all pullbacks within the block: a Flow for each layer and direction, as they ran.

    Cost: N*P elements written a layer and direction, by the backward kernel itself.
    """
    flows: list[Flow] = []
    token = _flows.set(flows)
    try:
        yield flows
    finally:
        _flows.reset(token)


@contextmanager
def clip_steps(clip_step: float | None) -> Iterator[None]:
    """Within the block pullbacks clamp every element of dL/dh_t to -clip_step..clip_step, at every step; None: not.

    It acts before the gradient goes through the cell, so that no step can blow up what flows further back. Cost: none.
    Source: Graves, arXiv 1308.0850 (2013), section 2.1, there for the gradients of the pre-activations.
    Raises ValueError: `clip_step: expected a number >= 0, got -1`.
    """
    token = _limit.set(np.inf if clip_step is None else checks.number("clip_step", clip_step))
    try:
        yield
    finally:
        _limit.reset(token)


class Asked(NamedTuple):
    """What the blocks around a pullback ask of it."""

    limit: float  # of every element of dL/dh_t, inf for none
    flows: list[Flow] | None  # where to note dL/dh_t

    def place(
        self, layer: Any, index: int, reverse: bool, lengths: np.ndarray, width: int, dtype: np.dtype
    ) -> np.ndarray | None:
        """Where to write dL/dh_t (N, width), rows step after step; None if nobody wants it.

        lengths : (B,) steps of each sequence, descending
        """
        if self.flows is None:
            return None
        T = int(lengths.max(initial=0))
        count = np.count_nonzero(np.arange(T)[:, None] < lengths, axis=1)
        t = np.repeat(np.arange(T), count)
        self.flows.append(Flow(layer, index, reverse, t, aligned_empty((len(t), width), dtype)))
        return self.flows[-1].d_h


def asked() -> Asked:
    """What the caller's blocks ask for: read where a pullback is called, and handed down from there."""
    return Asked(_limit.get(), _flows.get())
