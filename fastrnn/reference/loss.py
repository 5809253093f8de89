"""Softmax cross-entropy, alone and fused with the linear layer before it. Twin of fastrnn.kernels.loss."""

import numpy as np

from fastrnn.reference.matmul import column_sums, product
from fastrnn.reference.vmath import exp, log


def softmax_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss, dlogits): the mean of -log softmax(logits)[target] in nats, and its gradient (softmax - one-hot) / N.

    logits (N, C), N >= 1; targets (N,) integers in 0..C-1; dlogits (N, C).
    """
    N = len(targets)
    each = np.arange(N)
    shifted = logits - logits.real.max(axis=1, keepdims=True)
    exponentials = exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    loss = (log(total[:, 0]) - shifted[each, targets]).mean()
    dlogits = exponentials / total
    dlogits[each, targets] -= 1
    return loss, dlogits / N


def linear_cross_entropy(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(loss, (dx, dweight, dbias)) of the logits x W^T + b: x (N, H), weight (C, H), bias (C,), targets (N,)."""
    loss, dlogits = softmax_cross_entropy(product(x, weight.T, bias), targets)
    return loss, (product(dlogits, weight), product(dlogits.T, x), column_sums(dlogits))
