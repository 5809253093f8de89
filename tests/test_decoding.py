"""Decoding: greedy, draws and beam search on a model that is a table, against all sequences there are."""

import itertools

import numpy as np
import pytest

from fastrnn import Packed
from fastrnn.models import decoding

V = 3  # and the end
LENGTH = 4  # of the longest sequences


class Table:
    """Models whose next token depends on the sequence, the last token and the one before it."""

    def __init__(self, B=4, seed=0, scale=2.0):
        self.logits = scale * np.random.default_rng(seed).standard_normal((B, V + 1, V + 1, V + 1))
        self.rows = []  # of every step

    def __call__(self, tokens, state):
        owner, before = state
        self.rows.append(len(tokens))
        return self.logits[owner[0], before[0], tokens], (owner, tokens[None].copy())

    @property
    def given(self):
        """What decoding takes."""
        B = len(self.logits)
        return self, (np.arange(B)[None], np.full((1, B), V)), np.full(B, V), V, LENGTH

    def log_p(self, b, tokens):
        """The log-probability of a sequence and its end."""
        framed, total = [V, V, *tokens, V], 0.0
        for before, last, token in zip(framed, framed[1:], framed[2:], strict=False):
            z = self.logits[b, before, last]
            total += z[token] - np.log(np.exp(z).sum())
        return total


def all_sequences():
    return [tokens for n in range(LENGTH + 1) for tokens in itertools.product(range(V), repeat=n)]


def penalty(n, alpha):
    return ((5 + n) / 6) ** alpha


def plain_beam(table, b, K, alpha):
    """Beam search of one sequence, every beam to its end: (tokens, log-probability, score), the best first."""
    beams, complete = [((), 0.0)], []
    for length in range(1, LENGTH + 2):
        longer = []
        for tokens, log_p in beams:
            framed = [V, V, *tokens]
            z = table.logits[b, framed[-2], framed[-1]]
            following = z - z.max() - np.log(np.exp(z - z.max()).sum())
            longer += [((*tokens, v), log_p + following[v]) for v in range(V + 1) if length <= LENGTH or v == V]
        longer = sorted(longer, key=lambda found: -found[1])[:K]
        complete += [(t[:-1], p, p / penalty(length, alpha)) for t, p in longer if t[-1] == V]
        beams = [(t, p) for t, p in longer if t[-1] != V]
    return sorted(complete, key=lambda found: -found[2])[:K]


def assert_found(found, expected):
    assert [tuple(each.tokens) for each in found] == [tokens for tokens, _, _ in expected]
    numbers = [(each.log_probability, each.score) for each in found]
    np.testing.assert_allclose(numbers, [rest for _, *rest in expected], rtol=1e-13)


# Beam search


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_all_sequences_in_order(alpha):
    table = Table()
    for b, found in enumerate(decoding.beam_search(*table.given, 200, alpha)):
        every = [(tokens, table.log_p(b, tokens)) for tokens in all_sequences()]
        expected = [(tokens, p, p / penalty(len(tokens) + 1, alpha)) for tokens, p in every]
        assert_found(found, sorted(expected, key=lambda each: -each[2]))
        assert sum(np.exp(each.log_probability) for each in found) < 1


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("K", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_beam_is_a_plain_one(seed, K, alpha):
    table = Table(seed=seed)
    for b, found in enumerate(decoding.beam_search(*table.given, K, alpha)):
        assert_found(found, plain_beam(table, b, K, alpha))
        assert len(found) == K


def test_a_penalty_of_length_finds_longer_sequences():
    table = Table(B=20)
    short, long = (
        sum(len(found[0].tokens) for found in decoding.beam_search(*table.given, 200, alpha)) for alpha in (0.0, 3.0)
    )
    assert long > short + 10


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(alpha):
    table = Table(B=30)
    greedy = decoding.greedy(*table.given)
    assert {len(tokens) for tokens in greedy} == set(range(LENGTH + 1))
    for tokens, found in zip(greedy, decoding.beam_search(*table.given, 1, alpha), strict=True):
        assert len(found) == 1
        np.testing.assert_array_equal(found[0].tokens, tokens, strict=True)


def test_ties_go_to_the_better_beam_and_the_lower_token():
    table = Table()
    table.logits[:] = 0
    for found in decoding.beam_search(*table.given, 5):
        assert [list(each.tokens) for each in found] == [[], [0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]
    table.logits[..., V] = -100
    for found in decoding.beam_search(*table.given, 3):
        assert [list(each.tokens) for each in found] == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]


def test_a_search_stops_when_nothing_can_become_better():
    table = Table(B=2)
    table.logits[...] = [0, 0, 0, 20]
    assert all(len(found) == 1 for found in decoding.beam_search(*table.given, 1))
    assert table.rows == [2]
    table.rows.clear()
    assert all(len(found) == 4 for found in decoding.beam_search(*table.given, 4))
    assert table.rows == [2, 6]


def test_impossible_tokens_are_never_taken():
    table = Table()
    table.logits[..., 1] = -np.inf
    for found in decoding.beam_search(*table.given, 200):
        assert len(found) == sum(2**n for n in range(LENGTH + 1))
        assert not any((each.tokens == 1).any() for each in found)


def test_log_probabilities_of_large_logits():
    logits = np.array([[1e4, 1e4 - 3, -1e4], [-800, -801, -802]], np.float32)
    found = decoding.log_softmax(logits)
    assert found.dtype == np.float64
    expected = [[-np.log1p(np.exp(-3)), -3 - np.log1p(np.exp(-3)), -2e4 - np.log1p(np.exp(-3))]]
    expected.append(np.array([0, -1, -2]) - np.log(1 + np.exp(-1) + np.exp(-2)))
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=2e-16)


