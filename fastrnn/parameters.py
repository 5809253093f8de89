"""All parameters of a model, or their gradients, in one flat aligned buffer with named views."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from fastrnn import checks
from fastrnn.memory import aligned_empty

_most: ContextVar[float] = ContextVar("most", default=math.inf)


@contextmanager
def at_most(elements: float) -> Iterator[None]:
    """Within the block no larger Parameters are made: for what a file of so many elements asks to be built.

    Raises ValueError, before anything is allocated: `parameters: expected at most 4000 elements, got 65536`.
    """
    token = _most.set(elements)
    try:
        yield
    finally:
        _most.reset(token)


class _Layout:
    """Names, shapes and places in a flat buffer; shared by parameters, gradients and their groups."""

    def __init__(self, shapes):
        self.shapes, self.places, self.size = dict(shapes), {}, 0
        for name, shape in self.shapes.items():
            end = self.size + math.prod(shape)
            self.places[name] = slice(self.size, end)
            self.size = end
        self._groups = {}

    def group(self, prefix):
        """The layout of the consecutive names `prefix.*`, without the prefix, and its place."""
        if prefix not in self._groups:
            names = [name for name in self.shapes if name.startswith(f"{prefix}.")]
            layout = _Layout({name.removeprefix(f"{prefix}."): self.shapes[name] for name in names})
            start = self.places[names[0]].start if names else 0
            if not names or self.places[names[-1]].stop != start + layout.size:
                raise KeyError(f"{prefix}: expected consecutive parameters {prefix}.*, got {', '.join(self.shapes)}")
            self._groups[prefix] = layout, slice(start, start + layout.size)
        return self._groups[prefix]


class Parameters(Mapping[str, np.ndarray]):
    """A mapping name -> array, all views into `flat`.

    Parameters
    ----------
    shapes : mapping name -> shape, in the order of the buffer
    dtype : "float32" or "float64"

    Raises ValueError: `weight_hh_l0: expected at most 9223372036854775807 bytes, got 16000000000000000000`.

    `p[name] = value` copies into the view; `p[name][...] = value` does the same, and `p.flat = values`. The optimisers,
    clipping and checkpoints work on `flat` in one pass. A layer and the model that holds it share one buffer.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: object) -> None:
        checks.shapes("shapes", shapes)
        layout, dtype = _Layout(shapes), checks.dtype(dtype)
        if layout.size > _most.get():
            raise ValueError(f"parameters: expected at most {_most.get()} elements, got {layout.size}")
        for name, shape in layout.shapes.items():
            checks.addressable(name, shape, dtype.itemsize)
        checks.addressable("parameters", (layout.size,), dtype.itemsize)
        self._over(layout, aligned_empty(layout.size, dtype)[:])

    def _over(self, layout, flat, origin=None):
        """Views by `layout` over `flat`; origin: the Parameters and the prefix that a group came from."""
        self._layout, self._views, self._origin = layout, {}, origin
        self._own: dict[str, np.ndarray] = {}
        self._memory = self._flat = flat  # not the memory's owner, which could be resized under the views
        return self

    @property
    def flat(self) -> np.ndarray:
        """The buffer (elements,); what is assigned to it is copied into it.

        Raises ValueError: `flat: expected shape (21,), got (3,)`.
        """
        flat = self._flat
        if flat is self._memory or flat.shape != self._memory.shape or flat.dtype is not self._memory.dtype:
            flat = self._flat = self._memory[:]  # a caller may set the shape or the dtype of his
        return flat

    @flat.setter
    def flat(self, value: object) -> None:
        if value is not self._flat:
            self._memory[:] = checks.real("flat", value, (self._layout.size,))

    def __reduce__(self):
        """Copies and pickles of a model's parts share one buffer again."""
        return (Parameters.group, self._origin) if self._origin else (_rebuilt, (dict(self.shapes), self.flat))

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64."""
        return self._memory.dtype

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each parameter by name, read-only."""
        return MappingProxyType(self._layout.shapes)

    def views(self) -> dict[str, np.ndarray]:
        """All parameters for kernels: views that callers don't get, so that their shapes are as they were made.

        The mapping is the same object as long as the buffer is.
        """
        if not self._own:
            self._own = {name: self._view(name) for name in self._layout.shapes}
        return self._own

    def _view(self, name):
        return self._memory[self._layout.places[name]].reshape(self._layout.shapes[name])

    def __getitem__(self, name: str) -> np.ndarray:
        view = self._views.get(name)
        if view is None or view.shape != self._layout.shapes[name] or view.dtype is not self._memory.dtype:
            # also where a caller has set the shape or the dtype of the view itself
            view = self._views[name] = self._view(name)
        return view

    def __setitem__(self, name: str, value: object) -> None:
        """Copy `value` into the parameter `name`.

        Raises ValueError: `weight_hh_l0: expected shape (512, 512), got (512, 64)`.
        """
        view = self[name]
        view[...] = checks.real(name, value, view.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __call__(self, *arguments: object) -> NoReturn:
        """A TypeError for who writes torch's `layer.parameters()`."""
        raise TypeError("parameters: expected no call, got layer.parameters(); write layer.parameters")

    def __repr__(self) -> str:
        return f"Parameters({self.flat.size} x {self.dtype.name}: {', '.join(self.shapes)})"

    def empty_like(self) -> "Parameters":
        """The same names and shapes over a new, uninitialised buffer."""
        return object.__new__(Parameters)._over(self._layout, aligned_empty(self._layout.size, self.dtype)[:])

    def zeros_like(self) -> "Parameters":
        """The same names and shapes over a new buffer of zeros."""
        new = self.empty_like()
        new.flat.fill(0)
        return new

    def gradients(self, given: "Parameters | None" = None) -> "Parameters":
        """A place for these parameters' gradients: new and uninitialised, or `given` if it fits.

        Raises ValueError: `grads: expected float32 {'weight': (2, 3)}, got float32 {'weight': (3, 2)}`; TypeError:
        `grads: expected Parameters, got dict`.
        """
        if given is None:
            return self.empty_like()
        checks.instance("grads", given, Parameters)
        if given.dtype != self.dtype or (given._layout is not self._layout and given.shapes != self.shapes):
            raise ValueError(f"grads: expected {self._described()}, got {given._described()}")
        return given

    def _described(self):
        return f"{self.dtype.name} {dict(self.shapes)}"

    def group(self, prefix: str) -> "Parameters":
        """The consecutive parameters named `prefix.*` as Parameters of their own, over the same memory."""
        layout, place = self._layout.group(prefix)
        return object.__new__(Parameters)._over(layout, self._memory[place], (self, prefix))

    def is_group_of(self, whole: "Parameters") -> bool:
        """Whether these are a group of others."""
        return self._origin is not None and self._origin[0] is whole

    @classmethod
    def joined(cls, groups: Mapping[str, "Parameters"]) -> "Parameters":
        """Several Parameters of one dtype in one new buffer, named `group.name`.

        They move there themselves: what trains the joined ones trains the layers that they came from. Arrays that were
        taken from them before, `p[name]` and `p.flat`, stay in the earlier buffers.

        Raises ValueError: `head: expected Parameters of their own, got a part of others`; TypeError: `head: expected
        Parameters, got Linear; write layer.parameters`, `head: expected dtype float32 as of rnn, got float64`.
        """
        dtype = _joinable(groups)
        shapes = {f"{g}.{name}": shape for g, part in groups.items() for name, shape in part.shapes.items()}
        joined = cls(shapes, dtype)
        for name, part in groups.items():
            layout, place = joined._layout.group(name)
            joined._memory[place] = part._memory
            part._over(layout, joined._memory[place], (joined, name))
        return joined

    def update(self, values: Mapping[str, object]) -> None:
        """Copy every parameter from a mapping of arrays with exactly these names (torch tensors are accepted).

        Raises ValueError before anything is copied: `state_dict: expected weight, bias; missing bias`,
        `weight: expected shape (3, 4), got (4, 3)`.
        """
        checks.same_names("state_dict", values, self.shapes)
        arrays = {name: checks.real(name, values[name], shape) for name, shape in self.shapes.items()}
        for name, value in arrays.items():
            self[name] = value


def _joinable(groups):
    """The one dtype of Parameters that may move into a buffer together."""
    if not isinstance(groups, Mapping) or not groups:
        got = "none" if isinstance(groups, Mapping) else type(groups).__name__
        raise TypeError(f"groups: expected a mapping of names to Parameters, got {got}")
    for a in groups:
        if nested := [b for b in groups if b.startswith(f"{a}.")]:
            raise ValueError(f"groups: expected names apart, got {a} and {nested[0]}")
    first, parts = next(iter(groups)), list(groups.values())
    for name, part in groups.items():
        checks.instance(name, part, Parameters, "write layer.parameters")
        if part._origin is not None or sum(other is part for other in parts) > 1:
            raise ValueError(f"{name}: expected Parameters of their own, got a part of others")
        if not part.shapes:
            raise ValueError(f"{name}: expected at least one parameter, got none")
        if part.dtype != parts[0].dtype:
            raise TypeError(f"{name}: expected dtype {parts[0].dtype.name} as of {first}, got {part.dtype.name}")
    return parts[0].dtype


def _rebuilt(shapes, flat):
    new = Parameters(shapes, flat.dtype)
    new.flat[:] = flat
    return new
