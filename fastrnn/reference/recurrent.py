"""A stack of recurrent layers, in one direction or in both. Twin of fastrnn.layers.sequence.

`cells` holds, for each of L layers, a list of D cells: forwards, and in reverse where D = 2. A layer's output has the
directions side by side, and is what the next layer reads. States (L*D, B, .) have a layer's directions one after
another, as torch has them.
"""

from typing import Any, NamedTuple

import numpy as np

from fastrnn.reference.cells import State
from fastrnn.reference.sequence import Step, sequence_backward, sequence_forward


class Layer(NamedTuple):
    """What the backward pass wants of one layer: the input, as masked, its mask or 1, and each direction's steps."""

    x: np.ndarray
    mask: np.ndarray | int
    directions: list[list[Step]]


def recurrent_forward(
    cells: list[list[Any]],
    x: np.ndarray,
    initial: State,
    lengths: np.ndarray | None = None,
    masks: tuple[np.ndarray, ...] = (),
) -> tuple[np.ndarray, State, list[Layer]]:
    """Run all layers over all steps: (y, final, tape).

    x (T, B, I), lengths (B,) as in sequence_forward; initial, final: the state, h (L*D, B, P), others (L*D, B, H);
    masks: L-1 factors (T, B, D*P) of the layers' outputs but the last, for dropout. y (T, B, D*P).
    """
    states = iter(zip(*initial, strict=True))
    y, final, tape = x, [], []
    for layer, mask in zip(cells, (1, *(masks or [1] * (len(cells) - 1))), strict=True):
        x = y * mask
        runs = [sequence_forward(cell, x, next(states), lengths, bool(d)) for d, cell in enumerate(layer)]
        outputs, finals, directions = zip(*runs, strict=True)
        y = np.concatenate(outputs, axis=2)
        final += finals
        tape.append(Layer(x, mask, list(directions)))
    return y, tuple(np.stack(s) for s in zip(*final, strict=True)), tape


def recurrent_backward(
    cells: list[list[Any]], tape: list[Layer], dy: np.ndarray, d_final: State
) -> tuple[np.ndarray, State, list[list[Any]]]:
    """The gradients (dx, d_initial, d_cells) from dy (T, B, D*P) and d_final; `tape` is recurrent_forward's.

    dx (T, B, I); d_cells: cells of gradients, placed as `cells`.
    """
    d_states = list(zip(*d_final, strict=True))
    d_initial: list[State] = []
    d_cells: list[list[Any]] = []
    for layer, (x, mask, directions) in reversed(list(zip(cells, tape, strict=True))):
        D = len(layer)
        d_layer, d_states = d_states[-D:], d_states[:-D]
        runs = map(sequence_backward, layer, [x] * D, directions, np.split(dy, D, axis=2), d_layer)
        dxs, d_layer_initial, d_layer_cells = zip(*runs, strict=True)
        dy = sum(dxs) * mask
        d_initial = [*d_layer_initial, *d_initial]
        d_cells = [list(d_layer_cells), *d_cells]
    return dy, tuple(np.stack(d) for d in zip(*d_initial, strict=True)), d_cells
