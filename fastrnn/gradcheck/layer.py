"""A layer's gradients against its derivatives."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.gradcheck.compare import METHODS, check
from fastrnn.gradcheck.report import Report
from fastrnn.layers.cell import Cell
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.linear import Linear
from fastrnn.layers.sequence import Recurrent
from fastrnn.layers.time_delay import TimeDelay
from fastrnn.parameters import Parameters


def check_layer(
    layer: Any,
    x: Any = None,
    initial: Any = None,
    *,
    steps: int | None = None,
    batch: int | None = None,
    lengths: Sequence[int] | None = None,
    method: str = "auto",
    tolerance: float | None = None,
    seed: int = 0,
) -> Report:
    """Compare what the pullback of layer.vjp gives with the derivatives of layer(x) or layer(x, initial).

    Parameters
    ----------
    layer : one of fastrnn, or any object whose vjp(x) gives an output and its pullback(d_output) -> dx, grads, and
        whose `parameters`, if it has some, are a fastrnn.Parameters; a float32 one is checked as its float64 copy
    x : its input; random if None (of fastrnn's layers)
    initial : state of recurrent layers and cells, h or a tuple as (h, c); random if None
    steps, batch : T and B of a random x; 5 and 3, or with `lengths` their maximum and their number, if None
    lengths : (B,) steps of each sequence
    method, tolerance, seed : as of `check`; a layer takes no complex numbers

    Inputs and outputs are compared block by block: first steps, last steps, those between, padding, and each gate.

    Raises ValueError: `layer: expected dropout 0, got 0.5 (its masks change from call to call)`, `method: expected one
    of auto, central, dot, got 'complex'`, `x: expected an array for a layer like Dense, got None`; TypeError: `layer:
    expected a method vjp, got int`. Cost: as of `check`.
    """
    checks.choice("method", method, [one for one in METHODS if one != "complex"])
    if not hasattr(layer, "vjp"):
        raise TypeError(f"layer: expected a method vjp, got {type(layer).__name__}")
    dropout = getattr(layer, "dropout", 0) or getattr(layer, "p", 0)
    if dropout:
        raise ValueError(f"layer: expected dropout 0, got {dropout} (its masks change from call to call)")
    rng, layer = np.random.default_rng(seed), _float64(layer)
    options = {} if lengths is None else {"lengths": lengths}
    if steps is None:
        steps = 5 if lengths is None else max(lengths, default=0)
    if batch is None:
        batch = 3 if lengths is None else len(lengths)
    x = _random_x(layer, steps, batch, rng) if x is None else _as_float64(x)
    arguments = (x, *_states(layer, x, initial, options, rng))
    inputs = dict(zip(_input_names(layer, arguments), _leaves(arguments), strict=True))
    parameters = {name: value.copy() for name, value in getattr(layer, "parameters", {}).items()}

    def given(values):
        for name in parameters:
            layer.parameters[name][...] = values[name]
        return _like(arguments, iter([values[name] for name in inputs]))

    def function(**values):
        return _named(layer, layer(*given(values), **options))

    def gradients(cotangents):
        output, pullback = layer.vjp(*given(inputs | parameters), **options)
        found = pullback(*_spread(pullback, _like(output, iter(cotangents.values()))))
        parts = list(_leaves(found))
        arrays = iter([part for part in parts if not isinstance(part, Mapping)])
        own = {name: next(arrays) for name, value in inputs.items() if value.dtype.kind == "f"}
        return own | next((dict(part) for part in parts if isinstance(part, Mapping)), {})

    blocks = _gate_blocks(layer, parameters)
    if isinstance(layer, (Recurrent, TimeDelay)):
        blocks |= dict.fromkeys(("x", "y"), _step_blocks(layer, x, lengths))
    title = f"{type(layer).__name__} of " + ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
    return check(
        function, gradients, inputs | parameters,
        method=method, tolerance=tolerance, blocks=blocks, seed=seed, title=title,
    )  # fmt: skip


def _float64(layer):
    """A copy of a layer, in float64."""
    layer = copy.deepcopy(layer)
    own = getattr(layer, "parameters", None)
    if isinstance(own, Parameters) and own.dtype != np.float64:
        layer.parameters = Parameters(own.shapes, "float64")
        layer.parameters.flat[:] = own.flat
    return layer


def _as_float64(value):
    """Float arrays in float64, also those in tuples; others as they are."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_as_float64, value))
    found = np.asarray(value)
    return found.astype(np.float64) if found.dtype.kind == "f" else found


def _random_x(layer, steps, batch, rng):
    if isinstance(layer, (Recurrent, TimeDelay)):
        shape = (batch, steps) if layer.batch_first else (steps, batch)
        return rng.standard_normal((*shape, layer.in_channels if isinstance(layer, TimeDelay) else layer.input_size))
    if isinstance(layer, Cell):
        return rng.standard_normal((batch, layer.input_size))
    if isinstance(layer, Linear):
        return rng.standard_normal((batch, layer.in_features))
    if isinstance(layer, Embedding):
        return rng.integers(layer.num_embeddings, size=(steps, batch))
    raise ValueError(f"x: expected an array for a layer like {type(layer).__name__}, got None")


def _states(layer, x, initial, options, rng):
    """The arguments after x: the initial state, shaped like the last one, if the layer has one."""
    if not isinstance(layer, (Recurrent, Cell)):
        return () if initial is None else (_as_float64(initial),)
    output = layer(x, **options)
    last = output[1] if isinstance(layer, Recurrent) else output
    drawn = _like(last, iter([rng.standard_normal(part.shape) for part in _leaves(last)]))
    if initial is None:
        return (drawn,)
    if not isinstance(drawn, tuple) or not isinstance(initial, (tuple, list)):
        return (_as_float64(initial),)
    return (tuple(one if own is None else _as_float64(own) for own, one in zip(initial, drawn, strict=False)),)


def _leaves(value: Any) -> Iterator[Any]:
    """The arrays of nested tuples, from left to right; a mapping is one leaf."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _like(form, leaves):
    """The same nesting with other leaves."""
    return tuple(_like(part, leaves) for part in form) if isinstance(form, (tuple, list)) else next(leaves)


def _input_names(layer, arguments):
    known = ["x", "initial"]
    if isinstance(layer, (Recurrent, Cell)):
        known[1:] = [name + "0" * isinstance(layer, Recurrent) for name in layer.state_names]
    return [*known, *(f"input{at}" for at in range(len(known), 64))][: len(list(_leaves(arguments)))]


def _named(layer, output):
    """A layer's output as a mapping name -> array."""
    names: Sequence[str] = ("y", *(f"y{at}" for at in range(1, 64)))
    if isinstance(layer, Recurrent):
        names = ("y", *(f"{name}_n" for name in layer.state_names))
    elif isinstance(layer, Cell):
        names = [f"{name}'" for name in layer.state_names]
    return dict(zip(names, _leaves(output), strict=False))


def _spread(pullback: Callable[..., Any], cotangents: Any) -> tuple[Any, ...]:
    """Arguments of a pullback: one for each part of the output if it takes as many, else all as one."""
    wanted = [name for name in inspect.signature(pullback).parameters if name != "grads"]
    return cotangents if isinstance(cotangents, tuple) and len(wanted) == len(cotangents) else (cotangents,)


def _step_blocks(layer, x, lengths):
    """Label -> steps (T, B), laid out as x is: each sequence's first, those between, its last, and padding."""
    leading = x.shape[:-1]
    axis = int(layer.batch_first and len(leading) == 2)
    t = np.indices(leading)[axis]
    rows = leading[:axis] + leading[axis + 1 :]
    ends = t.shape[axis] if lengths is None else np.expand_dims(np.reshape(lengths, rows), axis)
    parts = {"first step": (t == 0) & (ends > 0), "middle": (t > 0) & (t < ends - 1), "last step": t == ends - 1}
    return parts | {"padding": t >= ends}


def _gate_blocks(layer, parameters):
    """Name of a weight or bias -> label -> rows of each gate, or of each per-unit weight."""
    if not isinstance(layer, (Recurrent, Cell)):
        return {}
    found: dict[str, dict[str, Any]] = {}
    H, kind = layer.hidden_size, layer.kind
    for *by_gate, _, per_unit in layer._names:  # in the order of Weights
        for name in filter(None, by_gate):
            gates = kind.gates[: len(parameters[name]) // H]  # those that h feeds are the first
            found[name] = {f"gate {gate}": np.s_[at * H : at * H + H] for at, gate in enumerate(gates)}
        if per_unit:
            found[per_unit] = {name: np.s_[at] for at, name in enumerate(kind.weights)}
    return found
