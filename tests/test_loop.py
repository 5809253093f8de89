"""The training loop: what it feeds the model, what it reports, and when it ends."""

import itertools
import math
import re

import numpy as np
import pytest

from fastrnn import optim
from fastrnn.models import CharLM
from fastrnn.reference import min_char_rnn as reference
from fastrnn.training import loop, min_char_rnn
from fastrnn.training.text import Batches

VOCABULARY = "abcdefg"
TOKENS = np.random.default_rng(0).integers(7, size=500)


def model_of(**arguments):
    return CharLM(VOCABULARY, hidden_size=9, dtype="float64", seed=0, **arguments)


def run(model, tokens=TOKENS, kind="SGD", lr=0.1, **arguments):
    arguments = {"steps": 5} | arguments
    optimizer = getattr(optim, kind)(model.parameters, lr)
    return list(loop.train(model, optimizer, Batches(tokens, 2, 5), **arguments))


def test_steps_are_those_of_a_plain_loop():
    """State carried within an epoch and fresh in the next, learning rate falling linearly, gradients clipped."""
    model, plain = model_of(), model_of()
    batches, optimizer = Batches(TOKENS[:35], 2, 5), optim.SGD(plain.parameters, 0.1)  # 3 windows
    losses, norms = [], []
    for step in range(7):
        if step % 3 == 0:
            state = plain.initial_state(2)
        loss, state, grads = plain.loss_and_gradients(*batches[step % 3], state)
        losses.append(loss)
        norms.append(optim.clip_grad_norm(grads, 0.05))
        optimizer.lr = 0.1 * (1 - step / 7)
        optimizer.step(grads)
    metrics = run(model, TOKENS[:35], steps=7, clip_norm=0.05)
    assert [m.loss for m in metrics] == losses
    assert [m.grad_norm for m in metrics] == norms
    np.testing.assert_array_equal(model.parameters.flat, plain.parameters.flat)


def test_without_decay_the_learning_rate_stays():
    model, plain = model_of(), model_of()
    batches, optimizer, state = Batches(TOKENS, 2, 5), optim.SGD(plain.parameters, 0.1), plain.initial_state(2)
    for x, y in itertools.islice(batches, 5):
        _, _, state = plain.train_step(x, y, state, optimizer)
    run(model, decay=False)
    np.testing.assert_array_equal(model.parameters.flat, plain.parameters.flat)


def test_the_optimiser_keeps_its_learning_rate():
    model = model_of()
    optimizer = optim.SGD(model.parameters, 0.1)
    for _ in loop.train(model, optimizer, Batches(TOKENS, 2, 5), steps=5):
        assert optimizer.lr == 0.1


def test_scale_multiplies_gradients_but_no_loss():
    scaled, plain = run(model_of(), scale=4.0, lr=0.25, steps=3), run(model_of(), lr=1.0, steps=3)
    np.testing.assert_allclose([m.loss for m in scaled], [m.loss for m in plain], rtol=1e-12)
    np.testing.assert_allclose([m.grad_norm for m in scaled], [4 * m.grad_norm for m in plain], rtol=1e-12)


@pytest.mark.parametrize(
    ("steps", "logged", "evaluated"), [(1, 1, 1), (7, 7, 7), (100, 100, 10), (250, 100, 10), (999, 100, 10)]
)
def test_points_of_a_run(steps, logged, evaluated):
    model = CharLM(VOCABULARY, hidden_size=1, seed=0)
    metrics = run(model, steps=steps, validation=Batches(TOKENS[:20], 2, 5))
    assert [m.step for m in metrics] == list(range(1, steps + 1))
    assert [m.progress for m in metrics] == [step / steps for step in range(1, steps + 1)]
    logs = [m for m in metrics if m.train_loss is not None]
    evaluations = [m for m in metrics if m.val_loss is not None]
    assert (len(logs), len(evaluations)) == (logged, evaluated)
    assert set(evaluations) <= set(logs)
    assert metrics[-1] is logs[-1] is evaluations[-1]
    gaps = np.diff([0] + [m.step for m in logs])
    assert gaps.max() - gaps.min() <= 1
    start = 0
    for m in logs:
        assert m.train_loss == pytest.approx(np.mean([n.loss for n in metrics[start : m.step]]), rel=1e-12)
        start = m.step


def test_smooth_loss_starts_at_a_uniform_guess():
    metrics, smooth = run(model_of(), smoothing=0.25), math.log(7)
    for m in metrics:
        smooth = 0.75 * smooth + 0.25 * m.loss
        assert m.smooth_loss == pytest.approx(smooth, rel=1e-12)


def test_evaluation_carries_the_state_and_leaves_the_run_alone():
    model = model_of(num_layers=2, dropout=0.5)
    validation = Batches(TOKENS[:61], 2, 5)
    last = run(model, validation=validation)[-1]
    x, y = (np.concatenate(parts) for parts in zip(*validation, strict=True))
    assert last.val_loss == pytest.approx(model.loss(x, y)[0], rel=1e-12)
    alone = model_of(num_layers=2, dropout=0.5)
    run(alone)
    np.testing.assert_array_equal(model.parameters.flat, alone.parameters.flat)


