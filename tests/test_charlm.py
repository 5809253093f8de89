"""CharLM: losses and gradients against the reference, training steps, sampling."""

import json

import numpy as np
import pytest
from cases import DTYPES, wide
from numerics import assert_close, complex_step, rounding_budget
from oracles import arrays_of, assert_same, assert_within, charlm, state_of

from fastrnn import Dropout, kinds, optim
from fastrnn.models import CharLM

VOCABULARY = "abcdefghijkl"
CELLS = kinds.names()
MODELS = [(cell, layers, E) for cell in CELLS for layers in (1, 2) for E in (0, 5)]
models = pytest.mark.parametrize(("cell", "num_layers", "embedding_size"), MODELS)


def build(cell="tanh", num_layers=1, embedding_size=0, dtype="float64", **options):
    options = {"vocabulary": VOCABULARY, "hidden_size": 19, "seed": 0} | options
    return CharLM(cell=cell, num_layers=num_layers, embedding_size=embedding_size, dtype=dtype, **options)


def window(lm, T=7, B=3, seed=0):
    """tokens, targets, state."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, len(lm.vocabulary), (2, T, B))
    zeros = arrays_of(lm.initial_state(B))
    return tokens, targets, state_of(tuple(rng.uniform(-1, 1, part.shape).astype(part.dtype) for part in zeros))


def parts(state):
    """A state's arrays by name."""
    return dict(zip(("h", "c"), arrays_of(state), strict=False))


def results(lm, tokens, targets, state):
    loss, state, grads = lm.loss_and_gradients(tokens, targets, state)
    return {"loss": np.float64(loss), **parts(state), **grads}


def expected_results(lm, tokens, targets, state, masks=()):
    loss, state, grads = charlm(lm.parameters, tokens, targets, state, lm.config["cell"], masks)
    return {"loss": loss, **parts(state), **grads}


# Against the reference


@models
@pytest.mark.parametrize("T, B", [(7, 3), (1, 1), (40, 2), (2, 17)])
def test_float64_equals_the_reference(cell, num_layers, embedding_size, T, B):
    lm = build(cell, num_layers, embedding_size)
    given = window(lm, T, B)
    assert_close(results(lm, *given), expected_results(lm, *given), 1e-12)


@models
def test_float32_errors_are_those_of_rounding(cell, num_layers, embedding_size):
    lm = build(cell, num_layers, embedding_size, "float32")
    tokens, targets, state = window(lm)

    def exact(**inputs):
        p = {name: inputs[name] for name in lm.parameters}
        given = state_of(tuple(inputs[name] for name in parts(state)))
        loss, new, grads = charlm(p, tokens, targets, given, cell)
        return {"loss": loss, **parts(new), **grads}

    inputs = wide(parts(state) | dict(lm.parameters))
    budget = rounding_budget(exact, inputs, np.dtype("float32"))
    assert assert_within(results(lm, tokens, targets, state), exact(**inputs), budget) > 0.01


@pytest.mark.parametrize(
    ("cell", "num_layers", "embedding_size"),
    [("tanh", 1, 0), ("relu", 2, 2), ("tanh", 2, 3), ("gru", 1, 2), ("lstm", 2, 0)],
)
def test_gradients_equal_the_complex_step(cell, num_layers, embedding_size):
    lm = build(cell, num_layers, embedding_size, vocabulary="abcd", hidden_size=3)
    tokens, targets, state = window(lm, 5, 2)
    got = results(lm, tokens, targets, state)
    expected = complex_step(lambda **p: charlm(p, tokens, targets, state, cell)[0], lm.parameters)
    assert_close({name: got[name] for name in expected}, expected, 1e-12)


def test_scale_is_a_factor_of_the_gradients():
    lm = build(num_layers=2, embedding_size=5)
    given = window(lm)
    expected = results(lm, *given)
    loss, state, grads = lm.loss_and_gradients(*given, scale=25.0)
    got = {"loss": loss, **parts(state)} | {name: value / 25 for name, value in grads.items()}
    assert_close(got, expected, 1e-14)
    assert loss == expected["loss"]


@models
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_ways_to_the_loss_agree(cell, num_layers, embedding_size, dtype):
    lm = build(cell, num_layers, embedding_size, dtype)
    tokens, targets, state = window(lm)
    loss, h, _ = lm.loss_and_gradients(tokens, targets, state)
    evaluated, h_evaluated = lm.loss(tokens, targets, state)
    logits, h_called = lm(tokens, state)
    assert type(loss) is type(evaluated) is float
    assert loss == evaluated
    assert_same(parts(h_evaluated), parts(h))
    assert_same(parts(h_called), parts(h))
    assert logits.dtype == dtype
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    each = np.log(np.exp(shifted).sum(-1)) - np.take_along_axis(shifted, targets[..., None], -1)[..., 0]
    assert loss == pytest.approx(each.mean(), rel=1e-6 if dtype == "float32" else 1e-14)


