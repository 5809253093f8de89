"""Whole training steps of character models, side by side: `python bench/charlm.py [TEXT] [--recipe "char-rnn lstm"]`.

min-char-rnn: one tanh layer of 100, one window of 25 characters a step, Adagrad, gradients clipped by value; against
fastrnn.reference.min_char_rnn (NumPy, float64) and torch. char-rnn tanh: one layer of 512, 64 windows of 50 characters,
Adam, gradients clipped by norm; char-rnn lstm: the same training of two LSTM layers of 128 with 50 windows; both
against torch. --cell, --hidden, --layers, --seq-length and --batch change the recipes that are run, which then is
"char-rnn lstm" alone unless others are named.

A step is everything from tokens to updated weights: batch, forward, loss, backward, clipping, optimiser; the state is
carried on. torch runs nn.RNN, GRU or LSTM on one-hot rows, nn.Linear, F.cross_entropy and its own clipping; the rows
come from F.one_hot or from a frozen nn.Embedding, the optimiser is torch.optim's plain, foreach or fused one, and the
fastest of all these counts. Before anything is timed, fastrnn and torch train from the same weights on the same
batches, and the largest relative difference of their losses is printed. (Under the min-char-rnn recipe it grows about
tenfold a step, from rounding: Adagrad moves every weight by 0.1 in its first step, and the model becomes chaotic.)

Fairness is kept as in peers.py: same cores, one process, steps interleaved, medians. TEXT is a UTF-8 file; without it
the source code of Python's standard library is the text.
"""

import importlib.util
import itertools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from machine import describe, fastest, interleave, pin
from options import repeats_option, threads_option
from rates import markdown
from registry import CELLS, built

import fastrnn
from fastrnn import optim
from fastrnn.models import CharLM
from fastrnn.reference import min_char_rnn
from fastrnn.training.text import Batches, read_text, standard_library, vocabulary_of

Step = Callable[[], float]  # one step of training; returns the loss in nats a character
Batch = tuple[np.ndarray, np.ndarray]

NUMPY_STEPS = 20  # in one call of the reference's training loop


class Recipe(NamedTuple):
    """A model and its training."""

    cell: str
    hidden: int
    layers: int
    T: int
    B: int
    optimizer: str
    lr: float
    scale: float  # of the loss: T where it is summed over the characters
    clip_norm: float | None = None
    clip_value: float | None = None

    def __str__(self) -> str:
        return f"{self.cell} {self.layers}x{self.hidden}, {self.B}x{self.T} characters, {self.optimizer}"


RECIPES = {
    "min-char-rnn": Recipe("tanh", 100, 1, 25, 1, "Adagrad", 0.1, 25.0, clip_value=5.0),
    "char-rnn tanh": Recipe("tanh", 512, 1, 50, 64, "Adam", 2e-3, 1.0, clip_norm=5.0),
    "char-rnn lstm": Recipe("lstm", 128, 2, 50, 50, "Adam", 2e-3, 1.0, clip_norm=5.0),
}


def model_of(recipe: Recipe, vocabulary: str, dtype: str) -> CharLM:
    """A model with the same initial weights every time."""
    return CharLM(vocabulary, recipe.cell, recipe.hidden, recipe.layers, dtype=dtype, seed=0)


def fastrnn_step(recipe: Recipe, vocabulary: str, batches: Iterator[Batch], dtype: str) -> Step:
    model = model_of(recipe, vocabulary, dtype)
    optimizer = getattr(optim, recipe.optimizer)(model.parameters, recipe.lr)
    state = None

    def step():
        nonlocal state
        x, y = next(batches)
        loss, _, state = model.train_step(
            x, y, state, optimizer, clip_norm=recipe.clip_norm, clip_value=recipe.clip_value, scale=recipe.scale
        )
        return loss / recipe.scale

    return step


def torch_step(
    recipe: Recipe,
    vocabulary: str,
    batches: Iterator[Batch],
    dtype: str = "float32",
    inputs: str = "one-hot",
    update: str = "plain",
) -> Step:
    import torch
    from torch.nn import functional as F

    V, floats = len(vocabulary), getattr(torch, dtype)
    rnn = built(torch.nn, recipe.cell, V, recipe.hidden, recipe.layers)
    parts = {"rnn": rnn, "decoder": torch.nn.Linear(recipe.hidden, V)}
    model = torch.nn.ModuleDict(parts).to(floats)
    weights = model_of(recipe, vocabulary, dtype).parameters
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    rows = torch.nn.Embedding.from_pretrained(torch.eye(V, dtype=floats))
    options = {} if update == "plain" else {update: True}
    optimizer = getattr(torch.optim, recipe.optimizer)(model.parameters(), recipe.lr, **options)
    state = None

    def step():
        nonlocal state
        tokens, targets = (torch.from_numpy(array) for array in next(batches))
        x = rows(tokens) if inputs == "embedding" else F.one_hot(tokens, V).to(floats)
        y, state = model["rnn"](x, state)
        state = state.detach() if torch.is_tensor(state) else tuple(s.detach() for s in state)
        loss = F.cross_entropy(model["decoder"](y).view(-1, V), targets.view(-1)) * recipe.scale
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        if recipe.clip_value is not None:
            torch.nn.utils.clip_grad_value_(model.parameters(), recipe.clip_value)
        optimizer.step()
        return loss.item() / recipe.scale

    return step


