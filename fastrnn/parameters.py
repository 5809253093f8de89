"""All parameters of a model, or their gradients, in one flat aligned buffer with named views."""

from collections.abc import Iterator, Mapping

import numpy as np

from fastrnn import checks

_CACHE_LINE = 64


def aligned_empty(shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array whose first element starts a cache line, as full vectors like it."""
    count = shape if isinstance(shape, int) else int(np.prod(shape, dtype=np.int64))
    buffer = np.empty(count + _CACHE_LINE // dtype.itemsize, dtype)
    start = -buffer.ctypes.data % _CACHE_LINE // dtype.itemsize
    return buffer[start : start + count].reshape(shape)


class Parameters(Mapping[str, np.ndarray]):
    """A mapping name -> array, all views into `flat`.

    Parameters
    ----------
    shapes : mapping name -> shape, in the order of the buffer
    dtype : "float32" or "float64"
    flat : 1-D array to lay the views over; allocated (uninitialised) by default

    `p[name] = value` copies into the view; `p[name][...] = value` does the same. The optimisers, clipping and
    checkpoints work on `flat` in one pass. A layer and the model that holds it share one buffer.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: object, flat: np.ndarray | None = None) -> None:
        self.shapes = dict(shapes)
        self.dtype = checks.dtype(dtype)
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values()]
        self.flat = aligned_empty(sum(sizes), self.dtype) if flat is None else flat
        ends = np.cumsum(sizes)
        self._views = {
            name: self.flat[end - size : end].reshape(shape)
            for (name, shape), size, end in zip(self.shapes.items(), sizes, ends, strict=True)
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __setitem__(self, name: str, value: object) -> None:
        """Copy `value` into the parameter `name`.

        Raises ValueError: `weight_hh_l0: expected shape (512, 512), got (512, 64)`.
        """
        value = np.asarray(value)
        if value.shape != self.shapes[name]:
            raise ValueError(f"{name}: expected shape {self.shapes[name]}, got {value.shape}")
        self._views[name][...] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"Parameters({self.flat.size} x {self.dtype.name}: {', '.join(self.shapes)})"

    def empty_like(self) -> "Parameters":
        """The same names and shapes over a new, uninitialised buffer."""
        return Parameters(self.shapes, self.dtype)

    def zeros_like(self) -> "Parameters":
        """The same names and shapes over a new buffer of zeros."""
        new = self.empty_like()
        new.flat.fill(0)
        return new

    def group(self, prefix: str) -> "Parameters":
        """The consecutive parameters named `prefix.*` as Parameters of their own, over the same memory."""
        names = [name for name in self.shapes if name.startswith(prefix + ".")]
        shapes = {name.removeprefix(prefix + "."): self.shapes[name] for name in names}
        size = sum(self[name].size for name in names)
        start = sum(self[name].size for name in list(self.shapes)[: list(self.shapes).index(names[0])]) if names else 0
        return Parameters(shapes, self.dtype, self.flat[start : start + size])

    @classmethod
    def joined(cls, groups: Mapping[str, "Parameters"]) -> "Parameters":
        """One new buffer with the values of several Parameters of one dtype, named `group.name`."""
        shapes = {f"{g}.{name}": shape for g, part in groups.items() for name, shape in part.shapes.items()}
        joined = cls(shapes, next(iter(groups.values())).dtype)
        joined.flat[:] = np.concatenate([part.flat for part in groups.values()])
        return joined

    def update(self, values: Mapping[str, object]) -> None:
        """Copy every parameter from a mapping of arrays with exactly these names (torch tensors are accepted)."""
        checks.same_names("state_dict", values, self.shapes)
        arrays = {name: np.asarray(values[name]) for name in self.shapes}
        for name, value in arrays.items():
            if value.shape != self.shapes[name]:
                raise ValueError(f"{name}: expected shape {self.shapes[name]}, got {value.shape}")
        for name, value in arrays.items():
            self._views[name][...] = value
