"""One recurrent layer, one direction, in fastrnn and its peers: the same arrays and weights, called by every system."""

import contextlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click
import numpy as np
from registry import CELLS, Shape, built

import fastrnn

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
ONNX_SPINNING = {
    "always": {},
    "within a call": {"session.force_spinning_stop": "1"},
    "never": {"session.intra_op.allow_spinning": "0"},
}

Call = Callable[[], Any]


class Problem(NamedTuple):
    """Inputs, weights by torch's names, and cotangents."""

    cell: str
    x: np.ndarray  # (T, B, I)
    initial: tuple[np.ndarray, ...]  # h0 (1, B, H), and c0 like it
    weights: dict[str, np.ndarray]
    dy: np.ndarray  # (T, B, H)
    d_final: tuple[np.ndarray, ...]  # like initial

    def built(self, module: Any, **options: Any) -> Any:
        """A layer of `module`, without its weights; options: of registry.built too."""
        return built(module, self.cell, self.x.shape[2], self.dy.shape[2], **options)


class System(NamedTuple):
    """Calls on one problem, each in one or more ways by name, none where the system can't do it.

    forward returns y and each state after the last step; backward the gradients of x, each initial state, the weights.
    """

    forward: dict[str, Call]
    backward: dict[str, Call]


def problem(cell: str, shape: Shape, dtype: str) -> Problem:
    """Random numbers, weights as torch draws them."""
    rng = np.random.default_rng(0)
    T, B, I, H = shape
    GH, S = len(CELLS[cell].gates) * H, len(CELLS[cell].states)

    def normal(*size):
        return rng.standard_normal(size).astype(dtype)

    def states():
        return tuple(normal(1, B, H) for _ in range(S))

    weights = {
        name: rng.uniform(-(H**-0.5), H**-0.5, size).astype(dtype)
        for name, size in zip(NAMES, ((GH, I), (GH, H), (GH,), (GH,)), strict=True)
    }
    return Problem(cell, normal(T, B, I), states(), weights, normal(T, B, H), states())


def given(states: Sequence[Any]) -> Any:
    """The state as fastrnn and torch take and return it: h, or (h, c)."""
    return states[0] if len(states) == 1 else tuple(states)


def parts(state: Any) -> tuple[Any, ...]:
    """The inverse of `given`."""
    return state if isinstance(state, tuple) else (state,)


def fastrnn_system(p: Problem, threads: int, lengths: np.ndarray | None = None) -> System:
    fastrnn.set_num_threads(threads)
    layer = p.built(fastrnn, dtype=p.x.dtype)
    layer.load_state_dict(p.weights)
    initial, d_final = given(p.initial), given(p.d_final)

    def forward():
        y, final = layer(p.x, initial, lengths=lengths)
        return y, *parts(final)

    def backward():
        _, pullback = layer.vjp(p.x, initial, lengths=lengths)
        dx, d_initial, grads = pullback(p.dy, d_final)
        return dx, *parts(d_initial), *grads.values()

    return System({"": forward}, {"": backward})


def torch_system(p: Problem, threads: int, lengths: np.ndarray | None = None) -> System:
    """lengths : (B,), all at least 1; x and y are packed and padded within the calls"""
    import torch
    from torch.nn.utils import rnn

    torch.set_num_threads(threads)
    x, *initial = inputs = [torch.from_numpy(array.copy()).requires_grad_() for array in (p.x, *p.initial)]
    cotangents = [torch.from_numpy(array.copy()) for array in (p.dy, *p.d_final)]
    layer = p.built(torch.nn, dtype=x.dtype)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in p.weights.items()})
    state, ends = given(initial), None if lengths is None else torch.from_numpy(lengths)

    def forward():
        if ends is None:
            y, final = layer(x, state)
        else:
            packed, final = layer(rnn.pack_padded_sequence(x, ends, enforce_sorted=False), state)
            y, _ = rnn.pad_packed_sequence(packed, total_length=len(x))
        return y, *parts(final)

    def backward():
        return torch.autograd.grad(forward(), (*inputs, *layer.parameters()), cotangents)

    return System({"": forward}, {"": backward})


