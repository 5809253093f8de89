"""Derivatives of L = <u, f(x)>, for the part of u in each block of f's outputs, by complex step and by differences."""

import math
import warnings
from typing import NamedTuple

import numpy as np

from fastrnn.gradcheck.function import Function

_COMPLEX_STEP = 1e-20
_FIRST_STEP = 0.25
_HALVINGS = 48
_SAMPLES = 5  # entries of an input that choose the step for all
_NEAR = 1e-8, 1.618e-8  # steps, relative to x, within which L is straight but for roundings
_KINK = 2.0**-23  # a step within which a slope that jumps is a kink
_ULP = 2.0**-52


class Estimate(NamedTuple):
    """A derivative by output block, an estimate of its error, and the step it was taken with: (K,) each."""

    value: np.ndarray
    error: np.ndarray
    step: np.ndarray


class Derivatives:
    """Derivatives of a function along lines x + h v, v in entries `index` of one input.

    labels (M,) : the output block of each number, 0..blocks-1
    u (M,) : cotangent
    K is the number of output blocks and, where there are several, one for all together.
    """

    def __init__(
        self, function: Function, labels: np.ndarray, blocks: int, u: np.ndarray, rng: np.random.Generator
    ) -> None:
        self._f, self._labels, self._blocks, self._u = function, labels, blocks, u
        self._rng = rng
        self.noise = self._measured_noise()

    def _sums(self, vector):
        """<u, vector> by output block (K,)."""
        return self._with_total(np.bincount(self._labels, self._u * vector, minlength=self._blocks))

    def _with_total(self, sums):
        return np.append(sums, sums.sum()) if self._blocks > 1 else sums

    def _measured_noise(self):
        """The standard deviation of the roundings in L (K,), from sixth differences, in which a smooth L vanishes."""
        sixth = np.stack([np.diff(self._walk(step), 6, axis=0) for step in _NEAR])  # (steps, 6, K)
        measured = np.sqrt(np.mean(sixth**2, axis=1) / math.comb(12, 6)).max(axis=0)
        squares = np.bincount(self._labels, (self._u * self._f.base) ** 2, minlength=self._blocks)
        return np.maximum(measured, _ULP / 2 * np.sqrt(self._with_total(squares)))

    def _walk(self, step):
        """L - L(x) at 12 points on a line away from x, in all inputs at once (12, K)."""
        strides = {}
        for name, x in self._f.inputs.items():
            typical = np.sqrt(np.mean(x**2)) if x.any() else 1.0
            strides[name] = step * np.where(x == 0, typical, np.abs(x)) * self._rng.choice([-1.0, 1.0], x.shape)
        points = [{name: x + j * strides[name] for name, x in self._f.inputs.items()} for j in range(1, 13)]
        return np.stack([self._sums(self._f.at(point) - self._f.base) for point in points])

    def _at(self, name, index, values):
        """f where entries of one input have other values; NaN where it refuses them."""
        moved = self._f.inputs[name].copy()
        moved.reshape(-1)[index] = values
        try:
            with np.errstate(all="ignore"):
                return self._f.at({name: moved})
        except (ValueError, ArithmeticError):  # as math.log(-1)
            return np.full_like(self._f.base, np.nan)

    def _slope(self, name, index, v, h):
        """D(h) = (L(x + hv) - L(x - hv)) / 2h by output block (K,)."""
        x = self._f.inputs[name].reshape(-1)[index]
        high, low = x + h * v, x - h * v
        width = (high - low)[0] / v[0] if len(index) == 1 else 2 * h  # of one entry, as it was rounded
        with np.errstate(invalid="ignore"):
            return self._sums((self._at(name, index, high) - self._at(name, index, low)) / width)

    def _unit(self, name, index):
        """The size of an input: a power of 2, at least 1."""
        return 2.0 ** math.floor(math.log2(max(np.abs(self._f.inputs[name].reshape(-1)[index]).max(), 1.0)))

    def difference(self, name: str, index: np.ndarray, v: np.ndarray) -> Estimate:
        """R(h) for h = 1/4, 1/8, ...: where the change of R, which measures what truncation left, meets 1.5 e/h."""
        h, K = _FIRST_STEP * self._unit(name, index), len(self.noise)
        value, error, step = np.full(K, np.nan), np.full(K, np.inf), np.full(K, h)
        slope = extrapolated = change = np.full(K, np.nan)
        for _ in range(_HALVINGS):
            wide, slope = slope, self._slope(name, index, v, h)
            before, extrapolated = extrapolated, slope + (slope - wide) / 3
            last, change = change, np.abs(extrapolated - before) / 15
            noise = 1.5 * self.noise / h
            total = np.maximum(change, last / 16) + noise + 2 * _ULP * np.abs(extrapolated)
            with np.errstate(invalid="ignore"):
                refuted = np.abs(extrapolated - value) > 32 * (error + noise)  # wide steps agreed by accident
            better = (total < error) | (refuted & np.isfinite(total))  # never where one is NaN
            value, error = np.where(better, extrapolated, value), np.where(better, total, error)
            step = np.where(better, h, step)
            if (noise >= error).all():
                break
            h /= 2
        return Estimate(value, error, step)

    def differences(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """R(h) for every entry of an input (K, entries), with one step for all, and its noise (K,)."""
        x = self._f.inputs[name].reshape(-1)
        one = np.ones(1)
        sampled = self._rng.permutation(x.size)[:_SAMPLES]
        found = [self.difference(name, np.array([at]), one) for at in sampled]
        steps = [own.step[own.value != 0].min() for own in found if own.value.any()]
        h = float(np.median(steps)) / 4 if steps else _FIRST_STEP / 256  # for entries that bend 4^5 times as much
        derivatives = np.empty((len(self.noise), x.size))
        for at in range(x.size):
            narrow, wide = (self._slope(name, np.array([at]), one, step) for step in (h, 2 * h))
            derivatives[:, at] = narrow + (narrow - wide) / 3
        return derivatives, 1.5 * self.noise / h

    def complex_step(self, name: str, index: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The derivative along a line (K,)."""
        moved = self._f.inputs[name].astype(np.complex128)
        moved.reshape(-1)[index] += 1j * _COMPLEX_STEP * v
        return self._sums(self._f.complex_at({name: moved}).imag) / _COMPLEX_STEP

    def complex_steps(self, name: str) -> np.ndarray:
        """The derivative by every entry of an input (K, entries)."""
        size, one = self._f.inputs[name].size, np.ones(1)
        columns = [self.complex_step(name, np.array([at]), one) for at in range(size)]
        return np.stack(columns, axis=1) if size else np.empty((len(self.noise), 0))

    def complex_refusal(self) -> str:
        """Why complex steps can't be used, or "": they fail, or differ from central differences along a line."""
        for name, x in self._f.inputs.items():
            if not x.size:
                continue
            index, v = np.arange(x.size), self._rng.standard_normal(x.size)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", np.exceptions.ComplexWarning)
                    value = self._f.complex_at({name: x.astype(np.complex128)})
                    got = self.complex_step(name, index, v)
            except Exception as error:  # whatever a function does with numbers that it wasn't made for
                return f"{type(error).__name__}: {error}"
            if not np.allclose(value, self._f.base, rtol=1e-10, atol=1e-10 * np.abs(self._f.base).max(initial=0.0)):
                return f"other outputs for a complex {name}"
            trusted = self.difference(name, index, v)
            if not (np.abs(got - trusted.value) <= 1e-6 * np.abs(got) + 32 * trusted.error).all():
                return f"derivatives by {name} that differences contradict"
        return ""

    def jump(self, name: str, index: np.ndarray, v: np.ndarray, wide: float) -> np.ndarray:
        """By how much the slopes on either side differ (K,); 0 where curvature or roundings explain it.

        Looked for within a tiny step, where a large jump shows, and within `wide`, in which f is smooth but for kinks.
        """
        found = np.zeros(len(self.noise))
        for step in (min(_KINK * self._unit(name, index), wide / 4), wide / 4):
            near, far = (np.abs(self._bend(name, index, h * v)) / h for h in (step, 4 * step))
            found = np.where((near > far / 2) & (near > 100 * 4 * self.noise / step), near, found)
        return found

    def _bend(self, name, index, step):
        x = self._f.inputs[name].reshape(-1)[index]
        high, low = self._at(name, index, x + step), self._at(name, index, x - step)
        with np.errstate(invalid="ignore"):
            return self._sums((high - self._f.base) + (low - self._f.base))
