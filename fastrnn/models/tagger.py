"""Many to many, step by step: a class, or values, for every step of a sequence."""

from typing import Any, Unpack

import numpy as np

from fastrnn import checks, functional
from fastrnn.models.encoder import Options, Sequences, joined
from fastrnn.models.heads import Classes, Values
from fastrnn.models.sequence import SequenceModel
from fastrnn.ragged import Packed


class SequenceTagger(SequenceModel):
    """One of several classes, or values, for every step; a batch is (sequences, targets of the same lengths).

    Parameters
    ----------
    num_classes, num_outputs : C classes, or O values: one of the two
    seed : of the initial values and of dropout
    options : input_size or num_tokens, and others, with their defaults: see fastrnn.models.Options

    Sequences as in SequenceClassifier; targets are, in the same forms, labels (T,) or values (T, num_outputs). The loss
    is the mean over all steps of the cross-entropy, in nats, or over all elements of the squared error. Predictions
    have the same bits in any batch.

    Parameters by name: as in SequenceClassifier, head.weight is (C, D*H) or (O, D*H).

    Raises ValueError: `num_classes: expected either num_classes or num_outputs, got num_classes=None and
    num_outputs=None`; of batches `targets[2]: expected length 5 as of inputs[2], got 4`, `targets: expected 32
    sequences, got 31`, `targets: expected 0 <= label < 10, got 12`; others as SequenceClassifier.
    Cost: that of the layers, and 6*N*D*H*C flop for a training step on N steps.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        num_outputs: int | None = None,
        *,
        seed: Any = None,
        **options: Unpack[Options],
    ) -> None:
        checks.either("num_classes", num_classes=num_classes, num_outputs=num_outputs)
        own = {"num_classes": num_classes, "num_outputs": num_outputs}
        own = {name: None if size is None else checks.integer(name, size, 1) for name, size in own.items()}
        head = Values if num_classes is None else Classes
        super().__init__(head, next(filter(None, own.values())), own, seed, options)

    def _checked(self, batch):
        inputs, targets = self._both(batch)
        x = self.encoder.packed("inputs", inputs)
        tail = () if isinstance(self.head, Classes) else (self.head.out_features,)
        y = joined("targets", targets, *tail)
        if len(y.offsets) != len(x.offsets):
            raise ValueError(f"targets: expected {len(x.offsets) - 1} sequences, got {len(y.offsets) - 1}")
        for i in np.flatnonzero(x.lengths != y.lengths)[:1]:
            raise ValueError(f"targets[{i}]: expected length {x.lengths[i]} as of inputs[{i}], got {y.lengths[i]}")
        data = self.head.checked("targets", y.data, len(x.data))
        return x, y if data is y.data else Packed(data, y.offsets)

    def _features(self, encoded):
        return encoded.y, lambda dy: (dy, None)

    def _arranged(self, batch, targets):
        return targets.data[batch.places]

    def _restored(self, batch, rows):
        return functional.gather(rows, batch.origins)

    def _classes(self, name):
        if not isinstance(self.head, Classes):
            raise ValueError(f"{name}: expected a tagger with num_classes, got num_outputs={self.head.out_features}")
        return self.head

    def predict_proba(self, inputs: Sequences) -> list[np.ndarray]:
        """The probabilities (T, C) of each class at every step of each sequence, dimensionless.

        Raises ValueError: `predict_proba: expected a tagger with num_classes, got num_outputs=2`.
        """
        x, rows = self._predicted(inputs, self._classes("predict_proba").probabilities)
        return np.split(rows, x.offsets[1:-1])

    def predict(self, inputs: Sequences) -> list[np.ndarray]:
        """The likeliest classes (T,), or the values (T, num_outputs), of each sequence."""
        head = self.head
        x, rows = self._predicted(inputs, head.labels if isinstance(head, Classes) else head)
        return np.split(rows, x.offsets[1:-1])

    def accuracy(self, inputs: Sequences, targets: Sequences) -> float:
        """The share of all steps whose label is the likeliest class, 0..1.

        Raises ValueError: `accuracy: expected a tagger with num_classes, got num_outputs=2`.
        """
        head = self._classes("accuracy")
        x, labels = self._checked((inputs, targets))
        return float(np.sum(self._predicted(x, head.labels)[1] == labels.data)) / max(len(x.data), 1)