def jax_step(cell: str) -> Callable[..., tuple[Any, ...]]:
    """One step: z (B, G*H) of the inputs with all biases but b, W_hh h (B, G*H), GRU's b_hn (H,), states -> states."""
    import jax

    sigmoid, tanh, split = jax.nn.sigmoid, jax.numpy.tanh, jax.numpy.split

    def elman(z, hidden, b, h):
        return ({"tanh": tanh, "relu": jax.nn.relu}[cell](z + hidden),)

    def gru(z, hidden, b, h):
        (r, u, n), (hr, hu, hn) = split(z, 3, axis=1), split(hidden, 3, axis=1)
        u = sigmoid(u + hu)
        return ((1 - u) * tanh(n + sigmoid(r + hr) * (hn + b)) + u * h,)

    def lstm(z, hidden, b, h, c):
        i, f, g, o = split(z + hidden, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    steps: dict[str, Callable[..., tuple[Any, ...]]] = {"RNN": elman, "GRU": gru, "LSTM": lstm}
    return steps[CELLS[cell].layer_name]


def jax_system(p: Problem, threads: int) -> System:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", p.x.dtype == np.float64)
    initial = [state[0] for state in p.initial]
    d_final = [state[0] for state in p.d_final]
    inputs, cotangents = jax.tree.map(jax.numpy.asarray, ([p.x, initial, *p.weights.values()], (p.dy, d_final)))
    cell_step, inner = jax_step(p.cell), p.dy.shape[2] if p.cell == "gru" else 0

    def variant(unroll):
        def layer(x, initial, W_ih, W_hh, b_ih, b_hh):
            outer = len(b_hh) - inner
            z = x @ W_ih.T + (b_ih + b_hh.at[outer:].set(0))

            def step(states, z):
                states = cell_step(z, states[0] @ W_hh.T, b_hh[outer:], *states)
                return list(states), states[0]

            final, y = jax.lax.scan(step, initial, z, unroll=unroll)
            return y, final

        forward = jax.jit(layer)
        backward = jax.jit(lambda inputs, cotangents: jax.vjp(layer, *inputs)[1](cotangents))
        return (
            lambda: jax.tree.leaves(jax.block_until_ready(forward(*inputs))),
            lambda: jax.tree.leaves(jax.block_until_ready(backward(inputs, cotangents))),
        )

    ways = {"plain scan": variant(1), "unrolled scan": variant(4)}
    return System(*({way: calls[i] for way, calls in ways.items()} for i in range(2)))


def onnxruntime_system(p: Problem, threads: int) -> System:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    if p.x.dtype != np.float32:
        return System({}, {})
    kind = CELLS[p.cell]
    order, states = kind.order("onnx"), kind.states
    W_ih, W_hh, b_ih, b_hh = (np.concatenate([np.split(p.weights[n], len(order))[i] for i in order]) for n in NAMES)
    constants = {"W": W_ih[None], "R": W_hh[None], "B": np.concatenate([b_ih, b_hh])[None]}
    ins, outs = ["x", *[f"{s}0" for s in states]], ["y", *[f"{s}_n" for s in states]]
    node = helper.make_node(
        kind.onnx.name, ["x", "W", "R", "B", "", *ins[1:]], outs, hidden_size=p.dy.shape[2],
        activations=[name.capitalize() for name in kind.onnx.activations], **kind.onnx.attributes,
    )  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ins + outs]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "layer", values[: len(ins)], values[len(ins) :], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString()
    feeds = dict(zip(ins, (p.x, *p.initial), strict=True))

    def variant(entries):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, feeds)

    return System({f"spinning {when}": variant(entries) for when, entries in ONNX_SPINNING.items()}, {})


SYSTEMS = {
    "fastrnn": fastrnn_system,
    "torch": torch_system,
    "jax": jax_system,
    "onnxruntime": onnxruntime_system,
}


def inference() -> contextlib.AbstractContextManager:
    """Within it torch keeps nothing for gradients."""
    if not importlib.util.find_spec("torch"):
        return contextlib.nullcontext()
    import torch

    return torch.inference_mode()


def installed() -> list[str]:
    """The systems that can run here, fastrnn first."""
    return [name for name in SYSTEMS if name == "fastrnn" or importlib.util.find_spec(name)]


def check(results: Mapping[str, Sequence[Any]], dtype: str) -> None:
    """Raise unless every system's arrays are those of the first, which is fastrnn, up to rounding."""
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    ours = next(iter(results.values()))
    for name, theirs in results.items():
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a, b = np.ravel(np.asarray(a)), np.ravel(np.asarray(b))
            difference, size = np.linalg.norm(a - b), np.linalg.norm(a)
            if not difference <= tolerance * size:
                message = f"{name}: result {i} differs from fastrnn's by {difference:.1e}, whose norm is {size:.1e}"
                raise click.ClickException(message)
