"""The character-level language model: characters in, the next character's distribution out."""

import numpy as np

from fastrnn import checks, functional, optim
from fastrnn.layers import RNN, Dropout, Embedding, Linear
from fastrnn.parameters import Parameters

CELLS = ("tanh", "relu")


class CharLM:
    """Embedding (or one-hot), stacked recurrent layers, and a projection to the vocabulary.

    Parameters
    ----------
    vocabulary : the characters, each once; a token is a character's place in it
    cell : "tanh" or "relu"
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
        dtype: object = "float32",
        seed: object = None,
    ) -> None:
        checks.vocabulary(vocabulary)
        checks.choice("cell", cell, CELLS)
        E = checks.integer("embedding_size", embedding_size, 0)
        seeds = np.random.default_rng(seed).spawn(4)
        self.vocabulary = vocabulary
        self._tokens = {c: i for i, c in enumerate(vocabulary)}
        V = len(vocabulary)
        self.rnn = RNN(E or V, hidden_size, num_layers, cell, dropout=dropout, dtype=dtype, seed=seeds[0])
        self.decoder = Linear(hidden_size, V, dtype=dtype, seed=seeds[1])
        self.embedding = Embedding(V, E, dtype=dtype, seed=seeds[2]) if E else None
        self._dropout = Dropout(dropout, seed=seeds[3])
        parts = {"embedding": self.embedding, "rnn": self.rnn, "decoder": self.decoder}
        self._parts = {name: part for name, part in parts.items() if part is not None}
        self.parameters = Parameters.joined({name: part.parameters for name, part in self._parts.items()})
        for name, part in self._parts.items():
            part.parameters = self.parameters.group(name)
        self.config = {
            "vocabulary": vocabulary,
            "cell": cell,
            "hidden_size": self.rnn.hidden_size,
            "num_layers": self.rnn.num_layers,
            "embedding_size": E,
            "dropout": self.rnn.dropout,
            "dtype": self.parameters.dtype.name,
        }

    def encode(self, text: str) -> np.ndarray:
        """The tokens (n,) of a text.

        Raises ValueError: `text: character 'x' (U+0078) at 12 is not in the vocabulary`.
        """
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

    def initial_state(self, batch: int) -> np.ndarray:
        """Zeros (L, B, H)."""
        batch = checks.integer("batch", batch, 0)
        return np.zeros((self.rnn.num_layers, batch, self.rnn.hidden_size), self.parameters.dtype)

    def _checked(self, tokens, state, targets=None):
        V = len(self.vocabulary)
        tokens = checks.tokens("tokens", tokens, V, None, None, letters="(T, B)")
        if targets is not None:
            targets = checks.tokens("targets", targets, V, *tokens.shape, letters="(T, B)")
        B, L, H = tokens.shape[1], self.rnn.num_layers, self.rnn.hidden_size
        if state is None:
            return tokens, self.initial_state(B), targets
        dtype = self.parameters.dtype
        return tokens, checks.array("state", state, dtype, L, B, H, letters="(num_layers, B, hidden_size)"), targets

    def _hidden(self, tokens, state, training):
        """Outputs of the last layer (T*B, H), the new state, and the pullback of both."""
        table = self.embedding.parameters["weight"] if self.embedding else None
        y, state, pullback = self.rnn.run(tokens, state, training, table)
        return y.reshape(-1, self.rnn.hidden_size), state, pullback

    def __call__(self, tokens: np.ndarray, state: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Logits (T, B, V), dimensionless, and the new state (L, B, H); tokens (T, B), state zeros if None."""
        tokens, state, _ = self._checked(tokens, state)
        y, state, _ = self._hidden(tokens, state, training=False)
        return self.decoder(y).reshape(*tokens.shape, len(self.vocabulary)), state

    def loss(
        self, tokens: np.ndarray, targets: np.ndarray, state: np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """Mean cross-entropy in nats a character, and the new state; dropout is off.

        Raises ValueError: `targets: expected 0 <= token < 65, got 70`.
        """
        tokens, state, targets = self._checked(tokens, state, targets)
        y, state, _ = self._hidden(tokens, state, training=False)
        p = self.decoder.parameters
        return functional.linear_cross_entropy(y, p["weight"], p["bias"], targets.reshape(-1))[0], state

    def loss_and_gradients(
        self,
        tokens: np.ndarray,
        targets: np.ndarray,
        state: np.ndarray | None = None,
        scale: float = 1.0,
        grads: Parameters | None = None,
    ) -> tuple[float, np.ndarray, Parameters]:
        """Loss, new state, and scale times the gradients; none flows into the given state (truncated at the window).

        The gradients go to `grads` if given, else to new memory.
        Cost: per character 6*H*(H + V) flop for one layer, and 12*H*H for each further one.
        """
        tokens, state, targets = self._checked(tokens, state, targets)
        y, state, backward = self._hidden(tokens, state, training=True)
        dropped, undrop = self._dropout.vjp(y)
        grads = self.parameters.gradients(grads)
        groups = {name: grads.group(name) for name in self._parts}
        p, g = self.decoder.parameters, groups["decoder"]
        loss, dy = functional.linear_cross_entropy(
            dropped, p["weight"], p["bias"], targets.reshape(-1), (g["weight"], g["bias"]), scale
        )
        d_table = groups["embedding"]["weight"] if self.embedding else None
        backward(undrop(dy), np.zeros_like(state), groups["rnn"], d_table)
        return loss, state, grads

    def train_step(
        self,
        tokens: np.ndarray,
        targets: np.ndarray,
        state: np.ndarray | None,
        optimizer: optim.Optimizer,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: float = 1.0,
    ) -> tuple[float, float, np.ndarray]:
        """One step of training on a window: scale*loss, the norm of its gradient before clipping, the new state.

        tokens, targets: (T, B); clip_norm, clip_value: see fastrnn.optim, None for no clipping.
        """
        loss, state, grads = self.loss_and_gradients(tokens, targets, state, scale, optimizer.grads)
        norm = optim.grad_norm(grads) if clip_norm is None else optim.clip_grad_norm(grads, clip_norm)
        if clip_value is not None:
            optim.clip_grad_value(grads, clip_value)
        optimizer.step(grads)
        return scale * loss, norm, state

    def sample(
        self,
        length: int,
        prime: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: object = None,
    ) -> str:
        """`length` characters that the model continues `prime` with, drawn one by one.

        temperature : divides the logits, dimensionless; 0 always takes the likeliest character
        top_k : draw among the k likeliest only
        seed : of the draws; without a prime the first character is drawn uniformly
        """
        length = checks.integer("length", length, 0)
        temperature = checks.number("temperature", temperature)
        top_k = len(self.vocabulary) if top_k is None else checks.integer("top_k", top_k, 1)
        generator = np.random.default_rng(seed)
        tokens = self.encode(prime) if prime else generator.integers(len(self.vocabulary), size=1)
        drawn = [] if prime else [int(tokens[0])]
        state = self.initial_state(1)
        while len(drawn) < length:
            logits, state = self(tokens[:, None], state)
            drawn.append(_draw(logits[-1, 0].astype(np.float64), temperature, top_k, generator))
            tokens = np.array(drawn[-1:])
        return self.decode(np.array(drawn[:length], np.int64))


def _draw(logits, temperature, top_k, generator):
    """A token from softmax(logits/temperature) over the top_k likeliest."""
    order = np.argsort(-logits, kind="stable")[:top_k]
    if temperature == 0:
        return int(order[0])
    with np.errstate(over="ignore"):  # a tiny temperature: all but the likeliest have weight 0
        weights = np.exp((logits[order] - logits[order[0]]) / temperature)
    return int(generator.choice(order, p=weights / weights.sum()))
