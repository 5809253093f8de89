"""Every shape, dtype and value error that a user can cause: one line, expected against got, before any work."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DTYPES = ("float32", "float64")


def dtype(value: Any, name: str = "dtype") -> np.dtype:
    """The native dtype of a layer or an array: float32 or float64."""
    try:
        found = None if value is None else np.dtype(value)
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise TypeError(f"{name}: expected {'dtype ' * (name != 'dtype')}float32 or float64, got {value}")
    return np.dtype(found.name)  # native, and the very object that arrays have


def real(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as an array of real numbers of the given shape."""
    found = np.asarray(value)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {found.dtype.name}")
    if found.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {found.shape}")
    return found


def array(name: str, value: object, like: np.dtype, *shape: int | None, letters: str = "") -> np.ndarray:
    """`value` as a C-contiguous native array of dtype `like` and the given shape; None in `shape` fits any size."""
    if type(value) is np.ndarray and value.dtype is like and value.shape == shape and value.flags.carray:
        return value
    found = np.asarray(value)
    if found.dtype != like and found.dtype.newbyteorder("=") != like:
        raise TypeError(f"{name}: expected dtype {like.name}, got {found.dtype.name}")
    _shape(name, found, shape, letters)
    return _writeable(np.asarray(found, like, order="C"))


def _shape(name, found, shape, letters):
    if found.shape == shape:
        return
    if found.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, found.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        wanted += "," if len(shape) == 1 else ""
        raise ValueError(f"{name}: expected shape {letters + ' = ' if letters else ''}({wanted}), got {found.shape}")


def _writeable(found):
    """A copy of what is read-only: for that Numba would compile every kernel again."""
    return found if found.flags.writeable else found.copy()


def tokens(name: str, value: object, below: int, *shape: int | None, letters: str = "") -> np.ndarray:
    """`value` as a C-contiguous int64 array of the given shape with 0 <= token < below."""
    return _integers(name, value, below, f"0 <= token < {below}", shape, letters)


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


def _integers(name, value, below, expected, shape, letters):
    found = np.asarray(value)
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype.name}")
    _shape(name, found, shape, letters)
    found = _writeable(np.asarray(found, np.int64, order="C"))
    if found.size and found.view(np.uint64).max() >= below:  # negative ones are large
        wrong = found[(found < 0) | (found >= below)][0]
        raise ValueError(f"{name}: expected {expected}, got {wrong}")
    return found


def _shown(found):
    return np.array2string(found, threshold=8, separator=", ")


def rank(name: str, value: object, letters: str, low: int, high: int = 64) -> np.ndarray:
    """`value` as an array of low..high dimensions."""
    found = np.asarray(value)
    if not low <= found.ndim <= high:
        raise ValueError(f"{name}: expected shape {letters}, got {found.shape}")
    return found


def integer(name: str, value: object, low: int, high: float = float("inf")) -> int:
    """A size or a count with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if not low <= value <= high:
        bounds = f">= {low}" if high == float("inf") else f"in {low}..{high}"
        raise ValueError(f"{name}: expected an integer {bounds}, got {value}")
    return int(value)


def number(name: str, value: object, low: float = 0.0, high: float = float("inf")) -> float:
    """A number with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not low <= value <= high:
        bounds = f">= {low:g}" if high == float("inf") else f"in {low:g}..{high:g}"
        raise ValueError(f"{name}: expected a number {bounds}, got {value:g}")
    return float(value)


def betas(value: object) -> tuple[float, float]:
    """The decay rates of two moments, in 0..1 without 1."""
    found = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(found) != 2 or not all(isinstance(beta, (int, float, np.number)) and 0 <= beta < 1 for beta in found):
        raise ValueError(f"betas: expected two numbers >= 0 and < 1, got {value!r}")
    return float(found[0]), float(found[1])


def vocabulary(value: object) -> str:
    """A string in which every character occurs once."""
    if not isinstance(value, str) or not value or len(set(value)) != len(value):
        shown = value[:40] if isinstance(value, str) else value
        raise ValueError(f"vocabulary: expected characters, each once, got {shown!r}")
    return value


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {value!r}")
    return value


def parts(name: str, value: object, names: Sequence[str]) -> Sequence[object]:
    """As many values as there are names, in a tuple or a list; None for none of them."""
    if value is None:
        return (None,) * len(names)
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
        raise ValueError(f"{name}: expected ({', '.join(names)}), got {type(value).__name__}{size}")
    return value


def one_direction(name: str, bidirectional: bool) -> None:
    """A layer that can be run step by step."""
    if bidirectional:
        raise ValueError(f"{name}: expected a layer in one direction, got a bidirectional one")


def absent(name: str, value: object, reason: str) -> None:
    """An argument that another one rules out."""
    if value is not None:
        raise ValueError(f"{name}: expected None {reason}, got {value!r}")


def same_names(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Two mappings with the same keys."""
    missing, extra = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    if missing or extra:
        wrong = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unexpected {', '.join(extra)}"] * bool(extra)
        raise ValueError(f"{name}: expected {', '.join(wanted)}; {'; '.join(wrong)}")


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
    found = np.asarray(value)
    N = found.size
    if found.dtype.kind not in "iu" and N:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype.name}")
    _shape(name, found, (None,), "(N,)")
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
        raise ValueError(f'{name}: expected "sum" or an integer >= 1, got {value!r}')
    return int(value)


def storage(name: str, size: int, needed: int) -> None:
    """A tensor's storage that holds all its elements; a RuntimeError, as torch's own is."""
    if size < needed:
        raise RuntimeError(f"{name}: expected a storage of {needed} bytes, got {size}")


def saved_tensors(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> None:
    """What hooks give a backward pass in place of the tensors that were saved, where it is something else."""
    shown = [", ".join(str(tuple(shape)) for shape in shapes) for shapes in (wanted, found)]
    raise RuntimeError(
        f"saved tensors: expected the dtype, device and shapes that were saved, {shown[0]}, got {shown[1]}"
    )


def instance(name: str, value: object, wanted: type) -> None:
    """An object of a class."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name}: expected {wanted.__name__}, got {type(value).__name__}")


def only(name: str, value: object, wanted: object) -> None:
    """A setting of which a single value can be taken over."""
    if value != wanted:
        raise ValueError(f"{name}: expected {wanted!r}, got {value!r}")


def kind(name: str, value: object, kinds: Mapping[str, type]) -> str:
    """The name of the first class that an object is of."""
    for found, wanted in kinds.items():
        if isinstance(value, wanted):
            return found
    raise TypeError(f"{name}: expected {', '.join(kinds)}, got {type(value).__name__}")


def gates(name: str, value: object, counts: Sequence[int]) -> tuple[int, int]:
    """G and H of recurrent weights (H, G*H), where H >= 1 and G is one of a few."""
    shape = np.shape(value)
    for G in counts:
        if len(shape) == 2 and shape[0] and shape[1] == G * shape[0]:
            return G, shape[0]
    raise ValueError(f"{name}: expected shape (H, G*H) with G one of {', '.join(map(str, counts))}, got {shape}")


def as_many(name: str, value: Sequence[object], counts: Sequence[int]) -> int:
    """As many values as one of a few numbers."""
    if len(value) not in counts:
        raise ValueError(f"{name}: expected {', '.join(map(str, counts))} arrays, got {len(value)}")
    return len(value)


def constant(name: str, value: object, origin: str) -> None:
    """Weights that a model holds, and doesn't compute."""
    if value is None:
        raise ValueError(f"{name}: expected a constant, got {origin}")
