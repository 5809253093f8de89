"""Whole training steps of models, side by side with the same models in torch: `python bench/models.py`.

A step is everything from sequences in memory to updated weights: batch, forward, loss, backward, clipping by norm,
Adam; float32, new data every step. torch runs nn.Embedding, nn.RNN, GRU or LSTM and nn.Linear, on padded batches where
lengths are equal and on packed ones (pack_padded_sequence) where they are not, with the plain, foreach or fused Adam,
of which the fastest counts. Before anything is timed both train from the same weights on the same batches, and the
largest relative difference of their losses is printed. Fairness is kept as in peers.py.
"""

import importlib.util
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click
import numpy as np
from machine import describe, fastest, interleave, pin
from options import repeats_option, threads_option
from rates import markdown
from registry import built

import fastrnn
from fastrnn import models, optim

BATCHES = 8  # that are gone through again and again
LR, CLIP_NORM = 1e-3, 5.0

Step = Callable[[], float]  # one step of training; returns the loss
Batch = tuple[list[np.ndarray], Any]


class Problem(NamedTuple):
    """A model and the size of its batches."""

    model: str
    options: dict[str, Any]
    T: int
    B: int
    ragged: bool = False  # lengths uniform in T/10..T

    def __str__(self) -> str:
        o = self.options
        source = f"{o['num_tokens']} tokens" if "num_tokens" in o else f"I={o['input_size']}"
        details = [o.get("cell", "lstm"), *["bidirectional"] * o.get("bidirectional", False), source]
        return f"{self.model} {', '.join(details)}, T={self.T}{', ragged' * self.ragged}, B={self.B}"


def digits(model: str, T: int, I: int, **options: Any) -> Problem:
    """Images read row by row."""
    own = {"num_outputs": 2} if model == "SequenceRegressor" else {"num_classes": 10}
    return Problem(model, {**own, "input_size": I, "hidden_size": 128, **options}, T, 64)


def text(model: str, **options: Any) -> Problem:
    """Characters, of texts of unequal lengths."""
    shared = {"num_classes": 12, "num_tokens": 80, "embedding_size": 64, "hidden_size": 256}
    return Problem(model, {**shared, **options}, 50, 32, ragged=True)


PROBLEMS = [
    digits("SequenceClassifier", 8, 8),
    digits("SequenceClassifier", 28, 28),
    digits("SequenceClassifier", 28, 28, cell="gru"),
    digits("SequenceClassifier", 28, 28, cell="gru", bidirectional=True, pooling="mean"),
    digits("SequenceRegressor", 28, 28, cell="tanh", pooling="max"),
    text("SequenceClassifier", pooling="mean"),
    text("SequenceTagger"),
    text("SequenceTagger", cell="gru"),
    text("SequenceTagger", bidirectional=True),
]


def model_of(problem: Problem) -> Any:
    """A model with the same initial weights every time."""
    return getattr(models, problem.model)(**problem.options, seed=0)


def batches_of(problem: Problem) -> list[Batch]:
    """Random ones."""
    rng, o = np.random.default_rng(0), problem.options
    found = []
    for _ in range(BATCHES):
        low = problem.T // 10 if problem.ragged else problem.T
        lengths = rng.integers(low, problem.T + 1, size=problem.B)
        if "num_tokens" in o:
            inputs = [rng.integers(o["num_tokens"], size=n) for n in lengths]
        else:
            inputs = [rng.standard_normal((n, o["input_size"]), dtype=np.float32) for n in lengths]
        if problem.model == "SequenceTagger":
            targets: Any = [rng.integers(o["num_classes"], size=n) for n in lengths]
        elif "num_outputs" in o:
            targets = rng.standard_normal((problem.B, o["num_outputs"]), dtype=np.float32)
        else:
            targets = rng.integers(o["num_classes"], size=problem.B)
        found.append((inputs, targets))
    return found


def fastrnn_step(problem: Problem, batches: Iterator[Batch]) -> Step:
    model = model_of(problem)
    optimizer = optim.Adam(model.parameters, LR)
    return lambda: model.train_step(next(batches), optimizer, clip_norm=CLIP_NORM)[0]


