"""Heads: losses of rows and their gradients, and what they make of features."""

import numpy as np
import pytest
from numerics import assert_close, complex_step

from fastrnn.models.heads import Classes, Values


def squared_error(x, weight, bias, targets):
    return ((x @ weight.T + bias - targets) ** 2).mean()


def cross_entropy(x, weight, bias, targets):
    logits = x @ weight.T + bias
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(targets)), targets]).mean()


@pytest.mark.parametrize(("Head", "function"), [(Classes, cross_entropy), (Values, squared_error)])
@pytest.mark.parametrize(("N", "W", "O"), [(1, 1, 2), (7, 5, 3), (16, 17, 4)])
def test_losses_and_gradients(Head, function, N, W, O):
    rng = np.random.default_rng(0)
    head = Head(W, O, 0.0, "float64", [0, 1])
    x = rng.standard_normal((N, W))
    targets = rng.integers(O, size=N) if Head is Classes else rng.standard_normal((N, O))
    grads = head.parameters.zeros_like()
    loss, dx = head.objective(x, targets, {"head": grads}, 3.0)
    inputs = {"x": x, **head.parameters}
    expected = complex_step(lambda **values: function(targets=targets, **values), inputs)
    assert_close({"x": dx / 3, **{name: g / 3 for name, g in grads.items()}}, expected, 1e-12)
    assert head.objective(x, targets, None, 1.0) == (loss, None)
    assert loss == pytest.approx(function(targets=targets, **inputs), rel=1e-13)


def test_no_rows():
    for head, targets in (
        (Classes(3, 2, 0.0, "float32", [0, 1]), np.empty(0, np.int64)),
        (Values(3, 2, 0.0, "float32", [0, 1]), np.empty((0, 2), np.float32)),
    ):
        grads = head.parameters.zeros_like()
        loss, dx = head.objective(np.empty((0, 3), np.float32), targets, {"head": grads}, 1.0)
        assert loss == 0
        assert dx.shape == (0, 3)
        assert not grads.flat.any()


def test_probabilities_are_those_of_softmax():
    head = Classes(3, 4, 0.0, "float64", [0, 1])
    x = np.random.default_rng(0).standard_normal((6, 3))
    p = head.probabilities(x)
    weights = np.exp(x @ head.parameters["weight"].T + head.parameters["bias"])
    np.testing.assert_allclose(p, weights / weights.sum(1, keepdims=True), rtol=1e-13)
    np.testing.assert_array_equal(head.labels(x), p.argmax(1))
