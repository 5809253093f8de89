"""The products of a linear layer: y = x W^T, and the two of its gradient."""

import numpy as np
import pytest
from registry import SHAPES

from fastrnn import functional


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("gradient", [False, True], ids=["product", "gradient"])
def test_linear(benchmark, gradient, name, dtype):
    T, B, I, H = SHAPES[name]
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.standard_normal(size).astype(dtype) for size in ((T * B, I), (H, I), (T * B, H)))
    _, pullback = functional.linear(x, weight, None)
    d_weight = np.empty_like(weight)

    def call():
        return pullback(dy, d_weight, None) if gradient else functional.linear(x, weight, None)

    call()
    benchmark.group = f"{'dx = dy W and dW = dy^T x' if gradient else 'y = x W^T'}, {dtype}"
    benchmark(call)
    benchmark.extra_info["GF/s"] = (1 + gradient) * 2 * T * B * I * H / benchmark.stats["median"] / 1e9
