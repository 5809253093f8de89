"""What the tests measure with: gradients by the complex step, errors relative to a tensor, and roundings."""

from collections.abc import Callable, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def complex_step(function: Callable[..., complex], inputs: Arrays, step: float = 1e-20) -> dict[str, np.ndarray]:
    """The gradient of a real scalar function(**inputs), exact to rounding: Im f(x + i step) / step, element by element.

    Every input is handed over as complex128. Source: Martins, Sturdza, Alonso, The complex-step derivative
    approximation, ACM TOMS 29 (2003).
    """
    points = {name: np.array(value, np.complex128) for name, value in inputs.items()}
    gradients = {name: np.zeros(point.shape) for name, point in points.items()}
    for name, point in points.items():
        for index in np.ndindex(point.shape):
            point[index] += 1j * step
            gradients[name][index] = function(**points).imag / step
            point[index] = point[index].real
    return gradients


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| / max |b| over a tensor: 0 for empty or equal tensors, inf where only b is all 0."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"expected shape {b.shape}, got {a.shape}")
    error, size = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
    if error == 0:
        return 0.0
    return float(error / size) if size != 0 else np.inf


def assert_close(got: Arrays, expected: Arrays, tolerance: float) -> None:
    """The same names and shapes, and each tensor within `tolerance`, relative to its largest element."""
    assert got.keys() == expected.keys()
    for name in expected:
        error = relative_error(got[name], expected[name])
        assert error <= tolerance, f"{name}: relative error {error:.1e}, tolerance {tolerance:.1e}"


def perturbed(inputs: Arrays, unit: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The inputs with every real number changed by a factor 1 + unit N(0, 1); integers stay."""
    return {
        name: value if value.dtype.kind in "iu" else value * (1 + unit * rng.standard_normal(value.shape))
        for name, value in inputs.items()
    }


def rounding_budget(
    function: Callable[..., Arrays], inputs: Arrays, dtype: np.dtype, tries: int = 5, seed: int = 0
) -> dict[str, float]:
    """The relative error that each output of a function gets for being computed in `dtype`.

    It is measured: 8 times the largest change that roundings of the inputs make, and 4 ulp. All in float64.
    """
    rng, unit = np.random.default_rng(seed), np.finfo(dtype).eps
    exact = function(**inputs)
    budget = dict.fromkeys(exact, 0.0)
    for _ in range(tries):
        for name, moved in function(**perturbed(inputs, unit, rng)).items():
            budget[name] = max(budget[name], relative_error(moved, exact[name]))
    return {name: 8 * change + 4 * unit for name, change in budget.items()}


def fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a*b + c of float32 arrays, rounded once.

    The product is exact in float64. Its sum with c is rounded to odd there, which keeps what decides the rounding to
    float32. Source: Boldo, Melquiond, Emulation of FMA and correctly rounded sums, IEEE Trans. Computers 57 (2008).
    """
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    even = total.view(np.int64) & 1 == 0
    odd = np.nextafter(total, np.copysign(np.inf, error))
    return np.where((error != 0) & even, odd, total).astype(np.float32)
