"""The recurrent layers as tests want them: one of every kind, arguments for it, all it computes, and what it should."""

from typing import Any

import numpy as np
from cells import CELLS
from numerics import Arrays
from oracles import arrays_of, normal, rnn_results, rnn_vjp, state_in

# What layers are built of: the peepholes stand beside a projection.
KINDS = {name: cell for name, cell in CELLS.items() if cell.projected or not cell.peepholes}
STATES = dict.fromkeys(name for cell in KINDS.values() for name in cell.kind.states)
# Results with an axis of the batch, the second one.
ROWS = ("y", *[f"{name}_n" for name in STATES], "dx", *[f"d{name}0" for name in STATES])


def build(kind: str, input_size: int, hidden_size: int, **options: Any) -> Any:
    """A layer; with a projection h is one narrower than the hidden size."""
    cell = CELLS[kind]
    own = cell.kind.options | ({"proj_size": hidden_size - 1} if cell.projected else {})
    own |= {"peepholes": True} if cell.peepholes else {}
    return cell.kind.layer_class(input_size, hidden_size, **{"seed": 0} | own | options)


def small(kind: str, dtype: Any = "float32", **options: Any) -> Any:
    """A layer with every boundary inside: two layers, more units than a vector has lanes."""
    return build(kind, 5, 18, **{"num_layers": 2} | options, dtype=dtype)


def arguments(layer: Any, T: int, B: int, seed: int = 0) -> dict[str, np.ndarray]:
    """x, h0, dy, dh_n, and of each further state as c c0, dc_n, of a layer's dtype; time first whatever it says."""
    D = 2 if layer.bidirectional else 1
    L, H, P = layer.num_layers * D, layer.hidden_size, layer.proj_size or layer.hidden_size
    shapes = {"x": (T, B, layer.input_size), "h0": (L, B, P), "dy": (T, B, D * P), "dh_n": (L, B, P)}
    for name in layer.state_names[1:]:
        shapes |= {f"{name}0": (L, B, H), f"d{name}_n": (L, B, H)}
    return {name: normal(*shape, seed=seed + i, dtype=layer.dtype) for i, (name, shape) in enumerate(shapes.items())}


def results(layer: Any, given: Arrays, **options: Any) -> dict[str, np.ndarray]:
    """All that a layer's vjp computes, by name; options: of vjp."""
    return rnn_results(lambda x, initial: layer.vjp(x, initial, **options), **given)


def inference(layer: Any, given: Arrays, **options: Any) -> dict[str, np.ndarray]:
    """All that a call computes."""
    y, state = layer(given["x"], state_in(given), **options)
    return {"y": y} | dict(zip([f"{name}_n" for name in layer.state_names], arrays_of(state), strict=True))


def expected_results(
    kind: str, parameters: Arrays, given: Arrays, lengths: Any = None, masks: tuple[np.ndarray, ...] = ()
) -> dict[str, np.ndarray]:
    """The same by the reference."""
    lengths = None if lengths is None else np.array(lengths, int)
    return rnn_results(lambda x, initial: rnn_vjp(parameters, x, initial, kind, masks, lengths), **given)


def rows_of(found: Arrays, rows: Any) -> dict[str, np.ndarray]:
    """Of the results with an axis of the batch, these sequences."""
    return {name: found[name][:, rows] for name in ROWS if name in found}


def beyond(lengths: Any, T: int) -> np.ndarray:
    """(T, B) whether a step is padding."""
    return np.arange(T)[:, None] >= np.array(lengths, int)