def numpy_steps(recipe: Recipe, vocabulary: str, tokens: np.ndarray) -> Callable[[], object]:
    """NUMPY_STEPS steps of the reference."""
    weights = min_char_rnn.init(len(vocabulary), recipe.hidden, np.random.default_rng(0))
    return lambda: min_char_rnn.train(tokens, weights, NUMPY_STEPS, recipe.T, recipe.lr, recipe.clip_value or np.inf)


def fastest_torch(recipe: Recipe, vocabulary: str, batches: Callable[[], Iterator[Batch]]) -> tuple[str, Step]:
    """torch's best way of doing the same."""
    steps = {}
    for inputs, update in itertools.product(("one-hot", "embedding"), ("plain", "foreach", "fused")):
        name = f"torch ({inputs} input, {update} {recipe.optimizer})"
        steps[name] = torch_step(recipe, vocabulary, batches(), "float32", inputs, update)
    return fastest(steps)


def differences(
    recipe: Recipe, vocabulary: str, batches: Callable[[], Iterator[Batch]], dtype: str, steps: int
) -> list[float]:
    """Relative differences of the losses of fastrnn and torch, step by step from the same weights."""
    ours = fastrnn_step(recipe, vocabulary, batches(), dtype)
    theirs = torch_step(recipe, vocabulary, batches(), dtype)
    return [abs(ours() / theirs() - 1) for _ in range(steps)]


def compare(recipe: Recipe, text: str, threads: int, repeats: int, steps: int) -> list[list[str]]:
    """The lines of the table for one recipe."""
    fastrnn.set_num_threads(threads)
    vocabulary = vocabulary_of(text)
    tokens = model_of(recipe, vocabulary, "float32").encode(text)
    windows = Batches(tokens, recipe.B, recipe.T)

    def batches():
        return (windows[i % len(windows)] for i in itertools.count())

    runs: dict[str, Callable[[], object]] = {
        f"fastrnn {dtype}": fastrnn_step(recipe, vocabulary, batches(), dtype) for dtype in ("float32", "float64")
    }
    steps_a_call = dict.fromkeys(runs, 1)
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        for dtype in ("float32", "float64"):
            gaps = differences(recipe, vocabulary, batches, dtype, steps)
            extent = f"{max(gaps[:10]):.1e} in the first 10 steps, {max(gaps):.1e} in {steps}"
            click.echo(f"{recipe}, {dtype}: losses differ from torch's by at most {extent}")
        system, step = fastest_torch(recipe, vocabulary, batches)
        runs[system], steps_a_call[system] = step, 1
    if recipe == RECIPES["min-char-rnn"]:
        system = "NumPy float64"
        runs[system], steps_a_call[system] = numpy_steps(recipe, vocabulary, tokens), NUMPY_STEPS
    times = {system: [t / steps_a_call[system] for t in ts] for system, ts in interleave(runs, repeats).items()}
    lines = []
    for system, ts in times.items():
        t = statistics.median(ts)
        ratio = statistics.median(theirs / ours for ours, theirs in zip(times["fastrnn float32"], ts, strict=True))
        lines.append([str(recipe), system, f"{1e3 * t:.3f}", f"{recipe.T * recipe.B / t:,.0f}", f"{ratio:.2f}"])
    return lines


@click.command()
@click.argument("text", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--recipe", "names", multiple=True, type=click.Choice(list(RECIPES)), help="Default: all.")
@click.option("--cell", type=click.Choice(list(CELLS)), help="Instead of the recipe's, as the following.")
@click.option("--hidden", type=click.IntRange(1))
@click.option("--layers", type=click.IntRange(1))
@click.option("--seq-length", "T", type=click.IntRange(1))
@click.option("--batch", "B", type=click.IntRange(1))
@threads_option
@repeats_option
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True, help="Whose losses are compared.")
def main(text: Path | None, names: tuple[str, ...], threads: int, repeats: int, steps: int, **fields: Any) -> None:
    """Print milliseconds a step and characters a second."""
    pin(threads)
    characters = read_text(text) if text else standard_library()
    changes = {name: value for name, value in fields.items() if value is not None}
    names = names or (("char-rnn lstm",) if changes else tuple(RECIPES))
    recipes = [RECIPES[name]._replace(**changes) for name in names]
    lines = [line for recipe in recipes for line in compare(recipe, characters, threads, repeats, steps)]
    click.echo(markdown(["model", "system"], ["ms/step", "characters/s", "times fastrnn float32"], lines))
    click.echo(f"\n{describe(threads, 'torch')}")


if __name__ == "__main__":
    main()
