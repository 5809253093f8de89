"""Models of an encoder and a head: gradients, torch, batches, learning, files; for all of them alike."""

import copy
import pickle

import numpy as np
import pytest
from numerics import assert_close
from oracles import import_torch
from sequence_models import KINDS, LENGTHS, SOURCES, TorchTwin, batch_of, build

import fastrnn
from fastrnn import Packed, checkpoint, gradcheck, models, optim

VARIANTS = [
    {"cell": "tanh"},
    {"cell": "relu", "num_layers": 2},
    {"cell": "gru", "bidirectional": True},
    {"cell": "lstm", "num_layers": 2, "bidirectional": True},
]
kinds = pytest.mark.parametrize("kind", KINDS)
sources = pytest.mark.parametrize("source", SOURCES)
variants = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def assert_gradients(model, batch, loss):
    """Those of a copy, against what loss(model) makes of other parameters."""
    grads = copy.deepcopy(model).loss_and_gradients(batch)[1]

    def function(**values):
        model.parameters.update(values)
        return loss()

    gradcheck.check(function, dict(grads), dict(model.parameters), tolerance=1e-9).raise_if_wrong()


@kinds
@pytest.mark.parametrize("variant", [{"cell": "gru", "bidirectional": True}, {"cell": "lstm"}], ids=str)
def test_gradients_are_derivatives(kind, variant):
    model = build(kind, hidden_size=3, **variant)
    batch = batch_of(model, (4, 0, 2))
    assert_gradients(model, batch, lambda: model.loss(batch))


@sources
@pytest.mark.parametrize("kind", ["classifier mean", "tagger"])
def test_gradients_of_tokens_are_derivatives(kind, source):
    """In one direction from a table, in two and with few rows from gathered ones."""
    for options in ({"bidirectional": True}, {}, {"num_tokens": 20} if source != "vectors" else {}):
        model = build(kind, source, cell="tanh", hidden_size=3, **options)
        batch = batch_of(model, (4, 0, 9))
        assert_gradients(model, batch, lambda model=model, batch=batch: model.loss(batch))


@pytest.mark.parametrize("kind", ["classifier last", "classifier max", "value tagger"])
def test_gradients_with_dropout_are_derivatives(kind):
    """Copies draw the masks that the model would."""
    model = build(kind, cell="tanh", hidden_size=4, num_layers=2, dropout=0.4)
    batch = batch_of(model, (4, 0, 2))
    assert_gradients(model, batch, lambda: copy.deepcopy(model).loss_and_gradients(batch)[0])


@kinds
def test_dropout_is_for_training(kind):
    model, plain = (build(kind, num_layers=2, dropout=p) for p in (0.4, 0.0))
    batch = batch_of(model)
    losses = {model.loss_and_gradients(batch)[0] for _ in range(3)}
    assert len(losses | {model.loss(batch)}) == 4
    assert model.loss(batch) == plain.loss(batch) == plain.loss_and_gradients(batch)[0]


@kinds
def test_scale_is_a_factor_of_the_gradients(kind):
    model = build(kind)
    batch = batch_of(model)
    loss, grads = model.loss_and_gradients(batch)
    scaled, scaled_grads = model.loss_and_gradients(batch, scale=4.0)
    assert scaled == loss == model.loss(batch)
    np.testing.assert_allclose(scaled_grads.flat, 4 * grads.flat, rtol=1e-13, atol=1e-15)


# torch


@sources
@variants
@kinds
def test_values_and_gradients_are_those_of_torch(kind, variant, source):
    model = build(kind, source, **variant)
    twin = TorchTwin(model, "float64")
    inputs, targets = batch = batch_of(model, (5, 2, 3, 7, 1))
    loss, grads = model.loss_and_gradients(batch)
    expected = twin.loss(inputs, targets)
    expected.backward()
    got = {"loss": np.float64(loss), **grads}
    expected = {name: p.grad.numpy() for name, p in twin.modules.named_parameters()} | {"loss": expected.item()}
    assert_close(got, expected, 1e-11)
    output = twin.output(inputs).detach().numpy()
    if model.config.get("num_classes"):
        weights = np.exp(output)
        found = model.predict_proba(inputs)
        found = np.concatenate(found) if isinstance(found, list) else found
        assert_close({"p": found}, {"p": weights / weights.sum(1, keepdims=True)}, 1e-12)
        output = output.argmax(1)
    found = model.predict(inputs)
    assert_close({"y": np.concatenate(found) if isinstance(found, list) else found}, {"y": output}, 1e-12)


