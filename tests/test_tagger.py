"""Step by step: the interface of taggers; test_sequence_models.py has their numbers."""

import re

import numpy as np
import pytest
from sequence_models import LENGTHS, batch_of, build

from fastrnn import Packed
from fastrnn.models import SequenceTagger

X = [np.zeros((2, 4)), np.zeros((3, 4))]
Y = [np.zeros(2, int), np.zeros(3, int)]


@pytest.mark.parametrize("kind", ["tagger", "value tagger"])
def test_predictions_are_as_long_as_the_inputs(kind):
    model = build(kind)
    inputs, _ = batch_of(model)
    found = model.predict(inputs)
    assert [one.shape for one in found] == [(n,) if kind == "tagger" else (n, 3) for n in LENGTHS]
    assert {one.dtype for one in found} == {np.dtype("int64" if kind == "tagger" else "float64")}
    if kind == "tagger":
        for labels, p in zip(found, model.predict_proba(inputs), strict=True):
            np.testing.assert_array_equal(p.argmax(1), labels)
            np.testing.assert_allclose(p.sum(1), 1)


def test_accuracy_is_the_share_of_right_steps():
    model = build("tagger")
    inputs, _ = batch_of(model)
    right = model.predict(inputs)
    assert model.accuracy(inputs, right) == 1
    wrong = [one.copy() for one in right]
    wrong[0][:4] = (wrong[0][:4] + 1) % 3
    assert model.accuracy(inputs, wrong) == 0.75
    assert model.accuracy(inputs[1:2], right[1:2]) == 0


def test_a_tagger_of_values_has_no_classes():
    model = build("value tagger")
    inputs, targets = batch_of(model)
    for name, given in (("accuracy", (inputs, targets)), ("predict_proba", (inputs,))):
        with pytest.raises(ValueError, match=f"^{name}: expected a tagger with num_classes, got num_outputs=3$"):
            getattr(model, name)(*given)


@pytest.mark.parametrize("sizes", [(), (2, 2)])
def test_one_kind_of_head(sizes):
    given = " and ".join(f"{n}={s}" for n, s in zip(("num_classes", "num_outputs"), sizes or (None, None), strict=True))
    message = f"num_classes: expected either num_classes or num_outputs, got {given}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SequenceTagger(*sizes, input_size=3)


@pytest.mark.parametrize(
    ("kind", "inputs", "targets", "error", "message"),
    [
        ("tagger", X, Y[:1], ValueError, "targets: expected 2 sequences, got 1"),
        ("tagger", X, Y[::-1], ValueError, "targets[0]: expected length 2 as of inputs[0], got 3"),
        ("tagger", X, [Y[0], Y[1][1:]], ValueError, "targets[1]: expected length 3 as of inputs[1], got 2"),
        ("tagger", X, [Y[0], [0, 3, 1]], ValueError, "targets: expected 0 <= label < 3, got 3"),
        ("tagger", X, [Y[0], [0, 1, 0.5]], TypeError, "targets: expected integers, got dtype float64"),
        ("tagger", X, [Y[0], [[0], [0], [0]]], ValueError, "targets[1]: expected shape (T,), got (3, 1)"),
        ("tagger", [], [], ValueError, "inputs: expected at least one sequence, got none"),
        ("value tagger", X, Y, ValueError, "targets[0]: expected shape (T, 3), got (2,)"),
        (
            "value tagger",
            X,
            Packed(np.zeros((5, 2)), [0, 2, 5]),
            ValueError,
            "targets: expected shape (5, 3), got (5, 2)",
        ),
        (
            "value tagger",
            X,
            [np.zeros((n, 3), np.float32) for n in (2, 3)],
            TypeError,
            "targets: expected dtype float64, got float32",
        ),
    ],
)
def test_bad_batches(kind, inputs, targets, error, message):
    model = build(kind)
    for way in (model.loss, model.loss_and_gradients):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            way((inputs, targets))
