"""Integers that say where things are: tokens, lengths, offsets, orders, parents."""

from typing import Any

import numpy as np

from fastrnn.checks.arrays import has_shape, taken, writeable
from fastrnn.checks.words import got


def tokens(name: str, value: object, below: int, *shape: int | None, letters: str = "") -> np.ndarray:
    """`value` as a C-contiguous int64 array of the given shape with 0 <= token < below."""
    return _integers(name, value, below, f"0 <= token < {below}", shape, letters)


def indices(name: str, value: Any, below: int) -> np.ndarray:
    """`value` as C-contiguous int64 (n,), each of them negative or below a limit."""
    found = _whole(name, value, (None,), "(n,)")
    if found.size and (most := np.max(value)) >= below:
        raise ValueError(f"{name}: expected index < {below}, got {most}")
    return found


def integers(name: str, value: object, *shape: int | None, letters: str = "") -> np.ndarray:
    """`value` as C-contiguous int64 of the given shape; None in `shape` fits any size."""
    return _whole(name, value, shape, letters)


def shifts(name: str, value: object, count: int) -> np.ndarray:
    """`value` as C-contiguous int64 (count,), of either sign."""
    return _whole(name, value, (count,), "(k,)")


def lengths(name: str, value: object, T: int, B: int) -> np.ndarray:
    """`value` as the lengths (B,) of sequences of at most T steps."""
    return _integers(name, value, T + 1, f"0 <= length <= {T}", (B,), "(B,)")


def offsets(name: str, value: object, N: int) -> np.ndarray:
    """`value` as the bounds (B+1,) of sequences that are N rows together."""
    found = _integers(name, value, N + 1, f"0 <= offset <= {N}", (None,), "(B+1,)")
    if len(found) == 0 or found[0] != 0 or found[-1] != N or (np.diff(found) < 0).any():
        raise ValueError(f"{name}: expected to start at 0, end at {N} and never fall, got {_shown(found)}")
    return found


def batch_sizes(name: str, value: object, N: int) -> np.ndarray:
    """`value` as the numbers (T,) of sequences that have a step t, N steps together."""
    found = _integers(name, value, N + 1, f"0 <= size <= {N}", (None,), "(T,)")
    if found.min(initial=1) < 1 or found.sum() != N or (np.diff(found) > 0).any():
        raise ValueError(f"{name}: expected sizes >= 1 that never grow, {N} in all, got {_shown(found)}")
    return found


def descending(name: str, value: object, T: int) -> np.ndarray:
    """A copy of `value` as lengths (B,) of at most T steps, the longest first."""
    found = np.asarray(value)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        found = _integers(name, value, T + 1, f"0 <= length <= {T}", (None,), "(B,)")
    if found.size and (found[-1] < 0 or found[0] > T or (found[1:] > found[:-1]).any()):
        raise ValueError(f"{name}: expected lengths in 0..{T}, the longest first, got {_shown(found)}")
    return found.astype(np.int64)


def permutation(name: str, value: object, B: int) -> np.ndarray:
    """`value` as 0..B-1 in any order (B,)."""
    found = _integers(name, value, B, f"0 <= index < {B}", (B,), "(B,)")
    if np.bincount(found).max(initial=0) > 1:
        raise ValueError(f"{name}: expected every index once, got {_shown(found)}")
    return found


def same(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Two equal arrays of integers."""
    if not np.array_equal(found, wanted):
        raise ValueError(f"{name}: expected {_shown(wanted)}, got {_shown(found)}")


def _whole(name, value, shape, letters):
    found = taken(name, value, "integers")
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype.name}")
    has_shape(name, found, shape, letters)
    return writeable(np.asarray(found, np.int64, order="C"))


def _integers(name, value, below, expected, shape, letters):
    found = _whole(name, value, shape, letters)
    if found.size and found.view(np.uint64).max() >= below:  # negative ones are large
        wrong = found[(found < 0) | (found >= below)][0]
        raise ValueError(f"{name}: expected {expected}, got {wrong}")
    return found


def _shown(found):
    return np.array2string(found, threshold=8, separator=", ")


def labels(name: str, value: object, below: int, count: int) -> np.ndarray:
    """`value` as the classes (count,) of sequences or of steps, 0 <= label < below."""
    return _integers(name, value, below, f"0 <= label < {below}", (count,), "")


def counts(name: str, value: object, expected: str) -> np.ndarray:
    """`value` as integers (n,) that are not negative."""
    return _integers(name, value, 1 << 63, expected, (None,), "(n,)")


def below(name: str, found: np.ndarray, limit: int, expected: str) -> None:
    """Integers below a limit."""
    if (most := found.max(initial=-1)) >= limit:
        raise ValueError(f"{name}: expected {expected}, got {most}")


def parents(name: str, value: object) -> np.ndarray:
    """`value` as the parent of each of N >= 1 nodes (N,), -1 for a root."""
    found = taken(name, value, "integers")
    N = found.size
    if found.dtype.kind not in "iu" and N:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype.name}")
    has_shape(name, found, (None,), "(N,)")
    if N == 0:
        raise ValueError(f"{name}: expected at least one node, got none")
    wrong = found[(found < -1) | (found >= N)]
    if wrong.size:
        raise ValueError(f"{name}: expected -1 <= parent < {N}, got {wrong[0]}")
    return found.astype(np.int64)


def no_cycle(name: str, ancestors: np.ndarray, distance: int, N: int) -> None:
    """Ancestors that are `distance` steps above nodes of trees with N nodes: with as many steps there is none."""
    if distance >= N:
        raise ValueError(f"{name}: expected trees, got a cycle through node {ancestors.min()}")


def positions(name: str, value: object, parents: np.ndarray) -> np.ndarray:
    """`value` as the positions (N,) of nodes among their parents' children, 0 for roots."""
    found = np.where(parents < 0, 0, _integers(name, value, 1 << 63, "0 <= position", parents.shape, "(N,)"))
    order = np.lexsort((found, parents))
    twice = (np.diff(parents[order]) == 0) & (np.diff(found[order]) == 0) & (parents[order[1:]] >= 0)
    if twice.any():
        node = order[1:][twice][0]
        where = f"position {found[node]} of node {parents[node]}"
        raise ValueError(f"{name}: expected one child at each position, got two at {where}")
    return found


def children(name: str, value: object) -> str | int:
    """How a tree's node takes its children: summed, or so many by position."""
    if isinstance(value, str) and value == "sum":
        return value
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f'{name}: expected "sum" or an integer >= 1, got {got(value)}')
    return int(value)
