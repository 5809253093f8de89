"""What layers and models are compared with: the reference functions put together, and torch where it is installed."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numerics import Arrays, relative_error

from fastrnn.reference import embedding, loss, sequence
from fastrnn.reference.cells.elman import ElmanRelu, ElmanTanh

CELLS = {"tanh": ElmanTanh, "relu": ElmanRelu}


def import_torch():
    """torch on one thread, which is what such small sizes want."""
    torch = pytest.importorskip("torch", reason="compares with torch: pip install fastrnn[torch]")
    torch.set_num_threads(1)
    return torch


def normal(*shape: int, seed: int = 0, dtype: object = "float64") -> np.ndarray:
    """Values of N(0, 1) that are the same numbers in every dtype."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(dtype)


def rnn_vjp(p: Arrays, x: np.ndarray, h0: np.ndarray, nonlinearity: str = "tanh", masks: tuple = ()):
    """What RNN.vjp returns, from its parameters p: x (T, B, I), h0 (L, B, H), masks: of dropout between the layers."""
    L, _, H = h0.shape
    layers, final = [], []
    y = x
    for k in range(L):
        y = y * masks[k - 1] if k and masks else y
        biases = (p.get(f"bias_{i}h_l{k}", np.zeros(H)) for i in "ih")
        cell = CELLS[nonlinearity](p[f"weight_ih_l{k}"], p[f"weight_hh_l{k}"], *biases)
        x_k, (y, (h,), steps) = y, sequence.sequence_forward(cell, y, (h0[k],))
        layers.append((cell, x_k, steps))
        final.append(h)

    def pullback(dy, dh_n):
        dh0, grads = [], {}
        for k, (cell, x_k, steps) in reversed(list(enumerate(layers))):
            dy, (dh,), d_cell = sequence.sequence_backward(cell, x_k, steps, dy, (dh_n[k],))
            dy = dy * masks[k - 1] if k and masks else dy
            dh0.insert(0, dh)
            for name, gradient in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), d_cell, strict=True):
                grads[f"{name}_l{k}"] = gradient
        return dy, np.stack(dh0), {name: grads[name] for name in p}

    return (y, np.stack(final)), pullback


def rnn_results(
    vjp: Callable, x: np.ndarray, h0: np.ndarray, dy: np.ndarray, dh_n: np.ndarray
) -> dict[str, np.ndarray]:
    """All that a recurrent layer computes, by name; vjp: RNN.vjp, or `rnn_vjp` of its parameters."""
    (y, h_n), pullback = vjp(x, h0)
    dx, dh0, grads = pullback(dy, dh_n)
    return {"y": y, "h_n": h_n, "dx": dx, "dh0": dh0, **grads}


def charlm(
    p: Arrays, tokens: np.ndarray, targets: np.ndarray, state: np.ndarray, cell: str = "tanh", masks: tuple = ()
):
    """(loss, state, gradients) of CharLM from its parameters p; masks: of dropout behind each of the layers."""
    groups = {
        name: {k.removeprefix(name + "."): v for k, v in p.items() if k.startswith(name)} for name in ("rnn", "decoder")
    }
    V, H = groups["decoder"]["weight"].shape
    table = p.get("embedding.weight", np.eye(V))
    (y, state), pullback = rnn_vjp(groups["rnn"], embedding.gather(table, tokens), state, cell, masks[:-1])
    last = masks[-1] if masks else np.ones_like(y)
    value, (dy, d_weight, d_bias) = loss.linear_cross_entropy(
        (y * last).reshape(-1, H), **groups["decoder"], targets=targets.reshape(-1)
    )
    dx, _, grads = pullback(dy.reshape(y.shape) * last, np.zeros_like(state))
    gradients = {"embedding.weight": embedding.scatter_add(tokens, dx, V)} if "embedding.weight" in p else {}
    gradients |= {f"rnn.{name}": gradient for name, gradient in grads.items()}
    return value, state, gradients | {"decoder.weight": d_weight, "decoder.bias": d_bias}


def assert_same(got: Arrays, expected: Arrays) -> None:
    """The same names, shapes, dtypes and bits."""
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name, strict=True)


def assert_within(got: Arrays, expected: Arrays, budget: Mapping[str, float]) -> float:
    """The same names and shapes, every tensor within its budget; returns the largest share of a budget that is used."""
    assert got.keys() == expected.keys()
    shares = {name: relative_error(got[name], expected[name]) / budget[name] for name in expected}
    assert max(budget.values()) < 1e-3, f"a budget that allows anything: {budget}"
    assert max(shares.values()) <= 1, f"shares of the float32 budget: {shares}"
    return max(shares.values())
