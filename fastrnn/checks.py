"""Every shape, dtype and value error that a user can cause: one line, expected against got, before any work."""

import math
import os
from collections.abc import Mapping, Sequence
from operator import ge
from typing import Any

import numpy as np

DTYPES = ("float32", "float64")
_NATIVE = frozenset(map(np.dtype, DTYPES))

_SHOWN = 60  # characters of a value in a message
_ADDRESSABLE = (1 << 63) - 1  # bytes
_REALS = (int, float, np.integer, np.floating)


def _line(text):
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _got(value):
    return _line(repr(value))


def _array(name, value, expected, convert=np.asarray):
    """`value` as an array; errors of NumPy and torch, which name no argument, get its name."""
    try:
        return convert(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__} ({reason})") from None


def _numbers(value):
    """The numbers of an array, or of a tensor on any device, with a gradient or not; foreign floats are widened."""
    if hasattr(value, "is_floating_point"):  # torch's
        narrow = value.is_floating_point() and value.element_size() < 4
        value = (value.float() if narrow else value).numpy(force=True)
    found = np.asarray(value)
    foreign = found.dtype.kind == "V" and found.dtype.names is None and np.can_cast(found.dtype, np.float64)
    return found.astype(np.float64) if foreign else found  # ml_dtypes' bfloat16, as JAX gives it


def dtype(value: Any, name: str = "dtype") -> np.dtype:
    """The native dtype of a layer or an array: float32 or float64."""
    try:
        found = None if value is None else np.dtype(value)
    except (TypeError, ValueError, SyntaxError):  # of names that NumPy tries to parse
        found = None
    if found is None or found.name not in DTYPES:
        raise TypeError(f"{name}: expected {'dtype ' * (name != 'dtype')}float32 or float64, got {_line(str(value))}")
    return np.dtype(found.name)  # native, and the very object that arrays have


