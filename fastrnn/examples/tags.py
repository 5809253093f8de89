"""Many to many, step by step: Python source, to kinds of token.

A bidirectional GRU says of each character of a statement what kind of token it belongs to, as `tokenize` would. The
statements are the standard library's.
"""

import io
import itertools
import keyword
import sysconfig
import tokenize
from pathlib import Path

import numpy as np

from fastrnn.examples.shared import Alphabet, Result, Run, picked
from fastrnn.models import SequenceTagger

KINDS = ("space", "name", "keyword", "number", "string", "comment", "operator")
LETTERS = " nk9s#+"  # a kind in one character
LONGEST = 400  # characters of a statement; longer ones are left out
PER_FILE = 200  # statements taken from a file
HELD_OUT = 10  # every tenth file
_OF_TYPE = {tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment", tokenize.OP: "operator"}

Tagged = tuple[str, np.ndarray]  # a statement and the kinds of its characters


def tagged(source: str) -> list[Tagged]:
    """The statements of a program with the comments before them, each with the kinds of its characters.

    The kinds are (len(statement),) integers, places in KINDS, by the standard library's tokenize. A formatted string
    is one token, whatever is in it.
    """
    lines = io.StringIO(source).readlines()
    starts = np.append(0, np.cumsum([len(line) for line in lines]))
    found, ends, opened = np.zeros(len(source), np.int64), [0], []
    for token in tokenize.generate_tokens(iter(lines).__next__):
        start, end = (int(starts[row - 1]) + column for row, column in (token.start, token.end))
        name, kind = tokenize.tok_name[token.type], _OF_TYPE.get(token.type)
        if token.type == tokenize.NAME:
            kind = "keyword" if keyword.iskeyword(token.string) else "name"
        elif token.type == tokenize.NEWLINE:
            ends.append(int(starts[token.start[0]]))
        elif name.endswith("STRING_START"):  # from Python 3.12 on, formatted strings come in parts
            opened.append(start)
        elif name.endswith("STRING_END"):
            start, kind = opened.pop(), "string"
        if kind and not opened:
            found[start:end] = KINDS.index(kind)
    return [(source[a:b], found[a:b]) for a, b in itertools.pairwise(ends)]


def data(count: int, held_out: int, seed: int) -> tuple[list[Tagged], list[Tagged]]:
    """Tagged statements of the standard library to learn from, and of other files to test on, in random order."""
    folder = Path(sysconfig.get_path("stdlib"))
    parts: tuple[list, list] = ([], [])
    counts = count, held_out
    for place, path in enumerate(sorted(folder.glob("*.py"))):
        part = place % HELD_OUT == 0
        if len(parts[part]) < counts[part]:
            with tokenize.open(path) as file:
                source = file.read()
            if source.isascii():
                short = [statement for statement in tagged(source) if len(statement[0]) <= LONGEST]
                parts[part].extend(short[:PER_FILE])
    if not all(parts):
        raise ValueError(f"{folder}: no source code of the standard library")
    rng = np.random.default_rng(seed)
    learned, tested = ([part[i] for i in rng.permutation(len(part))[:n]] for part, n in zip(parts, counts, strict=True))
    return learned, tested


def run(run: Run) -> Result:
    """Learn to tag the characters of 8000 statements, and tag those of other files."""
    statements, held_out = data(run.samples(8000), run.samples(2000), run.seed)
    alphabet = Alphabet(text for text, _ in statements + held_out)
    inputs, test_inputs = ([alphabet.tokens(text) for text, _ in part] for part in (statements, held_out))
    targets, expected = ([kinds for _, kinds in part] for part in (statements, held_out))

    model = SequenceTagger(
        len(KINDS), num_tokens=len(alphabet), cell="gru", hidden_size=64, embedding_size=32, bidirectional=True,
        seed=run.seed,
    )  # fmt: skip
    run.fit(model, inputs, targets, epochs=4, batch_size=32, lr=5e-3)

    got = model.predict(test_inputs)
    right = np.array([np.array_equal(e, g) for e, g in zip(expected, got, strict=True)])
    varied = np.array([text.count("\n") == 1 and len(set(kinds)) > 4 for text, kinds in held_out])
    shown = [compared(held_out[i][0], expected[i], got[i]) for i in np.flatnonzero(varied)[picked(right[varied], 6)]]
    legend = ", ".join(f"{letter} {kind}" for letter, kind in zip(LETTERS[1:], KINDS[1:], strict=True))
    accuracy = model.accuracy(test_inputs, expected)
    return Result("\n".join([legend, *shown]), accuracy, 0.99, f"the characters of {len(got)} held-out statements")


def compared(line: str, expected: np.ndarray, got: np.ndarray) -> str:
    """A line of code above the kinds of its characters."""
    marks = ("".join(LETTERS[kind] for kind in kinds) for kinds in (expected, got))
    rows = zip(("code", "expected", "got"), (line, *marks), strict=True)
    return "\n".join(f"{name:10}{row.rstrip()}" for name, row in rows)
