"""What layers and models are compared with: the reference functions put together, and torch where it is installed."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pytest
from cells import CELLS, PARAMETERS
from numerics import Arrays, relative_error

from fastrnn import optim
from fastrnn.reference import embedding, loss, recurrent


def assert_trains_as_torch(model: Any, twin: Any, torch_loss: Any, batches: Any, tolerance: float) -> float:
    """A step of Adam on every batch, in both: the same losses; returns the last one."""
    optimizer, theirs = optim.Adam(model.parameters, 1e-2), import_torch().optim.Adam(twin.parameters(), 1e-2)
    for step, batch in enumerate(batches):
        expected = torch_loss(twin, batch)
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        loss, _ = model.train_step(batch, optimizer)
        assert loss == pytest.approx(expected.item(), rel=tolerance), step
    return loss


def import_torch():
    """torch on one thread, which is what such small sizes want."""
    torch = pytest.importorskip("torch", reason="compares with torch: pip install fastrnn[torch]")
    torch.set_num_threads(1)
    return torch


def normal(*shape: int, seed: int = 0, dtype: Any = "float64") -> np.ndarray:
    """Values of N(0, 1) that are the same numbers in every dtype."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(dtype)


def places(p: Arrays) -> list[str]:
    """l0, or l0 and l0_reverse, l1, ...: where a layer's parameters belong, in torch's order."""
    return [name.removeprefix("weight_hh_") for name in p if name.startswith("weight_hh_")]


def stacked(p: Arrays, cell: str) -> list[list[Any]]:
    """The reference's cells, layer by layer and direction by direction, of a layer's parameters p; no bias: zeros."""
    cells = []
    for place in places(p):
        weights = {field: p[f"{name}_{place}"] for field, name in PARAMETERS.items() if f"{name}_{place}" in p}
        no_bias = np.zeros(len(weights["W_hh"]))
        cells.append(CELLS[cell].reference(**{"b_ih": no_bias, "b_hh": no_bias} | weights))
    D = 2 if "l0_reverse" in places(p) else 1
    return [cells[k : k + D] for k in range(0, len(cells), D)]


def state_names(given: Arrays) -> list[str]:
    """Of arguments by name, the states of which there is a first value, as h0 and c0."""
    return [name[:-1] for name in given if name.endswith("0")]


def state_in(given: Arrays) -> Any:
    """The initial state as a layer wants it."""
    return state_of(tuple([given[f"{name}0"] for name in state_names(given)]))


def d_state_in(given: Arrays) -> Any:
    """The cotangent of the last state as a pullback wants it."""
    return state_of(tuple([given[f"d{name}_n"] for name in state_names(given)]))


def state_of(arrays: tuple[np.ndarray, ...]) -> Any:
    """The state as a layer has it: h, or (h, c)."""
    return arrays if len(arrays) > 1 else arrays[0]


def arrays_of(state: Any) -> tuple[np.ndarray, ...]:
    """The state as the reference has it: (h,), or (h, c)."""
    return state if isinstance(state, tuple) else (state,)


def rnn_vjp(
    p: Arrays,
    x: np.ndarray,
    initial: Any,
    cell: str = "tanh",
    masks: tuple[np.ndarray, ...] = (),
    lengths: np.ndarray | None = None,
):
    """What the vjp of RNN, GRU or LSTM returns, from its parameters p, which say how many layers and directions.

    x (T, B, I); initial: h0 (L*D, B, P), or (h0, c0); cell: a key of cells.CELLS; masks: of dropout between the layers.
    """
    cells = stacked(p, cell)
    y, final, tape = recurrent.recurrent_forward(cells, x, arrays_of(initial), lengths, masks)

    def pullback(dy, d_state):
        dx, d_initial, d_cells = recurrent.recurrent_backward(cells, tape, dy, arrays_of(d_state))
        grads = {
            f"{PARAMETERS[field]}_{place}": gradient
            for place, d_cell in zip(places(p), chain(*d_cells), strict=True)
            for field, gradient in d_cell._asdict().items()
        }
        return dx, state_of(d_initial), {name: grads[name] for name in p}

    return (y, state_of(final)), pullback


def rnn_cells(
    p: Arrays,
    x: np.ndarray,
    initial: Any,
    cell: str = "tanh",
    masks: tuple[np.ndarray, ...] = (),
    lengths: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], ...]:
    """What return_cells=True adds: of each layer and direction h (T, B, P), and what it keeps, (T, B, H); T >= 1."""
    _, _, tape = recurrent.recurrent_forward(stacked(p, cell), x, arrays_of(initial), lengths, masks)
    cells = []
    for steps in chain(*(layer.directions for layer in tape)):
        kept = [dict(zip(CELLS[cell].kept, (*step.state, *step.saved), strict=True)) for step in steps]
        arrays = {name: np.zeros((*x.shape[:2], rows.shape[1]), rows.dtype) for name, rows in kept[0].items()}
        for step, values in zip(steps, kept, strict=True):
            for name, rows in values.items():
                arrays[name][step.t, step.rows] = rows
        cells.append(arrays)
    return tuple(cells)


def rnn_results(
    vjp: Callable,
    x: np.ndarray,
    dy: np.ndarray,
    **states: np.ndarray,
) -> dict[str, np.ndarray]:
    """All that a recurrent layer computes, by name; vjp: the layer's, or `rnn_vjp` of its parameters.

    states: of each state s its first value s0 and the cotangent ds_n of its last.
    """
    (y, state), pullback = vjp(x, state_in(states))
    dx, d_initial, grads = pullback(dy, d_state_in(states))
    names = state_names(states)
    found = dict(zip([f"{name}_n" for name in names], arrays_of(state), strict=True))
    found |= dict(zip([f"d{name}0" for name in names], arrays_of(d_initial), strict=True))
    return {"y": y, **found, "dx": dx, **grads}


def charlm(p: Arrays, tokens: np.ndarray, targets: np.ndarray, state: Any, cell: str = "tanh", masks: tuple = ()):
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
    dx, _, grads = pullback(dy.reshape(y.shape) * last, state_of(tuple(map(np.zeros_like, arrays_of(state)))))
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
