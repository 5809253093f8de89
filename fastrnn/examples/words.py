"""One to many: a number, said in words.

A GRU is given the decimal digits of a number at every step and spells the number, letter by letter.
"""

import numpy as np

from fastrnn.examples.shared import Alphabet, Result, Run, picked, table
from fastrnn.models import SequenceGenerator

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
PLACES = 4  # decimal digits of a number


def in_words(number: int) -> str:
    """A number below a million in English: 342 is three hundred and forty-two."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    large, unit = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, large)
    link = " and " if rest < 100 else " "
    return f"{in_words(count)} {unit}" + (link + in_words(rest) if rest else "")


def digits(numbers: np.ndarray) -> np.ndarray:
    """(B, 10*PLACES) float32: the decimal digits of numbers (B,), leading zeros too, each as a one-hot vector."""
    places = numbers[:, None] // 10 ** np.arange(PLACES)[::-1] % 10
    return np.eye(10, dtype="float32")[places].reshape(len(numbers), -1)


def data(count: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Different numbers to learn from (count,) and to test on (held_out,)."""
    numbers = np.random.default_rng(seed).permutation(10**PLACES)[: count + held_out]
    return numbers[:count], numbers[count:]


def run(run: Run) -> Result:
    """Learn how 2000 of the numbers below 10,000 are said, and say others."""
    numbers, held_out = data(run.samples(2000), run.samples(1000), run.seed)
    texts, expected = ([in_words(number) for number in part] for part in (numbers, held_out))
    alphabet = Alphabet(texts + expected)

    model = SequenceGenerator(
        len(alphabet), 10 * PLACES, condition="both", cell="gru", hidden_size=128, embedding_size=32, seed=run.seed
    )
    run.fit(model, digits(numbers), [alphabet.tokens(text) for text in texts], epochs=15, batch_size=32, lr=5e-3)

    got = [alphabet.text(tokens) for tokens in model.generate(digits(held_out), max_length=80)]
    right = np.array([e == g for e, g in zip(expected, got, strict=True)])
    rows = [(str(held_out[i]), expected[i], got[i]) for i in picked(right, 8)]
    shown = table(("number", "expected", "got"), rows)
    return Result(shown, float(np.mean(right)), 0.98, f"{len(right)} numbers that it had not seen")