def real(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    """`value`, also a torch tensor, as an array of real numbers of the given shape."""
    found = _array(name, value, "real numbers", _numbers)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {found.dtype.name}")
    if found.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {found.shape}")
    return found


def array(name: str, value: object, like: np.dtype, *shape: int | None, letters: str = "") -> np.ndarray:
    """`value` as a C-contiguous native array of dtype `like` and the given shape; None in `shape` fits any size."""
    if type(value) is np.ndarray and value.dtype is like and value.shape == shape and value.flags.carray:
        return value
    found = _array(name, value, f"dtype {like.name}")
    if found.dtype != like and found.dtype.newbyteorder("=") != like:
        raise TypeError(f"{name}: expected dtype {like.name}, got {found.dtype.name}")
    _shape(name, found, shape, letters)
    return _writeable(np.asarray(found, like, order="C"))


def floating(name: str, value: object) -> np.dtype:
    """The dtype of an array of float32 or float64, native."""
    found = value.dtype if type(value) is np.ndarray else np.asarray(value).dtype
    return found if found in _NATIVE else dtype(found, name)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array, or of what stands for one."""
    return value.shape if type(value) is np.ndarray else np.shape(value)


def axes(name: str, shape: tuple[int, ...], letters: str, *least: int) -> tuple[int, ...]:
    """A shape of as many axes as there are least sizes."""
    if len(shape) != len(least) or (any(least) and not all(map(ge, shape, least))):
        raise ValueError(f"{name}: expected shape {letters}, got {shape}")
    return shape


def sizes(name: str, value: object, letters: str, *least: int) -> tuple[int, ...]:
    """The shape of an array of as many axes as there are least sizes."""
    return axes(name, shape_of(value), letters, *least)


def arrays(
    names: Sequence[str], values: Sequence[Any], like: np.dtype, shapes: Sequence[tuple[int, ...] | None]
) -> Sequence[Any]:
    """Values as `array` gives each, or None where a shape is None. Cost: 0.1 us for each that fits as it is."""
    for i, value in enumerate(values):  # zip takes twice as long
        shape = shapes[i]
        if (
            type(value) is not np.ndarray or value.dtype is not like or value.shape != shape or not value.flags.carray
        ) and (value is not None or shape is not None):
            break
    else:
        return values
    given = zip(names, values, shapes, strict=True)
    return [None if shape is None else array(name, value, like, *shape) for name, value, shape in given]


def targets(
    names: Sequence[str], values: Sequence[Any], like: np.dtype, shapes: Sequence[tuple[int, ...] | None]
) -> None:
    """Arrays that a kernel can write to as they are, None for those that are not asked for; no shape, no array."""
    for i, value in enumerate(values):
        name, shape = names[i], shapes[i]
        if value is None or (
            type(value) is np.ndarray and value.dtype is like and value.shape == shape and value.flags.carray
        ):
            continue
        if shape is None:
            raise ValueError(f"{name}: expected None, there being nothing like it, got {type(value).__name__}")
        if type(value) is not np.ndarray:
            raise TypeError(f"{name}: expected an ndarray to write to, got {type(value).__name__}")
        if value.dtype != like:
            raise TypeError(f"{name}: expected dtype {like}, got {value.dtype}")
        _shape(name, value, shape, "")
        if not value.flags.carray:
            layout = f"strides {value.strides}" if value.flags.writeable else "a read-only one"
            raise ValueError(f"{name}: expected a C-contiguous array to write to, got {layout}")


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
    found = _array(name, value, "integers")
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"{name}: expected integers, got dtype {found.dtype.name}")
    _shape(name, found, shape, letters)
    return _writeable(np.asarray(found, np.int64, order="C"))


def _integers(name, value, below, expected, shape, letters):
    found = _whole(name, value, shape, letters)
    if found.size and found.view(np.uint64).max() >= below:  # negative ones are large
        wrong = found[(found < 0) | (found >= below)][0]
        raise ValueError(f"{name}: expected {expected}, got {wrong}")
    return found


def _shown(found):
    return np.array2string(found, threshold=8, separator=", ")


def rank(name: str, value: object, letters: str, low: int, high: int = 64) -> np.ndarray:
    """`value` as an array of low..high dimensions."""
    found = _array(name, value, f"shape {letters}")
    if not low <= found.ndim <= high:
        raise ValueError(f"{name}: expected shape {letters}, got {found.shape}")
    return found


def integer(name: str, value: object, low: int, high: float = float("inf")) -> int:
    """A size or a count with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {_got(value)}")
    if not low <= value <= high:
        bounds = f">= {low}" if high == float("inf") else f"in {low}..{high}"
        raise ValueError(f"{name}: expected an integer {bounds}, got {_line(str(value))}")
    return int(value)


def number(name: str, value: object, low: float = 0.0, high: float = float("inf")) -> float:
    """A number with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, _REALS):
        raise TypeError(f"{name}: expected a number, got {_got(value)}")
    try:
        found = float(value)
    except OverflowError:  # an integer beyond all floats
        found = float("nan")
    if not low <= found <= high:
        bounds = f">= {low:g}" if high == float("inf") else f"in {low:g}..{high:g}"
        shown = _line(str(value)) if isinstance(value, int) else f"{found:g}"
        raise ValueError(f"{name}: expected a number {bounds}, got {shown}")
    return found


def flag(name: str, value: object) -> bool:
    """True or False, also as 1 or 0; not what merely counts as one, as another argument in its place would."""
    if not isinstance(value, (bool, np.bool_, int, np.integer)) or value not in (0, 1):
        raise TypeError(f"{name}: expected True or False, got {_got(value)}")
    return bool(value)


def betas(value: object) -> tuple[float, float]:
    """The decay rates of two moments, in 0..1 without 1."""
    found = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(found) != 2 or not all(isinstance(beta, _REALS) and 0 <= beta < 1 for beta in found):
        raise ValueError(f"betas: expected two numbers >= 0 and < 1, got {_got(value)}")
    return float(found[0]), float(found[1])


def vocabulary(value: object) -> str:
    """A string in which every character occurs once."""
    if not isinstance(value, str) or not value or len(set(value)) != len(value):
        raise ValueError(f"vocabulary: expected characters, each once, got {_got(value)}")
    return value


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {_got(value)}")
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
        raise ValueError(f"{name}: expected None {reason}, got {_got(value)}")


def same_names(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Two mappings with the same keys."""
    if not hasattr(found, "keys"):
        raise TypeError(f"{name}: expected a mapping with {', '.join(wanted)}, got {type(found).__name__}")
    missing, extra = [k for k in wanted if k not in found], [str(k) for k in found if k not in wanted]
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
    found = _array(name, value, "integers")
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
        raise ValueError(f'{name}: expected "sum" or an integer >= 1, got {_got(value)}')
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


def instance(name: str, value: object, wanted: type, hint: str = "") -> None:
    """An object of a class; hint: what to write instead."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name}: expected {wanted.__name__}, got {type(value).__name__}{hint and '; ' + hint}")


def member(name: str, value: object, options: Sequence[type]) -> None:
    """One of a few classes."""
    if value not in options:
        shown = value.__name__ if isinstance(value, type) else repr(value)
        raise ValueError(f"{name}: expected one of {', '.join(option.__name__ for option in options)}, got {shown}")


def forwards(name: str, reverse: bool) -> None:
    """Steps from the first to the last."""
    if reverse:
        raise ValueError(f"{name}: expected steps that go forwards, got reverse ones")


def together(name: str, value: Sequence[object] | np.ndarray, count: int, others: str) -> None:
    """As many values as there are of something else."""
    if len(value) != count:
        raise ValueError(f"{name}: expected {count}, one for each of {others}, got {len(value)}")


def unchanged(name: str, value: object, built: object) -> None:
    """What an object was built with, and its weights were made for."""
    plain = (int, float, str, tuple)
    if value is not built and not (isinstance(built, plain) and type(value) is type(built) and value == built):
        got = repr(value) if isinstance(value, plain) else f"another {type(value).__name__}"
        expected = repr(built) if isinstance(built, plain) else f"the {type(built).__name__}"
        raise ValueError(f"{name}: expected {expected} that was built, got {got}")


def same_shapes(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Parameters of the same names and shapes."""
    if found != wanted:
        raise ValueError(f"{name}: expected {dict(wanted)}, got {dict(found)}")


def only(name: str, value: object, wanted: object) -> None:
    """A setting of which a single value can be taken over."""
    if value != wanted:
        raise ValueError(f"{name}: expected {wanted!r}, got {_got(value)}")


def kind(name: str, value: object, kinds: Mapping[str, type]) -> str:
    """The name of the first class that an object is of."""
    for found, wanted in kinds.items():
        if isinstance(value, wanted):
            return found
    raise TypeError(f"{name}: expected {', '.join(kinds)}, got {_class(value, kinds)}")


def _class(value, names):
    """The name of an object's class, with its module where the name alone could be an expected one."""
    own = type(value)
    return f"{own.__module__}.{own.__qualname__}" if own.__name__ in names else own.__name__


def gates(name: str, value: Any, counts: Sequence[int]) -> tuple[int, int]:
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


def numbers(name: str, value: object) -> np.ndarray:
    """`value` as an array of real numbers, of any shape."""
    try:
        found = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # ragged lists; tensors that don't become arrays
        found = np.empty(0, object)
    if found.dtype.kind not in "fiub":
        got = f"dtype {found.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name}: expected an array of real numbers, got {got}")
    return found


