"""Recursive against recurrent: arithmetic by tree, or by character.

Expressions are evaluated modulo 5: by a Tree-LSTM along the tree that Python's `ast` makes of them, and by a
bidirectional GRU that reads their characters.
"""

import ast
from typing import Any

import numpy as np

from fastrnn.examples.networks import TreeClassifier
from fastrnn.examples.shared import Alphabet, Result, Run, table
from fastrnn.models import SequenceClassifier

MODULUS = 5
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
SYMBOLS = "0123456789+-*"  # of leaves
MOST = 5  # operations in an expression to learn from
SIZES = (1, 2, 3, 4, 5, 6, 8, 10)  # operations to test on


def expression(operations: int, rng: np.random.Generator) -> str:
    """An expression of digits with so many operations, brackets where Python needs them."""

    def draw(n):
        if n == 0:
            return ast.Constant(int(rng.integers(10)))
        left = int(rng.integers(n))
        return ast.BinOp(draw(left), list(OPERATORS)[rng.integers(3)](), draw(n - 1 - left))

    return ast.unparse(draw(operations))


def nested(text: str) -> Any:
    """The tree of an expression as Python parses it: a digit, or (left, operator, right)."""

    def tree(node):
        if isinstance(node, ast.Constant):
            return str(node.value)
        return tree(node.left), OPERATORS[type(node.op)], tree(node.right)

    return tree(ast.parse(text, mode="eval").body)


def value(text: str) -> int:
    """What Python makes of an expression, modulo 5."""
    return eval(compile(text, "expression", "eval")) % MODULUS


def run(run: Run) -> Result:
    """Train both networks on expressions of up to 5 operations, and test them on others, longer ones too."""
    rng, alphabet = np.random.default_rng(run.seed), Alphabet([SYMBOLS, "() "])
    texts = [expression(int(rng.integers(1, MOST + 1)), rng) for _ in range(run.samples(15_000))]
    values = np.array([value(text) for text in texts])

    tree = TreeClassifier(MODULUS, SYMBOLS, hidden_size=64, seed=run.seed)
    run.fit(tree, [nested(text) for text in texts], values, epochs=8, batch_size=32, lr=5e-3, part=1 / 2)
    chain = SequenceClassifier(
        MODULUS, num_tokens=len(alphabet), cell="gru", hidden_size=64, bidirectional=True, seed=run.seed
    )
    run.fit(chain, [alphabet.tokens(text) for text in texts], values, epochs=8, batch_size=32, lr=5e-3, part=1 / 2)

    known, rows, longer = set(texts), [], []
    for size in SIZES:
        drawn = [expression(size, rng) for _ in range(run.samples(500))]
        drawn = [text for text in drawn if size < 3 or text not in known]  # there are few shorter ones
        expected = np.array([value(text) for text in drawn])
        got = tree.predict([nested(text) for text in drawn]), chain.predict([alphabet.tokens(text) for text in drawn])
        right = [float(np.mean(classes == expected)) for classes in got]
        samples = [drawn[0], *[str(classes[0]) for classes in (expected, *got)]]
        rows.append((str(size), *[f"{share:.0%}" for share in right], *samples))
        longer += [right[0]] * (size > MOST)
    shown = table(("operations", "tree", "chain", "such as", "is", "by tree", "by chain"), rows)
    return Result(shown, float(np.mean(longer)), 0.9, "expressions longer than all it learned from, by the tree")
