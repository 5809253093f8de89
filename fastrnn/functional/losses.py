"""Cross-entropy, alone and behind a linear layer."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import loss as kernels
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import room_size
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch

# Logits and their gradient, in one buffer of this size or 16 rows, whichever is more: rows enough to keep the
# products busy, and a vocabulary of any size never fills memory.
_LOGITS_BYTES = 1 << 25
_LEAST_ROWS = 16


# The sums of these sizes take longer in Python than a small call in the kernel; `count` threads.


@lru_cache
def _room_size(N, lanes, count):
    return room_size(kernels.loss_room(N, lanes, count), lanes)


@lru_cache
def _linear_room_size(N, V, H, lanes, count):
    return room_size(kernels.linear_loss_room(N, V, H, lanes, count), lanes)


def _softmax_cross_entropy(logits, targets, scale, d_logits):
    """The losses (N,); scale*gradient goes to d_logits, which may be empty."""
    N, V = logits.shape
    count = threads.for_work(100 * N * V)
    losses = np.empty(N, logits.dtype)
    work = scratch(_room_size(N, lanes_of(logits.itemsize), count), logits.dtype)
    kernels.softmax_cross_entropy(
        logits=logits.reshape(-1), targets=targets, V=V, scale=scale, losses=losses, d_logits=d_logits.reshape(-1),
        work=work, threads=count,
    )  # fmt: skip
    return losses


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, Callable[[float], np.ndarray]]:
    """Mean of -log softmax(logits)[target] over N rows of (N, V), in nats; pullback(d_loss) returns d_logits.

    Raises ValueError: `targets: expected 0 <= token < 65, got 70`, `logits: expected shape (N, V) with V >= 1, got
    (3, 0)`. Cost: one exponential a logit. Reference twin: fastrnn.reference.loss.softmax_cross_entropy.
    """
    dtype = checks.floating("logits", logits)
    N, V = checks.sizes("logits", logits, "(N, V) with V >= 1", 0, 1)
    logits = checks.array("logits", logits, dtype, N, V).view()
    targets = checks.tokens("targets", np.array(targets), V, N)  # a copy and a view: as they are, for the pullback
    losses = _softmax_cross_entropy(logits, targets, 0.0, np.empty(0, dtype))

    def pullback(d_loss):
        d_logits = empty((N, V), dtype)
        _softmax_cross_entropy(logits, targets, float(d_loss) / max(len(targets), 1), d_logits)
        return d_logits

    return float(losses.sum(dtype=np.float64)) / max(len(targets), 1), pullback


def linear_cross_entropy(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    targets: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray] | None = None,
    scale: float = 1.0,
) -> tuple[float, np.ndarray | None]:
    """cross_entropy(linear(x, weight, bias), targets), block by block, so that the logits never exist as a whole.

    Parameters
    ----------
    x : (N, H); weight : (V, H); bias : (V,); targets : (N,), int64 below V
    gradients : arrays for d_weight, d_bias; without them only the loss is computed
    scale : factor of the gradients

    Returns the loss in nats and dx (N, H), or None. Raises ValueError: `targets: expected 0 <= token < 65, got 70`,
    `bias: expected shape (65,), got (64,)`, `d_bias: expected shape (65,), got (64,)`.
    Cost: 2*N*H*V flop, three times that with gradients; logits in blocks of 32 MiB, or 16 rows. Reference twin:
    fastrnn.reference.loss.linear_cross_entropy.
    """
    dtype = checks.floating("x", x)
    N, H = checks.sizes("x", x, "(N, H)", 0, 0)
    V, _ = checks.sizes("weight", weight, "(V, H) with V >= 1", 1, 0)
    x, weight, bias = checks.arrays(("x", "weight", "bias"), (x, weight, bias), dtype, ((N, H), (V, H), (V,)))
    targets = checks.tokens("targets", targets, V, N)
    scale = float(scale)
    names = "d_weight", "d_bias"
    checks.targets(names, checks.parts("gradients", gradients, names), dtype, ((V, H), (V,)))
    rows = max(1, min(N, max(_LEAST_ROWS, _LOGITS_BYTES // (V * x.itemsize))))
    count = threads.for_work(2 * rows * V * H * x.itemsize / 4)
    work = scratch(_linear_room_size(rows, V, H, lanes_of(x.itemsize), count), dtype)
    dx = x[:0]
    d_weight = weight[:0]
    d_bias = bias[:0]
    if gradients is not None:
        dx = empty(x.shape, dtype)
        d_weight, d_bias = gradients
    losses = np.empty(N, dtype)
    for start in range(0, max(N, 1), rows):
        block = slice(start, start + rows)
        kernels.linear_cross_entropy(
            x=x[block], weight=weight, bias=bias, targets=targets[block], scale=scale / max(N, 1), losses=losses[block],
            dx=dx[block], d_weight=d_weight, d_bias=d_bias, add=start > 0, work=work, threads=count,
        )  # fmt: skip
    return float(losses.sum(dtype=np.float64)) / max(N, 1), None if gradients is None else dx