def of_keras(name: str, value: object, classes: Sequence[str], expected: str) -> str:
    """The name of the first class of an object that is one of a few of Keras, which computes as that class does."""
    own: Any = type(value)
    for found in own.__mro__:
        if found.__name__ in classes and hasattr(value, "get_weights") and own.call is found.call:
            return found.__name__
    raise TypeError(f"{name}: expected {expected}, got {_class(value, classes)}")


def built(name: str, layer: Any) -> Sequence[np.ndarray]:
    """The weights of a layer of Keras."""
    found = layer.get_weights()
    if not found:
        raise ValueError(f"{name}: expected a built layer, got {type(layer).__name__} without weights")
    return found


def repeated(name: str, shapes: Sequence[tuple[int, ...]], period: int) -> None:
    """Shapes of arrays that come again, as those of two directions, or of one gate after another."""
    for i in range(period, len(shapes), period):
        if shapes[i : i + period] != shapes[:period]:
            wanted, got = (", ".join(map(str, found)) for found in (shapes[:period], shapes[i : i + period]))
            raise ValueError(
                f"{name}[{i}:]: expected shapes {wanted} again, or a list for each cell of a stack, got {got}"
            )


def no_stack(name: str, wanted: str, n: int, kernel: np.ndarray, H: int) -> None:
    """n arrays that can't be those of a stack of cells, whose kernels have H rows above the first cell."""
    if kernel.shape[:1] == (H,):
        got = f"{n} arrays with I = H = {H}"
        raise ValueError(f"{name}: expected {wanted}, or a list for each cell of a stack, got {got}")


