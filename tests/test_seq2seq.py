"""Seq2Seq: losses and gradients against torch and against differences, translations, alignments, trainings."""

import itertools

import numpy as np
import pytest
from cells import CELLS, torch_layer
from numerics import assert_close, relative_error
from oracles import arrays_of, assert_trains_as_torch, import_torch

import fastrnn
from fastrnn import Packed, functional, gradcheck, optim
from fastrnn.models.seq2seq import Seq2Seq

U, V = 7, 5
KINDS = [
    {"cell": "lstm"},
    {"cell": "lstm", "attention": True},
    {"cell": "lstm", "bidirectional": True, "num_layers": 2},
    {"cell": "gru", "bidirectional": True, "attention": True, "num_layers": 2},
    {"cell": "tanh", "attention": True, "num_layers": 2},
    {"cell": "relu", "bidirectional": True},
]
kinds = pytest.mark.parametrize(
    "kind", KINDS, ids=lambda kind: "-".join(str(v) if v is not True else k for k, v in kind.items())
)


def build(dtype="float64", seed=0, **options):
    return Seq2Seq(U, V, **{"hidden_size": 9, "embedding_size": 4} | options, dtype=dtype, seed=seed)


def sequences(below, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, below, n) for n in lengths]


def example(least=0, seed=0):
    """Sources and targets of unequal lengths."""
    return sequences(U, (3, 6, least, 1, 6, 17), seed), sequences(V, (2, 0, 4, 5, 1, 16), seed + 1)


# Against torch, sequence by sequence


def torch_twin(model):
    """torch's layers by the same names, with the same weights."""
    torch, c = import_torch(), model.config
    H, D, cell = c["hidden_size"], 1 + c["bidirectional"], c["cell"]

    def side(num_tokens, bidirectional):
        E = c["embedding_size"]
        parts = {
            "rnn": torch_layer(torch, cell, E, H, c["num_layers"], bidirectional=bidirectional),
            "embedding": torch.nn.Embedding(num_tokens, E),
        }
        return torch.nn.ModuleDict(parts)

    parts = {"encoder": side(U, D == 2), "decoder": side(V + 1, False), "head": torch.nn.Linear(H, V + 1)}
    if D == 2:
        states = CELLS[cell].kind.states
        parts["bridge"] = torch.nn.ModuleDict({name: torch.nn.Linear(2 * H, H) for name in states})
    if c["attention"]:
        parts["attention"] = torch.nn.Linear(2 * H, H, bias=False)
        if D == 2:
            parts["memory"] = torch.nn.Linear(2 * H, H, bias=False)
    twin = torch.nn.ModuleDict(parts).to(getattr(torch, c["dtype"]))
    twin.load_state_dict({name: torch.tensor(value) for name, value in model.parameters.items()})
    return twin


def torch_rows(twin, source, target):
    """Logits (T+1, V+1) of one pair."""
    torch = import_torch()
    memory, state = twin["encoder"]["rnn"](twin["encoder"]["embedding"](torch.tensor(source))[:, None])
    if "bridge" in twin:
        both = [s.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2) for s in arrays_of(state)]
        state = [linear(s) for linear, s in zip(twin["bridge"].values(), both, strict=True)]
        state[0] = state[0].tanh()
        state = tuple(state) if len(state) > 1 else state[0]
    tokens = torch.tensor([V, *target])
    rows, _ = twin["decoder"]["rnn"](twin["decoder"]["embedding"](tokens)[:, None], state)
    rows, memory = rows[:, 0], memory[:, 0]
    if "attention" in twin:
        memory = twin["memory"](memory) if "memory" in twin else memory
        context = (rows @ memory.T).softmax(1) @ memory
        rows = twin["attention"](torch.cat([context, rows], 1)).tanh()
    return twin["head"](rows)


def torch_loss(twin, batch):
    torch = import_torch()
    logits = torch.cat([torch_rows(twin, *pair) for pair in zip(*batch, strict=True)])
    outputs = np.concatenate([[*target, V] for target in batch[1]])
    return torch.nn.functional.cross_entropy(logits, torch.tensor(outputs))


