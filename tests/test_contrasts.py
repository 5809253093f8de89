"""The contrasts among the examples: a time-delay network and a network over trees, and what they are tried on."""

import re

import numpy as np
import pytest

from fastrnn.examples import delays, trees
from fastrnn.examples.networks import TimeDelayClassifier, TreeClassifier


def test_a_letter_and_so_many_digits_after_it():
    lags = np.array([1, 5, 40, 3] * 50)
    texts, letters = delays.data(lags, np.random.default_rng(0))
    for text, letter, lag in zip(texts, letters, lags, strict=True):
        assert re.fullmatch(rf"{delays.LETTERS[letter]}[0-3]{{{lag}}}", text)
    assert len(set(texts)) > 150
    for lag in set(lags):
        assert set(letters[lags == lag]) == {0, 1, 2, 3}  # the lag doesn't tell the letter


def computed(tree):
    """The value of a nested expression."""
    if isinstance(tree, str):
        return int(tree)
    left, operator, right = tree
    left, right = computed(left), computed(right)
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def test_expressions_have_the_value_of_their_tree():
    rng = np.random.default_rng(0)
    for operations in range(12):
        for _ in range(30):
            text = trees.expression(operations, rng)
            assert len(re.findall("[0-9]", text)) == operations + 1
            assert computed(trees.nested(text)) % 5 == trees.value(text)
    assert trees.nested("2 * (3 - 4) + 5") == (("2", "*", ("3", "-", "4")), "+", "5")
    assert trees.value("2 - 9") == 3


def check_gradients(model, batch):
    """The slope of the loss along its gradient is the gradient's norm."""
    _, grads = model.loss_and_gradients(batch)
    norm = float(np.linalg.norm(grads.flat))
    start, step = model.parameters.flat.copy(), 1e-2 * grads.flat / norm
    losses = []
    for sign in (1, -1):
        model.parameters.flat[:] = start + sign * step
        losses.append(model.loss(batch))
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(norm, rel=2e-3)
    assert all(np.abs(grads[name]).max() > 0 for name in grads)


def test_gradients_of_the_time_delay_network():
    rng = np.random.default_rng(0)
    model = TimeDelayClassifier(3, 4, hidden_size=17, num_layers=3, seed=0)
    sequences = [rng.integers(4, size=length) for length in (1, 9, 4, 33)]
    check_gradients(model, (sequences, np.array([0, 2, 1, 2])))


def test_the_time_delay_network_sees_so_many_steps():
    model = TimeDelayClassifier(3, 4, hidden_size=17, num_layers=3, seed=0)
    sequence, seen = np.zeros(20, np.int64), []
    for place in range(20):
        changed = sequence.copy()
        changed[place] = 1
        rows = [model._features([tokens])[0] for tokens in (sequence, changed)]
        seen.append(not np.array_equal(*rows))
    assert seen == [False] * (20 - model.sees) + [True] * model.sees


def test_gradients_of_the_tree_network():
    model = TreeClassifier(5, trees.SYMBOLS, hidden_size=17, seed=0)
    texts = ["2 * (3 - 4) + 5", "7", "8 - 1", "1 + (2 + (3 + (4 + 5)))"]
    check_gradients(model, ([trees.nested(text) for text in texts], np.array([3, 2, 2, 0])))
