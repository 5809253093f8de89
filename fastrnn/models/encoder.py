"""Sequences of tokens or of vectors, in one packed batch, through an embedding and recurrent layers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from fastrnn import checks, flow, functional
from fastrnn.kinds import named
from fastrnn.layers import Embedding
from fastrnn.layers.batch import Ragged
from fastrnn.layers.batch import packed as batch_of
from fastrnn.layers.sequence import Recurrent
from fastrnn.models.model import Groups
from fastrnn.ragged import Packed
from fastrnn.wiring import Part, recurrent, tokens, vectors


def layers(cell: str, input_size: int, hidden_size: int, num_layers: int, dropout: float, **options: Any) -> Recurrent:
    """A model's layers; a single one is made without dropout, which acts between layers, and before the model's head.

    Raises ValueError: `cell: expected one of tanh, relu, gru, lstm, got 'LSTM'`.
    """
    kind, between = named(cell), dropout if checks.integer("num_layers", num_layers, 1) > 1 else 0.0
    return kind.layer_class(input_size, hidden_size, num_layers, dropout=between, **kind.options, **options)


Sequences = Packed | np.ndarray | Sequence[np.ndarray]  # an array's first axis counts the sequences


def joined(name: str, sequences: Sequences, *tail: int) -> Packed:
    """Sequences (T, *tail) of any lengths as one Packed; of the shapes of a Packed nothing is checked.

    Raises ValueError: `x[2]: expected shape (T, 28), got (5, 27)`.
    """
    if isinstance(sequences, Packed):
        return sequences
    if isinstance(sequences, np.ndarray) and sequences.ndim == 2 + len(tail) and sequences.shape[2:] == tail:
        B, T = sequences.shape[:2]
        return Packed(sequences.reshape(B * T, *tail), np.arange(B + 1) * T)
    checks.counted(name, sequences)
    letters = ", ".join(["T", *map(str, tail)]) + "," * (not tail)
    parts = [checks.rank(f"{name}[{i}]", part, f"({letters})", 0) for i, part in enumerate(sequences)]
    for i, part in enumerate(parts):
        if part.ndim != 1 + len(tail) or part.shape[1:] != tail:
            raise ValueError(f"{name}[{i}]: expected shape ({letters}), got {part.shape}")
    data = np.concatenate([part for part in parts if len(part)] or parts[:1] or [np.empty((0, *tail))])
    return Packed(data, np.append(0, np.cumsum([len(part) for part in parts], dtype=np.int64)))


def packed(name: str, sequences: Sequences, dtype: np.dtype, width: int | None, below: int | None) -> Packed:
    """Sequences as one Packed, checked: vectors (N, width), or with `below` tokens (N,).

    Raises ValueError: `x: expected at least one sequence, got none`, `x: expected 0 <= token < 65, got 70`,
    `x[2]: expected shape (T, 28), got (5, 27)`; TypeError: `x: expected dtype float32, got float64`.
    """
    found = joined(name, sequences, *(() if width is None else (width,)))
    if len(found.offsets) < 2:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    N = int(found.offsets[-1])
    if below is None:
        data = checks.array(name, found.data, dtype, N, width, letters="(N, input_size)")
    else:
        data = checks.tokens(name, found.data, below, N, letters="(N,)")
    return found if data is found.data else Packed(data, found.offsets)


class Encoded(NamedTuple):
    """What an encoder makes of a batch; rows lie step after step and the sequences the longest first, as in `batch`."""

    batch: Ragged
    y: np.ndarray  # (N, D*H)
    final: tuple[np.ndarray, ...]  # every state (L*D, B, H)
    backward: Callable[[np.ndarray | None, Sequence[np.ndarray] | None, Groups], list[np.ndarray]]


class Options(TypedDict, total=False):
    """The arguments of an encoder that models pass on, and their defaults.

    input_size, num_tokens : size of the vectors, or number of different tokens: one of the two
    cell : "tanh", "relu", "gru" or "lstm" (default)
    hidden_size, num_layers : H (128) and L (1)
    bidirectional : read every sequence in both directions (False)
    embedding_size : of tokens (64); 0 feeds one-hot rows, at no product
    dropout : probability of zeroing each layer's output while training (0)
    dtype : "float32" (default) or "float64"
    """

    input_size: int | None
    num_tokens: int | None
    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    embedding_size: int
    dropout: float
    dtype: Any


class Encoder:
    """The parts `embedding` (with num_tokens and embedding_size > 0) and `rnn` of a model.

    Parameters
    ----------
    others : see Options
    seeds : of the embedding and of the layers
    """

    def __init__(
        self,
        *,
        input_size: int | None = None,
        num_tokens: int | None = None,
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        embedding_size: int = 64,
        dropout: float = 0.0,
        dtype: Any = "float32",
        seeds: Sequence[Any],
    ) -> None:
        dropout = checks.number("dropout", dropout, 0.0, 1.0)
        checks.either("input_size", input_size=input_size, num_tokens=num_tokens)
        E = checks.integer("embedding_size", embedding_size, 0)
        self.num_tokens = None if num_tokens is None else checks.integer("num_tokens", num_tokens, 1)
        self.input_size = None if input_size is None else checks.integer("input_size", input_size, 1)
        width = next(filter(None, (self.input_size, E, self.num_tokens)))
        self.rnn = layers(
            cell, width, hidden_size, num_layers, dropout, bidirectional=bidirectional, dtype=dtype, seed=seeds[1]
        )
        self.embedding = Embedding(self.num_tokens, E, dtype=dtype, seed=seeds[0]) if self.num_tokens and E else None
        self.config: Options = {
            "input_size": self.input_size,
            "num_tokens": self.num_tokens,
            "cell": cell,
            "hidden_size": self.rnn.hidden_size,
            "num_layers": self.rnn.num_layers,
            "bidirectional": self.rnn.bidirectional,
            "embedding_size": E,
            "dropout": dropout,
            "dtype": self.rnn.dtype.name,
        }

    def __setattr__(self, name: str, value: object) -> None:
        """Parts stay: a model's optimiser trains the buffer that they were given."""
        if name in ("rnn", "embedding") and name in self.__dict__:
            checks.unchanged(name, value, self.__dict__[name])
        super().__setattr__(name, value)

    @property
    def width(self) -> int:
        """Columns D*H of what comes out."""
        return self.rnn.hidden_size * (2 if self.rnn.bidirectional else 1)

    def parts(self, read: str, label: str = "x_t") -> list[Part]:
        """What it is made of; see fastrnn.wiring: read of `recurrent`, label of `tokens`."""
        given = tokens(self.embedding, label) if self.num_tokens else [vectors(self.rnn.input_size)]
        return [*given, *recurrent(self.rnn, read)]

    def packed(self, name: str, sequences: Sequences) -> Packed:
        """A batch, checked; see `packed`."""
        return packed(name, sequences, self.rnn.dtype, self.input_size, self.num_tokens)

    def run(
        self, x: Packed, initial: Sequence[np.ndarray] | None = None, *, training: bool = False, keep: bool = False,
        prefix: str = "",
    ) -> Encoded:  # fmt: skip
        """All sequences of a checked batch.

        initial : every state (L*D, B, H), the sequences in the caller's order; zeros if None
        training, keep : dropout is active; backward will be called
        prefix : of the parts' names in a model

        backward(dy or None, d_final or None, groups) fills the groups of the parts and returns d_initial, every state
        (L*D, B, H), the sequences in the caller's order.
        """
        rnn, batch = self.rnn, batch_of(x)
        D, B = 2 if rnn.bidirectional else 1, len(batch.order)
        table, unembed = None, None
        if self.num_tokens is None:
            rows = functional.gather(x.data, batch.places)
        else:
            rows = x.data.take(batch.places)
            if self.embedding and D == 1 and len(rows) >= self.num_tokens:  # a product with the table is the smaller
                table = self.embedding.parameters["weight"]
            elif self.embedding:
                rows, unembed = functional.embedding(rows, self.embedding.parameters["weight"])
        if initial is None:
            states = [np.zeros((rnn.num_layers * D, B, rnn.hidden_size), rnn.dtype) for _ in rnn.state_names]
        else:
            states = [batch.take_state(s) for s in initial]
        steps = [batch.steps(reverse) for reverse in (False, True)[:D]]
        y, final, pullback, _ = rnn.run(rows, states, steps, training, keep, table)

        def backward(dy, d_final, groups):
            d_table = groups[prefix + "embedding"]["weight"] if table is not None else None
            d_final = [np.zeros_like(s) for s in states] if d_final is None else d_final
            dx, d_initial = pullback(dy, d_final, groups[prefix + "rnn"], flow.asked(), d_table)
            if unembed is not None:
                unembed(dx, groups[prefix + "embedding"]["weight"])
            return [batch.put_state(s) for s in d_initial]

        return Encoded(batch, y, final, backward)
