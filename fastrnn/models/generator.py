"""One to many: a sequence of tokens from one vector."""

from typing import Any

import numpy as np

from fastrnn import checks, flow, functional
from fastrnn.layers import Embedding, Linear
from fastrnn.layers.batch import packed as batch_of
from fastrnn.models import decoding
from fastrnn.models.encoder import Sequences, layers, packed
from fastrnn.models.heads import Classes
from fastrnn.models.model import Groups, Model
from fastrnn.ragged import Packed
from fastrnn.wiring import Lane, Link, Part, Wiring, linear, output, recurrent, shape, tokens

CONDITIONS = ("state", "input", "both")
METHODS = ("greedy", "sample", "beam")

Batch = tuple[np.ndarray, Sequences]  # conditions (B, C), and B sequences of tokens


class SequenceGenerator(Model):
    """The distribution of sequences of tokens given a vector: embedding, recurrent layers, a projection to the tokens.

    It writes tokens alone, no real values.

    Parameters
    ----------
    num_tokens : V
    condition_size : C
    condition : where the vector c enters: "state": the initial states of all layers, W c + b, its tanh for h; "input":
        every step, beside the token's embedding; "both"
    cell : "tanh", "relu", "gru" or "lstm"
    hidden_size, num_layers, embedding_size : H, L and E
    dropout : probability of zeroing each layer's output while training
    dtype : "float32" or "float64"
    seed : of the initial values and of dropout

    A batch is (conditions (B, C), B sequences of tokens below V, of any lengths, 0 too). The loss is the mean
    cross-entropy in nats over all tokens and the ends of the sequences. The model's own token V stands before a
    sequence where it is read, and after it where it is written.

    Parameters by name: embedding.weight (V+1, E); rnn.*, over E columns, and C more with "input"; with "state"
    bridge.weight (S*L*H, C) and bridge.bias, for each of S states (h; for "lstm" h, c) one layer after another;
    head.weight (V+1, H), head.bias.

    Raises ValueError: `condition: expected one of state, input, both, got 'output'`; of batches `conditions: expected
    shape (B, condition_size) = (32, 10), got (31, 10)`, `sequences: expected 0 <= token < 26, got 26`, `sequences:
    expected at least one sequence, got none`. Cost: that of the layers and the head; with "state" the first layer's
    input product is taken for V+1 rows at most. Source: Karpathy, Fei-Fei, CVPR 2015 (a vector starts the sequence),
    Vinyals et al., CVPR 2015 (training by the likelihood of what follows).
    """

    batch_names = ("conditions", "sequences")

    def __init__(
        self,
        num_tokens: int,
        condition_size: int,
        *,
        condition: str = "state",
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        embedding_size: int = 64,
        dropout: float = 0.0,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        V = self.num_tokens = checks.integer("num_tokens", num_tokens, 1)
        C = self.condition_size = checks.integer("condition_size", condition_size, 1)
        E = checks.integer("embedding_size", embedding_size, 1)
        checks.choice("condition", condition, CONDITIONS)
        dropout = checks.number("dropout", dropout, 0.0, 1.0)
        seeds = checks.generator(seed).spawn(5)
        self._fed = condition != "state"
        self.embedding = Embedding(V + 1, E, dtype=dtype, seed=seeds[0])
        columns = E + C * self._fed
        rnn = layers(cell, columns, hidden_size, num_layers, dropout, dtype=dtype, seed=seeds[1])
        self.rnn = rnn
        size = len(rnn.state_names) * rnn.num_layers * rnn.hidden_size
        self.bridge = Linear(C, size, dtype=dtype, seed=seeds[2]) if condition != "input" else None
        self.head = Classes(rnn.hidden_size, V + 1, dropout, dtype, seeds[3:])
        parts = {"embedding": self.embedding, "rnn": rnn, "bridge": self.bridge, "head": self.head}
        config = {
            "num_tokens": V,
            "condition_size": C,
            "condition": condition,
            "cell": cell,
            "hidden_size": rnn.hidden_size,
            "num_layers": rnn.num_layers,
            "embedding_size": E,
            "dropout": dropout,
            "dtype": rnn.dtype.name,
        }
        super().__init__(parts, config)

    def wiring(self) -> Wiring:
        """What the model is made of, for `fastrnn.plot`."""
        given, layers = [Part("condition", "input", shape("B", self.condition_size), steps="all")], recurrent(self.rnn)
        parts, links = tokens(self.embedding, "y_{t-1}"), [Link("output", "input", "back")]
        if self._fed:
            parts.append(Part("concat", "join", shape("B", self.rnn.input_size)))
            links.append(Link("condition", "concat", "every"))
        if self.bridge:
            given.append(linear("bridge", self.bridge, self.bridge.out_features, "all"))
            links += [Link("bridge", layer.name, "state") for layer in layers]
        parts += [*layers, linear("head", self.head, self.head.out_features), output()]
        return Wiring("SequenceGenerator: one to many", (Lane("", given), Lane("", parts)), tuple(links))

    def _conditions(self, conditions, B=None):
        size = self.condition_size
        return checks.array("conditions", conditions, self.rnn.dtype, B, size, letters="(B, condition_size)")

    def _initial(self, conditions):
        """The states (S, L, B, H), and the pullback that fills the bridge's gradients."""
        rnn = self.rnn
        B, shape = len(conditions), (len(rnn.state_names), rnn.num_layers, rnn.hidden_size)
        if self.bridge is None:
            return np.zeros((*shape[:2], B, shape[2]), rnn.dtype), lambda d_states, groups: None
        p = self.bridge.parameters
        flat, unbridge = functional.linear(conditions, p["weight"], p["bias"])
        states = np.ascontiguousarray(flat.reshape(B, *shape).transpose(1, 2, 0, 3))
        h = states[0] = np.tanh(states[0])

        def backward(d_states, groups):
            d_flat = np.stack(d_states).transpose(2, 0, 1, 3).copy()
            d_flat[:, 0] *= (1 - h * h).transpose(1, 0, 2)
            unbridge(d_flat.reshape(flat.shape), groups["bridge"]["weight"], groups["bridge"]["bias"])

        return states, backward

    def _run(self, inputs, conditions, states, training=False):
        """The batch, its rows (N, H), the final states, and backward(dy, groups) -> d_states."""
        batch, weight = batch_of(inputs), self.embedding.parameters["weight"]
        rows, table, unembed = inputs.data[batch.places], weight, None
        if self._fed or len(rows) < len(weight):  # a product with rows; else with the table, whose results are gathered
            rows, unembed = functional.embedding(rows, weight)
            table = None
        if self._fed:
            rows = np.concatenate([rows, conditions[batch.forward.rows(batch.order, 0)]], axis=1)
        states = [batch.take_state(s) for s in states]
        y, final, pullback, _ = self.rnn.run(rows, states, [batch.forward], training, training, table)

        def backward(dy, groups):
            d_weight = groups["embedding"]["weight"]
            zeros = [np.zeros_like(s) for s in states]
            dx, d_states = pullback(dy, zeros, groups["rnn"], flow.asked(), None if unembed else d_weight)
            if unembed:
                unembed(np.ascontiguousarray(dx[:, : weight.shape[1]]), d_weight)
            return [batch.put_state(s) for s in d_states]

        return batch, y, [batch.put_state(s) for s in final], backward

    def _checked(self, batch: Batch) -> tuple[np.ndarray, Packed]:
        conditions, sequences = self._both(batch)
        sequences = packed("sequences", sequences, self.rnn.dtype, None, self.num_tokens)
        return self._conditions(conditions, len(sequences.lengths)), sequences

    def _objective(self, batch: Batch, groups: Groups | None, scale: float) -> float:
        conditions, sequences = self._checked(batch)
        inputs, outputs = decoding.framed(sequences, self.num_tokens)
        states, unbridge = self._initial(conditions)
        rows, y, _, backward = self._run(inputs, conditions, states, training=groups is not None)
        loss, dy = self.head.objective(y, outputs.data[rows.places], groups, scale)
        if groups is not None:
            unbridge(backward(dy, groups), groups)
        return loss

    def _step(self, tokens, state):
        """Logits (B, V+1) after the next tokens, for `decoding`."""
        *states, conditions = state
        _, y, final, _ = self._run(Packed(tokens, np.arange(len(tokens) + 1)), conditions[0], states)
        return self.head(y), (*final, conditions)

    def generate(
        self,
        conditions: np.ndarray,
        max_length: int,
        method: str = "greedy",
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        beam_width: int = 4,
        alpha: float = 0.0,
        seed: Any = None,
    ) -> list[np.ndarray]:
        """A sequence of at most max_length tokens for every condition.

        Parameters
        ----------
        conditions : (B, C)
        method : "greedy": the likeliest token each time; "sample": draws; "beam": the best that a beam search finds
        temperature, top_k, seed : of draws, see `decoding.sample`
        beam_width, alpha : of beam search, see `decoding.beam_search`

        Raises ValueError: `conditions: expected shape (B, condition_size) = (any, 10), got (3, 9)`.
        """
        checks.choice("method", method, METHODS)
        conditions, end = self._conditions(conditions), self.num_tokens
        state = (*self._initial(conditions)[0], conditions[None])
        given = self._step, state, np.full(len(conditions), end), end, max_length
        if method == "greedy":
            return decoding.greedy(*given)
        if method == "sample":
            return decoding.sample(*given, temperature, top_k, seed)
        return [found[0].tokens for found in decoding.beam_search(*given, beam_width, alpha)]