# All ways


WAYS = {
    "greedy": decoding.greedy,
    "sample": lambda *given: decoding.sample(*given, 1.5, None, 7),
    "beam": lambda *given: [found[0].tokens for found in decoding.beam_search(*given, 3, 0.5)],
}
ways = pytest.mark.parametrize("way", WAYS)


@ways
def test_a_sequence_does_not_depend_on_those_beside_it(way):
    table = Table(B=20)
    together = WAYS[way](*table.given)
    step, (owner, before), begin, *rest = table.given
    for b in range(20):
        kept = slice(b + 1) if way == "sample" else slice(b, b + 1)  # draws belong to a place
        alone = WAYS[way](step, (owner[:, kept], before[:, kept]), begin[kept], *rest)
        np.testing.assert_array_equal(alone[-1], together[b], strict=True)


@ways
def test_nothing_to_decode(way):
    table = Table(B=0)
    assert WAYS[way](*table.given) == []
    assert table.rows == []


@ways
def test_no_length(way):
    *given, _ = Table().given
    found = WAYS[way](*given, 0)
    assert [tokens.shape for tokens in found] == [(0,)] * 4
    assert all(tokens.dtype == np.int64 for tokens in found)


@ways
def test_lengths(way):
    table = Table(B=50, scale=1.0)
    table.logits[..., V] -= 1
    found = WAYS[way](*table.given)
    lengths = [len(tokens) for tokens in found]
    assert max(lengths) == LENGTH
    assert min(lengths) == 0
    assert all(tokens.dtype == np.int64 and set(tokens) <= set(range(V)) for tokens in found)


# Draws


def test_greedy_takes_the_likeliest():
    table = Table(B=10)
    for b, tokens in enumerate(decoding.greedy(*table.given)):
        framed = [V, V, *tokens]
        for before, last, token in zip(framed, framed[1:], framed[2:], strict=False):
            assert table.logits[b, before, last].argmax() == token
        if len(tokens) < LENGTH:
            assert table.logits[b, framed[-2], framed[-1]].argmax() == V


def test_sampling_at_temperature_0_is_greedy():
    table = Table(B=10)
    for options in ({"temperature": 0}, {"top_k": 1}, {"temperature": 1e-310}):
        for a, b in zip(decoding.sample(*table.given, **options), decoding.greedy(*table.given), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_are_as_frequent_as_they_are_likely(temperature):
    B = 6_000
    table = Table(B=1)
    table.logits = np.broadcast_to(table.logits, (B, *table.logits.shape[1:])) / temperature
    likely = Table(B=1)
    likely.logits = table.logits[:1]
    table.logits = table.logits * temperature
    drawn = [tuple(tokens) for tokens in decoding.sample(*table.given, temperature, seed=0)]
    for tokens in itertools.chain([()], itertools.product(range(V), repeat=1), itertools.product(range(V), repeat=2)):
        p = np.exp(likely.log_p(0, tokens))
        assert abs(drawn.count(tokens) / B - p) < 4 * (p * (1 - p) / B) ** 0.5 + 1e-12


def test_samples_are_seeded():
    given = Table(B=20, scale=0.5).given
    first, again, other = ([tuple(t) for t in decoding.sample(*given, seed=seed)] for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) > 5


@pytest.mark.parametrize("temperature", [0, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 12, 99])
def test_draws_are_one_choice_of_the_generator(top_k, temperature):
    """From the sorted logits, so that a seed's samples stay as they are."""
    logits = np.random.default_rng(0).integers(0, 5, 12).astype(np.float32)  # with ties
    order = np.argsort(-logits.astype(np.float64), kind="stable")[:top_k]
    for seed in range(20):
        expected = order[0]
        if temperature:
            weights = np.exp((logits[order].astype(np.float64) - logits[order[0]]) / temperature)
            expected = np.random.default_rng(seed).choice(order, p=weights / weights.sum())
        drawn = decoding.draw(logits, temperature, top_k, np.random.default_rng(seed))
        assert type(drawn) is int
        assert drawn == expected


# Frames and bad input


def test_frames():
    inputs, outputs = decoding.framed(Packed(np.array([1, 2, 0, 4]), [0, 2, 2, 3, 3, 4]), 9)
    np.testing.assert_array_equal(inputs.offsets, [0, 3, 4, 6, 7, 9])
    np.testing.assert_array_equal(outputs.offsets, inputs.offsets)
    np.testing.assert_array_equal(inputs.data, [9, 1, 2, 9, 9, 0, 9, 9, 4])
    np.testing.assert_array_equal(outputs.data, [1, 2, 9, 9, 0, 9, 9, 4, 9])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *given: decoding.beam_search(*given, 0), "beam_width: expected an integer >= 1, got 0"),
        (lambda *given: decoding.beam_search(*given, 2, -1.0), "alpha: expected a number >= 0, got -1"),
        (lambda *given: decoding.greedy(*given[:-1], -1), "max_length: expected an integer >= 0, got -1"),
        (lambda *given: decoding.beam_search(*given[:-1], -1, 2), "max_length: expected an integer >= 0, got -1"),
        (lambda *given: decoding.sample(*given, -0.5), "temperature: expected a number >= 0, got -0.5"),
        (lambda *given: decoding.sample(*given, 1.0, 0), "top_k: expected an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(call, message):
    table = Table()
    with pytest.raises(ValueError) as error:
        call(*table.given)
    assert str(error.value) == message
    assert table.rows == []
