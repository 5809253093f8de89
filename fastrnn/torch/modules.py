"""torch.nn's recurrent modules, whose forward runs fastrnn's kernels where these can, and torch's own code elsewhere.

Each class is torch's, but for `forward`: constructor, parameters, state dict, hooks, copies and error messages stay
torch's own. What the kernels don't take (other devices and dtypes, autocast, tracing, compiling, function transforms,
empty or malformed input) goes to torch's forward, which runs it or says what is wrong.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastrnn import ragged
from fastrnn.torch.function import Layer
from fastrnn.torch.packed import packed_like, steps_of
from fastrnn.torch.tensors import eager, fit


def _given(hx: Any, count: int) -> Sequence[Any] | None:
    """The `count` states that hx is, () for none, and None for what torch does not take."""
    if hx is None:
        return ()
    if count == 1:
        return (hx,)
    return hx if isinstance(hx, (tuple, list)) and len(hx) == count else None


def _weights(module: nn.Module, names: Iterable[str]) -> list[Tensor]:
    """Parameters, or what a parametrisation or an older kind of hook makes of them."""
    own = module._parameters
    return [own[name] if name in own else getattr(module, name) for name in names]


class _Fast:
    """Before a class of torch.nn: its forward where the kernels can run it."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's."""
        if not isinstance(self, _Fast):  # bound while the module was fast, by another library's hook say
            return type(self).forward(self, input, hx)
        found = self._run(input, hx) if eager() else None
        if found is None and isinstance(input, torch.fx.Proxy):  # a leaf of the graph, as torch's own modules are
            place, arguments = input.tracer.path_of_module(self), (input,) if hx is None else (input, hx)
            return input.tracer.create_proxy("call_module", place, arguments, {})
        return super().forward(input, hx) if found is None else found

    def _kind(self) -> str:
        """The cell's name."""
        if isinstance(self, (nn.LSTM, nn.LSTMCell)):
            return "lstm"
        return "gru" if isinstance(self, (nn.GRU, nn.GRUCell)) else self.nonlinearity


class _Recurrent(_Fast):
    def _run(self, input, hx):
        packed, kind = isinstance(input, PackedSequence), self._kind()
        x, weights = input.data if packed else input, _weights(self, self._flat_weights_names)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)[: 2 if kind == "lstm" else 1]
        states = _given(hx, len(widths))
        if states is None or not fit((x, *states, *weights), weights[0].dtype):
            return None
        rank, D, L = x.dim(), 2 if self.bidirectional else 1, self.num_layers
        if rank not in ((2,) if packed else (2, 3)) or x.shape[-1] != self.input_size or not x.numel():
            return None
        alone = rank == 2 and not packed
        if packed:
            steps = steps_of(input.batch_sizes, len(x), D)
            if steps is None:
                return None
            B = len(steps[0].lengths)
        else:
            x = x.unsqueeze(1) if alone else x.transpose(0, 1) if self.batch_first else x
            T, B, _ = x.shape
            steps = [ragged.dense(T, B, bool(d)) for d in range(D)]
        for state, width in zip(states, widths, strict=False):
            if state.shape != ((L * D, width) if alone else (L * D, B, width)):
                return None
        if packed and input.sorted_indices is not None:
            states = [s.index_select(1, input.sorted_indices) for s in states]
        elif alone:
            states = [s.unsqueeze(1) for s in states]
        y, *final = self._layers(Layer(kind, self.bias, steps, self, 0), x, states, weights)
        if packed:
            y = packed_like(input, y)
            if input.unsorted_indices is not None:
                final = [s.index_select(1, input.unsorted_indices) for s in final]
        elif alone:
            y, final = y.squeeze(1), [s.squeeze(1) for s in final]
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, tuple(final) if len(widths) == 2 else final[0]

    def _layers(self, layer, x, states, weights):
        """All layers: y (..., D*P), and every state (L*D, B, width)."""
        D, L = len(layer.steps), self.num_layers
        if L == 1:
            return layer(x, states, weights)
        each, final = len(weights) // L, []
        for k in range(L):
            if k and self.dropout and self.training:
                x = nn.functional.dropout(x, self.dropout, True)
            own = [s[k * D : (k + 1) * D] for s in states]
            x, *ends = layer._replace(index=k)(x, own, weights[k * each : (k + 1) * each])
            final.append(ends)
        return x, *(torch.cat(parts) for parts in zip(*final, strict=True))


class _Cell(_Fast):
    def _run(self, x, hx):
        kind = self._kind()
        weights = _weights(self, ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2])
        states = _given(hx, 2 if kind == "lstm" else 1)
        if states is None or not fit((x, *states, *weights), weights[0].dtype):
            return None
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size or not x.numel():
            return None
        B, shape = x.numel() // self.input_size, (*x.shape[:-1], self.hidden_size)
        if any([s.shape != shape for s in states]):
            return None
        layer = Layer(kind, self.bias, [ragged.dense(1, B)], self, 0)
        _, *final = layer(x.view(1, B, -1), [s.view(1, B, -1) for s in states], weights)
        final = [s.view(shape) for s in final]
        return tuple(final) if kind == "lstm" else final[0]


class RNN(_Recurrent, nn.RNN):
    """torch.nn.RNN."""


class GRU(_Recurrent, nn.GRU):
    """torch.nn.GRU."""


class LSTM(_Recurrent, nn.LSTM):
    """torch.nn.LSTM."""


class RNNCell(_Cell, nn.RNNCell):
    """torch.nn.RNNCell."""


class GRUCell(_Cell, nn.GRUCell):
    """torch.nn.GRUCell."""


class LSTMCell(_Cell, nn.LSTMCell):
    """torch.nn.LSTMCell."""


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
    own = next(each for each in type(self).__mro__ if each in SLOW)
    _, _, *state = super(own, self).__reduce_ex__(protocol)
    return _revived, (SLOW[own],), *state


def _revived(slow):
    kind = fast_class(slow)
    return kind.__new__(kind)
