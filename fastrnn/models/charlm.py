"""The character-level language model: characters in, the next character's distribution out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import checks, flow, functional, optim, ragged
from fastrnn.layers import Dropout, Embedding, Linear
from fastrnn.models.decoding import draw
from fastrnn.models.encoder import layers
from fastrnn.models.model import Network, check_optimizer, clipped
from fastrnn.parameters import Parameters
from fastrnn.wiring import Lane, Wiring, linear, output, recurrent, tokens

State = Any  # h (L, B, H); with cell "lstm" (h, c)


class CharLM(Network):
    """Embedding (or one-hot), stacked recurrent layers, and a projection to the vocabulary.

    Parameters
    ----------
    vocabulary : the characters, each once; a token is a character's place in it
    cell : "tanh", "relu", "gru" or "lstm"
    hidden_size, num_layers : H and L
    embedding_size : E; 0 feeds one-hot characters, as Karpathy's char-rnn does
    dropout : probability of zeroing each layer's output while training
    dtype : "float32" or "float64"
    seed : of the initial values and of dropout

    Parameters by name: embedding.weight (V, E) with E > 0, rnn.weight_ih_l0 ..., decoder.weight (V, H), decoder.bias.
    The input product is never taken: the first layer gathers rows of the V projected characters.
    """

    def __init__(
        self,
        vocabulary: str,
        cell: str = "tanh",
        hidden_size: int = 512,
        num_layers: int = 1,
        embedding_size: int = 0,
        dropout: float = 0.0,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        checks.vocabulary(vocabulary)
        dropout = checks.number("dropout", dropout, 0.0, 1.0)
        E = checks.integer("embedding_size", embedding_size, 0)
        seeds = checks.generator(seed).spawn(4)
        self.vocabulary = vocabulary
        self._tokens = {c: i for i, c in enumerate(vocabulary)}
        V = len(vocabulary)
        self.rnn = layers(cell, E or V, hidden_size, num_layers, dropout, dtype=dtype, seed=seeds[0])
        self.decoder = Linear(hidden_size, V, dtype=dtype, seed=seeds[1])
        self.embedding = Embedding(V, E, dtype=dtype, seed=seeds[2]) if E else None
        self._dropout = Dropout(dropout, seed=seeds[3])
        parts = {"embedding": self.embedding, "rnn": self.rnn, "decoder": self.decoder}
        config = {
            "vocabulary": vocabulary,
            "cell": cell,
            "hidden_size": self.rnn.hidden_size,
            "num_layers": self.rnn.num_layers,
            "embedding_size": E,
            "dropout": dropout,
            "dtype": self.rnn.dtype.name,
        }
        super().__init__(parts, config)

    def wiring(self) -> Wiring:
        """What the model is made of, for `fastrnn.plot`."""
        decoder = linear("decoder", self.decoder, self.decoder.out_features)
        parts = [*tokens(self.embedding), *recurrent(self.rnn), decoder, output()]
        return Wiring("CharLM: many to many, step by step", (Lane("", parts),))

    @classmethod
    def least_elements(cls, config: Mapping[str, Any]) -> int:
        """Parameters that a model of this config has at least."""
        H, V = config["hidden_size"], len(config["vocabulary"])
        return config["num_layers"] * H * H + V * (H + config["embedding_size"])

    def encode(self, text: str) -> np.ndarray:
        """The tokens (n,) of a text.

        Raises ValueError: `text: character 'x' (U+0078) at 12 is not in the vocabulary`.
        """
        checks.instance("text", text, str)
        try:
            return np.fromiter(map(self._tokens.__getitem__, text), np.int64, len(text))
        except KeyError as error:
            c = error.args[0]
            raise ValueError(
                f"text: character {c!r} (U+{ord(c):04X}) at {text.index(c)} is not in the vocabulary"
            ) from None

    def decode(self, tokens: np.ndarray) -> str:
        """The text of tokens (n,)."""
        tokens = checks.tokens("tokens", tokens, len(self.vocabulary), None)
        return "".join(self.vocabulary[i] for i in tokens)

    def initial_state(self, batch: int) -> State:
        """Zeros (L, B, H), for LSTM two of them."""
        batch, rnn = checks.integer("batch", batch, 0), self.rnn
        checks.addressable("batch", (rnn.num_layers, batch, rnn.hidden_size), rnn.dtype.itemsize)
        return rnn.state_of(self._states(None, batch))

    def _states(self, state, batch):
        """The arrays of a state, checked; zeros for None."""
        rnn = self.rnn
        names = ("state",) if len(rnn.state_names) == 1 else rnn.state_names
        letters = ["(num_layers, B, hidden_size)"] * len(names)
        return rnn.arrays_of("state", names, state, (rnn.num_layers, batch), letters)

    def _checked(self, tokens, state, *targets):
        """The tokens, the arrays of the state, and the targets where there are some."""
        tokens = checks.integers("tokens", tokens, None, None, letters="(T, B)")  # the operations look at their values
        targets = [checks.integers("targets", each, *tokens.shape, letters="(T, B)") for each in targets]
        return tokens, self._states(state, tokens.shape[1]), *targets

    def _hidden(self, tokens, states, training):
        """Outputs of the last layer (T*B, H), the arrays of the new state, and the pullback of both."""
        table = self.embedding.parameters["weight"] if self.embedding else None
        steps = [ragged.dense(*tokens.shape)]
        return self.rnn.run(tokens.reshape(-1), states, steps, training, training, table)[:3]

    def __call__(self, tokens: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        """Logits (T, B, V), dimensionless, and the new state; tokens (T, B).

        A state is h (L, B, H), with cell "lstm" (h, c); zeros if None.
        """
        tokens, states = self._checked(tokens, state)
        y, states, _ = self._hidden(tokens, states, training=False)
        return self.decoder(y).reshape(*tokens.shape, len(self.vocabulary)), self.rnn.state_of(states)

    def loss(self, tokens: np.ndarray, targets: np.ndarray, state: State = None) -> tuple[float, State]:
        """Mean cross-entropy in nats a character, and the new state; dropout is off.

        Raises ValueError: `targets: expected 0 <= token < 65, got 70`.
        """
        tokens, states, targets = self._checked(tokens, state, targets)
        y, states, _ = self._hidden(tokens, states, training=False)
        p = self.decoder.parameters
        loss, _ = functional.linear_cross_entropy(y, p["weight"], p["bias"], targets.reshape(-1))
        return loss, self.rnn.state_of(states)

    def loss_and_gradients(
        self,
        tokens: np.ndarray,
        targets: np.ndarray,
        state: State = None,
        scale: float = 1.0,
        grads: Parameters | None = None,
    ) -> tuple[float, State, Parameters]:
        """Loss, new state, and scale times the gradients; none flows into the given state (truncated at the window).

        The gradients go to `grads` if given, else to new memory.
        Cost: per character 6*H*(G*H + V) flop for one layer of G gates (LSTM 4, GRU 3), 12*G*H*H for each further one.
        """
        tokens, states, targets = self._checked(tokens, state, targets)
        scale = checks.number("scale", scale, -np.inf)
        y, states, backward = self._hidden(tokens, states, training=True)
        dropped, undrop = self._dropout.vjp(y)
        grads = self.parameters.gradients(grads)
        groups = self._groups(grads)
        p, g = self.decoder.parameters, groups["decoder"]
        loss, dy = functional.linear_cross_entropy(
            dropped, p["weight"], p["bias"], targets.reshape(-1), (g["weight"], g["bias"]), scale
        )
        d_table = groups["embedding"]["weight"] if self.embedding else None
        backward(undrop(dy), [np.zeros_like(s) for s in states], groups["rnn"], flow.asked(), d_table)
        return loss, self.rnn.state_of(states), grads

    def train_step(
        self,
        tokens: np.ndarray,
        targets: np.ndarray,
        state: State,
        optimizer: optim.Optimizer,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: float = 1.0,
        clip_step: float | None = None,
    ) -> tuple[float, float, State]:
        """One step of training on a window: scale*loss, the norm of its gradient before clipping, the new state.

        tokens, targets: (T, B); clip_norm, clip_value: see fastrnn.optim, None for no clipping; clip_step: see
        fastrnn.clip_steps. Nothing is updated with a norm that is not finite.

        Raises ValueError: `optimizer: expected one of this model's parameters, got one of others`.
        """
        check_optimizer(optimizer, self.parameters)
        with flow.clip_steps(clip_step):
            loss, state, grads = self.loss_and_gradients(tokens, targets, state, scale, optimizer.grads)
        norm = clipped(grads, clip_norm, clip_value)
        if math.isfinite(norm):
            optimizer.step(grads)
        return scale * loss, norm, state

    def sample(
        self,
        length: int,
        prime: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: Any = None,
    ) -> str:
        """`length` characters that the model continues `prime` with, drawn one by one.

        temperature : divides the logits, dimensionless; 0 always takes the likeliest character
        top_k : draw among the k likeliest only
        seed : of the draws; without a prime the first character is drawn uniformly
        """
        checks.instance("prime", prime, str)
        length = checks.integer("length", length, 0)
        temperature = checks.number("temperature", temperature)
        top_k = None if top_k is None else checks.integer("top_k", top_k, 1)
        generator = checks.generator(seed)
        tokens = self.encode(prime) if prime else generator.integers(len(self.vocabulary), size=1)
        drawn = [] if prime else [int(tokens[0])]
        state = self.initial_state(1)
        while len(drawn) < length:
            logits, state = self(tokens[:, None], state)
            drawn.append(draw(logits[-1, 0], temperature, top_k, generator))
            tokens = np.array(drawn[-1:])
        return self.decode(np.array(drawn[:length], np.int64))
