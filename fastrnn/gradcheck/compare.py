"""A function's gradients against its derivatives."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.gradcheck.derivative import Derivatives
from fastrnn.gradcheck.function import Function
from fastrnn.gradcheck.report import Entry, Report, Row

METHODS = ("auto", "complex", "central", "dot")

_BY_ENTRY = 512  # entries of an input that "auto" still takes one by one
_DIRECTIONS = 2  # of the dot-product test, for each block
_TOLERANCE = {"complex": 1e-12, "central": 1e-11}
_SAFETY = 32.0  # factor on estimated errors
_SUSPECT = 0.1  # error, in tolerances, above which an entry is looked at closely
_AT_ONCE = 16  # entries to look at closely before giving up on the others
_BLURRED = 1e-3, 1e6  # a derivative whose error is larger, relative to the gradient and to the noise, is none


def check(
    function: Callable[..., Any],
    gradients: Callable[[Any], Mapping[str, Any]] | Mapping[str, Any],
    inputs: Mapping[str, Any],
    *,
    method: str = "auto",
    tolerance: float | None = None,
    blocks: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Report:
    """Compare the gradients of function(**inputs) with its derivatives.

    Parameters
    ----------
    function : of named arrays; gives a number, an array, or a tuple or mapping of arrays, always the same
    gradients : pullback(d_output) -> mapping name -> gradient of sum(d_output * output), the cotangent in the form of
        the output; or, for a function that gives one number, the mapping itself
    inputs : the point, name -> float64 array; arrays of integers or bools are handed through
    method : "complex" steps or "central" differences, entry by entry; "dot", the dot-product test by whichever of them
        the function allows; "auto": complex steps where the function allows them, large inputs by the dot-product test
    tolerance : dimensionless, relative to the largest entry of a block, added to the estimated error of differences;
        1e-12 with complex steps and 1e-11 without if None
    blocks : name of an input or output -> label -> index, as in array[index]: parts to compare on their own
    seed : of cotangents and directions
    title : first line of the report; the function's name if None

    An entry at a kink, where the derivatives on either side differ, is counted and not compared; a block of which more
    than half are kinks is not right. A gradient that is NaN or infinite is wrong. Differences see nothing of a function
    that turns within 1e-7 of the size of its inputs, as a chaotic network does: complex steps do.

    Raises TypeError: `x: expected dtype float64, got float32 (too coarse to difference: build the function with
    dtype="float64")`; ValueError: `gradients: expected x, w; missing w`, `gradient of x: expected shape (2, 3), got
    (3, 2)`, `function: expected the same output twice, got a difference of 1.3e-01 (dropout?)`, `function: expected
    finite outputs, got nan in y`, `method: expected a function of complex numbers for complex, got TypeError: ...`.
    Cost: calls of the function: 1 for an entry by complex step, 4 by central differences, and 30 to 50 for a direction;
    log2(entries) times that to find a wrong entry by the dot-product test.
    """
    checks.choice("method", method, METHODS)
    if title is None:
        title = f"{getattr(function, '__name__', type(function).__name__)}({', '.join(inputs)})"
    comparison = Comparison(Function(function, inputs), gradients, blocks or {}, seed)
    return Report(title, list(comparison.rows(method, tolerance)))


class Comparison:
    """One function at one point: the gradients it is said to have, and their comparison with its derivatives."""

    def __init__(self, function: Function, gradients: Any, blocks: Mapping[str, Mapping[str, Any]], seed: int) -> None:
        self._f, self._rng = function, np.random.default_rng(seed)
        unknown = [name for name in blocks if name not in function.inputs and name not in function.names]
        if unknown:
            known = ", ".join([*function.inputs, *function.names])
            raise ValueError(f"blocks: expected names among {known}, got {unknown[0]}")
        self._blocks = {name: _labels(name, blocks.get(name, {}), x.shape) for name, x in function.inputs.items()}
        labels: list[np.ndarray] = []
        self._outputs: list[str] = []
        for name, shape in zip(function.names, function.shapes, strict=True):
            found, names = _labels(name, blocks.get(name, {}), shape)
            labels.append(found + len(self._outputs))
            self._outputs += [f"{name} {block}".rstrip() for block in names]
        self._labels, count = np.concatenate([*labels, np.empty(0, np.int64)]), len(self._outputs)
        u = self._cotangent(gradients, count)
        self._got = self._gradients(gradients, u, count)
        if count > 1:
            self._outputs.append("all")
        self._derivatives = Derivatives(function, self._labels, count, u, self._rng)

    def _cotangent(self, gradients, count):
        """Random, so scaled that <u, f(x)> is about as large as f(x) for each block."""
        if callable(gradients):
            sizes = np.bincount(self._labels, minlength=count)
            return self._rng.standard_normal(self._f.base.size) / np.sqrt(sizes[self._labels])
        if self._f.base.size != 1:
            shapes = ", ".join(map(str, self._f.shapes))
            raise ValueError(f"gradients: expected pullback(d_output) for outputs of shape {shapes}, got a mapping")
        return np.ones(1)

    def _gradients(self, gradients, u, count):
        """The given gradients of each output block and of all together: name -> (K, entries)."""
        if callable(gradients):
            cotangents = [np.where(self._labels == k, u, 0.0) for k in range(count)] + [u] * (count > 1)
            found = [gradients(self._f.like_output(cotangent)) for cotangent in cotangents]
        else:
            found = [gradients]
        got = {name: np.empty((len(found), x.size)) for name, x in self._f.inputs.items()}
        for k, named in enumerate(found):
            if not isinstance(named, Mapping):
                raise TypeError(f"gradients: expected a mapping of names to arrays, got {type(named).__name__}")
            own = {name: value for name, value in named.items() if name not in self._f.constants}
            checks.same_names("gradients", own, got)
            for name, x in self._f.inputs.items():
                got[name][k] = checks.real(f"gradient of {name}", own[name], x.shape).ravel()
        return got

    def rows(self, method: str, tolerance: float | None) -> Iterator[Row]:
        """Every block of every input against every block of the outputs; arguments as of `check`."""
        refusal = "central" if method == "central" else self._derivatives.complex_refusal()
        if method == "complex" and refusal:
            raise ValueError(f"method: expected a function of complex numbers for complex, got {refusal}")
        self._method = "central" if refusal else "complex"
        self._tolerance = checks.number("tolerance", _TOLERANCE[self._method] if tolerance is None else tolerance)
        for name, x in self._f.inputs.items():
            large = method == "dot" or (method == "auto" and x.size > _BY_ENTRY)
            yield from self._by_direction(name) if large else self._by_entry(name)

    def _by_entry(self, name):
        """Rows from the derivative by every entry; those that seem wrong are examined with steps of their own."""
        got, (labels, blocks) = self._got[name], self._blocks[name]
        if self._method == "complex":
            expected, noise = self._derivatives.complex_steps(name), self._derivatives.noise
        else:
            expected, noise = self._derivatives.differences(name)
        floor = np.repeat(_SAFETY * noise[:, None], got.shape[1], axis=1)
        kinks, examined = np.zeros(got.shape, bool), np.zeros(got.shape[1], bool)
        while True:
            scale = _scale(expected, got, kinks, labels, len(blocks))
            error = np.where(kinks, 0.0, _gap(got, expected))
            excess = _ratio(error, self._tolerance * scale + floor)
            suspects = np.flatnonzero((excess > _SUSPECT).any(axis=0) & ~examined)
            if not suspects.size or (excess[:, examined] > 1).any():
                break
            for at in suspects[np.argsort(-excess[:, suspects].max(axis=0), kind="stable")][:_AT_ONCE]:
                examined[at] = True
                if np.isfinite(got[:, at]).all():
                    self._examine(name, at, scale[:, at], expected, floor, kinks)
        for block, label in enumerate(blocks):
            members = np.flatnonzero(labels == block)
            for k, output in enumerate(self._outputs):
                at = members[excess[k, members].argmax()]
                entry = self._entry(name, at, expected[k, at], got[k, at])
                count = int(kinks[k, members].sum())
                relative, tolerance = self._relative(error[k, at], scale[k, at], floor[k, at])
                yield Row(name, label, output, self._method, members.size, count, relative, tolerance, entry)

    def _relative(self, error, scale, floor):
        """An error and its tolerance, relative to `scale`."""
        return float(_ratio(error, scale)), self._tolerance + (float(floor / scale) if scale else 0.0)

    def _examine(self, name, at, scale, expected, floor, kinks):
        """One entry again: note kinks, and replace what differences with a step of its own contradict."""
        index, one = np.array([at]), np.ones(1)
        again = self._derivatives.difference(name, index, one)
        error = _SAFETY * again.error
        kinks[:, at] = self._kinked(name, index, again) | self._blurred(again.value, again.error, scale)
        contradicted = ~(np.abs(again.value - expected[:, at]) <= error + self._tolerance * scale)
        better = contradicted if self._method == "complex" else np.isfinite(again.value)
        expected[better, at], floor[better, at] = again.value[better], error[better]

    def _kinked(self, name, index, estimate):
        """Whether one entry is at a kink (K,)."""
        kinked = np.zeros(len(estimate.step), bool)
        for step in np.unique(estimate.step):
            kinked |= (estimate.step == step) & (self._derivatives.jump(name, index, np.ones(1), step) > 0)
        return kinked

    def _blurred(self, value, error, scale):
        """Whether differences found no derivative: far off for the gradient, and for the noise."""
        relative, noisy = _BLURRED
        return ((_SAFETY * error > relative * scale) & (error > noisy * self._derivatives.noise)) | ~np.isfinite(value)

    def _by_direction(self, name):
        """Rows from the dot-product test; where it fails, a wrong entry is looked for."""
        labels, blocks = self._blocks[name]
        for block, label in enumerate(blocks):
            index = np.flatnonzero(labels == block)
            lines = [self._along(name, index) for _ in range(_DIRECTIONS)]
            for k, output in enumerate(self._outputs):
                line = max(lines, key=lambda line: (not line.blurred[k], line.excess[k]))
                blurred = bool(line.blurred[k])
                entry = self._wrong_entry(name, line, k) if line.excess[k] > 1 and not blurred else None
                relative, tolerance = self._relative(0.0 if blurred else line.gap[k], line.scale[k], line.floor[k])
                kinks = index.size if blurred else index.size - line.entries.size
                method = f"dot, {self._method}"
                yield Row(name, label, output, method, index.size, kinks, relative, tolerance, entry)

    def _along(self, name, index):
        """The dot-product test along a random direction, without the few entries that are at kinks."""
        v = self._rng.standard_normal(index.size)
        for _ in range(_AT_ONCE):
            line = self._compared(name, index, v)
            k = line.excess.argmax()
            if not line.excess[k] > 1 or line.blurred[k] or not np.isfinite(line.gap[k]):
                return line
            at = _halved(index, v, partial(self._gap_along, name, k))
            if not self._kinked(name, at, self._derivatives.difference(name, at, np.ones(1)))[k]:
                return line
            if len(index) == 1:
                break
            index, v = index[index != at], v[index != at]
        return line._replace(blurred=line.excess > 1)

    def _compared(self, name, index, v):
        expected, error = self._directional(name, index, v)
        products = self._got[name][:, index] * v
        finite = np.isfinite(products).all(axis=1)
        gap, floor = _gap(products.sum(axis=1), expected), _SAFETY * error
        scale = np.where(finite, np.fmax(np.abs(expected), np.linalg.norm(products, axis=1)), np.abs(expected))
        blurred = finite & self._blurred(expected, error, scale)
        return _Line(index, v, gap, scale, floor, _ratio(gap, self._tolerance * scale + floor), blurred)

    def _directional(self, name, index, v):
        """The derivative along a line and an estimate of its error (K,)."""
        if self._method == "complex":
            return self._derivatives.complex_step(name, index, v), self._derivatives.noise
        estimate = self._derivatives.difference(name, index, v)
        return estimate.value, estimate.error

    def _wrong_entry(self, name, line, k):
        """An entry that is wrong for output block k."""
        got = self._got[name][k]
        lost = line.entries[~np.isfinite(got[line.entries])]
        at = (lost if lost.size else _halved(line.entries, line.v, partial(self._gap_along, name, k)))[0]
        expected = self._directional(name, np.array([at]), np.ones(1))[0][k]
        return self._entry(name, at, expected, got[at])

    def _gap_along(self, name, k, index, v):
        return abs(self._directional(name, index, v)[0][k] - self._got[name][k, index] @ v)

    def _entry(self, name, at, expected, got):
        place = tuple(int(i) for i in np.unravel_index(at, self._f.inputs[name].shape))
        shown = f"{name}[{', '.join(map(str, place))}]" if place else name
        return Entry(shown, place, float(expected), float(got))


class _Line(NamedTuple):
    """The dot-product test along v in some entries; the others are (K,)."""

    entries: np.ndarray
    v: np.ndarray
    gap: np.ndarray
    scale: np.ndarray
    floor: np.ndarray
    excess: np.ndarray  # the gap in tolerances
    blurred: np.ndarray  # no derivative was found


def _halved(index, v, size):
    """A single entry, by taking the half with the larger size(index, v) again and again."""
    while index.size > 1:
        middle = index.size // 2
        index, v = max([(index[:middle], v[:middle]), (index[middle:], v[middle:])], key=lambda half: size(*half))
    return index


def _gap(got, expected):
    """|got - expected|, infinite where one of them is not finite."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.abs(got - expected), nan=np.inf)


