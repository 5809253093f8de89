"""Two networks to compare recurrent ones with: how other layers become a model that can be trained.

A model names its parts, and computes a loss; with `groups` it also writes each part's gradients, by its pullback.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn.layers import Recursive, TimeDelay
from fastrnn.models import Model
from fastrnn.models.encoder import packed
from fastrnn.models.heads import Classes
from fastrnn.models.model import Groups
from fastrnn.ragged import Packed
from fastrnn.trees import Trees


class _Classifier(Model):
    """A class from rows of features."""

    def __init__(self, parts, hidden_size, num_classes, seeds):
        self.head = Classes(hidden_size, num_classes, 0.0, "float32", seeds)
        super().__init__({**parts, "head": self.head}, {})

    @abstractmethod
    def _features(self, inputs: Any) -> tuple[np.ndarray, Callable[[np.ndarray, Groups], None]]:
        """The rows (B, H), and backward(d_rows, groups)."""

    def _objective(self, batch: Any, groups: Groups | None, scale: float) -> float:
        inputs, classes = self._both(batch)
        rows, backward = self._features(inputs)
        loss, d_rows = self.head.objective(rows, self.head.checked("targets", classes, len(rows)), groups, scale)
        if groups is not None:
            backward(d_rows, groups)
        return loss

    def predict(self, inputs: Any) -> np.ndarray:
        """The likeliest classes (B,)."""
        return self.head.labels(self._features(inputs)[0])


class TimeDelayClassifier(_Classifier):
    """Causal time-delay layers with rectifiers, on one-hot tokens, and a class from the last step.

    Parameters
    ----------
    num_classes, num_tokens : sizes
    hidden_size, num_layers : channels, and layers of three steps each
    seed : of the initial values

    A batch is (sequences of at least one token, classes (B,)); see SequenceClassifier.
    """

    def __init__(self, num_classes: int, num_tokens: int, *, hidden_size: int, num_layers: int, seed: int) -> None:
        *seeds, first, second = np.random.default_rng(seed).spawn(num_layers + 2)
        sizes = [num_tokens] + num_layers * [hidden_size]
        self.layers = {
            f"layer{i}": TimeDelay(sizes[i], hidden_size, kernel_size=3, causal=True, seed=seeds[i])
            for i in range(num_layers)
        }
        self.num_tokens, self.sees = num_tokens, 1 + 2 * num_layers  # steps, the last one among them
        super().__init__(self.layers, hidden_size, num_classes, (first, second))

    def _features(self, inputs):
        tokens = packed("inputs", inputs, self.head.dtype, None, self.num_tokens)
        x, last = Packed(np.eye(self.num_tokens, dtype="float32")[tokens.data], tokens.offsets), tokens.offsets[1:] - 1
        passed = []
        for name, layer in self.layers.items():
            x, pullback = layer.vjp(x)
            np.maximum(x.data, 0, out=x.data)
            passed.append((name, x, pullback))

        def backward(d_rows, groups):
            dy = np.zeros_like(x.data)
            dy[last] = d_rows
            for name, y, pullback in reversed(passed):
                dx, _ = pullback(Packed(dy * (y.data > 0), y.offsets), groups[name])
                dy = dx.data

        return x.data[last], backward


class TreeClassifier(_Classifier):
    """A Tree-LSTM over trees of at most three children a node, leaves being one-hot, and a class from the root.

    Parameters
    ----------
    num_classes : size
    symbols : that leaves may be
    hidden_size : of a node's state
    seed : of the initial values

    A batch is (trees as nested tuples, classes (B,)).
    """

    def __init__(self, num_classes: int, symbols: Sequence[str], *, hidden_size: int, seed: int) -> None:
        seeds = np.random.default_rng(seed).spawn(3)
        self.symbols = symbols
        self.recursive = Recursive(len(symbols), hidden_size, "lstm", children=3, seed=seeds[0])
        super().__init__({"recursive": self.recursive}, hidden_size, num_classes, seeds[1:])

    def _features(self, inputs):
        trees, leaves = Trees.from_nested(inputs)
        x = np.array([[leaf == symbol for symbol in self.symbols] for leaf in leaves], "float32")
        (h, _), pullback = self.recursive.vjp(x, trees)

        def backward(d_rows, groups):
            dh = np.zeros_like(h)
            dh[trees.roots] = d_rows
            pullback((dh, None), groups["recursive"])

        return h[trees.roots], backward