@kinds
def test_loss_and_gradients_equal_torchs(kind):
    model, batch = build(**kind), example(least=2)
    twin = torch_twin(model)
    expected = torch_loss(twin, batch)
    expected.backward()
    loss, grads = model.loss_and_gradients(batch)
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    assert model.loss(batch) == loss
    assert_close(grads, {name: p.grad.numpy() for name, p in twin.named_parameters()}, 1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("attention", [False, True])
def test_a_training_goes_as_torchs(attention, dtype, tolerance):
    model = build(dtype, attention=attention, bidirectional=attention)
    batches = [example(least=1, seed=step % 10) for step in range(50)]
    loss = assert_trains_as_torch(model, torch_twin(model), torch_loss, batches, tolerance)
    assert loss < 1.76, "guessing: log(6) = 1.79"


# Gradients


@kinds
def test_gradients_are_derivatives(kind):
    model = build(**kind, hidden_size=2, embedding_size=2)
    batch = example()

    def loss(**parameters):
        model.parameters.update(parameters)
        return np.float64(model.loss(batch))

    _, grads = model.loss_and_gradients(batch)
    report = gradcheck.check(loss, dict(grads), dict(model.parameters), method="dot")
    assert report.ok, report


def test_attention_against_its_formula():
    rng = np.random.default_rng(0)
    q, m = rng.standard_normal((9, 4)), rng.standard_normal((8, 4))
    bounds = np.array([0, 3, 3, 5, 9]), np.array([0, 2, 5, 5, 8])  # without queries, without keys

    def context(queries, memory):
        return functional.attention(queries, memory, *bounds)[0]

    found, pullback = functional.attention(q, m, *bounds)
    for (a, b), (c, d) in zip(*map(itertools.pairwise, bounds), strict=True):
        weights = np.exp(q[a:b] @ m[c:d].T)
        expected = (weights / weights.sum(1, keepdims=True)) @ m[c:d] if d > c else np.zeros((b - a, 4))
        np.testing.assert_allclose(found[a:b], expected, rtol=1e-13)
    assert not pullback(np.ones_like(q))[0][3:5].any()

    def pulled(d_context):
        return dict(zip(("queries", "memory"), pullback(d_context), strict=True))

    assert gradcheck.check(context, pulled, {"queries": q, "memory": m}).ok


def test_scores_may_be_large():
    q, m = np.array([[1e3], [-1e3]]), np.array([[1.0], [2.0]])
    found, pullback = functional.attention(q, m, np.array([0, 2]), np.array([0, 2]))
    np.testing.assert_array_equal(found, [[2.0], [1.0]])
    assert not pullback(np.ones((2, 1)))[0].any()


def test_scale_is_a_factor_of_the_gradients():
    model, batch = build(attention=True), example()
    loss, grads = model.loss_and_gradients(batch)
    again, scaled = model.loss_and_gradients(batch, 8.0)
    assert loss == again
    assert relative_error(scaled.flat, 8 * grads.flat) < 1e-14


# Batches


def shuffled(batch, order):
    return tuple([part[i] for i in order] for part in batch)


@kinds
def test_a_sequence_does_not_depend_on_those_beside_it(kind):
    """To the bit: rows, log-probabilities, translations."""
    model, batch = build("float32", **kind, hidden_size=33), example(seed=3)
    found = model.search(batch[0], 9, 3, 0.6)
    order = [4, 0, 5, 2, 1, 3]
    again = model.search(shuffled(batch, order)[0], 9, 3, 0.6)
    for i, b in enumerate(order):
        alone = model.search([batch[0][b]], 9, 3, 0.6)[0]
        for each, other, own in zip(found[b], again[i], alone, strict=True):
            assert list(each.tokens) == list(other.tokens) == list(own.tokens)
            assert each[1:] == other[1:] == own[1:]
    total = sum(model.loss(shuffled(batch, [b])) * (len(batch[1][b]) + 1) for b in range(6))
    assert total / sum(len(target) + 1 for target in batch[1]) == pytest.approx(model.loss(batch), rel=1e-13)


def test_all_forms_of_a_batch_are_one():
    model = build(attention=True)
    sources, targets = np.arange(15).reshape(5, 3) % U, np.arange(10).reshape(5, 2) % V
    expected = model.loss((sources, targets))
    lists = list(sources), [list(target) for target in targets]
    packed = Packed(sources.reshape(-1), np.arange(6) * 3), Packed(targets.reshape(-1), np.arange(6) * 2)
    assert model.loss(lists) == model.loss(packed) == expected


def test_dropout_is_for_training_alone():
    model, plain, batch = build(dropout=0.5, attention=True), build(attention=True), example()
    assert model.loss(batch) == plain.loss(batch)
    losses = {model.loss_and_gradients(batch)[0] for _ in range(3)}
    assert len(losses) == 3
    again = build(dropout=0.5, attention=True)
    assert again.loss_and_gradients(batch)[0] in losses, "seeded"


# Decoding


@kinds
def test_log_probabilities_of_translations_are_those_of_the_loss(kind):
    model, (sources, _) = build(**kind), example()
    model.parameters.flat[:] *= 3
    for source, found in zip(sources, model.search(sources, 6, 4), strict=True):
        assert len(found) == 4
        for each in found:
            loss = model.loss(([source], [each.tokens]))
            assert each.log_probability == pytest.approx(-loss * (len(each.tokens) + 1), rel=1e-11)


@pytest.mark.parametrize("attention", [False, True])
def test_a_wide_beam_finds_the_best_of_all(attention):
    model = Seq2Seq(4, 2, hidden_size=6, embedding_size=3, attention=attention, dtype="float64", seed=1)
    model.parameters.flat[:] *= 4
    sources = sequences(4, (3, 1, 5))
    targets = [target for n in range(5) for target in itertools.product(range(2), repeat=n)]
    for source, found in zip(sources, model.search(sources, 4, 31, 0.7), strict=True):
        log_p = [-model.loss(([source], [np.array(t, np.int64)])) * (len(t) + 1) for t in targets]
        score = [p / ((6 + len(t)) / 6) ** 0.7 for t, p in zip(targets, log_p, strict=True)]
        ranked = [targets[i] for i in np.argsort(-np.array(score))]
        assert [tuple(each.tokens) for each in found] == ranked


@kinds
def test_translations_take_the_likeliest_token(kind):
    model, (sources, _) = build(**kind), example(least=1)
    model.parameters.flat[:] *= 4
    twin = torch_twin(model)
    for source, found in zip(sources, model.translate(sources, 6), strict=True):
        expected = []
        while len(expected) < 6 and (token := int(torch_rows(twin, source, expected)[-1].argmax())) != V:
            expected.append(token)
        np.testing.assert_array_equal(found, np.array(expected, np.int64), strict=True)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_alignments(bidirectional):
    model, batch = build(attention=True, bidirectional=bidirectional), example()
    found = model.align(*batch)
    for weights, source, target in zip(found, *batch, strict=True):
        assert weights.shape == (len(target) + 1, len(source))
        assert (weights > 0).all()
        if len(source):
            np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-14)
    np.testing.assert_array_equal(model.align([batch[0][1]], [batch[1][1]])[0], found[1])


