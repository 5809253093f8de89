"""torch.nn's recurrent modules, whose forward runs fastrnn's kernels where these can, and torch's own code elsewhere.

Each class is torch's, but for `forward`: constructor, parameters, state dict, hooks, copies and error messages stay
torch's own. What the kernels don't take (other devices and dtypes, autocast, tracing, compiling, function transforms,
empty or malformed input) goes to torch's forward, which runs it or says what is wrong.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastrnn import kinds, ragged
from fastrnn.kinds import Kind
from fastrnn.torch.function import Layer
from fastrnn.torch.packed import packed_like, steps_of
from fastrnn.torch.tensors import check_storage, eager, fit, ordinary


def _given(hx: Any, count: int) -> Sequence[Any] | None:
    """The `count` states that hx is, () for none, and None for what torch does not take."""
    if hx is None:
        return ()
    if count == 1:
        return (hx,)
    return hx if isinstance(hx, (tuple, list)) and len(hx) == count else None


def _weights(module: nn.RNNBase) -> Sequence[Any]:
    """What torch's forward would run with: the parameters, or what a program has put in their place."""
    names, weights, own = module._flat_weights_names, module._flat_weights, module._parameters
    as_many = len(names) == len(weights) == len(module._flat_weight_refs)
    if not as_many or not all(map(is_, map(own.get, names), weights)):
        module._update_flat_weights()
        return module._flat_weights
    return weights


_CELL_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@lru_cache(maxsize=512, typed=True)
def _shapes(
    kind, count, input_size, hidden_size, bias, proj_size=0, num_layers=1, bidirectional=False, dropout=0.0, *switches
):
    """The shapes of a module's weights, in torch's order; None where its attributes are what no constructor gives.

    count : how many weights there are; shapes for many more would be of no use
    """
    sizes = input_size, hidden_size, num_layers
    if (
        kind is None
        or any(type(size) is not int or size < 1 for size in sizes)
        or any(type(switch) is not bool for switch in (bias, bidirectional, *switches))
        or type(proj_size) is not int
        or not 0 <= proj_size < (hidden_size if "proj_size" in kind.own else 1)
        or not (type(dropout) in (int, float) and 0 <= dropout <= 1)
    ):
        return None
    D, GH, P = 2 if bidirectional else 1, len(kind.gates) * hidden_size, proj_size or hidden_size
    others = [(GH, P), *[(GH,)] * (2 * bias), *[(P, hidden_size)] * (proj_size > 0)]
    first, later = [(GH, input_size), *others] * D, [(GH, D * P), *others] * D
    return tuple(first + later * min(num_layers - 1, count))


def _shapes_of(*attributes: Any) -> tuple[tuple[int, ...], ...] | None:
    """`_shapes`, and None for what has no hash either."""
    try:
        return _shapes(*attributes)
    except TypeError:
        return None


