"""y = x weight^T + bias."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import checks, functional
from fastrnn.layers.layer import Layer
from fastrnn.parameters import Parameters


class Linear(Layer):
    """An affine map of the last dimension.

    Parameters
    ----------
    in_features, out_features : sizes I and O
    bias : add a bias
    dtype : "float32" or "float64"
    seed : of the initial values, U(-1/sqrt(I), 1/sqrt(I)) as torch.nn.Linear

    Parameters by name: weight (O, I), bias (O,).
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = "float32", seed: Any = None
    ) -> None:
        self.in_features = checks.integer("in_features", in_features, 0)
        self.out_features = checks.integer("out_features", out_features, 0)
        self.bias = checks.flag("bias", bias)
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        super().__init__(shapes if bias else {"weight": shapes["weight"]}, dtype)
        bound = 1 / max(self.in_features, 1) ** 0.5
        self.parameters.flat[:] = checks.generator(seed).uniform(-bound, bound, self.parameters.flat.size)

    def _run(self, x):
        shape = checks.rank("x", x, "(..., in_features)", 0).shape
        x = checks.array("x", x, self.dtype, *shape[:-1], self.in_features, letters="(..., in_features)")
        rows = math.prod(shape[:-1])
        p = self.parameters.views()
        y, pullback = functional.linear(x.reshape(rows, self.in_features), p["weight"], p.get("bias"))
        return x.shape, y.reshape(*shape[:-1], self.out_features), pullback

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """y (..., O) of x (..., I)."""
        return self._run(x)[1]

    def vjp(self, x: np.ndarray) -> tuple[np.ndarray, Callable[..., tuple[np.ndarray, Parameters]]]:
        """y (..., O), and pullback(dy, grads=None) -> dx (..., I), grads.

        Raises ValueError: `x: expected shape (..., in_features) = (4, 3), got (4, 5)`.
        Cost: 2*N*I*O flop, 4*N*I*O backward. Reference twin: fastrnn.reference.matmul.product.
        """
        shape, y, backward = self._run(x)

        def pullback(dy, grads=None):
            dy = checks.array("dy", dy, self.dtype, *shape[:-1], self.out_features)
            grads = self.parameters.gradients(grads)
            own = grads.views()
            dx = backward(dy.reshape(math.prod(shape[:-1]), self.out_features), own["weight"], own.get("bias"))
            return dx.reshape(shape), grads

        return y, pullback
