"""A word-level language model in PyTorch, with torch's layers and after one more line: `python bench/word_lm.py`.

The model of PyTorch's own example: an embedding, an LSTM (or --cell), and a decoder that shares the embedding's
weights; SGD with clipped gradients over windows of 35 words, the state carried on. The text is the source code of
Python's standard library. Both trainings start from the same weights, see the same words and draw the same dropout.
"""

import re
import time
from collections import Counter

import click
from machine import describe, pin
from options import threads_option
from registry import CELLS, built

from fastrnn.training.text import standard_library

try:
    import torch
except ImportError:
    raise SystemExit("bench/word_lm.py: needs torch: pip install torch") from None

from torch import nn

import fastrnn.torch


class WordLM(nn.Module):
    def __init__(self, cell: str, words: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.rnn = built(nn, cell, size, size, layers, dropout=dropout)
        self.decoder = nn.Linear(size, words)
        self.decoder.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, tokens, state):
        y, state = self.rnn(self.dropout(self.embedding(tokens)), state)
        return self.decoder(self.dropout(y)), state


def corpus(words: int, batch: int) -> torch.Tensor:
    """(steps, batch) numbers of words, 0 for rare ones."""
    text = re.findall(r"\w+|[^\w\s]", standard_library())
    number = {word: i for i, (word, _) in enumerate(Counter(text).most_common(words - 1), start=1)}
    tokens = torch.tensor([number.get(word, 0) for word in text])
    return tokens[: len(tokens) // batch * batch].reshape(batch, -1).T.contiguous()


def train(model: WordLM, tokens: torch.Tensor, windows: int, length: int) -> tuple[float, float]:
    """Words a second, and the mean loss of the last tenth of the windows, in nats a word."""
    torch.manual_seed(1)
    optimizer, losses, state = torch.optim.SGD(model.parameters(), lr=1.0), [], None
    start = time.perf_counter()
    for first in range(0, windows * length, length):
        x, targets = tokens[first : first + length], tokens[first + 1 : first + length + 1]
        logits, state = model(x, state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        losses.append(loss.item())
    last = losses[-max(1, windows // 10) :]
    return windows * length * tokens.shape[1] / (time.perf_counter() - start), sum(last) / len(last)


@click.command()
@click.option("--cell", type=click.Choice(list(CELLS)), default="lstm", show_default=True)
@click.option("--size", type=click.IntRange(1), default=650, show_default=True, help="Of words and of the layers.")
@click.option("--layers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--words", type=click.IntRange(2), default=5000, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=20, show_default=True)
@click.option("--windows", type=click.IntRange(1), default=100, show_default=True, help="Of 35 words each.")
@threads_option
def main(cell: str, size: int, layers: int, words: int, batch: int, windows: int, threads: int) -> None:
    """Train twice; print speeds and losses."""
    pin(threads)
    torch.set_num_threads(threads)
    tokens, results = corpus(words, batch), {}
    if windows * 35 >= len(tokens):
        raise click.BadParameter(f"expected at most {(len(tokens) - 1) // 35}, got {windows}", param_hint="--windows")
    for name in ("torch", "fastrnn"):
        torch.manual_seed(0)
        model = WordLM(cell, words, size, layers, dropout=0.2)
        if name == "fastrnn":
            click.echo(fastrnn.torch.accelerate(model))
        train(model, tokens, 1, 2)  # threads and kernels are there
        torch.manual_seed(0)
        model.load_state_dict(WordLM(cell, words, size, layers, dropout=0.2).state_dict())
        results[name] = train(model, tokens, windows, 35)
        click.echo(f"{name:8}{results[name][0]:10,.0f} words/s, loss {results[name][1]:.3f} nats a word")
    click.echo(f"{results['fastrnn'][0] / results['torch'][0]:.2f} times as fast\n\n{describe(threads, 'torch')}")


if __name__ == "__main__":
    main()
