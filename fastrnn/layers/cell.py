"""What single steps of recurrent cells have in common."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import checks, flow, ragged
from fastrnn.kinds import Kind
from fastrnn.layers.stack import Stack
from fastrnn.parameters import Parameters

State = Any  # h (B, H); of several, as (h, c) for LSTMCell, a tuple, where arguments may have None for any

_LETTERS = "(B, input_size) or (input_size,)"


class Cell(Stack):
    """One step of a layer of a kind; a class derived from it has a constructor to add.

    kind : a row of fastrnn.kinds
    others : as in fastrnn.RNNCell; options: what further parameters fastrnn.layers.stack.Stack has
    """

    def __init__(self, kind: Kind, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(kind, input_size, hidden_size, [[""]], **options)
        self._cotangent_names = [f"d{s}" for s in self.state_names]
        self._state_letters = ["(hidden_size,)", "(B, hidden_size)"]  # unbatched, and batched

    def _taken(self, argument, names, value, batch):
        """A caller's state or its cotangent, checked: arrays (1, B, H)."""
        letters = [self._state_letters[len(batch)]] * len(self._widths)
        return [s.reshape(1, -1, self.hidden_size) for s in self.arrays_of(argument, names, value, batch, letters)]

    def _given(self, state, batch):
        """The state as the caller has it."""
        return self.state_of([s.reshape(*batch, self.hidden_size) for s in state])

    def _run(self, x, state, training):
        x = checks.rank("x", x, _LETTERS, 1, 2)
        batch = x.shape[:-1]
        x = checks.array("x", x, self.dtype, *batch, self.input_size, letters=_LETTERS)
        states = self._taken("state", self.state_names, state, batch)
        B = states[0].shape[1]
        _, final, backward, _ = self.run(x.reshape(B, x.shape[-1]), states, [ragged.dense(1, B)], training, training)
        return x.shape, self._given(final, batch), backward

    def __call__(self, x: np.ndarray, state: State = None) -> State:
        """The state after a step, as `vjp` describes it: inference, nothing is kept."""
        return self._run(x, state, training=False)[1]

    def vjp(
        self, x: np.ndarray, state: State = None
    ) -> tuple[State, Callable[..., tuple[np.ndarray, State, Parameters]]]:
        """The state after a step, and pullback(d_state=None, grads=None) -> dx, d_initial, grads.

        Parameters
        ----------
        x : (B, I), or unbatched (I,)
        state : h (B, H), unbatched (H,), zeros if None; for LSTMCell (h, c), either may be None

        The new state is like `state`. The pullback's arguments are its cotangent (for LSTMCell a pair, either may be
        None; None for zeros) and, optionally, the Parameters to write; d_initial is the gradient of `state`.

        Raises ValueError: `x: expected shape (B, input_size) or (input_size,) = (32, 64), got (32, 65)`,
        `h: expected shape (B, hidden_size) = (32, 128), got (16, 128)`, `state: expected (h, c), got ndarray`;
        TypeError: `x: expected dtype float32, got float64`.
        Cost: 2*B*G*H*(I+H) flop, twice that backward. Reference twin: fastrnn.reference.cells.cell_forward.
        """
        shape, state, backward = self._run(x, state, training=True)

        def pullback(d_state=None, grads=None):
            d_final = self._taken("d_state", self._cotangent_names, d_state, shape[:-1])
            grads = self.parameters.gradients(grads)
            dx, d_initial = backward(None, d_final, grads, flow.asked())
            return dx.reshape(shape), self._given(d_initial, shape[:-1]), grads

        return state, pullback
