"""What all models share: steps of training, fit, files."""

import copy
import re

import numpy as np
import pytest
from sequence_models import batch_of, build

from fastrnn import Linear, checkpoint, flow, models, optim
from fastrnn.checkpoint import CheckpointError
from fastrnn.examples.networks import TimeDelayClassifier
from fastrnn.models import CharLM, Seq2Seq, SequenceClassifier, SequenceGenerator, SequenceTagger
from fastrnn.models.model import Network
from fastrnn.parameters import Parameters

LENGTHS = (5, 2, 3, 7, 1, 4, 4)


def data_of(model, seed=0):
    return batch_of(model, LENGTHS, seed)


@pytest.mark.parametrize(
    "limits", [{}, {"clip_norm": 0.1}, {"clip_norm": 1e3}, {"clip_value": 0.01}, {"clip_step": 1e-3}], ids=str
)
def test_a_training_step_is_its_parts(limits):
    model, twin = build("classifier last"), build("classifier last")
    optimizer, twin_optimizer = optim.Adam(model.parameters), optim.Adam(twin.parameters)
    for seed in range(3):
        batch = data_of(model, seed)
        with flow.clip_steps(limits.get("clip_step")):
            loss, grads = twin.loss_and_gradients(batch)
        norm = optim.grad_norm(grads)
        if "clip_norm" in limits:
            optim.clip_grad_norm(grads, limits["clip_norm"])
        if "clip_value" in limits:
            optim.clip_grad_value(grads, limits["clip_value"])
        twin_optimizer.step(grads)
        assert model.train_step(batch, optimizer, **limits) == (loss, norm)
        np.testing.assert_array_equal(model.parameters.flat, twin.parameters.flat)


def test_gradients_go_where_they_are_wanted():
    model = build("tagger")
    batch, grads = data_of(model), model.parameters.zeros_like()
    _, expected = model.loss_and_gradients(batch)
    assert model.loss_and_gradients(batch, grads=grads)[1] is grads
    np.testing.assert_array_equal(grads.flat, expected.flat)
    with pytest.raises(ValueError, match=r"^grads: expected float64 "):
        model.loss_and_gradients(batch, grads=Parameters({"w": (2,)}, "float64"))


# A gradient that is not finite


def test_a_gradient_that_is_not_finite_is_skipped_and_placed():
    """It grows 1e160 times a step on its way back through the upper of two layers, whose h is 0."""
    model = build("classifier last", cell="tanh", num_layers=2)
    for name, value in model.parameters.items():
        if "bias" in name:
            value.fill(0)
    model.parameters["rnn.weight_hh_l1"] = 1e160 * np.eye(6)
    before, optimizer = model.parameters.flat.copy(), optim.Adam(model.parameters)
    place = r"first at step 3 of layer 1 of RNN"
    message = rf"^train_step: expected a finite gradient, got norm (inf|nan), {place}; nothing is updated$"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        _, norm = model.train_step((np.zeros((1, 6, 4)), [1]), optimizer, clip_norm=1.0)
    assert not np.isfinite(norm)
    assert len(caught) == 1
    assert optimizer.steps == 0
    np.testing.assert_array_equal(model.parameters.flat, before)
    _, norm = model.train_step((np.zeros((1, 6, 4)), [1]), optimizer, clip_step=1e-100)
    assert np.isfinite(norm)


def test_the_place_is_where_the_gradient_was_lost(monkeypatch):
    """A gradient of h_t that is infinite at one step of one layer, planted in what the flow shows."""
    model = build("classifier last", cell="gru", num_layers=2)
    batch, original = data_of(model), flow.Asked.place

    def planted(asked, layer, index, *rest):
        d_h = original(asked, layer, index, *rest)
        lost.append((index, d_h))
        return d_h

    lost = []
    monkeypatch.setattr(flow.Asked, "place", planted)
    assert flow.first_bad(lambda: model.loss_and_gradients(batch)) == ""
    assert [index for index, d_h in lost if d_h is not None] == [1, 0]
    monkeypatch.setattr(flow.Flow, "first_bad", property(lambda self: 3 if self.index == 0 else None))
    assert flow.first_bad(lambda: model.loss_and_gradients(batch)) == "first at step 3 of layer 0 of GRU"


TRAIN_STEP = "train_step: expected a finite gradient, got norm nan, {}; nothing is updated"
OTHERS = {
    "generator": lambda: SequenceGenerator(4, 3, hidden_size=6, seed=0, dtype="float64"),
    "seq2seq": lambda: Seq2Seq(4, 4, hidden_size=6, seed=0, dtype="float64"),
}