def _ratio(a, b):
    """a/b, with 0/0 = 0 and anything else/0 infinite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(np.equal(a, 0), 0.0, np.nan_to_num(np.divide(a, b), nan=np.inf, posinf=np.inf))


def _scale(expected, got, kinks, labels, count):
    """The largest entry, expected or got, of the block that each entry is in (K, entries)."""
    sizes = np.fmax(np.abs(expected), np.abs(got))
    sizes[kinks | ~np.isfinite(got) | ~np.isfinite(expected)] = 0.0
    largest = [sizes[:, labels == block].max(axis=1, initial=0.0) for block in range(count)]
    return np.stack(largest, axis=1)[:, labels] if count else sizes


def _labels(name, blocks, shape):
    """The block that each entry of an array is in, and the blocks' names; what no block holds is "the rest"."""
    labels = np.full(shape, -1)
    for at, (block, index) in enumerate(blocks.items()):
        try:
            free = np.zeros(shape, bool)
            free[index] = True
        except IndexError as error:
            raise ValueError(f"blocks: expected an index of {name} {shape} for {block!r}, got {index!r}") from error
        labels[free & (labels < 0)] = at
    labels[labels < 0] = len(blocks)
    names = [*blocks, "the rest" if blocks else ""]
    used, compact = np.unique(labels, return_inverse=True)
    return compact.reshape(-1), [names[at] for at in used]
