"""Many to one: a class, or values, for a whole sequence."""

from typing import Any, Unpack

import numpy as np

from fastrnn import checks
from fastrnn.models.encoder import Options, Sequences
from fastrnn.models.heads import Classes, Values
from fastrnn.models.pooling import POOLINGS
from fastrnn.models.sequence import SequenceModel


class _ManyToOne(SequenceModel):
    """Pooling between the encoder and the head."""

    def __init__(self, head, out_features, own, pooling, seed, options):
        self._pool = POOLINGS[checks.choice("pooling", pooling, tuple(POOLINGS))]
        self._read = pooling
        super().__init__(head, out_features, {**own, "pooling": pooling}, seed, options)

    def _checked(self, batch):
        inputs, targets = self._both(batch)
        x = self.encoder.packed("inputs", inputs)
        return x, self.head.checked("targets", targets, len(x.offsets) - 1)

    def _features(self, encoded):
        return self._pool(encoded)

    def _arranged(self, batch, targets):
        return targets[batch.order]

    def _restored(self, batch, rows):
        found = np.empty_like(rows)
        found[batch.order] = rows
        return found


class SequenceClassifier(_ManyToOne):
    """One of several classes for every sequence; a batch is (sequences, labels (B,)), the loss mean cross-entropy.

    Parameters
    ----------
    num_classes : C
    pooling : what the head sees of D*H columns: "last" h of each direction, or the "mean" or "max" over all steps
    seed : of the initial values and of dropout
    options : input_size or num_tokens, and others, with their defaults: see fastrnn.models.Options

    Sequences are a Packed, a list of arrays (T, input_size), of tokens (T,), or an array whose first axis counts them;
    T >= 0, a sequence without steps has features of 0. Predictions have the same bits in any batch.

    Parameters by name: embedding.weight (num_tokens, embedding_size), rnn.weight_ih_l0 ..., head.weight (C, D*H),
    head.bias. Dropout lies between layers and before the head.

    Raises ValueError: `input_size: expected either input_size or num_tokens, got input_size=None and num_tokens=None`;
    of batches `targets: expected 0 <= label < 10, got 12`, `targets: expected shape (32,), got (31,)`,
    `inputs: expected at least one sequence, got none`, `inputs[2]: expected shape (T, 28), got (5, 27)`.
    Cost: that of the layers, and 6*B*D*H*C flop a training step.
    """

    head: Classes

    def __init__(
        self, num_classes: int, *, pooling: str = "last", seed: Any = None, **options: Unpack[Options]
    ) -> None:
        C = checks.integer("num_classes", num_classes, 1)
        super().__init__(Classes, C, {"num_classes": C}, pooling, seed, options)

    def predict_proba(self, inputs: Sequences) -> np.ndarray:
        """The probabilities (B, C) of each class, dimensionless."""
        return self._predicted(inputs, self.head.probabilities)[1]

    def predict(self, inputs: Sequences) -> np.ndarray:
        """The likeliest classes (B,)."""
        return self._predicted(inputs, self.head.labels)[1]

    def accuracy(self, inputs: Sequences, targets: np.ndarray) -> float:
        """The share of labels (B,) that are the likeliest class, 0..1."""
        x, labels = self._checked((inputs, targets))
        return float(np.mean(self.predict(x) == labels))


class SequenceRegressor(_ManyToOne):
    """Values for every sequence; a batch is (sequences, targets (B, num_outputs)), the loss mean squared error.

    Parameters
    ----------
    num_outputs : O; head.weight is (O, D*H)
    others : as in SequenceClassifier

    Raises ValueError: `targets: expected shape (32, 2), got (32,)`; TypeError: `targets: expected dtype float32, got
    float64`; others as SequenceClassifier. The loss is the mean over all elements, as torch.nn.functional.mse_loss.
    """

    head: Values

    def __init__(
        self, num_outputs: int, *, pooling: str = "last", seed: Any = None, **options: Unpack[Options]
    ) -> None:
        O = checks.integer("num_outputs", num_outputs, 1)
        super().__init__(Values, O, {"num_outputs": O}, pooling, seed, options)

    def predict(self, inputs: Sequences) -> np.ndarray:
        """The values (B, num_outputs), in the units of the targets."""
        return self._predicted(inputs, self.head)[1]
