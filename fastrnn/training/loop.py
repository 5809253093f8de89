"""The training loop of a character model."""

import functools
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastrnn import checks, flow
from fastrnn.models import CharLM
from fastrnn.optim import Optimizer
from fastrnn.training.text import Batches

LOGS = 100  # logging points of a run
LOGS_AN_EVALUATION = 10


class Metrics(NamedTuple):
    """What is known after a training step; losses in nats per character."""

    step: int  # steps done
    progress: float  # share of the run that is done, 0..1
    loss: float  # of this step's windows
    smooth_loss: float  # running mean of the loss, which starts at that of a uniform guess
    train_loss: float | None  # at a logging point: mean loss since the one before
    val_loss: float | None  # at an evaluation: mean loss over the validation text
    chars_per_second: float  # of training since the first step, without evaluations
    grad_norm: float  # Euclidean norm of all gradients, before clipping


def train(
    model: CharLM,
    optimizer: Optimizer,
    batches: Batches,
    validation: Batches | None = None,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    clip_step: float | None = None,
    scale: float = 1.0,
    decay: bool = True,
    smoothing: float = 0.02,
) -> Iterator[Metrics]:
    """Train `model` in place and yield the metrics of every step; stop iterating to stop training.

    Parameters
    ----------
    steps, seconds : the length of the run, one of the two; the seconds begin after the first step, which may compile
    clip_norm, clip_value : largest norm of all gradients, or largest size of each; one of the two or none
    clip_step : largest size of every element of dL/dh_t at each step back through time; see fastrnn.clip_steps
    scale : factor of the loss and of its gradients, before clipping
    decay : let the learning rate fall linearly from `optimizer.lr` to 0 over the run
    smoothing : weight of a step's loss in the smooth loss

    The hidden state is carried from window to window and starts at 0 in every epoch. The last step is a logging
    point and an evaluation. With `steps`, all metrics but the speed are the same in every run.

    Raises FloatingPointError: `step 12: the loss is nan; try a lower learning rate`, `step 12: the gradient's norm is
    inf, first at step 3 of layer 0 of RNN; try a lower learning rate`.
    """
    checks.either("train", steps=steps, seconds=seconds)
    checks.instance("model", model, CharLM)
    checks.instance("optimizer", optimizer, Optimizer)
    checks.instance("batches", batches, Batches)
    if validation is not None:
        checks.instance("validation", validation, Batches)
    scale = checks.number("scale", scale, float(np.finfo(np.float64).tiny))
    smoothing, decay = checks.number("smoothing", smoothing, 0.0, 1.0), checks.flag("decay", decay)
    length = checks.integer("steps", steps, 1) if seconds is None else checks.number("seconds", seconds)
    lr = optimizer.lr
    step, progress, point, trained, losses = 0, 0.0, 0, 0.0, []
    smooth_loss = math.log(len(model.vocabulary))
    while progress < 1:
        window = step % len(batches)
        if window == 0:
            state = model.initial_state(batches.batch)
        x, y = batches[window]
        optimizer.lr = lr * (1 - progress) if decay else lr
        start = time.perf_counter()
        before = state
        loss, grad_norm, state = model.train_step(
            x, y, before, optimizer, clip_norm=clip_norm, clip_value=clip_value, scale=scale, clip_step=clip_step
        )
        spent = time.perf_counter() - start
        optimizer.lr = lr
        step += 1
        loss /= scale
        _check_finite(step, "the loss", loss)
        if not math.isfinite(grad_norm):
            with flow.clip_steps(clip_step):
                place = flow.first_bad(functools.partial(model.loss_and_gradients, x, y, before, scale))
            _check_finite(step, "the gradient's norm", grad_norm, place)
        losses.append(loss)
        smooth_loss += smoothing * (loss - smooth_loss)
        if step == 1:
            began = time.perf_counter()
        else:
            trained += spent

        done = step if seconds is None else time.perf_counter() - began
        progress = 1.0 if done >= length else done / length
        previous, point = point, int(progress * LOGS + 1e-9)  # 29 / 100 * 100 is just below 29
        train_loss = val_loss = None
        if point > previous:
            train_loss, losses = sum(losses) / len(losses), []
        if validation and point // LOGS_AN_EVALUATION > previous // LOGS_AN_EVALUATION:
            val_loss = evaluate(model, validation)
            _check_finite(step, "the validation loss", val_loss)
        speed = x.size * (step - 1) / trained if step > 1 else x.size / spent
        yield Metrics(step, progress, loss, smooth_loss, train_loss, val_loss, speed, grad_norm)


def evaluate(model: CharLM, batches: Batches) -> float:
    """The mean loss over all windows of a text, the hidden state carried along, in nats per character."""
    state = model.initial_state(batches.batch)
    total = 0.0
    for x, y in batches:
        loss, state = model.loss(x, y, state)
        total += loss
    return total / len(batches)


def _check_finite(step: int, name: str, value: float, place: str = "") -> None:
    if not math.isfinite(value):
        place = place and f", {place}"
        raise FloatingPointError(f"step {step}: {name} is {value}{place}; try a lower learning rate")
