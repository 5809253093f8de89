"""What a cell is: a NamedTuple of its weights whose type picks two functions. Twin of fastrnn.kernels.cells.

The class states `gates`, the pre-activations a unit, and `states`, the states a unit. A state is a tuple of arrays, h
(B, P), the output, and others (B, H). A cell owns its whole step, products included, so that gates may combine the
inputs' and the hidden state's products as they like, and h may have another width than the other states. A weight that
a cell does without is None, and so is its gradient.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np

State = tuple[np.ndarray, ...]


@singledispatch
def cell_forward(cell: Any, x_t: np.ndarray, state: State) -> tuple[State, tuple[np.ndarray, ...]]:
    """One step: (state, saved) from x_t (B, I) and the previous state; saved is what the backward step wants back."""
    raise NotImplementedError(f"no reference for the cell {type(cell).__name__}")


@singledispatch
def cell_backward(
    cell: Any, x_t: np.ndarray, state_prev: State, state: State, saved: tuple[np.ndarray, ...], d_state: State
) -> tuple[np.ndarray, State, Any]:
    """The gradients of one step: (dx_t, d_state_prev, d_cell) from those of the new state.

    d_cell is a cell of the same type that holds the weights' gradients, summed over the batch.
    """
    raise NotImplementedError(f"no reference for the cell {type(cell).__name__}")


def map_weights(function: Callable[..., np.ndarray], *cells: Any) -> Any:
    """The cell of function(w, ...) for every weight w of cells of one type; None stays None."""
    return cells[0]._make(None if w[0] is None else function(*w) for w in zip(*cells, strict=True))


def result_dtype(cell: Any, *arrays: np.ndarray) -> np.dtype:
    """What NumPy makes of the cell's weights and the arrays."""
    return np.result_type(*arrays, *(w for w in cell if w is not None))
