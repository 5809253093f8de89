"""Losses on arrays a user holds."""

from collections.abc import Callable

import numpy as np

from fastrnn import checks, functional


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, Callable[..., np.ndarray]]:
    """The mean of -log softmax(logits)[target], in nats, and pullback(d_loss=1.0) -> d_logits.

    Parameters
    ----------
    logits : (..., V), float32 or float64
    targets : (...), integers below V

    Raises ValueError: `targets: expected 0 <= token < 65, got 70`, `targets: expected shape (50, 32), got (50,)`.
    Cost: one exponential a logit, the same again backward. Convention: torch.nn.functional.cross_entropy with classes
    in the last dimension. Reference twin: fastrnn.reference.loss.softmax_cross_entropy.
    """
    logits = checks.rank("logits", logits, "(..., classes)", 0)
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits: expected shape (..., classes) with at least one class, got {logits.shape}")
    logits = checks.array("logits", logits, checks.dtype(logits.dtype, "logits"), *logits.shape)
    shape, V = logits.shape, logits.shape[-1]
    targets = checks.tokens("targets", targets, V, *logits.shape[:-1])
    loss, backward = functional.cross_entropy(logits.reshape(-1, V), targets.reshape(-1))
    return loss, lambda d_loss=1.0: backward(d_loss).reshape(shape)
