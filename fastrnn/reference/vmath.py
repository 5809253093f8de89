"""exp, log, tanh and sigmoid. Twin of fastrnn.kernels.vmath."""

import numpy as np


def exp(x: np.ndarray) -> np.ndarray:
    """e^x."""
    return np.exp(x)


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm."""
    return np.log(x)


def tanh(x: np.ndarray) -> np.ndarray:
    """Hyperbolic tangent."""
    return np.tanh(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x) = (1 + tanh(x/2)) / 2, which never overflows; exact to a rounding of 1, not of the result."""
    return (1 + np.tanh(x / 2)) / 2
