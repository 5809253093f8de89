"""Training steps and translations of Seq2Seq and torch's layers, side by side: `python bench/seq2seq.py --attention`.

Both train the same model from the same weights on the same batches: sources and targets of 10 to 30 tokens, Adam. A
step is everything from lists of tokens to updated weights; gradients are not clipped. torch runs its usual program:
nn.Embedding, an encoder over a PackedSequence, a decoder over padded targets, attention by masked batched products,
F.cross_entropy that ignores the padding; torch.optim.Adam plain, foreach or fused, the fastest counts. Before anything
is timed, the largest relative difference of their losses in ten steps is printed. Translations: fastrnn alone.

Fairness is kept as in peers.py: same cores, one process, steps interleaved, medians.
"""

import itertools
import statistics
from collections.abc import Callable
from typing import NamedTuple

import click
import numpy as np
from machine import describe, fastest, interleave, pin
from options import repeats_option, threads_option
from rates import markdown
from registry import CELLS, built

import fastrnn
from fastrnn import optim
from fastrnn.models import Seq2Seq

try:
    import torch
except ImportError:
    raise SystemExit("bench/seq2seq.py: needs torch: pip install torch") from None

from torch.nn import functional as F
from torch.nn.utils import rnn as ragged

LENGTHS = 10, 30

Step = Callable[[], float]  # one step of training; returns the loss in nats a token


class Recipe(NamedTuple):
    """A model and its batches."""

    cell: str
    hidden: int
    layers: int
    batch: int
    vocabulary: int  # of both sides
    attention: bool


def model_of(recipe: Recipe) -> Seq2Seq:
    """A model with the same initial weights every time."""
    return Seq2Seq(
        recipe.vocabulary, recipe.vocabulary, cell=recipe.cell, hidden_size=recipe.hidden, num_layers=recipe.layers,
        attention=recipe.attention, seed=0,
    )  # fmt: skip


def batches_of(recipe: Recipe, count: int = 8) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Random batches (sources, targets)."""
    rng = np.random.default_rng(0)

    def side():
        lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, recipe.batch)
        return [rng.integers(0, recipe.vocabulary, n) for n in lengths]

    return [(side(), side()) for _ in range(count)]


def fastrnn_step(recipe: Recipe) -> Step:
    model, batches = model_of(recipe), itertools.cycle(batches_of(recipe))
    optimizer = optim.Adam(model.parameters)

    def step():
        loss, grads = model.loss_and_gradients(next(batches), 1.0, optimizer.grads)
        optimizer.step(grads)
        return loss

    return step


def torch_step(recipe: Recipe, update: str = "plain") -> Step:
    model, H, V = model_of(recipe), recipe.hidden, recipe.vocabulary

    def side(num_tokens):
        E = model.config["embedding_size"]
        rnn = built(torch.nn, recipe.cell, E, H, recipe.layers, batch_first=True)
        return torch.nn.ModuleDict({"embedding": torch.nn.Embedding(num_tokens, E), "rnn": rnn})

    parts = {"encoder": side(V), "decoder": side(V + 1), "head": torch.nn.Linear(H, V + 1)}
    if recipe.attention:
        parts["attention"] = torch.nn.Linear(2 * H, H, bias=False)
    net = torch.nn.ModuleDict(parts)
    net.load_state_dict({name: torch.tensor(value) for name, value in model.parameters.items()})
    optimizer = torch.optim.Adam(net.parameters(), **({} if update == "plain" else {update: True}))
    batches = itertools.cycle(batches_of(recipe))

    def step():
        sources, targets = ([torch.from_numpy(tokens) for tokens in part] for part in next(batches))
        boundary = torch.tensor([V])
        inputs = ragged.pad_sequence([torch.cat([boundary, t]) for t in targets], True)
        outputs = ragged.pad_sequence([torch.cat([t, boundary]) for t in targets], True, -100)
        lengths = torch.tensor([len(s) for s in sources])
        x = net["encoder"]["embedding"](ragged.pad_sequence(sources, True))
        packed, state = net["encoder"]["rnn"](ragged.pack_padded_sequence(x, lengths, True, False))
        rows, _ = net["decoder"]["rnn"](net["decoder"]["embedding"](inputs), state)
        if recipe.attention:
            memory, _ = ragged.pad_packed_sequence(packed, True)
            scores = torch.bmm(rows, memory.transpose(1, 2))
            beyond = torch.arange(memory.shape[1]) >= lengths[:, None]
            weights = scores.masked_fill(beyond[:, None], -torch.inf).softmax(2)
            rows = net["attention"](torch.cat([torch.bmm(weights, memory), rows], 2)).tanh()
        loss = F.cross_entropy(net["head"](rows).flatten(0, 1), outputs.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def translation(recipe: Recipe, beam_width: int) -> Callable[[], object]:
    """A batch of sources translated into as many tokens as the longest targets have, or less."""
    model, (sources, _) = model_of(recipe), batches_of(recipe, 1)[0]
    return lambda: model.translate(sources, LENGTHS[1], beam_width)


def compare(recipe: Recipe, threads: int, repeats: int) -> list[list[str]]:
    """The lines of the table for one recipe."""
    torch.set_num_threads(threads)
    fastrnn.set_num_threads(threads)
    ours, theirs = fastrnn_step(recipe), torch_step(recipe)
    gap = max(abs(ours() / theirs() - 1) for _ in range(10))
    click.echo(f"{recipe}: losses differ by at most {gap:.1e} in 10 steps")
    way, step = fastest({update: torch_step(recipe, update) for update in ("plain", "foreach", "fused")})
    systems = {"fastrnn": ours, f"torch ({way} Adam)": step}
    systems |= {f"fastrnn, translation, beam {K}": translation(recipe, K) for K in (1, 5)}
    times = interleave(systems, repeats)
    lines = []
    for system, ts in times.items():
        pairs = zip(times["fastrnn"], ts, strict=True)
        ratio = f"{statistics.median(t / own for own, t in pairs):.2f}" if "translation" not in system else ""
        lines.append([str(recipe.attention), system, f"{1e3 * statistics.median(ts):.2f}", ratio])
    return lines


@click.command()
@click.option("--cell", type=click.Choice(list(CELLS)), default="lstm", show_default=True)
@click.option("--hidden", type=click.IntRange(1), default=256, show_default=True)
@click.option("--layers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True)
@click.option("--vocabulary", type=click.IntRange(1), default=60, show_default=True)
@click.option("--attention/--no-attention", default=None, help="Default: both.")
@threads_option
@repeats_option
def main(attention: bool | None, threads: int, repeats: int, **sizes: int) -> None:
    """Print milliseconds a step, and a translation of a batch."""
    pin(threads)
    recipes = [Recipe(**sizes, attention=kind) for kind in ((False, True) if attention is None else (attention,))]
    lines = [line for recipe in recipes for line in compare(recipe, threads, repeats)]
    click.echo(markdown(["attention", "system"], ["ms", "times fastrnn"], lines))
    click.echo(f"\n{describe(threads, 'torch')}")


if __name__ == "__main__":
    main()
