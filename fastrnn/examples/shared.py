"""What the examples share: the budget of a run and its progress, characters as tokens, and tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn import optim
from fastrnn.models.model import Model


class Result(NamedTuple):
    """What an example learnt."""

    shown: str  # a few samples, in lines
    quality: float  # share of what was tested that is right, 0..1
    goal: float  # the quality that a whole run is to reach
    tested: str  # what it is a share of


class Run:
    """A run of an example.

    Parameters
    ----------
    seed : of the data that are drawn, of the weights and of the order of training
    epochs : instead of the example's own
    samples : learn from so many at most, and test on no more
    progress : called after every step with the share of the training that is done, 0..1, and the loss
    """

    def __init__(
        self,
        seed: int = 0,
        epochs: int | None = None,
        samples: int | None = None,
        progress: Callable[[float, float], None] | None = None,
    ) -> None:
        self.seed, self._epochs, self._samples, self._progress = seed, epochs, samples, progress
        self.losses: list[list[float]] = []  # of every step, for each model that is trained

    def samples(self, count: int) -> int:
        """How many samples to take where an example takes `count`."""
        return count if self._samples is None else min(count, self._samples)

    def fit(
        self, model: Model, inputs: Any, targets: Any, *, epochs: int, batch_size: int, lr: float, part: float = 1.0
    ) -> None:
        """Train with Adam from the learning rate lr, which falls to 0.

        part : share of the example's training that this is, where it trains several models
        """
        losses: list[float] = []
        begun = part * len(self.losses)
        self.losses.append(losses)

        def on_step(step):
            losses.append(step.loss)
            if self._progress is not None:
                self._progress(begun + part * step.step / step.steps, step.loss)

        model.fit(
            inputs, targets, epochs=self._epochs or epochs, batch_size=batch_size,
            optimizer=optim.Adam(model.parameters, lr), seed=self.seed, on_step=on_step,
        )  # fmt: skip


class Alphabet:
    """The characters of some texts; a token is a character's place among them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.characters = "".join(sorted(set().union(*texts)))
        self._tokens = {character: token for token, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def tokens(self, text: str) -> np.ndarray:
        """(len(text),) integers."""
        return np.array([self._tokens[character] for character in text], np.int64)

    def text(self, tokens: np.ndarray) -> str:
        """What tokens stand for."""
        return "".join(self.characters[token] for token in tokens)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def picked(right: np.ndarray, count: int) -> np.ndarray:
    """Places of up to `count` samples to show: the first that are right, then the first two that are wrong.

    Where there are fewer of one kind, there are more of the other.
    """
    places, wrong = np.flatnonzero(right), np.flatnonzero(~right)
    wrong = wrong[: max(2, count - len(places))]
    return np.append(places[: count - len(wrong)], wrong)
