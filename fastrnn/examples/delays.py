"""Recurrent against time-delay: a letter remembered over a lag.

A letter and a number of random digits are read, then the letter is asked for. A time-delay network knows it as long as
it sees it; a GRU remembers.
"""

import numpy as np

from fastrnn.examples.networks import TimeDelayClassifier
from fastrnn.examples.shared import Alphabet, Result, Run, table
from fastrnn.models import SequenceClassifier

LETTERS, FILLERS = "abcd", "0123"
LONGEST = 40  # lag to learn from
LAGS = (1, 3, 5, 7, 8, 10, 15, 20, 30, 40, 60)  # to test on; the last one is longer than all of training


def data(lags: np.ndarray, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """For each lag (B,) a letter with so many fillers after it, all drawn at random, and which letter it is (B,)."""
    letters = rng.integers(len(LETTERS), size=len(lags))
    fillers = ["".join(rng.choice(list(FILLERS), lag)) for lag in lags]
    return [LETTERS[letter] + rest for letter, rest in zip(letters, fillers, strict=True)], letters


def run(run: Run) -> Result:
    """Train both networks on lags up to 40, and test them lag by lag."""
    rng, alphabet = np.random.default_rng(run.seed), Alphabet([LETTERS, FILLERS])
    texts, classes = data(rng.integers(1, LONGEST + 1, run.samples(5000)), rng)
    inputs = [alphabet.tokens(text) for text in texts]

    delay = TimeDelayClassifier(len(LETTERS), len(alphabet), hidden_size=64, num_layers=3, seed=run.seed)
    recurrent = SequenceClassifier(
        len(LETTERS), num_tokens=len(alphabet), cell="gru", hidden_size=64, embedding_size=0, seed=run.seed
    )
    for model in (delay, recurrent):
        run.fit(model, inputs, classes, epochs=6, batch_size=32, lr=5e-3, part=1 / 2)

    rows, beyond = [], []
    for lag in LAGS:
        texts, expected = data(np.full(run.samples(200), lag), rng)
        tests = [alphabet.tokens(text) for text in texts]
        shares = [float(np.mean(model.predict(tests) == expected)) for model in (delay, recurrent)]
        rows.append((str(lag), shortened(texts[0]), *[f"{share:.0%}" for share in shares]))
        beyond += [shares[1]] * (lag >= delay.sees)
    header = "lag", "such as", f"time-delay, sees {delay.sees} steps", "recurrent"
    return Result(
        table(header, rows), float(np.mean(beyond)), 0.99, "letters that the time-delay network doesn't see any more"
    )


def shortened(text: str) -> str:
    """A text, or its beginning."""
    return text if len(text) <= 20 else text[:17] + "..."