# States and rows


@models
def test_the_state_carries_the_text(cell, num_layers, embedding_size):
    lm = build(cell, num_layers, embedding_size, "float32")
    tokens, targets, state = window(lm, 9)
    logits, final = lm(tokens, state)
    first, h = lm(tokens[:4], state)
    second, h = lm(tokens[4:], h)
    np.testing.assert_array_equal(np.concatenate([first, second]), logits)
    assert_same(parts(h), parts(final))
    assert lm.loss(tokens, targets, state)[0] != lm.loss(tokens, targets)[0]


@pytest.mark.parametrize("cell", CELLS)
def test_no_state_is_zeros(cell):
    lm = build(cell, num_layers=2)
    tokens, targets, _ = window(lm)
    zeros = lm.initial_state(3)
    assert len(arrays_of(zeros)) == (2 if cell == "lstm" else 1)
    for part in arrays_of(zeros):
        assert part.shape == (2, 3, 19)
        assert part.dtype == lm.parameters.dtype
        assert not part.any()
    expected = results(lm, tokens, targets, zeros)
    assert_same(results(lm, tokens, targets, None), expected)
    if cell == "lstm":
        assert_same(results(lm, tokens, targets, (None, zeros[1])), expected)


@pytest.mark.parametrize("embedding_size", [0, 5])
def test_rows_do_not_depend_on_how_many_tokens_there_are(embedding_size):
    """Fewer tokens than characters, and more, take the same way through the model, bit for bit."""
    lm = build(num_layers=2, embedding_size=embedding_size, dtype="float32")
    tokens, _, state = window(lm, 6, 40)
    logits, final = lm(tokens, state)
    for rows in (1, 2, 17):
        some, h = lm(tokens[:, :rows], state[:, :rows])
        np.testing.assert_array_equal(some, logits[:, :rows])
        np.testing.assert_array_equal(h, final[:, :rows])
    one_step, _ = lm(tokens[:1], state)
    np.testing.assert_array_equal(one_step, logits[:1])


def test_characters_that_never_occur_change_nothing():
    """A larger vocabulary with the same weights for the characters that do occur."""
    small, large = build(vocabulary="abc", dtype="float32"), build(vocabulary="abcdefgh", dtype="float32")
    for name, value in small.parameters.items():
        target = large.parameters[name]
        target[tuple(slice(size) for size in value.shape)] = value
    tokens, _, state = window(small)
    got, h = large(tokens, state)
    logits, final = small(tokens, state)
    np.testing.assert_array_equal(got[..., :3], logits)
    np.testing.assert_array_equal(h, final)


@pytest.mark.parametrize("embedding_size", [0, 5])
@pytest.mark.parametrize(("T", "B"), [(0, 3), (7, 0), (0, 0)])
def test_no_tokens(T, B, embedding_size):
    lm = build(num_layers=2, embedding_size=embedding_size)
    tokens, targets, state = window(lm, T, B)
    logits, h = lm(tokens, state)
    assert logits.shape == (T, B, 12)
    np.testing.assert_array_equal(h, state)
    assert lm.loss(tokens, targets, state)[0] == 0
    got = results(lm, tokens, targets, state)
    assert got["loss"] == 0
    assert not any(got[name].any() for name in lm.parameters)


def test_arguments_are_left_alone():
    lm = build(num_layers=2, embedding_size=5)
    given = window(lm)
    before = [a.copy() for a in (*given, lm.parameters.flat)]
    got = results(lm, *given)
    lm.loss(*given)
    lm(given[0], given[2])
    for a, b in zip((*given, lm.parameters.flat), before, strict=True):
        np.testing.assert_array_equal(a, b)
    for value in got.values():
        assert not any(np.shares_memory(value, a) for a in (*given, lm.parameters.flat))


@pytest.mark.real_memory
def test_repeats_give_the_same_bits():
    lm = build(num_layers=2, embedding_size=5, dtype="float32", hidden_size=64)
    given, other = window(lm, 20, 32), window(lm, 5, 3, seed=1)
    expected = results(lm, *given)
    for _ in range(10):
        results(lm, *other)
        lm.sample(3)
        assert_same(results(lm, *given), expected)


