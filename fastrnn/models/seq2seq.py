"""Many to many, the output after the input: one sequence of tokens from another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks, functional
from fastrnn.layers import Linear
from fastrnn.models import decoding
from fastrnn.models.encoder import Encoder, Sequences, packed
from fastrnn.models.heads import Classes
from fastrnn.models.model import Groups, Model
from fastrnn.ragged import Packed
from fastrnn.wiring import Lane, Link, Part, Wiring, linear, output

Batch = tuple[Sequences, Sequences]  # sources and targets, as many of each

_ROWS = 1024  # whose logits exist at once where only the likeliest tokens are asked for


class _Source(NamedTuple):
    """What the encoder makes of the sources, in the caller's order."""

    states: list[np.ndarray]  # the decoder's initial ones, each (L, B, H)
    memory: np.ndarray  # (N, H), what attention looks at
    offsets: np.ndarray  # (B+1,) its sequences
    backward: Callable[[list[np.ndarray], np.ndarray | None, Groups], None]


class _Target(NamedTuple):
    """What the decoder makes of its inputs, in the caller's order."""

    rows: np.ndarray  # (N, H), what the head reads
    states: list[np.ndarray]  # the last ones, each (L, B, H)
    backward: Callable[[np.ndarray, Groups], tuple[list[np.ndarray], np.ndarray | None]]