def torch_step(problem: Problem, batches: Iterator[Batch], update: str = "plain") -> Step:
    import torch
    from torch.nn import functional as F
    from torch.nn.utils import rnn as pad

    o, ours = problem.options, model_of(problem)
    H, D = o["hidden_size"], 1 + o.get("bidirectional", False)
    width, outputs = o.get("embedding_size", o.get("input_size")), o.get("num_classes", o.get("num_outputs"))
    parts = {"embedding": torch.nn.Embedding(o["num_tokens"], width)} if "num_tokens" in o else {}
    parts["rnn"] = built(torch.nn, o.get("cell", "lstm"), width, H, bidirectional=D == 2)
    parts["head"] = torch.nn.Linear(D * H, outputs)
    model = torch.nn.ModuleDict(parts)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in ours.parameters.items()})
    options = {} if update == "plain" else {update: True}
    optimizer = torch.optim.Adam(model.parameters(), LR, **options)
    pooling = None if problem.model == "SequenceTagger" else o.get("pooling", "last")

    def features(inputs):
        x = pad.pad_sequence([torch.from_numpy(sequence) for sequence in inputs])
        x = model["embedding"](x) if "embedding" in parts else x
        lengths = torch.tensor([len(sequence) for sequence in inputs])
        if problem.ragged:
            y, state = model["rnn"](pad.pack_padded_sequence(x, lengths, enforce_sorted=False))
        else:
            y, state = model["rnn"](x)
        if pooling == "last":
            return torch.cat(list((state[0] if isinstance(state, tuple) else state)[-D:]), dim=1)
        y = pad.pad_packed_sequence(y)[0] if problem.ragged else y
        valid = torch.arange(len(y))[:, None] < lengths
        if pooling is None:
            return y.swapaxes(0, 1)[valid.T]
        if pooling == "mean":
            return y.sum(0) / lengths[:, None]  # what lies beyond a length is 0
        return y.masked_fill(~valid[..., None], -torch.inf).amax(0) if problem.ragged else y.max(0).values

    def step():
        inputs, targets = next(batches)
        targets = torch.from_numpy(np.concatenate(targets) if isinstance(targets, list) else targets)
        output = model["head"](features(inputs))
        loss = F.mse_loss(output, targets) if targets.is_floating_point() else F.cross_entropy(output, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    return step


def compare(problem: Problem, threads: int, repeats: int, steps: int) -> list[str]:
    """The line of the table for one problem."""
    fastrnn.set_num_threads(threads)
    batches = batches_of(problem)
    runs: dict[str, Step] = {"fastrnn": fastrnn_step(problem, itertools.cycle(batches))}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        ours, theirs = fastrnn_step(problem, itertools.cycle(batches)), torch_step(problem, itertools.cycle(batches))
        gap = max(abs(ours() / theirs() - 1) for _ in range(steps))
        click.echo(f"{problem}: losses differ from torch's by at most {gap:.1e} in {steps} steps")
        updates = ("plain", "foreach", "fused")
        runs["torch"] = fastest({u: torch_step(problem, itertools.cycle(batches), u) for u in updates})[1]
    times = interleave(runs, repeats)
    ratio = "" if "torch" not in times else "{:.2f}".format(
        statistics.median(theirs / own for own, theirs in zip(times["fastrnn"], times["torch"], strict=True))
    )  # fmt: skip
    shown = [f"{1e3 * statistics.median(times[name]):.2f}" if name in times else "" for name in ("fastrnn", "torch")]
    return [str(problem), *shown, ratio]


@click.command()
@click.option("--only", default="", help="Problems whose description has this in it.")
@threads_option
@repeats_option
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="Whose losses are compared.")
def main(only: str, threads: int, repeats: int, steps: int) -> None:
    """Print milliseconds a step."""
    pin(threads)
    lines = [compare(problem, threads, repeats, steps) for problem in PROBLEMS if only in str(problem)]
    click.echo(markdown(["model"], ["fastrnn, ms", "torch, ms", "/ torch"], lines))
    click.echo(f"\n{describe(threads, 'torch')}")


if __name__ == "__main__":
    main()
