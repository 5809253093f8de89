"""Shapes, dtypes and layouts of arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import ge
from typing import Any

import numpy as np

from fastrnn.checks.values import integer
from fastrnn.checks.words import got, line

DTYPES = ("float32", "float64")
_NATIVE = frozenset(map(np.dtype, DTYPES))
_ADDRESSABLE = (1 << 63) - 1  # bytes


def taken(name: str, value: Any, expected: str, convert: Callable[..., Any] = np.asarray) -> Any:
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
        raise TypeError(f"{name}: expected {'dtype ' * (name != 'dtype')}float32 or float64, got {line(str(value))}")
    return np.dtype(found.name)  # native, and the very object that arrays have


def real(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    """`value`, also a torch tensor, as an array of real numbers of the given shape."""
    found = taken(name, value, "real numbers", _numbers)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {found.dtype.name}")
    if found.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {found.shape}")
    return found


def array(name: str, value: object, like: np.dtype, *shape: int | None, letters: str = "") -> np.ndarray:
    """`value` as a C-contiguous native array of dtype `like` and the given shape; None in `shape` fits any size."""
    if type(value) is np.ndarray and value.dtype is like and value.shape == shape and value.flags.carray:
        return value
    found = taken(name, value, f"dtype {like.name}")
    if found.dtype != like and found.dtype.newbyteorder("=") != like:
        raise TypeError(f"{name}: expected dtype {like.name}, got {found.dtype.name}")
    has_shape(name, found, shape, letters)
    return writeable(np.asarray(found, like, order="C"))


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
        has_shape(name, value, shape, "")
        if not value.flags.carray:
            layout = f"strides {value.strides}" if value.flags.writeable else "a read-only one"
            raise ValueError(f"{name}: expected a C-contiguous array to write to, got {layout}")


def has_shape(name: str, found: np.ndarray, shape: tuple[int | None, ...], letters: str) -> None:
    """An array of a shape, None where any size will do."""
    if found.shape == shape:
        return
    if found.ndim != len(shape) or any(size not in (None, got) for size, got in zip(shape, found.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        wanted += "," if len(shape) == 1 else ""
        raise ValueError(f"{name}: expected shape {letters + ' = ' if letters else ''}({wanted}), got {found.shape}")


def writeable(found: np.ndarray) -> np.ndarray:
    """A copy of what is read-only: for that Numba would compile every kernel again."""
    return found if found.flags.writeable else found.copy()


def rank(name: str, value: object, letters: str, low: int, high: int = 64) -> np.ndarray:
    """`value` as an array of low..high dimensions."""
    found = taken(name, value, f"shape {letters}")
    if not low <= found.ndim <= high:
        raise ValueError(f"{name}: expected shape {letters}, got {found.shape}")
    return found


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


def same_shapes(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Parameters of the same names and shapes."""
    if found != wanted:
        raise ValueError(f"{name}: expected {dict(wanted)}, got {dict(found)}")


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
            raise TypeError(f"{name}: expected a mapping of names to shapes, got {got({key: shape})}")
        for size in shape:
            integer(key, size, 0)


def addressable(name: str, sizes: Sequence[int], itemsize: int) -> None:
    """An array that NumPy can make as far as addresses go, if it has the memory; its own error names nothing."""
    count = math.prod(max(size, 1) for size in sizes) * itemsize
    if count > _ADDRESSABLE:
        raise ValueError(f"{name}: expected at most {_ADDRESSABLE} bytes, got {count}")


def counted(name: str, value: Any) -> int:
    """How many sequences there are."""
    try:
        iter(value)  # which an array of no dimensions refuses, too
        return len(value)
    except TypeError:
        raise TypeError(f"{name}: expected a Packed, an array or a list, got {type(value).__name__}") from None