# Dropout


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("embedding_size", [0, 5])
def test_dropout(embedding_size, num_layers, cell, monkeypatch):
    """Behind every layer, in training alone; the gradients are those of the masks that were drawn."""
    masks, original = [], Dropout.vjp

    def vjp(self, x):
        y, pullback = original(self, x)
        masks.append(np.where(y == 0, 0.0, 1 / (1 - self.p)).reshape(7, 3, -1))
        return y, pullback

    monkeypatch.setattr(Dropout, "vjp", vjp)
    lm, plain = (build(cell, num_layers, embedding_size, dropout=p) for p in (0.4, 0.0))
    given = window(lm)
    got = results(lm, *given)
    assert len(masks) == num_layers
    assert_close(got, expected_results(lm, *given, masks), 1e-12)
    assert got["loss"] != results(lm, *given)["loss"]
    assert lm.loss(*given)[0] == plain.loss(*given)[0] == results(plain, *given)["loss"]


# Training


@pytest.mark.parametrize(
    "limits", [{}, {"clip_norm": 0.1}, {"clip_norm": 1e3}, {"clip_value": 0.01}, {"scale": 25.0}], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_a_training_step_is_its_parts(cell, limits, dtype):
    lm, twin = (build(cell, num_layers=2, embedding_size=5, dtype=dtype) for _ in range(2))
    optimizer, twin_optimizer = optim.Adam(lm.parameters), optim.Adam(twin.parameters)
    state = None
    for seed in range(3):
        tokens, targets, _ = window(lm, seed=seed)
        scale = limits.get("scale", 1.0)
        loss, h, grads = twin.loss_and_gradients(tokens, targets, state, scale)
        norm = optim.grad_norm(grads)
        if "clip_norm" in limits:
            assert optim.clip_grad_norm(grads, limits["clip_norm"]) == norm
        if "clip_value" in limits:
            optim.clip_grad_value(grads, limits["clip_value"])
        twin_optimizer.step(grads)
        got_loss, got_norm, state = lm.train_step(tokens, targets, state, optimizer, **limits)
        assert type(got_loss) is type(got_norm) is float
        assert (got_loss, got_norm) == (scale * loss, norm)
        assert_same(parts(state), parts(h))
        np.testing.assert_array_equal(lm.parameters.flat, twin.parameters.flat)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("cell", "num_layers", "embedding_size"),
    [("tanh", 1, 0), ("relu", 1, 8), ("tanh", 2, 8), ("gru", 1, 0), ("lstm", 2, 8)],
)
def test_a_short_text_is_memorised(cell, num_layers, embedding_size, dtype):
    text = "hello world " * 40
    lm = CharLM("".join(sorted(set(text))), cell, 48, num_layers, embedding_size, dtype=dtype, seed=0)
    tokens = lm.encode(text)
    x, y = (tokens[i : i + 24 * 12].reshape(12, 24).T for i in (0, 1))
    optimizer, state = optim.Adam(lm.parameters, 1e-2), None
    first = lm.loss(x, y)[0]
    assert first == pytest.approx(np.log(8), rel=0.1)
    for _ in range(200):
        loss, _, state = lm.train_step(x, y, state, optimizer, clip_norm=1.0)
    assert loss < 0.02
    assert lm.loss(x, y, state)[0] < 0.02
    assert lm.sample(24, prime="hello wo", temperature=0) == "rld hello world hello wo"


# Text


def test_encode_and_decode():
    lm = build(vocabulary="\naé😀")
    np.testing.assert_array_equal(lm.encode("a😀\n"), np.array([1, 3, 0]), strict=True)
    assert lm.encode("").shape == (0,)
    assert lm.decode([1, 3, 0, 2]) == "a😀\né"
    assert lm.decode(lm.encode("")) == ""
    assert lm.decode([]) == ""


@pytest.mark.parametrize("cell", CELLS)
def test_config_builds_the_model_again(cell):
    lm = build(cell, 2, 5, "float32", dropout=0.25, hidden_size=np.int64(7))
    config = json.loads(json.dumps(lm.config))
    assert config == {
        "vocabulary": VOCABULARY,
        "cell": cell,
        "hidden_size": 7,
        "num_layers": 2,
        "embedding_size": 5,
        "dropout": 0.25,
        "dtype": "float32",
    }
    twin = CharLM(**config)
    assert twin.config == lm.config
    twin.parameters.update(lm.parameters)
    given = window(lm)
    assert twin.loss(*given)[0] == lm.loss(*given)[0]


def test_names_of_parameters():
    """Of which checkpoints are made."""
    assert build("tanh", 1, 5).parameters.shapes == {
        "embedding.weight": (12, 5),
        "rnn.weight_ih_l0": (19, 5),
        "rnn.weight_hh_l0": (19, 19),
        "rnn.bias_ih_l0": (19,),
        "rnn.bias_hh_l0": (19,),
        "decoder.weight": (12, 19),
        "decoder.bias": (12,),
    }
    for cell, gates in (("gru", 3), ("lstm", 4)):
        shapes = build(cell, 2).parameters.shapes
        assert shapes["rnn.weight_ih_l0"] == (gates * 19, 12)
        assert shapes["rnn.weight_hh_l1"] == (gates * 19, 19)
        assert shapes["decoder.weight"] == (12, 19)