@pytest.mark.parametrize("kind", ["classifier last", "classifier max", "regressor mean", "tagger", "value tagger"])
@pytest.mark.parametrize("variant", [{"cell": "gru"}, {"cell": "lstm", "bidirectional": True}], ids=str)
def test_training_follows_torch(kind, variant):
    """The losses of 50 steps on ragged batches in float32, Adam and clipping included."""
    torch = import_torch()
    model = build(kind, "tokens", "float32", hidden_size=20, **variant)
    twin = TorchTwin(model, "float32")
    ours, theirs = optim.Adam(model.parameters, 1e-2), torch.optim.Adam(twin.modules.parameters(), 1e-2)
    batches = [batch_of(model, 1 + np.random.default_rng(seed).integers(9, size=8), seed) for seed in range(3)]
    losses = []
    for step in range(51):
        inputs, targets = batches[step % 3]
        expected = twin.loss(inputs, targets)
        theirs.zero_grad()
        expected.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.modules.parameters(), 0.5)
        theirs.step()
        got = model.train_step((inputs, targets), ours, clip_norm=0.5)
        np.testing.assert_allclose(got[0], expected.item(), rtol=1e-5, err_msg=f"step {step}")
        np.testing.assert_allclose(got[1], norm.item(), rtol=1e-3, err_msg=f"step {step}")
        losses.append(got[0])
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


# Batches


@sources
@kinds
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_prediction_does_not_depend_on_the_batch(kind, source, bidirectional):
    options = {} if source == "vectors" else {"num_tokens": 40}
    model = build(kind, source, "float32", hidden_size=17, bidirectional=bidirectional, num_layers=2, **options)
    inputs, _ = batch_of(model, (5, 0, 3, 70, 1, 3, 16))
    for predict in (model.predict, *([model.predict_proba] if model.config.get("num_classes") else [])):
        together = predict(inputs)
        assert len(together) == 7
        for i, sequence in enumerate(inputs):
            np.testing.assert_array_equal(predict([sequence])[0], together[i], strict=True)
        for i, found in enumerate(predict(inputs[::-1])):
            np.testing.assert_array_equal(found, together[6 - i], strict=True)


@kinds
def test_many_predictions_are_made_part_by_part(kind, monkeypatch):
    model = build(kind)
    inputs, _ = batch_of(model)
    expected = model.predict(inputs)
    monkeypatch.setattr("fastrnn.models.sequence._AT_ONCE", 2)
    for got, one in zip(model.predict(inputs), expected, strict=True):
        np.testing.assert_array_equal(got, one, strict=True)


@sources
@kinds
def test_a_batch_may_be_a_list_a_packed_or_an_array(kind, source):
    model = build(kind, source)
    inputs, targets = batch_of(model, (4, 4, 4))
    offsets = [0, 4, 8, 12]
    loss, grads = model.loss_and_gradients((inputs, targets))
    tags = isinstance(targets, list)
    for batch in (
        (Packed(np.concatenate(inputs), offsets), Packed(np.concatenate(targets), offsets) if tags else targets),
        (np.stack(inputs), np.stack(targets) if tags else targets.tolist() if targets.ndim == 1 else targets),
        (tuple(inputs), [*targets] if tags else targets),
    ):
        found, found_grads = model.loss_and_gradients(batch)
        assert found == loss
        np.testing.assert_array_equal(found_grads.flat, grads.flat)
        np.testing.assert_array_equal(np.stack(model.predict(batch[0])), np.stack(model.predict(inputs)))


@sources
@kinds
def test_sequences_without_steps(kind, source):
    model = build(kind, source)
    batch = batch_of(model, (0, 0))
    loss, grads = model.loss_and_gradients(batch)
    assert np.isfinite(loss)
    assert np.isfinite(grads.flat).all()
    found = model.predict(batch[0])
    if isinstance(found, list):
        assert loss == 0
        assert [len(one) for one in found] == [0, 0]
        assert not grads.flat.any()
    else:
        bias = model.parameters["head.bias"]
        np.testing.assert_array_equal(found, [bias.argmax()] * 2 if found.ndim == 1 else [bias, bias])