def any_model(kind):
    return OTHERS[kind]() if kind in OTHERS else build(kind)


def any_batch(model):
    rng = np.random.default_rng(0)
    tokens = [rng.integers(4, size=n) for n in LENGTHS]
    if isinstance(model, Seq2Seq):
        return tokens, tokens
    return (rng.standard_normal((7, 3)), tokens) if isinstance(model, SequenceGenerator) else data_of(model)


def assert_names(model, batch, place):
    before, optimizer = model.parameters.flat.copy(), optim.Adam(model.parameters)
    with pytest.warns(RuntimeWarning) as caught:
        model.train_step(batch, optimizer)
    assert [str(warning.message) for warning in caught] == [TRAIN_STEP.format(place)]
    np.testing.assert_array_equal(model.parameters.flat, before)
    assert optimizer.steps == 0


@pytest.mark.parametrize(
    ("kind", "which", "place"),
    [
        ("classifier last", 0, "inputs hold nan"),
        ("classifier mean", 0, "inputs hold nan"),
        ("regressor last", 0, "inputs hold nan"),
        ("regressor mean", 1, "targets hold nan"),
        ("tagger", 0, "inputs hold nan"),
        ("value tagger", 0, "inputs hold nan"),
        ("value tagger", 1, "targets hold nan"),
        ("generator", 0, "conditions hold nan"),
    ],
)
def test_a_batch_that_is_not_finite_is_named(kind, which, place):
    model = any_model(kind)
    batch = any_batch(model)
    batch[which][3][-1] = np.nan
    assert_names(model, batch, place)


@pytest.mark.parametrize("kind", ["classifier last", "value tagger", "generator", "seq2seq"])
def test_a_parameter_that_is_not_finite_is_named(kind):
    model = any_model(kind)
    name = list(model.parameters)[-2]
    model.parameters[name][1, 2] = np.nan
    assert_names(model, any_batch(model), f"{name} holds nan")


def test_a_network_of_ones_own_is_told_the_same():
    model = TimeDelayClassifier(3, 4, hidden_size=5, num_layers=1, seed=0)
    model.parameters["layer0.bias"][0] = np.nan
    assert_names(model, ([[0, 1], [2]], [0, 1]), "layer0.bias holds nan")


def test_training_goes_on_after_a_bad_batch():
    model = build("value tagger")
    inputs, targets = data_of(model)
    targets[2][1, 0] = np.inf
    with pytest.warns(RuntimeWarning, match="nothing is updated") as caught:
        history = model.fit(inputs, targets, epochs=2, batch_size=2)
    assert len(caught) == 2
    assert np.isfinite(model.parameters.flat).all()
    assert history[-1].loss == np.inf


# fit


def test_fit_is_a_loop_of_training_steps():
    """All data once an epoch, in another order each time, the learning rate falling to 0."""
    model, twin = build("tagger"), build("tagger")
    inputs, targets = data_of(model)
    optimizer, twin_optimizer = (optim.SGD(m.parameters, 0.5) for m in (model, twin))
    steps = []
    history = model.fit(
        inputs, targets, epochs=3, batch_size=3, optimizer=optimizer, clip_norm=0.2, seed=4, on_step=steps.append,
        validation=(inputs[:5], targets[:5]),
    )  # fmt: skip
    generator, done = np.random.default_rng(4), 0
    for epoch in history:
        order, total, norms = generator.permutation(7), 0.0, []
        for start in (0, 3, 6):
            index = order[start : start + 3]
            batch = [inputs[i] for i in index], [targets[i] for i in index]
            twin_optimizer.lr = 0.5 * (1 - done / 9)
            loss, norm = twin.train_step(batch, twin_optimizer, clip_norm=0.2)
            done += 1
            assert steps[done - 1] == (done, 9, loss, norm)
            total += loss * sum(map(len, batch[0]))
            norms.append(norm)
        assert epoch.loss == pytest.approx(total / sum(LENGTHS), rel=1e-12)
        assert epoch.grad_norm == pytest.approx(np.mean(norms), rel=1e-12)
        assert epoch.validation_loss == pytest.approx(twin.loss((inputs[:5], targets[:5])), rel=1e-12)
        assert epoch.seconds > 0
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert len(steps) == done == 9
    assert optimizer.lr == 0.5
    np.testing.assert_array_equal(model.parameters.flat, twin.parameters.flat)


def test_without_decay_the_learning_rate_stays():
    model = build("classifier mean")
    optimizer, rates = optim.SGD(model.parameters, 0.5), []
    model.fit(
        *data_of(model), epochs=2, optimizer=optimizer, decay=False, on_step=lambda step: rates.append(optimizer.lr)
    )
    assert rates == [0.5, 0.5]


