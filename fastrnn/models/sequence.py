"""An encoder and a head: what models share that give something for every sequence, or for every step of it."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.layers.batch import Ragged
from fastrnn.models.batches import batches
from fastrnn.models.encoder import Encoded, Encoder, Options, Sequences
from fastrnn.models.heads import Head
from fastrnn.models.model import Groups, Model
from fastrnn.models.pooling import Pooled
from fastrnn.ragged import Packed
from fastrnn.wiring import Lane, Part, Wiring, linear, output

_AT_ONCE = 256  # sequences in a batch of predictions


class SequenceModel(Model):
    """The parts `embedding` (of tokens), `rnn` and `head`.

    Parameters
    ----------
    head : its class
    out_features : of the head
    own : arguments of the model for its config
    seed : of the initial values and of dropout
    options : of the encoder
    """

    _read = "each"  # step, for the head; or the "last", or the "mean" or "max" of all

    def __init__(
        self, head: type[Head], out_features: int, own: Mapping[str, Any], seed: Any, options: Options
    ) -> None:
        seeds = checks.generator(seed).spawn(4)
        self.encoder = Encoder(**options, seeds=seeds[:2])
        rnn = self.encoder.rnn
        self.head = head(self.encoder.width, out_features, self.encoder.config["dropout"], rnn.dtype, seeds[2:])
        parts = {"embedding": self.encoder.embedding, "rnn": rnn, "head": self.head}
        super().__init__(parts, {**own, **self.encoder.config})

    def wiring(self) -> Wiring:
        """What the model is made of, for `fastrnn.plot`."""
        steps = self._read if self._read in ("each", "last") else "all"
        parts = self.encoder.parts("last" if steps == "last" else "each")
        if steps == "all":
            parts.append(Part("pool", "join", parts[-1].shape, label=f"{self._read} over t", steps=steps))
        parts += [linear("head", self.head, self.head.out_features, steps), output(steps)]
        kind = "many to many, step by step" if steps == "each" else "many to one"
        return Wiring(f"{type(self).__name__}: {kind}", (Lane("", parts),))

    @abstractmethod
    def _features(self, encoded: Encoded) -> Pooled:
        """The rows that the head takes, and their pullback to y and the final states."""

    @abstractmethod
    def _arranged(self, batch: Ragged, targets: Any) -> np.ndarray:
        """Checked targets in the order of the features."""

    @abstractmethod
    def _restored(self, batch: Ragged, rows: np.ndarray) -> np.ndarray:
        """Rows in the order of the features in the caller's."""

    def _objective(self, batch: Any, groups: Groups | None, scale: float) -> float:
        x, targets = self._checked(batch)
        training = groups is not None
        encoded = self.encoder.run(x, training=training, keep=training)
        features, pullback = self._features(encoded)
        loss, d_features = self.head.objective(features, self._arranged(encoded.batch, targets), groups, scale)
        if groups is not None:
            encoded.backward(*pullback(d_features), groups)
        return loss

    def _rows(self, x: Packed) -> Iterator[np.ndarray]:
        """The features of checked sequences, batch by batch, in the caller's order; dropout is off."""
        for (part,) in batches((x,), _AT_ONCE):
            encoded = self.encoder.run(part)
            yield self._restored(encoded.batch, self._features(encoded)[0])

    def _predicted(self, inputs: Sequences, predict: Any) -> tuple[Packed, np.ndarray]:
        """The checked inputs, and predict(features) of all."""
        x = self.encoder.packed("inputs", inputs)
        return x, np.concatenate([predict(rows) for rows in self._rows(x)])
