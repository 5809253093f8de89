"""One recurrent layer as a function of tensors that autograd knows; nothing is copied but what layout forces."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from fastrnn import checks, flow, functional, threads
from fastrnn.functional import Weights
from fastrnn.kinds import KINDS, Kind
from fastrnn.ragged import Steps
from fastrnn.torch.tensors import DTYPES, array, batched, fit

_EMPTY = torch.empty(0)


# What torch's modules have as their `mode`: RNN_TANH, RNN_RELU, GRU, LSTM.
MODES = {
    kind: "_".join([kind.torch.name, *kind.torch.attributes.values()]).upper() for kind in KINDS.values() if kind.torch
}


class Layer(NamedTuple):
    """What a layer is besides its tensors."""

    kind: Kind  # one that torch has
    bias: bool
    shapes: Sequence[tuple[int, ...]]  # of the weights of every direction
    steps: Sequence[Steps]  # of each direction
    module: nn.Module
    index: int  # type: ignore[assignment] # in the module; tuples have a method of that name

    def __call__(self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """y (..., D*P) and every state (D, B, width) after the last step.

        x : (T, B, I), or (N, I) with rows step after step
        states : h (D, B, P), and c (D, B, H); () for zeros
        weights : of each direction weight_ih, weight_hh, with bias bias_ih and bias_hh, and weight_hr where P < H
        """
        if torch.is_grad_enabled() and any([t.requires_grad for t in (x, *states, *weights)]):
            return RecurrentLayer.apply(self, len(states), x, *states, *weights)
        return _forward(self, x, states, weights, keep=False)[0]

    def by_direction(self, values: Sequence[Any]) -> list[Weights]:
        """Weights from the flat order of torch, which is that of Weights."""
        bias, each = () if self.bias else (None, None), len(values) // len(self.steps)
        return [Weights(*values[i : i + 2], *bias, *values[i + 2 : i + each]) for i in range(0, len(values), each)]

    def states(self) -> list[tuple[int, int]]:
        """The shape (B, width) of every state."""
        B, (GH, P) = len(self.steps[0].lengths), self.shapes[1]
        return [(B, P), *[(B, GH // len(self.kind.gates))] * (len(self.kind.states) - 1)]


# Of a module, by the layer's index: where its weights lay at the last call, and these as kernels take them. To look at
# them anew takes 5 us of a call's 27.
_last: WeakKeyDictionary[nn.Module, dict[int, tuple[list[Any], list[functional.Bound]]]] = WeakKeyDictionary()


def _bound(layer, weights):
    """The weights of each direction as kernels take them: a layer's last ones where they lie where these do.

    Those hold their memory, so that nothing else can lie there, and torch doesn't resize what NumPy has seen.
    """
    module, places = layer.module, [layer.kind, layer.shapes, weights[0].dtype, *map(_place, weights)]
    known = _last.get(module)
    if known is None:
        known = _last[module] = {}
    elif (last := known.get(layer.index)) is not None and last[0] == places:
        return last[1]
    arrays = [array(w) for w in weights]
    own = [functional.bound(layer.kind.tag, each) for each in layer.by_direction(arrays)]
    if None not in places:
        known[layer.index] = places, own
    return own


def _place(tensor):
    """Where the numbers of a tensor lie one after another as they are; None where they don't."""
    return tensor.data_ptr() if tensor.is_contiguous() and not tensor.is_neg() else None


def _stacked(parts: Sequence[np.ndarray]) -> Tensor:
    """One state of every direction."""
    return torch.from_numpy(parts[0][None] if len(parts) == 1 else np.stack(parts))


def _forward(layer, x, states, weights, keep):
    """The outputs as tensors, and the pullback of arrays."""
    own, x = _bound(layer, weights), array(x)
    rows = x.reshape(-1, x.shape[-1])
    if states:
        initial = [*zip(*map(array, states), strict=True)]
    else:
        initial = [tuple([np.zeros(shape, rows.dtype) for shape in layer.states()])] * len(own)
    with threads.at_most(torch.get_num_threads()):
        y, final, pullback, _ = functional.run_layer(own, rows, initial, layer.steps, keep)
    ends = [_stacked(parts) for parts in zip(*final, strict=True)]
    return (torch.from_numpy(y.reshape(*x.shape[:-1], y.shape[1])), *ends), pullback


class RecurrentLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Layer, S: int, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, pullback = _forward(layer, x, tensors[:S], tensors[S:], keep=True)
        kept: Any = _EMPTY.detach()  # what hangs on a saved tensor goes when torch frees the graph's buffers
        kept.pullback, kept.y = pullback, outputs[0].detach()  # detached, it still counts the writes to y
        ctx.layer, ctx.S, ctx.shape, ctx.dtype = layer, S, x.shape, x.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *tensors, kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        layer, (x, *tensors, kept), ends = ctx.layer, ctx.saved_tensors, ctx.layer.states()
        states, weights, D = tensors[: ctx.S], tensors[ctx.S :], len(layer.steps)
        end_shapes = [(D, *shape) for shape in ends]
        of = (*ctx.shape[:-1], D * ends[0][1]), *end_shapes
        given = [(d, shape) for d, shape in zip(cotangents, of, strict=True) if d is not None]
        if not given:
            return (None,) * (3 + len(tensors))
        found, of = zip(*given, strict=True)
        by_kernels = not (torch.is_grad_enabled() or batched(found)) and fit(found, of, ctx.dtype)
        if by_kernels and hasattr(kept, "pullback") and kept.y._version == 0:
            pullback = kept.pullback
        else:  # of a derivative, or a hook has packed the saved tensors, or y was written to
            shapes = ctx.shape, *end_shapes[: ctx.S], *layer.shapes
            if not fit((x, *tensors), shapes, ctx.dtype):
                checks.saved_tensors([t.shape for t in (x, *tensors)], shapes)
            if not by_kernels:
                return None, None, *_through_torch(layer, x, states, weights, ctx.needs_input_grad[2:], cotangents)
            _, pullback = _forward(layer, x, states, weights, keep=True)
        need_dx, *needed = ctx.needs_input_grad[2:]
        need_states, need_weights = needed[: ctx.S], needed[ctx.S :]
        dtype, (dy, *d_final) = DTYPES[ctx.dtype], [None if d is None else array(d) for d in cotangents]
        dy = None if dy is None else dy.reshape(-1, dy.shape[-1])
        d_weights = [
            np.empty(shape, dtype) if need else None for shape, need in zip(layer.shapes, need_weights, strict=True)
        ]
        asked = flow.asked()
        d_hs = [
            asked.place(layer.module, layer.index, d == 1, s.lengths, ends[0][1], dtype)
            for d, s in enumerate(layer.steps)
        ]
        d_ends = [[np.zeros(shape, dtype)] * D if d is None else d for shape, d in zip(ends, d_final, strict=True)]
        with threads.at_most(torch.get_num_threads()):
            dx, d_initial = pullback(
                dy, [*zip(*d_ends, strict=True)], layer.by_direction(d_weights),
                limit=asked.limit, d_hs=d_hs, need_dx=need_dx,
            )  # fmt: skip
        d_states = zip(zip(*d_initial, strict=True), need_states, strict=False)  # no states, no gradients of them
        return (
            None,
            None,
            torch.from_numpy(dx.reshape(ctx.shape)) if need_dx else None,
            *[_stacked(d) if need else None for d, need in d_states],
            *[None if d is None else torch.from_numpy(d) for d in d_weights],
        )


def _through_torch(layer, x, states, weights, needs, cotangents):
    """The same gradients by torch's own operations, which can be differentiated again."""
    count = torch.from_numpy(np.sort(layer.steps[0].count)[::-1].copy())
    with torch.enable_grad():
        hx = states or [x.new_zeros(len(layer.steps), *shape) for shape in layer.states()]
        outputs = getattr(torch._VF, MODES[layer.kind].lower())(
            x.reshape(-1, x.shape[-1]), count, tuple(hx) if len(hx) > 1 else hx[0], weights, layer.bias,
            1, 0.0, False, len(layer.steps) == 2,
        )  # fmt: skip
        pairs = [(o.reshape(d.shape), d) for o, d in zip(outputs, cotangents, strict=True) if d is not None]
        found = torch.autograd.grad(
            [o for o, _ in pairs],
            [t for t, need in zip((x, *states, *weights), needs, strict=True) if need],
            [d for _, d in pairs],
            create_graph=True,
            allow_unused=True,
        )
    gradients = iter(found)
    return [next(gradients) if need else None for need in needs]
