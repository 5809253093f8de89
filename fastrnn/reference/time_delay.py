"""A convolution over time, tap by tap. Twin of fastrnn.kernels.time_delay."""

import numpy as np


def _pairs(T, lengths, shifts):
    """For each tap the steps (T,) that it reads at each step, clipped to 0..T-1, and where (T, B) there is such a step.

    Both steps lie within the sequence, whose length is lengths[b].
    """
    for shift in shifts:
        t = np.arange(T)
        source = t + shift
        inside = (source[:, None] >= 0) & (np.maximum(t, source)[:, None] < lengths)
        yield np.clip(source, 0, max(T - 1, 0)), inside


def time_delay_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, lengths: np.ndarray, shifts: np.ndarray
) -> np.ndarray:
    """y_t = bias + sum_k W_k x_{t + shifts[k]} for t < lengths[b], zeros beyond: y (T, B, O) of x (T, B, I).

    weight : (O, I, k); bias : (O,); lengths : (B,); shifts : (k,), integers
    """
    T = len(x)
    y = np.where((np.arange(T)[:, None] < lengths)[:, :, None], bias, 0)
    for tap, (source, inside) in enumerate(_pairs(T, lengths, shifts)):
        y = y + np.where(inside[:, :, None], x[source], 0) @ weight[:, :, tap].T
    return y


def time_delay_backward(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray, lengths: np.ndarray, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx (T, B, I), d_weight (O, I, k) and d_bias (O,) from dy (T, B, O); parameters as of time_delay_forward."""
    T = len(x)
    dx, d_weight = np.zeros_like(x), np.zeros_like(weight)
    for tap, (source, inside) in enumerate(_pairs(T, lengths, shifts)):
        here = np.where(inside[:, :, None], dy, 0)
        np.add.at(dx, source, here @ weight[:, :, tap])
        d_weight[:, :, tap] = np.einsum("tbo,tbi->oi", here, np.where(inside[:, :, None], x[source], 0))
    d_bias = np.where((np.arange(T)[:, None] < lengths)[:, :, None], dy, 0).sum(axis=(0, 1))
    return dx, d_weight, d_bias