def test_a_run_of_seconds_ends_by_the_clock(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    metrics = run(model_of(), steps=None, seconds=12)
    assert [m.progress for m in metrics] == [1 / 12, 4 / 12, 7 / 12, 10 / 12, 1.0]
    assert [m.chars_per_second for m in metrics] == [10.0] * 5  # 2*5 characters in each step of one tick
    assert len(run(model_of(), steps=None, seconds=0)) == 1


def test_stopping_to_iterate_stops_training():
    model, short = model_of(), model_of()
    batches = Batches(TOKENS, 2, 5)
    for m in loop.train(model, optim.SGD(model.parameters, 0.1), batches, steps=50, decay=False):
        if m.step == 5:
            break
    run(short, decay=False)
    np.testing.assert_array_equal(model.parameters.flat, short.parameters.flat)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_is_an_error():
    model = model_of()
    model.parameters["decoder.bias"][0] = np.inf
    with pytest.raises(FloatingPointError, match=r"^step 1: the loss is nan; try a lower learning rate$"):
        run(model)


def test_a_gradient_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(CharLM, "train_step", lambda self, x, y, state, *rest, **more: (1.0, math.inf, state))
    with pytest.raises(FloatingPointError, match=r"^step 1: the gradient's norm is inf; try a lower learning rate$"):
        run(model_of())


def test_a_gradient_that_is_not_finite_is_placed_and_updates_nothing():
    """The weights of the hidden state grow until its gradient overflows, at a step that depends on the way back."""
    model = CharLM(VOCABULARY, hidden_size=9, seed=0)
    model.parameters["rnn.weight_hh_l0"][...] = 1e30
    model.parameters["rnn.weight_ih_l0"][...] = 0
    model.parameters["rnn.bias_ih_l0"][...] = 0
    model.parameters["rnn.bias_hh_l0"][...] = 0
    before = model.parameters.flat.copy()
    message = (
        r"^step 1: the gradient's norm is (nan|inf), first at step 2 of layer 0 of RNN; try a lower learning rate$"
    )
    with pytest.raises(FloatingPointError, match=message):
        run(model)
    np.testing.assert_array_equal(model.parameters.flat, before)


def test_steps_are_clipped_where_asked():
    free, limited = model_of(), model_of()
    run(free)
    run(limited, clip_step=1e-3)
    assert np.abs(free.parameters.flat - limited.parameters.flat).max() > 1e-6


def test_a_validation_loss_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(CharLM, "loss", lambda self, x, y, state: (math.nan, state))
    with pytest.raises(FloatingPointError, match=r"^step 1: the validation loss is nan; try a lower learning rate$"):
        run(model_of(), validation=Batches(TOKENS, 2, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": None}, "train: expected either steps or seconds, got steps=None and seconds=None"),
        ({"steps": 1, "seconds": 1}, "train: expected either steps or seconds, got steps=1 and seconds=1"),
        ({"steps": 0}, "steps: expected an integer >= 1, got 0"),
        ({"scale": 0.0}, "scale: expected a number >= 2.22507e-308, got 0"),
        ({"smoothing": 2}, "smoothing: expected a number in 0..1, got 2"),
        ({"steps": None, "seconds": -1}, "seconds: expected a number >= 0, got -1"),
        ({"steps": None, "seconds": math.nan}, "seconds: expected a number >= 0, got nan"),
    ],
)
def test_a_run_without_one_length_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(model_of(), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model: expected CharLM, got NoneType"),
        ({"optimizer": "adam"}, "optimizer: expected Optimizer, got str"),
        ({"batches": TOKENS}, "batches: expected Batches, got ndarray"),
        ({"validation": TOKENS}, "validation: expected Batches, got ndarray"),
    ],
)
def test_what_is_no_argument_of_a_run_is_named(change, message):
    model = model_of()
    arguments = {"model": model, "optimizer": optim.SGD(model.parameters), "batches": Batches(TOKENS, 2, 5)}
    with pytest.raises(TypeError, match=f"^{message}$"):
        next(loop.train(**arguments | change, steps=1))


@pytest.mark.parametrize("characters", [26, 27, 51, 52, 200])
def test_the_recipe_is_the_minimal_character_model(characters):
    """Weights, losses and smooth losses are those of the NumPy program, also where the text starts again."""
    tokens = TOKENS[:characters]
    weights = reference.init(7, 100, np.random.default_rng(3))
    model, optimizer = min_char_rnn.build(VOCABULARY, seed=3)
    twins = {"rnn.weight_ih_l0": "Wxh", "rnn.weight_hh_l0": "Whh", "decoder.weight": "Why"}
    twins |= {"rnn.bias_ih_l0": "bh", "decoder.bias": "by"}
    for name, twin in twins.items():
        np.testing.assert_array_equal(model.parameters[name], weights[twin].reshape(model.parameters.shapes[name]))
    losses = reference.train(tokens, weights, 9)  # differences grow tenfold a step later on
    metrics = list(loop.train(model, optimizer, min_char_rnn.windows(tokens), steps=9, **min_char_rnn.SETTINGS))
    np.testing.assert_allclose([(25 * m.loss, 25 * m.smooth_loss) for m in metrics], losses, rtol=1e-8)
    for name, twin in twins.items():
        np.testing.assert_allclose(model.parameters[name].ravel(), weights[twin].ravel(), rtol=0, atol=1e-6)
    assert not model.parameters["rnn.bias_hh_l0"].any()


def test_the_recipe_clips():
    """A test of the one above: its gradients do exceed the clipping value."""
    model, _ = min_char_rnn.build(VOCABULARY)
    windows = min_char_rnn.windows(np.zeros(200, np.int64))
    _, _, grads = model.loss_and_gradients(*windows[0], scale=25.0)
    assert np.abs(grads.flat).max() > min_char_rnn.CLIP_VALUE