def _short(weights: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether a matrix, or both biases, which torch adds up first, have fewer elements than their places ask for."""
    pairs = zip(weights, shapes, strict=False)
    short = [isinstance(w, Tensor) and (w.numel() < prod(shape) or not w.is_contiguous()) for w, shape in pairs]
    return any(
        own and (len(shape) == 2 or after)
        for own, after, shape in zip(short, [*short[1:], False], shapes, strict=False)
    )


class _Fast:
    """Before a class of torch.nn, whose attributes `self` has, too: its forward where the kernels can run it."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """As torch's."""
        if not isinstance(self, _Fast):  # bound while the module was fast, by another library's hook say
            return type(self).forward(self, input, hx)
        found = self._run(input, hx) if eager() else None  # type: ignore[attr-defined] # defined below
        if found is None and isinstance(input, torch.fx.Proxy):  # a leaf of the graph, as torch's own modules are
            tracer: Any = input.tracer
            place, arguments = tracer.path_of_module(self), (input,) if hx is None else (input, hx)
            return tracer.create_proxy("call_module", place, arguments, {})
        return super().forward(input, hx) if found is None else found  # type: ignore[misc] # torch.nn's


class _Recurrent(_Fast):
    def _run(self: Any, input: Any, hx: Any) -> Any:
        packed, kind = isinstance(input, PackedSequence), self._kind
        x, bidirectional, L, P, H = (
            input.data if packed else input, self.bidirectional, self.num_layers, self.proj_size, self.hidden_size
        )  # fmt: skip
        shapes = _shapes_of(
            kind, len(self._flat_weights_names), self.input_size, H, self.bias, P, L, bidirectional, self.dropout,
            self.batch_first, self.training,
        )  # fmt: skip
        if shapes is None or not ordinary(x):
            return None
        widths = (P or H, *[H] * (len(kind.states) - 1))
        states, x_shape, rank, D = _given(hx, len(widths)), x.shape, x.dim(), 2 if bidirectional else 1
        if states is None or rank not in ((2,) if packed else (2, 3)) or x_shape[-1] != self.input_size or 0 in x_shape:
            return None
        alone = rank == 2 and not packed
        if packed:
            steps = steps_of(input.batch_sizes, x_shape[0], D)
            if steps is None:
                return None
            B = len(steps[0].lengths)
        else:
            T, B = x_shape[0], 1 if alone else x_shape[1]
            if self.batch_first and not alone:
                T, B = B, T
            steps = [ragged.dense(T, B, bool(d)) for d in range(D)]
        order = input.sorted_indices if packed else None
        if states:
            of = [(L * D, width) if alone else (L * D, B, width) for width in widths]
            if not fit(states, of, x.dtype) or not (order is None or fit((order,), [(B,)], torch.int64)):
                return None
        weights = _weights(self)
        if not fit(weights, shapes, x.dtype):
            return self._without_onednn(input, hx) if _short(weights, shapes) else None
        if order is not None and states:
            for state in states:
                check_storage(state)
            states = [s.index_select(1, order) for s in states]
        elif alone:
            x, states = x.unsqueeze(1), [s.unsqueeze(1) for s in states]
        elif self.batch_first and not packed:
            x = x.transpose(0, 1)
        y, *final = self._layers(Layer(kind, self.bias, shapes, steps, self, 0), x, states, weights)
        if packed:
            y = packed_like(input, y)
            if input.unsorted_indices is not None:
                final = [s.index_select(1, input.unsorted_indices) for s in final]
        elif alone:
            y, final = y.squeeze(1), [s.squeeze(1) for s in final]
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, tuple(final) if len(widths) > 1 else final[0]

    def _without_onednn(self: Any, input: Any, hx: Any) -> Any:
        """torch's forward where its LSTM is sure to look at the shapes of weights: oneDNN reads beyond their end."""
        enabled = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return super(_Fast, self).forward(input, hx)  # type: ignore[misc] # torch.nn's
        finally:
            torch._C._set_mkldnn_enabled(enabled)

    def _layers(self: Any, layer: Layer, x: Tensor, states: Any, weights: Any) -> tuple[Tensor, ...]:
        """All layers: y (..., D*P), and every state (L*D, B, width)."""
        D, L = len(layer.steps), self.num_layers
        if L == 1:
            return layer(x, states, weights)
        each, final = len(weights) // L, []
        for k in range(L):
            if k and self.dropout and self.training:
                x = nn.functional.dropout(x, self.dropout, True)
            own = [s[k * D : (k + 1) * D] for s in states]
            part = slice(k * each, (k + 1) * each)
            x, *ends = layer._replace(shapes=layer.shapes[part], index=k)(x, own, weights[part])
            final.append(ends)
        return x, *(torch.cat(parts) for parts in zip(*final, strict=True))


class _Cell(_Fast):
    def _run(self: Any, x: Any, hx: Any) -> Any:
        own, kind = self._parameters, self._kind
        states = None if kind is None else _given(hx, len(kind.states))
        if states is None or not ordinary(x) or x.dim() not in (1, 2):
            return None
        x_shape, I, H = x.shape, self.input_size, self.hidden_size
        if (
            x_shape[-1] != I
            or 0 in x_shape
            or (states and not fit(states, [(*x_shape[:-1], H)] * len(states), x.dtype))
        ):
            return None
        weights = [own[name] if name in own else getattr(self, name) for name in _CELL_WEIGHTS]
        bias = weights[2] is not None
        shapes = _shapes_of(kind, 4, I, H, bias)
        weights = weights if bias or weights[3] is not None else weights[:2]
        if shapes is None or not fit(weights, shapes, x.dtype):
            return None
        B, shape = x.numel() // I, (*x_shape[:-1], H)
        layer = Layer(kind, bias, shapes, [ragged.dense(1, B)], self, 0)
        _, *final = layer(x.view(1, B, -1), [s.view(1, B, -1) for s in states], weights)
        final = [s.view(shape) for s in final]
        return tuple(final) if len(final) > 1 else final[0]


_TANH, _RELU = kinds.named("tanh"), kinds.named("relu")


class RNN(_Recurrent, nn.RNN):
    """torch.nn.RNN."""

    @property
    def _kind(self) -> Kind | None:
        return _TANH if self.mode == "RNN_TANH" else _RELU if self.mode == "RNN_RELU" else None


class GRU(_Recurrent, nn.GRU):
    """torch.nn.GRU."""

    _kind = kinds.named("gru")


class LSTM(_Recurrent, nn.LSTM):
    """torch.nn.LSTM."""

    _kind = kinds.named("lstm")


class RNNCell(_Cell, nn.RNNCell):
    """torch.nn.RNNCell."""

    @property
    def _kind(self) -> Kind | None:
        return _TANH if self.nonlinearity == "tanh" else _RELU if self.nonlinearity == "relu" else None


class GRUCell(_Cell, nn.GRUCell):
    """torch.nn.GRUCell."""

    _kind = kinds.named("gru")


class LSTMCell(_Cell, nn.LSTMCell):
    """torch.nn.LSTMCell."""

    _kind = kinds.named("lstm")


FAST: dict[type, type] = {
    nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM, nn.RNNCell: RNNCell, nn.GRUCell: GRUCell, nn.LSTMCell: LSTMCell
}  # fmt: skip
SLOW = {fast: slow for slow, fast in FAST.items()}


def fast_class(slow: type) -> type | None:
    """What a class of torch.nn becomes, or one derived from it, whose own methods stay and whose super() is fast.

    None for classes that are no RNN, GRU, LSTM or cell, or are fast already.
    """
    base = next((each for each in slow.__mro__ if each in FAST), None)
    if base is None or issubclass(slow, _Fast):
        return None
    if slow not in FAST:
        own = {"__module__": slow.__module__, "__qualname__": slow.__qualname__, "__reduce_ex__": _reduced}
        FAST[slow] = type(slow.__name__, (slow, FAST[base]), own)
        SLOW[FAST[slow]] = slow
    return FAST[slow]


def slow_class(kind: type) -> type:
    """A class without what is fast about it: what `fast_class` took, or a twin of a class derived from a fast one.

    A twin's methods can be read, as TorchScript does; those that call super() can't be run.
    """
    if kind in SLOW or not issubclass(kind, _Fast):
        return SLOW.get(kind, kind)
    return rebased(kind, *map(slow_class, kind.__bases__))


def rebased(kind: type, *bases: type) -> type:
    """The same class over other bases."""
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind)(kind.__name__, bases, own)


def _reduced(self, protocol):
    """A class made here is found by the one that it was made for."""
    own: Any = next(each for each in type(self).__mro__ if each in SLOW)
    _, _, *state = super(own, self).__reduce_ex__(protocol)
    return _revived, (SLOW[own],), *state


def _revived(slow):
    kind: Any = fast_class(slow)
    return kind.__new__(kind)