# Teacher forcing


def test_teacher_forcing_decides_what_the_decoder_reads(monkeypatch):
    model, batch = build(attention=True), example()
    model.parameters.flat[:] *= 4  # for predictions of all kinds
    read, original = [], Seq2Seq._write

    def write(self, inputs, *rest, training=False):
        if training:
            read.append(inputs.data)
        return original(self, inputs, *rest, training=training)

    monkeypatch.setattr(Seq2Seq, "_write", write)
    expected = model.loss_and_gradients(batch)[0]
    for probability in (0.0, 0.5):
        model.teacher_forcing = probability
        model.loss_and_gradients(batch)
        assert model.loss(batch) == expected, "the loss reads the targets"
    forced, own, some = read
    np.testing.assert_array_equal(forced, np.concatenate([[V, *target] for target in batch[1]]))
    assert ((own == V) == (forced == V)).all()
    likeliest, at, twin = {}, 0, torch_twin(model)
    for source, target in zip(*batch, strict=True):
        if len(source):
            likeliest[at] = torch_rows(twin, source, target).argmax(1).numpy()
        at += len(target) + 1
    assert {0, 1, V} <= set(np.concatenate([tokens[:-1] for tokens in likeliest.values()]))
    for at, tokens in likeliest.items():
        for n, token in enumerate(tokens[:-1], at + 1):
            assert own[n] == (token if token < V else forced[n])
    assert ((some == own) | (some == forced)).all()
    assert (some != own).any()
    assert (some != forced).any()


def test_gradients_with_own_predictions_are_those_of_what_was_read(monkeypatch):
    model, batch = build(attention=True), example()
    model.teacher_forcing = 0.3
    read, original = [], Seq2Seq._own_predictions
    monkeypatch.setattr(Seq2Seq, "_own_predictions", lambda *given: read.append(original(*given)) or read[-1])
    loss, grads = model.loss_and_gradients(batch)
    monkeypatch.setattr(Seq2Seq, "_own_predictions", lambda *given: read[0])
    again, expected = model.loss_and_gradients(batch)
    assert loss == again
    np.testing.assert_array_equal(grads.flat, expected.flat)
    model.teacher_forcing = 1
    assert model.loss_and_gradients(batch)[0] != loss


