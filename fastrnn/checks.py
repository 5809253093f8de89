"""Every shape, dtype and value error that a user can cause: one line, expected against got, before any work."""

from collections.abc import Mapping, Sequence

import numpy as np

DTYPES = ("float32", "float64")


def dtype(value: object, name: str = "dtype") -> np.dtype:
    """The native dtype of a layer or an array: float32 or float64."""
    try:
        found = None if value is None else np.dtype(value)
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise TypeError(f"{name}: expected {'dtype ' * (name != 'dtype')}float32 or float64, got {value}")
    return found.newbyteorder("=")


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
    found = np.asarray(value)
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype.name}")
    _shape(name, found, shape, letters)
    found = _writeable(np.asarray(found, np.int64, order="C"))
    if found.size and found.view(np.uint64).max() >= below:  # negative ones are large
        wrong = found[(found < 0) | (found >= below)][0]
        raise ValueError(f"{name}: expected 0 <= token < {below}, got {wrong}")
    return found


def rank(name: str, value: object, letters: str, *ranks: int) -> np.ndarray:
    """`value` as an array with one of the given numbers of dimensions."""
    found = np.asarray(value)
    if found.ndim not in ranks:
        raise ValueError(f"{name}: expected shape {letters}, got {found.shape}")
    return found


def integer(name: str, value: object, at_least: int) -> int:
    """A size or a count."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value}")
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
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {value!r}")
    return value


def same_names(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Two mappings with the same keys."""
    missing, extra = [k for k in wanted if k not in found], [k for k in found if k not in wanted]
    if missing or extra:
        wrong = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unexpected {', '.join(extra)}"] * bool(extra)
        raise ValueError(f"{name}: expected {', '.join(wanted)}; {'; '.join(wrong)}")