def test_seeds():
    weights = [build(num_layers=2, embedding_size=5, seed=seed).parameters.flat for seed in (0, 0, 1, None, None)]
    np.testing.assert_array_equal(weights[0], weights[1])
    for a, b in [(0, 2), (0, 3), (3, 4)]:
        assert (weights[a] != weights[b]).all()
    parts = build(num_layers=1, embedding_size=19, seed=0).parameters
    assert len({value.flat[0] for value in parts.values()}) == len(parts)


# Sampling


def test_samples_are_seeded():
    lm = build(embedding_size=5)
    first = lm.sample(200, seed=0)
    assert lm.sample(200, seed=0) == first
    assert lm.sample(200, seed=1) != first
    assert lm.sample(200) != lm.sample(200)
    assert set(first) <= set(VOCABULARY)
    assert len(set(first)) > 6


@pytest.mark.parametrize("prime", ["", "a", "abcabc"])
@pytest.mark.parametrize("length", [0, 1, 2, 50])
def test_a_sample_has_the_length_asked_for(length, prime):
    sample = build().sample(length, prime, seed=0)
    assert len(sample) == length
    assert build().sample(50, prime, seed=0).startswith(sample)


def test_the_prime_decides_what_follows():
    lm = build()
    lm.parameters.flat[:] *= 8
    assert len({lm.sample(20, prime, temperature=0) for prime in ("a", "b", "ab", "ba", "aaab")}) > 2


@pytest.mark.parametrize("cell", CELLS)
def test_sampling_continues_the_prime(cell):
    """As calls one by one would, the likeliest character each time."""
    lm = build(cell, num_layers=2, embedding_size=5)
    logits, state = lm(lm.encode("abcd")[:, None])
    expected = ""
    for _ in range(20):
        expected += lm.decode([logits[-1, 0].argmax()])
        logits, state = lm(lm.encode(expected[-1])[:, None], state)
    assert lm.sample(20, "abcd", temperature=0) == expected


@pytest.mark.parametrize(
    "options", [{"top_k": 1}, {"top_k": 1, "temperature": 3.0}, {"temperature": 1e-9}, {"temperature": 1e-310}], ids=str
)
def test_ways_to_take_the_likeliest_character(options):
    lm = build()
    for seed in range(3):
        assert lm.sample(30, "a", seed=seed, **options) == lm.sample(30, "a", temperature=0, seed=7)


def biased(logits):
    """A model that ignores its input and always gives these logits."""
    lm = build()
    lm.parameters.flat.fill(0)
    lm.parameters["decoder.bias"] = logits
    return lm


@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, None), (1.0, 3), (2.0, 12), (1.0, 99)])
def test_samples_follow_the_distribution(temperature, top_k):
    logits = np.linspace(0, 2.2, 12)[np.random.default_rng(0).permutation(12)]
    p = np.exp(logits / temperature)
    p[np.argsort(-logits)[top_k or 12 :]] = 0
    p /= p.sum()
    n = 1500
    sample = biased(logits).sample(n, "a", temperature, top_k, seed=0)
    counts = np.array([sample.count(c) for c in VOCABULARY])
    assert not counts[p == 0].any()
    kept = p > 0
    chi_square = ((counts - n * p)[kept] ** 2 / (n * p)[kept]).sum()
    assert chi_square < kept.sum() - 1 + 4 * (2 * (kept.sum() - 1)) ** 0.5


def test_the_first_character_without_a_prime_is_uniform():
    lm = biased(np.arange(12.0))
    drawn = [lm.sample(1, seed=seed) for seed in range(600)]
    assert all(abs(drawn.count(c) - 50) < 4 * 50**0.5 for c in VOCABULARY)


def test_ties_and_negative_infinity():
    lm = biased([0, 5, 5, -np.inf, *[0] * 8])
    assert lm.sample(5, "a", temperature=0) == "bbbbb"
    assert set(lm.sample(200, "a", top_k=2, seed=0)) == {"b", "c"}
    assert "d" not in lm.sample(500, "a", temperature=50.0, seed=0)


def test_sampling_leaves_the_model_alone():
    lm, fresh = (build(dropout=0.5, num_layers=2) for _ in range(2))
    before = lm.parameters.flat.copy()
    lm.sample(30)
    np.testing.assert_array_equal(lm.parameters.flat, before)
    given = window(lm)
    assert results(lm, *given)["loss"] == results(fresh, *given)["loss"], "sampling drew from dropout's generator"
