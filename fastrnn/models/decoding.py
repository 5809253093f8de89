"""Sequences of tokens from a model that gives the logits of the next one: greedily, by draws, by beam search.

A step is `step(tokens (B,), state) -> (logits (B, V), state)`. A state is a tuple of arrays whose axis 1 counts the
sequences, as that of h (L, B, H) does. Sequences that go on are picked from it after every step, beams as often as they
are extended and always in the order of the sequences, and whatever a step computes of one must not depend on others.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.ragged import Packed

State = tuple[np.ndarray, ...]
Step = Callable[[np.ndarray, State], tuple[np.ndarray, State]]


class Hypothesis(NamedTuple):
    """A sequence that a beam search found."""

    tokens: np.ndarray  # (n,), without the end
    log_probability: float  # of the tokens and the end, in nats
    score: float  # the log-probability over the length penalty


def framed(sequences: Packed, boundary: int) -> tuple[Packed, Packed]:
    """What a decoder reads and what it learns to write: the tokens after a boundary, and before one."""
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    offsets = sequences.offsets + np.arange(len(sequences.offsets))
    inputs, outputs = (np.insert(sequences.data, places, boundary) for places in (starts, ends))
    return Packed(inputs, offsets), Packed(outputs, offsets)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (..., V) in nats, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def draw(logits: np.ndarray, temperature: float, top_k: int | None, generator: np.random.Generator) -> int:
    """A token from softmax(logits/temperature) over the top_k likeliest, all if None; the likeliest at temperature 0.

    logits : (V,); of equal ones the first counts as likelier
    """
    logits = logits.astype(np.float64)
    order = _largest(logits, len(logits) if top_k is None else top_k)
    if temperature == 0:
        return int(order[0])
    with np.errstate(over="ignore"):  # a tiny temperature: all but the likeliest have weight 0
        weights = np.exp((logits[order] - logits[order[0]]) / temperature)
    return int(generator.choice(order, p=weights / weights.sum()))


def _largest(values, count):
    """Places of the `count` largest of (n,), the largest first; equal ones in their own order."""
    places = np.arange(len(values))
    if count < len(values):
        places = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return places[np.argsort(-values[places], kind="stable")[:count]]


def greedy(step: Step, state: State, begin: np.ndarray, end: int, max_length: int) -> list[np.ndarray]:
    """The likeliest token each time, the first of equal ones.

    begin : (B,) what the first step reads
    end : the token that ends a sequence, which is not part of it
    max_length : tokens of a sequence that doesn't end by itself
    """
    return _continued(step, state, begin, end, max_length, lambda logits, _: logits.argmax(axis=1))


def sample(
    step: Step,
    state: State,
    begin: np.ndarray,
    end: int,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: Any = None,
) -> list[np.ndarray]:
    """Every token drawn; a sequence's draws depend on the seed and its place in the batch alone.

    temperature : divides the logits, dimensionless; 0 always takes the likeliest token
    top_k : draw among the k likeliest only
    seed : of the draws
    others : as in `greedy`
    """
    temperature = checks.number("temperature", temperature)
    top_k = top_k if top_k is None else checks.integer("top_k", top_k, 1)
    generators = checks.generator(seed).spawn(len(begin))

    def drawn(logits, going):
        pairs = zip(logits, going, strict=True)
        return np.array([draw(row, temperature, top_k, generators[b]) for row, b in pairs])

    return _continued(step, state, begin, end, max_length, drawn)


def _continued(step, state, begin, end, max_length, choose):
    """Sequences that end one after another; choose(logits, the sequences they belong to) gives the next tokens."""
    max_length = checks.integer("max_length", max_length, 0)
    sequences: list[list[int]] = [[] for _ in begin]
    tokens, going = begin, np.arange(len(begin))
    for _ in range(max_length):
        if not len(going):
            break
        logits, state = step(tokens, state)
        tokens = choose(logits, going)
        kept = np.flatnonzero(tokens != end)
        tokens, going, state = tokens[kept], going[kept], _selected(state, kept)
        for b, token in zip(going, tokens, strict=True):
            sequences[b].append(token)
    return [np.array(tokens, np.int64) for tokens in sequences]


def _selected(state, rows):
    return tuple([part.take(rows, axis=1) for part in state])


def beam_search(
    step: Step,
    state: State,
    begin: np.ndarray,
    end: int,
    max_length: int,
    beam_width: int,
    alpha: float = 0.0,
) -> list[list[Hypothesis]]:
    """Up to beam_width sequences for each of B, that of the highest score first.

    Parameters
    ----------
    beam_width : K: after every step the K likeliest extensions of a sequence's beams stay; those that end are complete
    alpha : of the length penalty, dimensionless: score = log-probability / ((5 + n)/6)^alpha, n tokens with the end
    others : as in `greedy`; a beam of max_length tokens is ended at whatever the end's probability is

    A search stops when none of its beams can reach the score of the K best complete ones. Of equals the first stays:
    that of the better beam, then that of the lower token. All beams of all sequences take a step together. With K = 1
    this is `greedy`.

    Raises ValueError: `beam_width: expected an integer >= 1, got 0`. Source: Graves, arXiv 1211.3711 (2012); length
    penalty: Wu et al., arXiv 1609.08144 (2016), eq. 14. Cost: max_length + 1 steps of B*K sequences at most.
    """
    max_length = checks.integer("max_length", max_length, 0)
    beam_width = checks.integer("beam_width", beam_width, 1)
    alpha = checks.number("alpha", alpha)
    searches, tokens = [_Search(end, max_length, beam_width, alpha) for _ in begin], begin
    while len(tokens):
        logits, state = step(tokens, state)
        bounds = np.cumsum([0, *[len(search.beams) for search in searches]])
        parts = np.split(log_softmax(logits), bounds[1:-1])
        extended = [search.extend(part) for search, part in zip(searches, parts, strict=True)]
        rows = np.concatenate([start + kept for start, (kept, _) in zip(bounds, extended, strict=False)])
        tokens = np.concatenate([following for _, following in extended])
        state = _selected(state, rows)
    return [search.complete for search in searches]


class _Search:
    """The beams of one sequence."""

    def __init__(self, end: int, max_length: int, width: int, alpha: float) -> None:
        self._end, self._max_length, self._width, self._alpha = end, max_length, width, alpha
        self.beams: list[tuple[int, ...]] = [()]
        self._log_p = np.zeros(1)
        self.complete: list[Hypothesis] = []

    def _score(self, log_p, length):
        return float(log_p / ((5 + length) / 6) ** self._alpha)

    def extend(self, log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The beams (n,) that go on and the token each of them goes on with; log_p: (beams, V) of the next token."""
        if not self.beams:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        length, V = len(self.beams[0]) + 1, log_p.shape[1]
        total = self._log_p[:, None] + log_p
        if length > self._max_length:
            total[:, np.arange(V) != self._end] = -np.inf
        best = _largest(total.reshape(-1), self._width)
        best = best[np.isfinite(total.reshape(-1)[best])]
        rows, tokens = np.divmod(best, V)
        log_p, ended = total[rows, tokens], tokens == self._end
        for row, p in zip(rows[ended], log_p[ended], strict=True):
            self.complete.append(Hypothesis(np.array(self.beams[row], np.int64), float(p), self._score(p, length)))
        self.complete = sorted(self.complete, key=lambda found: -found.score)[: self._width]
        rows, tokens, log_p = rows[~ended], tokens[~ended], log_p[~ended]
        if len(self.complete) == self._width and self._hopeless(log_p):
            rows, tokens, log_p = rows[:0], tokens[:0], log_p[:0]
        pairs: Sequence[tuple[int, int]] = list(zip(rows.tolist(), tokens.tolist(), strict=True))
        self.beams, self._log_p = [(*self.beams[row], token) for row, token in pairs], log_p
        return rows, tokens

    def _hopeless(self, log_p):
        """None can become better than what is complete: log-probabilities fall, and penalties grow with the length."""
        highest = self._score(log_p.max(initial=-np.inf), self._max_length + 1)
        return highest <= self.complete[-1].score
