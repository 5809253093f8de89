"""Random zeros while training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import checks


class Dropout:
    """Set each element to 0 with probability p and scale the others by 1/(1-p), in `vjp` only.

    Parameters
    ----------
    p : probability, dimensionless, 0..1
    seed : of the layer's own generator, from which every call of `vjp` draws a new mask

    Source: Srivastava et al., JMLR 15 (2014); scaled while training, as torch.nn.Dropout.
    """

    def __init__(self, p: float = 0.5, *, seed: Any = None) -> None:
        self.p = checks.number("p", p, 0.0, 1.0)
        self._generator = checks.generator(seed)

    def __repr__(self) -> str:
        return f"Dropout(p={self.p})"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x itself."""
        return x

    def vjp(self, x: np.ndarray) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
        """y, and pullback(dy) -> dx; with p = 0 both pass their argument through."""
        if self.p == 0:
            return x, lambda dy: dy
        x = checks.rank("x", x, "(...)", 0)
        checks.dtype(x.dtype, "x")
        kept = self._generator.random(x.shape, np.float32) >= self.p
        mask = kept.astype(x.dtype) * x.dtype.type(1 / (1 - self.p) if self.p < 1 else 0)
        return x * mask, lambda dy: checks.array("dy", dy, x.dtype, *x.shape) * mask
