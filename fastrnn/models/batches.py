"""Data that are counted alike, and batches of them: Packed, arrays or lists."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.ragged import Packed


def count(values: Any, name: str = "data") -> int:
    """Sequences of a Packed, or the length of a list or an array."""
    return len(values.offsets) - 1 if isinstance(values, Packed) else checks.counted(name, values)


def terms(targets: Any) -> int:
    """What a mean loss is taken over: the steps of a Packed, or the number of targets."""
    return len(targets.data) if isinstance(targets, Packed) else len(targets)


def not_finite(values: Any) -> str:
    """The first number of a Packed or an array that is not finite, as text; empty if all are."""
    found = values.data if isinstance(values, Packed) else values
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        return ""
    return "".join(map(str, found[~np.isfinite(found)][:1]))


def taken(values: Any, index: np.ndarray) -> Any:
    """Those of a Packed, an array or a list that an index (n,) picks, in its order."""
    if isinstance(values, Packed):
        lengths = values.lengths[index]
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(values.offsets[index] - ends + lengths, lengths)
        return Packed(values.data[rows], np.append(0, ends))
    return values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]


def batches(data: Sequence[Any], size: int, order: np.ndarray | None = None) -> Iterator[tuple[Any, ...]]:
    """Batches of data that are counted alike, in the given order (n,) or their own."""
    order = np.arange(count(data[0])) if order is None else order
    for start in range(0, len(order), size):
        yield tuple(taken(part, order[start : start + size]) for part in data)