def test_a_schedule_in_a_training():
    model, batch = build("float32"), example()
    seen = []

    def schedule(step):
        model.teacher_forcing = 1 - step.step / step.steps
        seen.append(model.teacher_forcing)

    model.fit(*batch, epochs=2, batch_size=3, on_step=schedule)
    assert seen == [0.75, 0.5, 0.25, 0.0]


# Training and files


def test_sequences_are_learnt_to_be_reversed():
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 8, rng.integers(1, 8)) for _ in range(600)]
    fastrnn.set_num_threads(1)
    model = Seq2Seq(8, 8, hidden_size=32, attention=True, embedding_size=16, seed=0)
    optimizer = optim.Adam(model.parameters, 1e-2)
    model.fit(sources, [s[::-1] for s in sources], epochs=12, batch_size=20, optimizer=optimizer)
    fresh = [rng.integers(0, 8, rng.integers(1, 8)) for _ in range(100)]
    found = model.translate(fresh, 10)
    assert sum(list(t) == list(s[::-1]) for s, t in zip(fresh, found, strict=True)) >= 90
    weights = model.align([np.arange(6)], [np.arange(6)[::-1]])[0]
    assert (weights[:6].argmax(1) == np.arange(6)[::-1]).sum() >= 5


@kinds
def test_config_builds_the_model_again(kind, tmp_path):
    model = build("float32", **kind, dropout=0.25)
    assert Seq2Seq(**model.config).config == model.config
    batch = example()
    model.save(tmp_path / "model.safetensors")
    again = Seq2Seq.load(tmp_path / "model.safetensors")
    assert again.loss(batch) == model.loss(batch)


def test_one_hot_tokens():
    model, batch = build(embedding_size=0, attention=True), example()
    assert "encoder.embedding.weight" not in model.parameters
    assert model.parameters["decoder.rnn.weight_ih_l0"].shape == (36, V + 1)
    loss, grads = model.loss_and_gradients(batch)
    assert loss == model.loss(batch)
    assert np.isfinite(grads.flat).all()


def test_seeds():
    flat = [build(seed=seed, attention=True, bidirectional=True).parameters.flat for seed in (0, 0, 1)]
    np.testing.assert_array_equal(flat[0], flat[1])
    assert (flat[0] != flat[2]).mean() > 0.99


# Bad input


SOURCES, TARGETS = [[1, 2], [3]], [[1], [2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.loss(([[1, 7]], [[1]])), "sources: expected 0 <= token < 7, got 7"),
        (lambda m: m.loss((SOURCES, [[1], [5]])), "targets: expected 0 <= token < 5, got 5"),
        (lambda m: m.loss((SOURCES, [[1], [-1]])), "targets: expected 0 <= token < 5, got -1"),
        (lambda m: m.loss((SOURCES, [[1]])), "targets: expected 2, one for each of the sources, got 1"),
        (lambda m: m.loss(([], [])), "sources: expected at least one sequence, got none"),
        (lambda m: m.loss((SOURCES, [])), "targets: expected at least one sequence, got none"),
        (lambda m: m.loss((SOURCES,)), "batch: expected (sources, targets), got tuple of 1"),
        (lambda m: m.loss(([[[1]]], [[1]])), "sources[0]: expected shape (T,), got (1, 1)"),
        (lambda m: m.translate([], 5), "sources: expected at least one sequence, got none"),
        (lambda m: m.translate([[9]], 5), "sources: expected 0 <= token < 7, got 9"),
        (lambda m: m.translate(SOURCES, 5, 0), "beam_width: expected an integer >= 1, got 0"),
        (lambda m: m.translate(SOURCES, -1), "max_length: expected an integer >= 0, got -1"),
        (lambda m: m.align(SOURCES, TARGETS), "align: expected a model with attention, got one without"),
        (lambda m: setattr(m, "teacher_forcing", 1.5), "teacher_forcing: expected a number in 0..1, got 1.5"),
        (lambda _: Seq2Seq(0, 5), "num_source: expected an integer >= 1, got 0"),
        (lambda _: Seq2Seq(5, 0), "num_target: expected an integer >= 1, got 0"),
        (lambda _: Seq2Seq(5, 5, hidden_size=0), "hidden_size: expected an integer >= 1, got 0"),
        (lambda _: Seq2Seq(5, 5, cell="elman"), "cell: expected one of tanh, relu, gru, lstm, got 'elman'"),
        (lambda _: Seq2Seq(5, 5, dropout=2.0), "dropout: expected a number in 0..1, got 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call(build())
    assert str(error.value) == message