def test_fit_repeats_to_the_bit():
    models_of = [build("classifier max", dropout=0.3, num_layers=2) for _ in range(3)]
    for model, seed in zip(models_of, (1, 1, 2), strict=True):
        model.fit(*data_of(model), epochs=3, batch_size=2, seed=seed)
    flats = [model.parameters.flat for model in models_of]
    np.testing.assert_array_equal(flats[0], flats[1])
    assert (flats[0] != flats[2]).any()


def test_fit_of_no_epochs_changes_nothing():
    model = build("classifier last")
    before = model.parameters.flat.copy()
    assert model.fit(*data_of(model), epochs=0) == []
    np.testing.assert_array_equal(model.parameters.flat, before)


def test_the_learning_rate_is_given_back_after_an_error():
    model = build("classifier last")
    optimizer = optim.SGD(model.parameters, 0.5)

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*data_of(model), batch_size=2, optimizer=optimizer, on_step=stop)
    assert optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [0, 1]}, "targets: expected 7, one for each of the inputs, got 2"),
        ({"inputs": [], "targets": []}, "inputs: expected at least one sequence, got none"),
        ({"targets": [0, 1, 2, 0, 1, 2, 3]}, "targets: expected 0 <= label < 3, got 3"),
        ({"batch_size": 0}, "batch_size: expected an integer >= 1, got 0"),
        ({"epochs": -1}, "epochs: expected an integer >= 0, got -1"),
        ({"validation": ([], [])}, "validation inputs: expected at least one sequence, got none"),
        ({"validation": ([np.zeros((1, 4))], [])}, "validation targets: expected 1, one for each of the inputs, got 0"),
        ({"clip_norm": -1.0}, "max_norm: expected a number >= 0, got -1"),
    ],
)
def test_bad_arguments_of_fit(change, message):
    model = build("classifier last")
    inputs, targets = data_of(model)
    before = model.parameters.flat.copy()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.fit(**{"inputs": inputs, "targets": targets, **change})
    np.testing.assert_array_equal(model.parameters.flat, before)


WRONG_OPTIMIZER = "optimizer: expected one of this model's parameters, got one of others"


@pytest.mark.parametrize("kind", ["classifier last", "seq2seq"])
def test_an_optimiser_of_another_model_is_refused(kind):
    model, twin = any_model(kind), any_model(kind)
    for optimizer in (optim.SGD(twin.parameters), optim.Adam(copy.deepcopy(model).parameters)):
        for call in (model.train_step, lambda batch, optimizer: model.fit(*batch, optimizer=optimizer)):
            before = model.parameters.flat.copy(), twin.parameters.flat.copy()
            with pytest.raises(ValueError, match=f"^{WRONG_OPTIMIZER}$"):
                call(any_batch(model), optimizer)
            np.testing.assert_array_equal((model.parameters.flat, twin.parameters.flat), before)


def test_an_optimiser_copied_with_its_model_is_its_own():
    model = build("classifier last")
    twin, optimizer = copy.deepcopy((model, optim.SGD(model.parameters, 0.5)))
    before = twin.parameters.flat.copy()
    twin.train_step(data_of(twin), optimizer)
    assert np.abs(twin.parameters.flat - before).max() > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, b: m.train_step(b, None), "optimizer: expected Optimizer, got NoneType"),
        (lambda m, b: m.train_step(b, "adam"), "optimizer: expected Optimizer, got str"),
        (lambda m, b: m.fit(*b, optimizer=optim.Adam), "optimizer: expected Optimizer, got ABCMeta"),
        (lambda m, b: m.fit(None, b[1]), "inputs: expected a Packed, an array or a list, got NoneType"),
        (lambda m, b: m.fit(b[0], 3), "targets: expected a Packed, an array or a list, got int"),
        (lambda m, b: m.fit(iter(b[0]), b[1]), "inputs: expected a Packed, an array or a list, got list_iterator"),
        (lambda m, b: m.fit(np.float64(1), b[1]), "inputs: expected a Packed, an array or a list, got float64"),
        (lambda m, b: m.predict(None), "inputs: expected a Packed, an array or a list, got NoneType"),
        (lambda m, b: m.predict(["a", "b"]), "inputs[0]: expected shape (T, 4), got ()"),
        (lambda m, b: m.predict([[[1.0, 2.0], [1.0]]]), "inputs[0]: expected shape (T, 4), got list ("),
        (lambda m, b: m.loss(None), None),
        (lambda m, b: m.loss(b[0][:3]), "batch: expected (inputs, targets), got list of 3"),
        (lambda m, b: m.loss(3), "batch: expected (inputs, targets), got int"),
        (lambda m, b: m.loss("ab"), "batch: expected (inputs, targets), got str"),
        (lambda m, b: m.fit(*b, validation=b[0]), "validation: expected (inputs, targets), got list of 7"),
        (lambda m, b: m.fit(*b, seed="x"), "seed: expected None, an integer >= 0 or a Generator, got 'x'"),
        (lambda m, b: m.fit(*b, on_step=3), "on_step: expected a function, got int"),
        (lambda m, b: m.fit(*b, decay="linear"), "decay: expected True or False, got 'linear'"),
        (lambda m, b: m.loss_and_gradients(b, "2"), "scale: expected a number, got '2'"),
        (lambda m, b: m.loss_and_gradients(b, np.nan), "scale: expected a number >= -inf, got nan"),
        (lambda m, b: m.loss_and_gradients(b, grads={}), "grads: expected Parameters, got dict"),
    ],
)
def test_what_is_no_argument_of_a_model_is_named(call, message):
    model = build("classifier last")
    before = model.parameters.flat.copy()
    with pytest.raises((TypeError, ValueError)) as caught:
        call(model, data_of(model))
    assert str(caught.value).startswith(message or "inputs: expected a Packed, an array or a list, got NoneType")
    np.testing.assert_array_equal(model.parameters.flat, before)