class Seq2Seq(Model):
    """The distribution of target sequences given source sequences: an encoder's last states start a decoder.

    Parameters
    ----------
    num_source, num_target : number of different tokens; U and V
    cell : "tanh", "relu", "gru" or "lstm", of both
    hidden_size, num_layers, embedding_size : H, L and E of both; E = 0 feeds one-hot rows
    bidirectional : the encoder reads in both directions; every last state of the decoder's layers then starts from a
        linear map of both, its tanh for h, and attention looks at a linear map of both outputs
    attention : the head reads h~ = tanh(W_c [context; h]) in place of the decoder's h; context: the encoder's outputs,
        weighed by the softmax of their products with h
    dropout : probability of zeroing each layer's output, and what the head reads, while training
    dtype : "float32" or "float64"
    seed : of the initial values, of dropout and of what teacher forcing replaces

    A batch is (sources, targets): as many sequences of tokens below U and below V, of any lengths, 0 too. The loss is
    the mean cross-entropy in nats over all target tokens and the ends of the targets. The model's own token V stands
    before a target where it is read, and after it where it is written.

    `teacher_forcing`, 1 at first, may be assigned between batches. Below 1 every token the decoder reads while training
    is, with probability 1 - teacher_forcing, the likeliest one by the model itself, found in a first pass that reads
    the targets alone (a predicted end is not read). `loss` always reads the targets. A schedule for `fit`:
    `on_step=lambda s: setattr(model, "teacher_forcing", 1 - s.step / s.steps)`.

    Parameters by name: encoder.embedding.weight (U, E), encoder.rnn.*, decoder.embedding.weight (V+1, E),
    decoder.rnn.*; with bidirectional bridge.h.weight (H, 2*H), bridge.h.bias, for "lstm" bridge.c.* too, shared by the
    layers, and with attention memory.weight (H, 2*H); with attention attention.weight (H, 2*H); head.weight (V+1, H),
    head.bias.

    Raises ValueError, of batches: `targets: expected 0 <= token < 65, got 65`, `targets: expected 32, one for each of
    the sources, got 31`, `sources: expected at least one sequence, got none`. Cost: that of both sides' layers and the
    head; attention adds 4*H*H flop a target token and 4*H a pair of tokens, three times that to train.

    Source: Sutskever, Vinyals, Le, NeurIPS 2014; attention: Luong, Pham, Manning, EMNLP 2015, eq. 5, 7 and 8, without
    input feeding; teacher forcing: Bengio et al., Scheduled sampling, NeurIPS 2015, in two passes as Duckworth et al.,
    arXiv 1906.04331.
    """

    batch_names = ("sources", "targets")

    def __init__(
        self,
        num_source: int,
        num_target: int,
        *,
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        attention: bool = False,
        embedding_size: int = 64,
        dropout: float = 0.0,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        attention = checks.flag("attention", attention)
        U = self.num_source = checks.integer("num_source", num_source, 1)
        V = self.num_target = checks.integer("num_target", num_target, 1)
        generator = checks.generator(seed)
        seeds = generator.spawn(11)
        options: dict[str, Any] = {"embedding_size": embedding_size, "cell": cell, "hidden_size": hidden_size}
        options |= {"num_layers": num_layers, "dropout": dropout, "dtype": dtype}
        self._encoder = Encoder(num_tokens=U, bidirectional=bidirectional, seeds=seeds[:2], **options)
        self._decoder = Encoder(num_tokens=V + 1, seeds=seeds[2:4], **options)
        rnn, H, two = self._encoder.rnn, self._encoder.rnn.hidden_size, self._encoder.rnn.bidirectional
        further = generator.spawn(max(len(rnn.state_names) - 2, 0))  # than h's and c's
        self._bridges = {
            f"bridge.{name}": Linear(2 * H, H, dtype=dtype, seed=own) if two else None
            for name, own in zip(rnn.state_names, [*seeds[4:6], *further], strict=False)
        }
        self._memory = Linear(2 * H, H, False, dtype=dtype, seed=seeds[6]) if two and attention else None
        self._attention = Linear(2 * H, H, False, dtype=dtype, seed=seeds[7]) if attention else None
        self.head, self._generator = Classes(H, V + 1, dropout, dtype, seeds[8:10]), seeds[10]
        self.teacher_forcing = 1.0
        parts = {
            "encoder.embedding": self._encoder.embedding,
            "encoder.rnn": rnn,
            "decoder.embedding": self._decoder.embedding,
            "decoder.rnn": self._decoder.rnn,
            **self._bridges,
            "memory": self._memory,
            "attention": self._attention,
            "head": self.head,
        }
        own = {"num_source": U, "num_target": V, "attention": attention}
        shared = ("cell", "hidden_size", "num_layers", "bidirectional", "embedding_size", "dropout", "dtype")
        super().__init__(parts, own | {name: value for name, value in self._encoder.config.items() if name in shared})

    @property
    def teacher_forcing(self) -> float:
        """Probability, 0..1, that the decoder reads a target's own token while training."""
        return self._teacher_forcing

    @teacher_forcing.setter
    def teacher_forcing(self, value: float) -> None:
        self._teacher_forcing = checks.number("teacher_forcing", value, 0.0, 1.0)

    def wiring(self) -> Wiring:
        """What the model is made of, for `fastrnn.plot`."""
        encoder = self._encoder.parts("each" if self._attention else "")
        decoder = self._decoder.parts("each", "y_{t-1}")
        links, bridges = [Link("decoder output", "decoder input", "back")], []
        layers, ends = ([part.name for part in parts if part.kind == "recurrent"] for parts in (decoder, encoder))
        for k, layer in enumerate(layers):
            source = f"encoder {layer}"
            if self._encoder.rnn.bidirectional:
                source = f"bridge {k}"
                bridges.append(Part(source, "linear", label="bridge", steps="all", fed=False))
                links += [Link(f"encoder {end}", source, "state") for end in ends[2 * k : 2 * k + 2]]
            links.append(Link(source, f"decoder {layer}", "state"))
        if self._attention:
            H, gathered = self.head.in_features, Part("memory", "join", encoder[-1].shape, (), "all outputs", "all")
            encoder.append(linear("memory", self._memory, H, "all") if self._memory else gathered)
            decoder.append(linear("attention", self._attention, H))
            links.append(Link("encoder memory", "decoder attention", "every"))
        decoder += [linear("head", self.head, self.head.out_features), output()]
        between = [Lane("", bridges)] if bridges else []
        lanes = (Lane("encoder", encoder), *between, Lane("decoder", decoder))
        return Wiring("Seq2Seq: many to many, the output after the input", lanes, tuple(links))

    def _targets(self, targets, B):
        """Checked target sequences, as many as sources."""
        targets = packed("targets", targets, self._decoder.rnn.dtype, None, self.num_target)
        if len(targets.lengths) != B:
            raise ValueError(f"targets: expected {B}, one for each of the sources, got {len(targets.lengths)}")
        return targets

    def _bridged(self, name, state):
        """A decoder's initial state (L, B, H) from the encoder's last (2*L, B, H), and its pullback."""
        LD, B, H = state.shape
        pairs = state.reshape(LD // 2, 2, B, H).swapaxes(1, 2).reshape(LD // 2 * B, 2 * H)
        p = self.parameters
        rows, unlinear = functional.linear(pairs, p[f"{name}.weight"], p[f"{name}.bias"])
        if name == "bridge.h":
            rows = np.tanh(rows)

        def backward(d_state, groups):
            d_rows = d_state.reshape(rows.shape)
            if name == "bridge.h":
                d_rows = d_rows * (1 - rows * rows)
            d_pairs = unlinear(d_rows, groups[name]["weight"], groups[name]["bias"])
            return d_pairs.reshape(LD // 2, B, 2, H).swapaxes(1, 2).reshape(state.shape)

        return rows.reshape(LD // 2, B, H), backward

    def _read(self, sources, training=False):
        """The _Source of checked sequences."""
        encoded = self._encoder.run(sources, training=training, keep=training, prefix="encoder.")
        batch, unbridges, unmap = encoded.batch, [], None
        states = [batch.put_state(s) for s in encoded.final]
        if self._encoder.rnn.bidirectional:
            pairs = [self._bridged(name, s) for name, s in zip(self._bridges, states, strict=True)]
            states, unbridges = [s for s, _ in pairs], [backward for _, backward in pairs]
        memory = encoded.y
        if self._memory:
            memory, unmap = functional.linear(memory, self._memory.parameters["weight"], None)
        memory = functional.gather(memory, batch.origins) if self._attention else memory[:0]

        def backward(d_states, d_memory, groups):
            dy = None if d_memory is None else functional.gather(d_memory, batch.places)
            if unmap:
                dy = unmap(dy, groups["memory"]["weight"], None)
            if unbridges:
                pairs = zip(unbridges, d_states, strict=True)
                d_states = [unbridge(d_state, groups) for unbridge, d_state in pairs]
            encoded.backward(dy, [batch.take_state(s) for s in d_states], groups)

        return _Source(states, memory, sources.offsets, backward)

    def _write(self, inputs, states, memory, query_offsets, key_offsets, training=False):
        """The _Target of inputs (a Packed) from initial states."""
        decoded = self._decoder.run(inputs, states, training=training, keep=training, prefix="decoder.")
        batch, unattend = decoded.batch, None
        rows = functional.gather(decoded.y, batch.origins)
        if self._attention:
            rows, unattend = self._attended(rows, memory, query_offsets, key_offsets)

        def backward(d_rows, groups):
            d_memory = None
            if unattend:
                d_rows, d_memory = unattend(d_rows, groups)
            return decoded.backward(functional.gather(d_rows, batch.places), None, groups), d_memory

        return _Target(rows, [batch.put_state(s) for s in decoded.final], backward)

    def _attended(self, h, memory, query_offsets, key_offsets):
        """h~ (N, H) of h, and its pullback to h and the memory."""
        context, unattend = functional.attention(h, memory, query_offsets, key_offsets)
        both, H = np.concatenate([context, h], axis=1), h.shape[1]
        rows, unlinear = functional.linear(both, self.parameters["attention.weight"], None)
        np.tanh(rows, out=rows)

        def backward(d_rows, groups):
            d_both = unlinear(d_rows * (1 - rows * rows), groups["attention"]["weight"], None)
            dh, d_memory = unattend(np.ascontiguousarray(d_both[:, :H]))
            return dh + d_both[:, H:], d_memory

        return rows, backward

    def _own_predictions(self, inputs, source):
        """The inputs, some replaced by what the model itself would have written."""
        V, p = self.num_target, self.head.parameters
        rows = self._write(inputs, source.states, source.memory, inputs.offsets, source.offsets).rows
        likeliest = np.full(len(rows) + 1, V)  # [n + 1]: after row n
        for start in range(0, len(rows), _ROWS):
            logits, _ = functional.linear(rows[start : start + _ROWS], p["weight"], p["bias"])
            likeliest[start + 1 : start + 1 + len(logits)] = logits.argmax(axis=1)
        own = likeliest[:-1]
        replaced = self._generator.random(len(rows)) >= self.teacher_forcing
        return Packed(np.where(replaced & (inputs.data < V) & (own < V), own, inputs.data), inputs.offsets)

    def _checked(self, batch: Batch) -> tuple[Packed, Packed]:
        sources, targets = self._both(batch)
        sources = self._encoder.packed("sources", sources)
        return sources, self._targets(targets, len(sources.lengths))

    def _objective(self, batch: Batch, groups: Groups | None, scale: float) -> float:
        sources, targets = self._checked(batch)
        inputs, outputs = decoding.framed(targets, self.num_target)
        source = self._read(sources, groups is not None)
        if groups is not None and self.teacher_forcing < 1:
            inputs = self._own_predictions(inputs, source)
        target = self._write(
            inputs, source.states, source.memory, inputs.offsets, source.offsets, training=groups is not None
        )
        loss, d_rows = self.head.objective(target.rows, outputs.data, groups, scale)
        if groups is not None:
            source.backward(*target.backward(d_rows, groups), groups)
        return loss

    def translate(
        self, sources: Sequences, max_length: int, beam_width: int = 1, alpha: float = 0.0
    ) -> list[np.ndarray]:
        """The best target of at most max_length tokens that a beam search finds for every source; see `search`."""
        return [found[0].tokens for found in self.search(sources, max_length, beam_width, alpha)]

    def search(
        self, sources: Sequences, max_length: int, beam_width: int = 1, alpha: float = 0.0
    ) -> list[list[decoding.Hypothesis]]:
        """Up to beam_width targets for every source, the best first, with their log-probabilities in nats.

        beam_width : 1 always takes the likeliest token
        alpha : of the length penalty; see `decoding.beam_search`

        Raises ValueError: `sources: expected 0 <= token < 65, got 70`, `beam_width: expected an integer >= 1, got 0`.
        """
        source = self._read(self._encoder.packed("sources", sources))
        B = len(source.offsets) - 1

        def step(tokens, state):
            *states, owners = state  # owners (1, B): the source of each row, in order
            offsets = np.searchsorted(owners[0], np.arange(B + 1))
            inputs = Packed(tokens, np.arange(len(tokens) + 1))
            target = self._write(inputs, states, source.memory, offsets, source.offsets)
            return self.head(target.rows), (*target.states, owners)

        begin = np.full(B, self.num_target)
        state = (*source.states, np.arange(B)[None])
        return decoding.beam_search(step, state, begin, self.num_target, max_length, beam_width, alpha)

    def align(self, sources: Sequences, targets: Sequences) -> list[np.ndarray]:
        """What attention looks at: for every pair the weights (T_target + 1, T_source), dimensionless, rows of sum 1.

        Row t is looked at where token t of the target is written, the last row where its end is. Raises ValueError:
        `align: expected a model with attention, got one without`.
        """
        if not self._attention:
            raise ValueError("align: expected a model with attention, got one without")
        sources, targets = self._checked((sources, targets))
        inputs, _ = decoding.framed(targets, self.num_target)
        source = self._read(sources)
        decoded = self._decoder.run(inputs, source.states)
        queries = functional.gather(decoded.y, decoded.batch.origins)
        return functional.attention_weights(queries, source.memory, inputs.offsets, source.offsets)
