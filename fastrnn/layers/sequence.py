"""What recurrent layers have in common: batches of sequences through a stack, in one call or step by step."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import numpy as np

from fastrnn import checks, flow
from fastrnn.kinds import Kind
from fastrnn.layers.batch import X, taken
from fastrnn.layers.stack import Stack
from fastrnn.layers.stream import Stream
from fastrnn.parameters import Parameters
from fastrnn.wiring import Lane, Wiring, output, recurrent, vectors

State = Any  # h (L*D, B, P); of several, as (h, c) for LSTM, a tuple, where arguments may have None for any
Lengths = Sequence[int] | np.ndarray | None

_MOST_LAYERS = 1 << 16  # each has a dozen objects, also where it has few numbers


class Recurrent(Stack):
    """Layers of a kind over sequences, each fed by the one below; a class derived from it has a constructor to add.

    kind : a row of fastrnn.kinds
    others : as in fastrnn.RNN; options: what further parameters fastrnn.layers.stack.Stack has
    """

    def __init__(
        self,
        kind: Kind,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        bidirectional: bool = False,
        **options: Any,
    ) -> None:
        self.num_layers = checks.integer("num_layers", num_layers, 1)
        checks.integer("num_layers", num_layers, 1, _MOST_LAYERS)
        self.batch_first = checks.flag("batch_first", batch_first)
        self.bidirectional = checks.flag("bidirectional", bidirectional)
        directions = ("", "_reverse") if bidirectional else ("",)
        suffixes = [[f"_l{k}{direction}" for direction in directions] for k in range(self.num_layers)]
        super().__init__(kind, input_size, hidden_size, suffixes, **options)
        if self.dropout and self.num_layers == 1:
            message = f"dropout: expected 0 with one layer, as it acts between layers, got {self.dropout:g}"
            warnings.warn(message, UserWarning, stacklevel=3)
        self._initial_names = [f"{s}0" for s in self.state_names]
        self._cotangent_names = [f"d{s}_n" for s in self.state_names]
        states = "2*num_layers" if bidirectional else "num_layers"
        self._state_letters = [  # unbatched, and batched
            [f"({states}, {batch}{width})" for width in self._width_letters] for batch in ("", "B, ")
        ]

    def _arranged(self, x, initial, lengths):
        """The batch that x is, its rows (N, I), its states, and the steps of each direction."""
        batch, rows = taken(x, self.batch_first, lengths, self.dtype, self.input_size, "input_size")
        states = self._taken("initial", self._initial_names, initial, batch)
        return batch, rows, states, [batch.steps(reverse) for reverse in self._directions]

    def _taken(self, argument, names, value, batch):
        """A caller's state or its cotangent, checked: arrays (L*D, B, width), the sequences as the rows have them."""
        leading = (len(self._names), *batch.batch)
        letters = self._state_letters[len(batch.batch)]
        return [batch.take_state(s) for s in self.arrays_of(argument, names, value, leading, letters)]

    def _given(self, batch, states):
        """The state as the caller has it."""
        return self.state_of([batch.put_state(s) for s in states])

    def _output(self, batch, y, final, activations, return_cells):
        """What a caller gets."""
        output = batch.put(y), self._given(batch, final)
        if return_cells:
            kept = activations()
            output += (tuple([{name: batch.put(rows) for name, rows in each.items()} for each in kept]),)
        return output

    @overload
    def __call__(
        self, x: X, initial: State = None, *, lengths: Lengths = None, return_cells: Literal[False] = False
    ) -> tuple[X, State]: ...

    @overload
    def __call__(
        self, x: X, initial: State = None, *, lengths: Lengths = None, return_cells: bool
    ) -> tuple[Any, ...]: ...

    def __call__(
        self, x: X, initial: State = None, *, lengths: Lengths = None, return_cells: bool = False
    ) -> tuple[Any, ...]:
        """y and the last state, as `vjp` describes them: inference, nothing is kept and dropout is off."""
        batch, rows, states, steps = self._arranged(x, initial, lengths)
        y, final, _, activations = self.run(rows, states, steps, training=False, keep=return_cells)
        return self._output(batch, y, final, activations, return_cells)

    @overload
    def vjp(
        self, x: X, initial: State = None, *, lengths: Lengths = None, return_cells: Literal[False] = False
    ) -> tuple[tuple[X, State], Callable[..., tuple[X, State, Parameters]]]: ...

    @overload
    def vjp(
        self, x: X, initial: State = None, *, lengths: Lengths = None, return_cells: bool
    ) -> tuple[tuple[Any, ...], Callable[..., tuple[X, State, Parameters]]]: ...

    def vjp(
        self, x: X, initial: State = None, *, lengths: Lengths = None, return_cells: bool = False
    ) -> tuple[tuple[Any, ...], Callable[..., tuple[X, State, Parameters]]]:
        """(y, state), or (y, state, cells), and pullback(dy=None, d_state=None, grads=None) -> dx, d_initial, grads.

        Parameters
        ----------
        x : (T, B, I), with batch_first (B, T, I), unbatched (T, I), or a Packed of data (N, I); any size may be 0
        initial : h0 (L*D, B, P), unbatched (L*D, P), zeros if None; of several states a tuple, for LSTM (h0, c0), c0
            (L*D, B, H), each of which may be None
        lengths : (B,) steps of each sequence, integers 0..T in any order, for all T if None; not with a Packed
        return_cells : give `cells` too

        y is (T, B, D*P), laid out as x is: h of the last layer, the directions side by side. The state is h_n, or
        (h_n, c_n), like `initial`: after the last step of each sequence; the reverse direction starts at a sequence's
        own end. Beyond a sequence's length x is not read, and y, cells and dx are 0.

        cells is a tuple with a dict for each layer and direction, in the order of the states: h (T, B, P) and, each
        (T, B, H), the gates and other states by name (LSTM: i, f, g, o, c; GRU: r, z, n; RNN: none).

        The pullback's arguments are cotangents of y and of the state (of several states a tuple; None for zeros, also
        within it) and, optionally, the Parameters to write. It uses x, y and the weights as they then are: call it
        before they change.

        Raises ValueError: `x: expected shape (T, B, input_size) or (T, input_size) = (50, 32, 64), got (50, 32, 65)`,
        `h0: expected shape (num_layers, B, hidden_size) = (1, 32, 128), got (1, 16, 128)`,
        `lengths: expected 0 <= length <= 50, got 51`, `initial: expected (h0, c0), got ndarray`;
        TypeError: `x: expected dtype float32, got float64`.
        Cost, N steps in all, G gates: 2*N*G*H*(I+P) flop a layer and direction, twice that backward; h and the cells
        are kept. Lengths cost what their sum does. Reference twin: fastrnn.reference.recurrent.
        """
        batch, rows, states, steps = self._arranged(x, initial, lengths)
        y, final, backward, activations = self.run(rows, states, steps, training=True)

        def pullback(dy=None, d_state=None, grads=None):
            if dy is not None:
                dy = batch.take("dy", dy, self.dtype, y.shape[1])
            d_final = self._taken("d_state", self._cotangent_names, d_state, batch)
            grads = self.parameters.gradients(grads)
            dx, d_initial = backward(dy, d_final, grads, flow.asked())
            return batch.put(dx), self._given(batch, d_initial), grads

        return self._output(batch, y, final, activations, return_cells), pullback

    def stream(self, batch_size: int | None = None) -> Stream:
        """The layer step by step, from a state of zeros: `y = stream(x)` takes microseconds.

        batch_size : B; without, x is (I,) and y (P,), instead of (B, I) and (B, P)

        Raises ValueError: `stream: expected a layer in one direction, got a bidirectional one`. Dropout is off.
        """
        checks.one_direction("stream", self.bidirectional)
        batch = () if batch_size is None else (checks.integer("batch_size", batch_size, 1),)
        checks.addressable("batch_size", (self.num_layers, *batch, self.hidden_size), self.dtype.itemsize)
        return Stream(self, batch)

    def _checked_state(self, value: State, batch: tuple[int, ...]) -> list[np.ndarray]:
        """The arrays (L, *batch, width) of the state of a layer in one direction, zeros for None."""
        leading = (self.num_layers, *batch)
        letters = self._state_letters[len(batch)]
        return self.arrays_of("state", self.state_names, value, leading, letters)

    def wiring(self) -> Wiring:
        """What the layers are made of, for `fastrnn.plot`."""
        parts = [vectors(self.input_size), *recurrent(self), output()]
        more = f", {self.num_layers} layers" * (self.num_layers > 1) + ", both directions" * self.bidirectional
        title = f"{type(self).__name__}, input {self.input_size}, hidden {self.hidden_size}{more}"
        return Wiring(title, (Lane("", parts),))
