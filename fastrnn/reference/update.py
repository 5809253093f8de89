"""The optimisers' updates and the clipping of gradients. Twin of fastrnn.kernels.update.

Formulas, names and defaults are torch.optim's. An update takes the parameters, their gradients and the optimiser's
state, flat vectors that start at 0, and returns the new parameters, followed by the new state.
"""

import numpy as np


def sgd(
    parameters: np.ndarray,
    grads: np.ndarray,
    momentum_buffer: np.ndarray,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent with momentum (no dampening); Nesterov's looks one step ahead along the momentum.

    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
    """
    grads = grads + weight_decay * parameters
    momentum_buffer = momentum * momentum_buffer + grads
    direction = grads + momentum * momentum_buffer if nesterov else momentum_buffer
    return parameters - lr * direction, momentum_buffer


def adagrad(
    parameters: np.ndarray, grads: np.ndarray, state_sum: np.ndarray, lr: float = 0.01, eps: float = 1e-10
) -> tuple[np.ndarray, np.ndarray]:
    """Duchi, Hazan, Singer, Adaptive subgradient methods, JMLR 12 (2011)."""
    state_sum = state_sum + grads * grads
    return parameters - lr * grads / (np.sqrt(state_sum) + eps), state_sum


def rmsprop(
    parameters: np.ndarray,
    grads: np.ndarray,
    square_avg: np.ndarray,
    lr: float = 0.01,
    alpha: float = 0.99,
    eps: float = 1e-8,
) -> tuple[np.ndarray, np.ndarray]:
    """Tieleman and Hinton, Neural networks for machine learning, lecture 6.5 (2012)."""
    square_avg = alpha * square_avg + (1 - alpha) * grads * grads
    return parameters - lr * grads / (np.sqrt(square_avg) + eps), square_avg


def adam(
    parameters: np.ndarray,
    grads: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kingma and Ba, Adam, ICLR 2015; weight_decay adds to the gradients. step: 1 at the first update."""
    beta1, beta2 = betas
    grads = grads + weight_decay * parameters
    exp_avg = beta1 * exp_avg + (1 - beta1) * grads
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grads * grads
    mean = exp_avg / (1 - beta1**step)
    mean_square = exp_avg_sq / (1 - beta2**step)
    return parameters - lr * mean / (np.sqrt(mean_square) + eps), exp_avg, exp_avg_sq


def adamw(
    parameters: np.ndarray,
    grads: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Adam whose weight decay shrinks the parameters: Loshchilov and Hutter, ICLR 2019."""
    return adam(parameters * (1 - lr * weight_decay), grads, exp_avg, exp_avg_sq, step, lr, betas, eps)


def global_norm(grads: np.ndarray) -> np.ndarray:
    """The Euclidean norm of all gradients."""
    return np.sqrt((grads * grads).sum())


def clip_by_norm(grads: np.ndarray, max_norm: float) -> tuple[np.ndarray, np.ndarray]:
    """(grads, norm before): gradients scaled by max_norm / (norm + 1e-6) where that is below 1."""
    norm = global_norm(grads)
    scale = max_norm / (norm + 1e-6)
    return (grads if scale.real >= 1 else grads * scale), norm


def clip_by_value(grads: np.ndarray, clip_value: float) -> np.ndarray:
    """Each gradient, brought into -clip_value..clip_value."""
    grads = np.where(grads.real > clip_value, clip_value, grads)
    return np.where(grads.real < -clip_value, -clip_value, grads)
