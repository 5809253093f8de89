"""One row of features a sequence, from all that an encoder gives.

Each takes an Encoded batch and returns features (B, D*H), the sequences the longest first, and
pullback(d_features) -> dy or None, d_final or None. Sums and maxima run step by step, so that they have the same bits
whatever else is in the batch; a sequence without steps has features of 0.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fastrnn import functional
from fastrnn.models.encoder import Encoded

Pooled = tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray | None, Sequence[np.ndarray] | None]]]


def last(encoded: Encoded) -> Pooled:
    """h of the last layer after its last step, of both directions side by side; the reverse one's is at step 0."""
    h = encoded.final[0]
    _, B, H = h.shape
    D = encoded.y.shape[1] // H

    def pullback(d):
        d_final = [np.zeros_like(state) for state in encoded.final]
        d_final[0][-D:] = d.reshape(B, D, H).swapaxes(0, 1)
        return None, d_final

    return np.ascontiguousarray(h[-D:].swapaxes(0, 1)).reshape(B, D * H), pullback


def mean(encoded: Encoded) -> Pooled:
    """The mean of y over the steps of each sequence."""
    y, steps = encoded.y, encoded.batch.forward
    lengths = np.maximum(steps.lengths, 1).astype(y.dtype)[:, None]
    total = np.zeros((len(lengths), y.shape[1]), y.dtype)
    for rows, count in _steps(encoded):
        total[:count] += y[rows]

    def pullback(d):
        sequence = np.arange(len(y)) - np.repeat(steps.first, steps.count)
        return functional.gather(d / lengths, sequence), None

    return total / lengths, pullback


def maximum(encoded: Encoded) -> Pooled:
    """The largest of each column of y over the steps of each sequence; the first of equal ones has the gradient."""
    y, lengths = encoded.y, encoded.batch.forward.lengths
    top = np.full((len(lengths), y.shape[1]), -np.inf, y.dtype)
    for rows, count in _steps(encoded):
        np.maximum(top[:count], y[rows], out=top[:count])
    top[lengths == 0] = 0

    def pullback(d):
        dy, left = np.empty_like(y), np.ones(top.shape, bool)
        for rows, count in _steps(encoded):
            found = (y[rows] == top[:count]) & left[:count]
            np.multiply(d[:count], found, out=dy[rows])
            left[:count] ^= found
        return dy, None

    return top, pullback


def _steps(encoded):
    """The rows of each step, and how many sequences have it."""
    steps = encoded.batch.forward
    for first, count in zip(steps.first.tolist(), steps.count.tolist(), strict=True):
        yield slice(first, first + count), count


POOLINGS = {"last": last, "mean": mean, "max": maximum}
