"""The compiled model on the minimal character model's recipe, against the NumPy program of that recipe."""

import numpy as np
import pytest
from numerics import assert_close, relative_error

from fastrnn.reference import min_char_rnn as reference
from fastrnn.training import loop, text
from fastrnn.training import min_char_rnn as recipe

WORDS = ["the", "fox", "quick", "sphinx", "of", "black", "quartz", "judge", "my", "vow,", "jumps", "over.", "lazy\n"]
TEXT = " ".join(np.random.default_rng(1).choice(WORDS, 220))
VOCABULARY = text.vocabulary_of(TEXT)
NAMES = {
    "Wxh": "rnn.weight_ih_l0",
    "Whh": "rnn.weight_hh_l0",
    "Why": "decoder.weight",
    "bh": "rnn.bias_ih_l0",
    "by": "decoder.bias",
}


def reference_weights(p):
    """The parameters, or gradients, under the reference's names and shapes."""
    return {name: p[ours].reshape(len(p[ours]), -1).copy() for name, ours in NAMES.items()}


def losses_of(model, optimizer, tokens, steps):
    """The loss of each step, summed over a window, and the smooth loss, as the training loop reports them."""
    run = loop.train(model, optimizer, recipe.windows(tokens), steps=steps, **recipe.SETTINGS)
    return recipe.SEQ_LENGTH * np.array([(metrics.loss, metrics.smooth_loss) for metrics in run])


def reference_losses(tokens, steps, jitter=None, **options):
    """The same by the reference, and its weights; jitter: a generator that moves every initial weight by a rounding."""
    weights = reference.init(len(VOCABULARY), recipe.HIDDEN_SIZE, np.random.default_rng(3))
    if jitter:
        for weight in weights.values():
            weight *= 1 + 2.0**-52 * jitter.choice([-1, 1], weight.shape)
    return np.array(reference.train(tokens, weights, steps, **options)), weights


def test_the_initial_weights_are_the_references():
    model, _ = recipe.build(VOCABULARY, seed=3)
    expected = reference.init(len(VOCABULARY), recipe.HIDDEN_SIZE, np.random.default_rng(3))
    got = reference_weights(model.parameters)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, strict=True)
    assert not model.parameters["rnn.bias_hh_l0"].any()


@pytest.mark.parametrize("length", [26, 27, 51, 52, 53, 76, 77, 130])
def test_the_windows_are_the_references(length, monkeypatch):
    tokens, seen = np.arange(length), []
    zeros = {name: np.zeros(1) for name in NAMES}

    def record(weights, inputs, targets, h):
        seen.append((inputs.tolist(), targets.tolist(), not h.any()))
        return 0.0, zeros, np.ones_like(h)

    monkeypatch.setattr(reference, "loss_and_gradients", record)
    reference.train(tokens, zeros | {"Wxh": np.zeros((5, 7))}, steps=12)
    batches = recipe.windows(tokens)
    for i, (inputs, targets, starts_again) in enumerate(seen):
        x, y = batches[i % len(batches)]
        assert (x[:, 0].tolist(), y[:, 0].tolist()) == (inputs, targets)
        assert starts_again == (i % len(batches) == 0)


def test_each_step_is_the_references():
    """Loss, carried state, gradients, and what Adagrad makes of them, from the same weights, for three epochs."""
    model, optimizer = recipe.build(VOCABULARY, seed=3)
    p, batches = model.parameters, recipe.windows(model.encode(TEXT))
    squares, clipped = {name: 0.0 for name in NAMES}, 0
    options = {name: recipe.SETTINGS[name] for name in ("clip_value", "scale")}
    for step in range(3 * len(batches) + 1):
        x, y = batches[step % len(batches)]
        if step % len(batches) == 0:
            state = model.initial_state(1)
        weights = reference_weights(p)
        loss, gradients, h = reference.loss_and_gradients(weights, x[:, 0], y[:, 0], state[0].T)
        _, _, grads = model.loss_and_gradients(x, y, state, scale=options["scale"])
        assert_close(reference_weights(grads), gradients, 1e-11)
        got, _, state = model.train_step(x, y, state, optimizer, **options)
        assert got == pytest.approx(loss, rel=1e-13)
        assert relative_error(state[0].T, h) < 1e-13
        for name, gradient in gradients.items():
            clipped += (np.abs(gradient) > 5).sum()
            gradient = np.clip(gradient, -5, 5)
            squares[name] = squares[name] + gradient**2
            weights[name] -= 0.1 * gradient / np.sqrt(squares[name] + 1e-8)
        assert_close(reference_weights(p), weights, 1e-11)
    assert clipped > 0
    assert not p["rnn.bias_hh_l0"].any()


def test_a_calm_run_is_the_references_to_the_end():
    """At a tenth of the recipe's rate roundings do not grow: all losses and all weights after ten epochs."""
    model, optimizer = recipe.build(VOCABULARY, seed=3)
    optimizer.lr = 0.01
    tokens, steps = model.encode(TEXT), 400
    assert steps > 8 * len(recipe.windows(tokens))
    got, (expected, weights) = losses_of(model, optimizer, tokens, steps), reference_losses(tokens, steps, lr=0.01)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    assert_close(reference_weights(model.parameters), weights, 1e-10)
    assert expected[-1, 0] < 0.4 * expected[0, 0]


def test_the_recipes_curve_is_the_references_for_as_long_as_rounding_allows():
    """At the recipe's rate Adagrad's first steps make a percent of a rounding within 15 steps, in NumPy alone too.

    The bound is what the reference does to its own curve when each initial weight moves by one rounding.
    """
    model, optimizer = recipe.build(VOCABULARY, seed=3)
    tokens = model.encode(TEXT)
    got, (expected, _) = losses_of(model, optimizer, tokens, 400), reference_losses(tokens, 400)
    moved = [reference_losses(tokens, 15, np.random.default_rng(seed))[0] for seed in range(3)]
    error = np.maximum.accumulate(np.abs(got / expected - 1)[:15, 0])
    spread = np.maximum.accumulate(np.max([np.abs(other / expected[:15] - 1)[:, 0] for other in moved], axis=0))
    assert spread[5] < 1e-8
    assert (error <= 100 * spread + 1e-13).all()

    for losses in (got, expected):
        assert losses[-50:, 0].mean() < 0.6 * losses[0, 0]
    assert got[-1, 1] == pytest.approx(expected[-1, 1], rel=0.1)


def test_float32_follows_the_recipe_too():
    model, optimizer = recipe.build(VOCABULARY, "float32", seed=3)
    optimizer.lr = 0.01
    tokens = model.encode(TEXT)
    got, (expected, _) = losses_of(model, optimizer, tokens, 100), reference_losses(tokens, 100, lr=0.01)
    np.testing.assert_allclose(got, expected, rtol=1e-3)
