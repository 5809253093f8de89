"""The minimal character model against the complex step, and its training against the other references."""

import numpy as np
import pytest
from numerics import assert_close, complex_step, relative_error

from fastrnn.reference import loss, min_char_rnn, sequence
from fastrnn.reference.cells.elman import ElmanTanh

V, H = 6, 5
NAMES = ("Wxh", "Whh", "Why", "bh", "by")


def large_weights(seed=0):
    """Weights so large that carried states matter and gradients pass the clipping bound."""
    rng = np.random.default_rng(seed)
    return {name: 0.8 * rng.standard_normal(w.shape) for name, w in min_char_rnn.init(V, H, rng).items()}


def loss_and_gradients(weights, inputs, targets, h_prev):
    """The twin from the other references: (loss, gradients, h)."""
    Wxh, Whh, Why, bh, by = (weights[name] for name in NAMES)
    cell = ElmanTanh(Wxh, Whh, bh[:, 0], np.zeros(H))
    x = np.eye(V)[inputs][:, None]
    y, final, steps = sequence.sequence_forward(cell, x, (h_prev.T,))
    mean, (dy, dWhy, dby) = loss.linear_cross_entropy(y[:, 0], Why, by[:, 0], targets)
    T = len(inputs)
    _, _, d_cell = sequence.sequence_backward(cell, x, steps, T * dy[:, None], (np.zeros((1, H)),))
    gradients = {"Wxh": d_cell.W_ih, "Whh": d_cell.W_hh, "Why": T * dWhy}
    gradients |= {"bh": d_cell.b_ih[:, None], "by": T * dby[:, None]}
    return T * mean, gradients, final[0].T


@pytest.mark.parametrize("T", [1, 2, 7])
def test_gradients(T):
    rng = np.random.default_rng(1)
    weights, h_prev = large_weights(), rng.standard_normal((H, 1))
    inputs, targets = rng.integers(0, V, (2, T))
    _, got, _ = min_char_rnn.loss_and_gradients(weights, inputs, targets, h_prev)
    expected = complex_step(lambda **w: min_char_rnn.loss_and_gradients(w, inputs, targets, h_prev)[0], weights)
    assert_close(got, expected, 1e-12)


def test_loss_and_state_match_the_other_references():
    rng = np.random.default_rng(2)
    weights, h_prev = large_weights(), rng.standard_normal((H, 1))
    inputs, targets = rng.integers(0, V, (2, 25))
    value, gradients, h = min_char_rnn.loss_and_gradients(weights, inputs, targets, h_prev)
    expected_value, expected, expected_h = loss_and_gradients(weights, inputs, targets, h_prev)
    assert value == pytest.approx(expected_value, rel=1e-13)
    assert relative_error(h, expected_h) < 1e-13
    assert_close(gradients, expected, 1e-12)


def test_huge_logits():
    rng = np.random.default_rng(2)
    weights, h_prev = large_weights(), np.zeros((H, 1))
    inputs, targets = rng.integers(0, V, (2, 7))
    value, gradients, _ = min_char_rnn.loss_and_gradients(weights, inputs, targets, h_prev)
    shifted_value, shifted, _ = min_char_rnn.loss_and_gradients(
        weights | {"by": weights["by"] + 1e4}, inputs, targets, h_prev
    )
    assert shifted_value == pytest.approx(value, rel=1e-11)
    assert_close(shifted, gradients, 1e-11)


def test_initial_weights():
    weights = min_char_rnn.init(65, 100, np.random.default_rng(0))
    shapes = {name: w.shape for name, w in weights.items()}
    assert shapes == {"Wxh": (100, 65), "Whh": (100, 100), "Why": (65, 100), "bh": (100, 1), "by": (65, 1)}
    for name in ("Wxh", "Whh", "Why"):
        assert weights[name].std() == pytest.approx(0.01, rel=0.03)
    assert not weights["bh"].any()
    assert not weights["by"].any()


@pytest.mark.parametrize("length", [100, 101, 102, 130])
def test_training_follows_the_recipe(length):
    """Adagrad, clipping, the carried state and the start of the text again, step by step from the twin above."""
    tokens = np.random.default_rng(3).integers(0, V, length)
    weights, twin = large_weights(), large_weights()
    got = min_char_rnn.train(tokens, weights, steps=12)

    squares = dict.fromkeys(NAMES, 1e-8)
    starts = range(0, length - 26, 25)
    smooth, largest, state = 25 * np.log(V), 0.0, None
    for i, (value, smooth_value) in enumerate(got):
        start = starts[i % len(starts)]
        state = np.zeros((H, 1)) if start == 0 else state
        expected, gradients, state = loss_and_gradients(twin, tokens[start:][:25], tokens[start + 1 :][:25], state)
        smooth += 0.001 * (expected - smooth)
        assert value == pytest.approx(expected, rel=1e-10)
        assert smooth_value == pytest.approx(smooth, rel=1e-12)
        for name, gradient in gradients.items():
            largest = max(largest, abs(gradient).max())
            gradient = np.minimum(np.maximum(gradient, -5), 5)
            squares[name] = squares[name] + gradient**2
            twin[name] -= 0.1 * gradient / squares[name] ** 0.5
    assert_close(weights, twin, 1e-10)
    assert largest > 5
    assert len(got) == 12 > 2 * len(starts)


def test_training_learns_a_cycle():
    """A text that repeats 'abcd' is predicted from 1.39 nats a character to nearly none."""
    weights = min_char_rnn.init(4, 16, np.random.default_rng(0))
    losses = [value for value, _ in min_char_rnn.train(np.tile(np.arange(4), 100), weights, steps=200)]
    assert losses[0] == pytest.approx(25 * np.log(4), rel=1e-3)
    assert max(losses[-10:]) < 0.02 * losses[0]