# What is shown


def test_a_model_shows_its_parts():
    classifier = SequenceClassifier(2, num_tokens=7, embedding_size=3, cell="gru", hidden_size=4, num_layers=2)
    assert repr(classifier) == (
        "SequenceClassifier(\n"
        "  (embedding): Embedding(7, 3)\n"
        "  (rnn): GRU(3, 4, num_layers=2)\n"
        "  (head): Classes(4, 2)\n"
        ")"
    )
    translator = Seq2Seq(4, 5, cell="tanh", hidden_size=6, embedding_size=0, bidirectional=True, attention=True)
    assert repr(translator) == (
        "Seq2Seq(\n"
        "  (encoder.rnn): RNN(4, 6, bidirectional=True)\n"
        "  (decoder.rnn): RNN(6, 6)\n"
        "  (bridge.h): Linear(12, 6)\n"
        "  (memory): Linear(12, 6, bias=False)\n"
        "  (attention): Linear(12, 6, bias=False)\n"
        "  (head): Classes(6, 6)\n"
        ")"
    )


def test_a_model_in_a_model_is_indented():
    inner = Network({"linear": Linear(1, 2)}, {})
    assert repr(Network({"linear": Linear(2, 3)}, {})) == "Network(\n  (linear): Linear(2, 3)\n)"
    outer = object.__new__(Network)
    outer._parts = {"inner": inner}
    assert repr(outer) == "Network(\n  (inner): Network(\n    (linear): Linear(1, 2)\n  )\n)"


# Files


def test_a_file_of_another_model_is_named(tmp_path):
    path = tmp_path / "model"
    CharLM("ab", hidden_size=3).save(path)
    assert isinstance(models.load(path), CharLM)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: expected a SequenceTagger, got a CharLM")):
        SequenceTagger.load(path)


def test_a_file_keeps_the_optimiser(tmp_path):
    model = build("tagger")
    optimizer = optim.Adam(model.parameters)
    model.train_step(data_of(model), optimizer)
    model.save(tmp_path / "model", optimizer)
    found, info = checkpoint.load(tmp_path / "model")
    again = optim.Adam(found.parameters)
    again.load_state_dict(info.optimizer)
    for each, its in ((model, optimizer), (found, again)):
        each.train_step(data_of(model, 1), its)
    np.testing.assert_array_equal(found.parameters.flat, model.parameters.flat)


@pytest.mark.parametrize("source", ["vectors", "tokens", "one-hot"])
@pytest.mark.parametrize("kind", ["classifier max", "regressor last", "tagger", "value tagger"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True}, {"hidden_size": 1}], ids=str)
def test_no_model_is_smaller_than_its_least(kind, source, options):
    for cell in ("tanh", "lstm"):
        model = build(kind, source, cell=cell, **options)
        least = type(model).least_elements(model.config)
        assert 0 < least <= model.parameters.flat.size
        assert Network.least_elements(model.config) == least


def test_a_large_size_makes_a_large_least():
    config = build("tagger", "tokens").config
    for name in ("hidden_size", "num_tokens", "num_classes"):
        assert SequenceTagger.least_elements(config | {name: 10_000}) >= 30_000, name
    config = SequenceClassifier(2, input_size=3).config
    assert SequenceClassifier.least_elements(config | {"input_size": 10_000}) >= 1_280_000
