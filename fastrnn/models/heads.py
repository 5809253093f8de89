"""What turns rows of features into classes or values, with the loss of each."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from fastrnn import checks, functional
from fastrnn.layers import Dropout, Linear
from fastrnn.models.model import Groups


class Head(Linear, ABC):
    """A linear layer behind dropout, and a loss; the part `head` of a model.

    Parameters
    ----------
    width : columns W of the features
    out_features : O
    dropout : probability of zeroing a feature while training
    seeds : of the initial values and of dropout
    """

    def __init__(self, width: int, out_features: int, dropout: float, dtype: Any, seeds: Any) -> None:
        super().__init__(width, out_features, dtype=dtype, seed=seeds[0])
        self._dropout = Dropout(dropout, seed=seeds[1])

    def objective(self, x: np.ndarray, targets: np.ndarray, groups: Groups | None, scale: float) -> tuple[float, Any]:
        """The mean loss of features (N, W), and with groups scale times its gradient dx, else None.

        Dropout is active with groups.
        """
        if groups is None:
            return self._loss(x, targets, None, scale)
        dropped, undrop = self._dropout.vjp(x)
        loss, dx = self._loss(dropped, targets, groups["head"], scale)
        return loss, undrop(dx)

    @abstractmethod
    def _loss(self, x, targets, grads, scale):
        """The mean loss, and with the place for parameters' gradients scale times dx."""

    @abstractmethod
    def checked(self, name: str, targets: object, rows: int) -> np.ndarray:
        """Targets of so many rows."""


class Classes(Head):
    """One of O classes a row: cross-entropy in nats."""

    def _loss(self, x, targets, grads, scale):
        p = self.parameters
        into = None if grads is None else (grads["weight"], grads["bias"])
        return functional.linear_cross_entropy(x, p["weight"], p["bias"], targets, into, scale)

    def checked(self, name: str, targets: object, rows: int) -> np.ndarray:
        """Labels (N,). Raises ValueError: `targets: expected 0 <= label < 10, got 12`."""
        return checks.labels(name, targets, self.out_features, rows)

    def labels(self, x: np.ndarray) -> np.ndarray:
        """The likeliest classes (N,) of features (N, W)."""
        return self(x).argmax(axis=1)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(N, O), dimensionless."""
        logits = self(x)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)


class Values(Head):
    """O numbers a row: the squared error, its mean over all of them, as torch.nn.functional.mse_loss."""

    def _loss(self, x, targets, grads, scale):
        p = self.parameters
        y, pullback = functional.linear(x, p["weight"], p["bias"])
        error = y - targets
        loss = float(np.square(error).sum(dtype=np.float64)) / max(error.size, 1)
        if grads is None:
            return loss, None
        dy = error * error.dtype.type(2 * scale / max(error.size, 1))
        return loss, pullback(dy, grads["weight"], grads["bias"])

    def checked(self, name: str, targets: object, rows: int) -> np.ndarray:
        """Values (N, O). Raises TypeError: `targets: expected dtype float32, got float64`."""
        return checks.array(name, targets, self.dtype, rows, self.out_features)
