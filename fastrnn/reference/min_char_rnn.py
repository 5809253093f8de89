"""The minimal character model in plain NumPy: one tanh layer, batch of one, a softmax over the next character.

Model and recipe: Karpathy, The unreasonable effectiveness of recurrent neural networks (2015). An oracle for the
training of a character model, and the NumPy program that benchmarks run beside it. Vectors are columns; float64.
"""

import numpy as np

Weights = dict[str, np.ndarray]


def init(vocabulary_size: int, hidden_size: int, rng: np.random.Generator) -> Weights:
    """Weights 0.01 N(0, 1), drawn in this order, and biases 0: Wxh (H,V), Whh (H,H), Why (V,H), bh (H,1), by (V,1)."""
    return {
        "Wxh": 0.01 * rng.standard_normal((hidden_size, vocabulary_size)),
        "Whh": 0.01 * rng.standard_normal((hidden_size, hidden_size)),
        "Why": 0.01 * rng.standard_normal((vocabulary_size, hidden_size)),
        "bh": np.zeros((hidden_size, 1)),
        "by": np.zeros((vocabulary_size, 1)),
    }


def one_hot(token: int, vocabulary_size: int) -> np.ndarray:
    """The column (V, 1) with a 1 at `token`."""
    column = np.zeros((vocabulary_size, 1))
    column[token] = 1
    return column


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (V, 1)."""
    exponentials = np.exp(logits - logits.real.max())
    return exponentials / exponentials.sum()


def loss_and_gradients(
    weights: Weights, inputs: np.ndarray, targets: np.ndarray, h_prev: np.ndarray
) -> tuple[float, Weights, np.ndarray]:
    """(loss, gradients, h): the loss in nats, summed over the characters; h (H, 1) is the last hidden state.

    inputs, targets (T,): tokens; h_prev (H, 1): the hidden state before the first, which gets no gradient.
    """
    Wxh, Whh, Why, bh, by = (weights[name] for name in ("Wxh", "Whh", "Why", "bh", "by"))
    loss, h, steps = 0.0, h_prev, []
    # np.dot takes a quarter of matmul's time for the outer products of columns below
    for token, target in zip(inputs, targets, strict=True):
        x = one_hot(token, len(by))
        before, h = h, np.tanh(np.dot(Wxh, x) + np.dot(Whh, h) + bh)
        p = softmax(np.dot(Why, h) + by)
        loss -= np.log(p[target, 0])
        steps.append((x, before, h, p, target))

    gradients = {name: np.zeros_like(w) for name, w in weights.items()}
    dh_next = np.zeros_like(h)
    for x, before, h_t, p, target in reversed(steps):
        dlogits = p.copy()
        dlogits[target] -= 1
        dz = (np.dot(Why.T, dlogits) + dh_next) * (1 - h_t * h_t)
        gradients["Why"] += np.dot(dlogits, h_t.T)
        gradients["by"] += dlogits
        gradients["Wxh"] += np.dot(dz, x.T)
        gradients["Whh"] += np.dot(dz, before.T)
        gradients["bh"] += dz
        dh_next = np.dot(Whh.T, dz)
    return loss, gradients, h


def train(
    tokens: np.ndarray, weights: Weights, steps: int, seq_length: int = 25, lr: float = 0.1, clip_value: float = 5.0
) -> list[tuple[float, float]]:
    """Train `weights` in place with Adagrad; returns each step's (loss, smooth loss), nats per `seq_length` characters.

    The hidden state is carried from step to step, and is 0 whenever the text starts again: as soon as no character
    would be left behind the next targets.
    """
    hidden_size, vocabulary_size = weights["Wxh"].shape
    square_sums = {name: np.zeros_like(w) for name, w in weights.items()}
    smooth_loss = seq_length * np.log(vocabulary_size)
    start, h = 0, np.zeros((hidden_size, 1))
    losses = []
    for _ in range(steps):
        if start + seq_length + 1 >= len(tokens):
            start, h = 0, np.zeros((hidden_size, 1))
        inputs, targets = tokens[start : start + seq_length], tokens[start + 1 : start + seq_length + 1]
        loss, gradients, h = loss_and_gradients(weights, inputs, targets, h)
        smooth_loss = 0.999 * smooth_loss + 0.001 * loss
        losses.append((float(loss), float(smooth_loss)))
        for name, gradient in gradients.items():
            np.clip(gradient, -clip_value, clip_value, out=gradient)
            square_sums[name] += gradient * gradient
            weights[name] -= lr * gradient / np.sqrt(square_sums[name] + 1e-8)
        start += seq_length
    return losses
