"""What a cell is: a NamedTuple of its weights whose type picks two functions. Twin of fastrnn.kernels.cells.

The class states `gates`, the pre-activations a unit, and `states`, the states a unit. A state is a tuple of (B, H)
arrays, and its first is h, the output. A cell owns its whole step, products included, so that gates may combine the
inputs' and the hidden state's products as they like, and h may have another width than the other states.
"""

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