def some(name: str, expected: str, found: Sequence[object], others: Mapping[str, int]) -> None:
    """At least one of what is looked for, or what there is instead, the most frequent first."""
    if not found:
        shown = sorted(others, key=others.__getitem__, reverse=True)
        got = ", ".join([f"{others[each]} {each}" for each in shown[:6]] + ["..."] * (len(shown) > 6))
        raise ValueError(f"{name}: expected {expected}, got {got or 'none'}")


def shapes(name: str, value: object) -> None:
    """The shape of each of some arrays by name."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping of names to shapes, got {type(value).__name__}")
    for key, shape in value.items():
        if not isinstance(key, str) or not isinstance(shape, (tuple, list)):
            raise TypeError(f"{name}: expected a mapping of names to shapes, got {_got({key: shape})}")
        for size in shape:
            integer(key, size, 0)


def addressable(name: str, sizes: Sequence[int], itemsize: int) -> None:
    """An array that NumPy can make as far as addresses go, if it has the memory; its own error names nothing."""
    count = math.prod(max(size, 1) for size in sizes) * itemsize
    if count > _ADDRESSABLE:
        raise ValueError(f"{name}: expected at most {_ADDRESSABLE} bytes, got {count}")


def generator(seed: Any) -> np.random.Generator:
    """Random numbers from a seed, as np.random.default_rng gives them."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise TypeError(f"seed: expected None, an integer >= 0 or a Generator, got {_got(seed)}") from None


def either(name: str, **values: object) -> None:
    """Exactly one of two arguments."""
    if sum(value is None for value in values.values()) != 1:
        got = " and ".join(f"{key}={_line(str(value))}" for key, value in values.items())
        raise ValueError(f"{name}: expected either {' or '.join(values)}, got {got}")


def function(name: str, value: object) -> None:
    """What can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {type(value).__name__}")


def iterable(name: str, value: Any) -> None:
    """Values one after another."""
    try:
        iter(value)
    except TypeError:
        raise TypeError(f"{name}: expected a list, got {type(value).__name__}") from None


def counted(name: str, value: Any) -> int:
    """How many sequences there are."""
    try:
        iter(value)  # which an array of no dimensions refuses, too
        return len(value)
    except TypeError:
        raise TypeError(f"{name}: expected a Packed, an array or a list, got {type(value).__name__}") from None


def path(value: Any) -> None:
    """The name of a file."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"path: expected a string or a Path, got {type(value).__name__}")