@kinds
def test_arguments_are_left_alone(kind):
    model = build(kind)
    inputs, targets = batch_of(model)
    before = copy.deepcopy((inputs, targets, model.parameters.flat))
    model.loss_and_gradients((inputs, targets))
    model.predict(inputs)
    for a, b in zip((*inputs, *targets, model.parameters.flat), (*before[0], *before[1], before[2]), strict=True):
        np.testing.assert_array_equal(a, b)


# Learning and keeping


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])
def test_a_classifier_learns(cell):
    """Whether the first token, of any length of sequence, is even."""
    rng = np.random.default_rng(0)
    x = [rng.integers(8, size=n) for n in rng.integers(1, 8, size=120)]
    y = np.array([sequence[0] % 2 for sequence in x])
    model = models.SequenceClassifier(2, num_tokens=8, embedding_size=8, cell=cell, hidden_size=24, seed=0)
    optimizer = optim.Adam(model.parameters, 1e-2)
    history = model.fit(x[:90], y[:90], epochs=15, batch_size=10, optimizer=optimizer, validation=(x[90:], y[90:]))
    assert history[0].loss > 0.3
    assert history[-1].validation_loss < 0.05
    assert model.accuracy(x[90:], y[90:]) == 1


def test_a_regressor_learns_the_mean():
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, 2)).astype(np.float32) for n in rng.integers(1, 8, size=100)]
    y = np.stack([sequence.mean(0) for sequence in x])
    model = models.SequenceRegressor(2, input_size=2, hidden_size=24, pooling="mean", cell="tanh", seed=0)
    optimizer = optim.Adam(model.parameters, 1e-2)
    history = model.fit(x, y, epochs=30, batch_size=10, optimizer=optimizer)
    assert history[0].loss > 0.1
    assert history[-1].loss < 0.02


def test_a_tagger_learns_what_comes_next():
    """Which takes the direction from the end."""
    rng = np.random.default_rng(0)
    x = [rng.integers(6, size=n) for n in rng.integers(1, 9, size=100)]
    y = [np.append(sequence[1:], 0) % 3 for sequence in x]
    model = models.SequenceTagger(3, num_tokens=6, bidirectional=True, cell="gru", hidden_size=24, seed=0)
    model.fit(x[:80], y[:80], epochs=15, batch_size=8, optimizer=optim.Adam(model.parameters, 1e-2))
    assert model.accuracy(x[80:], y[80:]) == 1


@sources
@kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_file_gives_back_every_bit(kind, source, dtype, tmp_path):
    model = build(kind, source, dtype, cell="gru", num_layers=2, bidirectional=True, dropout=0.25)
    path = tmp_path / "model"
    model.save(path, step=3, extra={"note": "x"})
    found, info = checkpoint.load(path)
    assert (info.step, info.extra) == (3, {"note": "x"})
    for again in (found, models.load(path), type(model).load(path)):
        assert type(again) is type(model)
        assert again.config == model.config
        assert again.parameters.flat.tobytes() == model.parameters.flat.tobytes()
        batch = batch_of(model)
        assert again.loss(batch) == model.loss(batch)
        optimizer = optim.SGD(again.parameters, 0.1)
        again.train_step(batch, optimizer)
        assert again.loss(batch) != model.loss(batch)


@kinds
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_stand_alone(kind, copied):
    model = build(kind, "tokens", bidirectional=True, num_layers=2)
    batch = batch_of(model)
    loss, twin = model.loss(batch), copied(model)
    assert twin.loss(batch) == loss
    twin.fit(*batch, epochs=1)
    assert twin.loss(batch) != loss
    assert model.loss(batch) == loss


def test_seeds():
    flats = [build("tagger", "tokens", seed=seed).parameters.flat for seed in (0, 0, 1, None, None)]
    np.testing.assert_array_equal(flats[0], flats[1])
    for a, b in [(0, 2), (0, 3), (3, 4)]:
        assert (flats[a] != flats[b]).all()


@kinds
def test_threads_make_no_difference(kind):
    model = build(kind, dtype="float32", hidden_size=40, num_layers=2, bidirectional=True)
    batch = batch_of(model, LENGTHS * 8)
    results = []
    for threads in {1, fastrnn.get_num_threads()}:
        fastrnn.set_num_threads(threads)
        results.append(model.loss_and_gradients(batch))
    for loss, grads in results:
        assert loss == results[0][0]
        np.testing.assert_array_equal(grads.flat, results[0][1].flat)
