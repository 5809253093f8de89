"""Models of an encoder and a head, batches for them, and the same models in torch."""

from typing import Any

import numpy as np
from cells import torch_layer
from oracles import import_torch

from fastrnn.models import SequenceClassifier, SequenceRegressor, SequenceTagger

LENGTHS = (5, 0, 3, 7, 1)
TOKENS, WIDTH, OUTPUTS = 9, 4, 3

# What the model is called, its class, and arguments of its own.
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "classifier last": (SequenceClassifier, {"num_classes": OUTPUTS}),
    "classifier mean": (SequenceClassifier, {"num_classes": OUTPUTS, "pooling": "mean"}),
    "classifier max": (SequenceClassifier, {"num_classes": OUTPUTS, "pooling": "max"}),
    "regressor last": (SequenceRegressor, {"num_outputs": OUTPUTS}),
    "regressor mean": (SequenceRegressor, {"num_outputs": OUTPUTS, "pooling": "mean"}),
    "tagger": (SequenceTagger, {"num_classes": OUTPUTS}),
    "value tagger": (SequenceTagger, {"num_outputs": OUTPUTS}),
}
# Where sequences come from: arguments of the encoder.
SOURCES = {
    "vectors": {"input_size": WIDTH},
    "tokens": {"num_tokens": TOKENS, "embedding_size": 3},
    "one-hot": {"num_tokens": TOKENS, "embedding_size": 0},
}


def build(kind: str, source: str = "vectors", dtype: str = "float64", **options: Any) -> Any:
    """A small model."""
    Model, own = KINDS[kind]
    return Model(**{"hidden_size": 6, "seed": 0, "dtype": dtype, **own, **SOURCES[source], **options})


def batch_of(model: Any, lengths: Any = LENGTHS, seed: int = 0) -> tuple[list[np.ndarray], Any]:
    """Sequences and targets."""
    rng, config = np.random.default_rng(seed), model.config

    def sequences(below, width):
        if below:
            return [rng.integers(below, size=n) for n in lengths]
        return [rng.standard_normal((n, width)).astype(config["dtype"]) for n in lengths]

    inputs = sequences(config["num_tokens"], config["input_size"])
    if isinstance(model, SequenceTagger):
        return inputs, sequences(config["num_classes"], config["num_outputs"])
    if isinstance(model, SequenceClassifier):
        return inputs, rng.integers(OUTPUTS, size=len(lengths))
    return inputs, rng.standard_normal((len(lengths), OUTPUTS)).astype(config["dtype"])


class TorchTwin:
    """The same model of torch's modules with copies of the weights; lengths >= 1."""

    def __init__(self, model: Any, dtype: str) -> None:
        torch, config, self.model = import_torch(), model.config, model
        self.floats = getattr(torch, dtype)
        V, E, H = config["num_tokens"], config["embedding_size"], config["hidden_size"]
        D = 2 if config["bidirectional"] else 1
        modules = {"embedding": torch.nn.Embedding(V, E)} if V and E else {}
        sizes = config["input_size"] or E or V, H, config["num_layers"]
        modules["rnn"] = torch_layer(torch, config["cell"], *sizes, bidirectional=D == 2)
        modules["head"] = torch.nn.Linear(D * H, OUTPUTS)
        self.modules = torch.nn.ModuleDict(modules).to(self.floats)
        self.modules.load_state_dict({name: torch.tensor(value) for name, value in model.parameters.items()})

    def output(self, inputs: list[np.ndarray]) -> Any:
        """Logits or values: (B, OUTPUTS), or all steps of all sequences one after another (N, OUTPUTS)."""
        torch, lengths = import_torch(), [len(sequence) for sequence in inputs]
        pad = torch.nn.utils.rnn
        x = pad.pad_sequence([torch.tensor(sequence) for sequence in inputs])
        if "embedding" in self.modules:
            x = self.modules["embedding"](x)
        elif not x.is_floating_point():
            x = torch.nn.functional.one_hot(x, TOKENS)
        y, state = self.modules["rnn"](pad.pack_padded_sequence(x.to(self.floats), lengths, enforce_sorted=False))
        y = pad.pad_packed_sequence(y)[0]
        valid = (torch.arange(len(y))[:, None] < torch.tensor(lengths))[..., None]
        pooling = self.model.config.get("pooling")
        if pooling is None:
            return self.modules["head"](y.swapaxes(0, 1)[valid[..., 0].T])
        if pooling == "last":
            h = state[0] if isinstance(state, tuple) else state
            D = 2 if self.model.config["bidirectional"] else 1
            features = torch.cat(list(h[-D:]), dim=1)
        elif pooling == "mean":
            features = (y * valid).sum(0) / torch.tensor(lengths)[:, None]
        else:
            features = y.masked_fill(~valid, -torch.inf).max(0).values
        return self.modules["head"](features)

    def loss(self, inputs: list[np.ndarray], targets: Any) -> Any:
        """A scalar."""
        torch = import_torch()
        targets = torch.tensor(np.concatenate(targets) if isinstance(targets, list) else targets)
        function = torch.nn.functional.mse_loss if targets.is_floating_point() else torch.nn.functional.cross_entropy
        return function(self.output(inputs), targets)
