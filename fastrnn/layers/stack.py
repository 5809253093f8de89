"""What recurrent layers and single steps share: parameters by torch's names, states, the way through a stack."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn import checks, functional, kinds
from fastrnn.functional import Weights
from fastrnn.kernels.cells import TRAITS
from fastrnn.kinds import Kind
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.layer import Layer
from fastrnn.ragged import Steps

States = tuple[np.ndarray, ...]  # h, and what else a cell carries
Activations = dict[str, np.ndarray]


class Stack(Layer):
    """Layers of one kind in D directions; h has P columns and other states have H.

    kind : a row of fastrnn.kinds
    suffixes : of the parameters' names: for each layer, one for each direction
    per_unit : have the kind's per-unit weights
    further parameters : as in fastrnn.LSTM
    """

    def __init__(
        self,
        kind: Kind,
        input_size: int,
        hidden_size: int,
        suffixes: Sequence[Sequence[str]],
        bias: bool = True,
        proj_size: int = 0,
        per_unit: bool = False,
        forget_bias: float | None = None,
        dropout: float = 0.0,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.input_size = checks.integer("input_size", input_size, 0)
        self.hidden_size = H = checks.integer("hidden_size", hidden_size, 1)
        self.bias = checks.flag("bias", bias)
        self.proj_size = checks.integer("proj_size", proj_size, 0, H - 1)
        P = self.proj_size or H
        self._cell = kind.weighted if per_unit and kind.weighted else kind.tag
        traits = TRAITS[self._cell]
        D = len(suffixes[0])
        GH = len(traits.gates) * H
        RH = traits.recurrent * H
        shapes: dict[str, tuple[int, ...]] = {}
        self._names: list[list[str | None]] = []
        for k, directions in enumerate(suffixes):
            own: list[Any] = [  # in the order of Weights; None for what there is not
                (GH, D * P if k else self.input_size), RH and (RH, P), bias and (GH,), bias and RH and (RH,),
                (P, H) if P < H else None, traits.weights and (len(traits.weights), H),
            ]  # fmt: skip
            for suffix in directions:
                named = [(name + suffix, shape) for name, shape in zip(kind.parameters, own, strict=True)]
                shapes |= {name: shape for name, shape in named if shape}
                self._names.append([name if shape else None for name, shape in named])
        super().__init__(shapes, dtype)
        others = len(kind.states) - 1
        self._directions = (False, True)[:D]
        self._bound: tuple[dict[str, np.ndarray] | None, list[Weights], list[functional.Bound]] = None, [], []
        self.state_names = kind.states
        self._widths = (P, *[H] * others)
        self._width_letters = ("proj_size" if P < H else "hidden_size", *["hidden_size"] * others)
        generator = checks.generator(seed)
        self.parameters.flat[:] = generator.uniform(-(H**-0.5), H**-0.5, self.parameters.flat.size)
        if not bias:
            checks.absent("forget_bias", forget_bias, "without bias")
        elif forget_bias is not None:
            start = kind.gates.index("f") * H
            for weights in self._weights(self.parameters):
                weights.b_ih[start : start + H] = checks.number("forget_bias", forget_bias, -np.inf)
                weights.b_hh[start : start + H] = 0
        checks.number("dropout", dropout, 0.0, 1.0)
        self._dropout = Dropout(dropout, seed=generator.spawn(1)[0])
        self.dropout = self._dropout.p

    @property
    def kind(self) -> Kind:
        """The row of fastrnn.kinds."""
        return kinds.of_cell(self._cell)

    def _weights(self, parameters):
        """Weights, or gradients, for each layer and direction."""
        views = parameters.views()
        return [Weights._make([name and views[name] for name in names]) for names in self._names]

    def _bind(self):
        """The parameters' views, their Weights, and what `bound` makes of these, while the buffer is the same."""
        views = self._parameters.views()
        if self._bound[0] is not views:
            weights = self._weights(self._parameters)
            self._bound = views, weights, [functional.bound(self._cell, own) for own in weights]
        return self._bound

    def _own_weights(self):
        return self._bind()[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the views, which a copy would no longer share with its parameters."""
        return {**self.__dict__, "_bound": (None, [], [])}

    def run(
        self,
        x: np.ndarray,
        initial: Sequence[np.ndarray],
        steps: Sequence[Steps],
        training: bool,
        keep: bool = True,
        table: np.ndarray | None = None,
    ) -> tuple[np.ndarray, States, Callable[..., tuple[Any, States]], Callable[[], list[Activations]]]:
        """All layers over checked rows.

        Parameters
        ----------
        x : rows (N, I); or tokens (N,) for one-hot rows or, in one direction, those of `table` (V, I)
        initial : every state (L*D, B, width), its sequences in the order of `steps`
        steps : of each direction
        training : with dropout between layers
        keep : what the pullback and the activations want

        Returns y (N, D*P), the final states, pullback(dy or None, d_final, grads, asked, d_table=None) -> dx, d_initial
        that fills grads and does what flow.Asked says, and a function that gives h and the activations (N, width) of
        each layer and direction.
        """
        D = len(self._directions)
        own = self._bind()[2]
        y = x
        layers: list[Any] = []
        undrops: list[Any] = []
        final: list[States] = []
        for k in range(len(self._names) // D):
            places = range(k * D, k * D + D)
            if k and training:
                y, undrop = self._dropout.vjp(y)
                undrops.append(undrop)
            y, ends, *run = functional.run_layer(
                own[k * D : k * D + D], y, [tuple([s[i] for s in initial]) for i in places], steps, keep,
                None if k else table,
            )  # fmt: skip
            final += ends
            if keep:
                layers.append(run)

        def pullback(dy, d_final, grads, asked, d_table=None):
            gradients = self._weights(grads)
            d_initial: list[States] = []
            for k, (back, _) in reversed(list(enumerate(layers))):
                places = range(k * D, k * D + D)
                d_ends = [tuple([s[i] for s in d_final]) for i in places]
                d_hs = [asked.place(self, k, d == 1, steps[d].lengths, self._widths[0], self.dtype) for d in range(D)]
                dy, d_starts = back(dy, d_ends, gradients[k * D : k * D + D], None if k else d_table, asked.limit, d_hs)
                if k and training:
                    dy = undrops[k - 1](dy)
                d_initial = d_starts + d_initial
            return dy, _stacked(d_initial)

        def activations():
            return [each for _, kept in layers for each in kept()]

        return y, _stacked(final), pullback, activations

    def arrays_of(
        self, argument: str, names: Sequence[str], value: Any, leading: tuple[int, ...], letters: Sequence[str]
    ) -> list[np.ndarray]:
        """A caller's state or its cotangent, checked: arrays (*leading, width), zeros for None."""
        values = (value,) if len(names) == 1 else checks.parts(argument, value, names)
        dtype = self.dtype
        return [
            np.zeros((*leading, width), dtype)
            if value is None
            else checks.array(name, value, dtype, *leading, width, letters=letter)
            for name, value, width, letter in zip(names, values, self._widths, letters, strict=True)
        ]

    @staticmethod
    def state_of(arrays: Sequence[np.ndarray]) -> Any:
        """The state as a caller has it: h, or a tuple of all."""
        return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _stacked(states):
    """Each state of all layers and directions, (L*D, B, width)."""
    if len(states) == 1:
        return tuple([s[None] for s in states[0]])
    return tuple([np.stack(parts) for parts in zip(*states, strict=True)])
