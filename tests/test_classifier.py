"""Many to one: the interface of classifiers and regressors; test_sequence_models.py has their numbers."""

import re

import numpy as np
import pytest
from sequence_models import batch_of, build

from fastrnn import Packed
from fastrnn.models import SequenceClassifier, SequenceRegressor

X = [np.zeros((2, 4)), np.zeros((3, 4))]


def test_names_of_parameters():
    """Of which checkpoints are made."""
    model = SequenceClassifier(5, num_tokens=7, embedding_size=3, cell="gru", hidden_size=4, bidirectional=True)
    assert model.parameters.shapes == {
        "embedding.weight": (7, 3),
        "rnn.weight_ih_l0": (12, 3),
        "rnn.weight_hh_l0": (12, 4),
        "rnn.bias_ih_l0": (12,),
        "rnn.bias_hh_l0": (12,),
        "rnn.weight_ih_l0_reverse": (12, 3),
        "rnn.weight_hh_l0_reverse": (12, 4),
        "rnn.bias_ih_l0_reverse": (12,),
        "rnn.bias_hh_l0_reverse": (12,),
        "head.weight": (5, 8),
        "head.bias": (5,),
    }
    assert "embedding.weight" not in SequenceClassifier(5, num_tokens=7, embedding_size=0).parameters


def test_defaults():
    config = SequenceClassifier(5, input_size=3).config
    assert config == {
        "num_classes": 5,
        "pooling": "last",
        "input_size": 3,
        "num_tokens": None,
        "cell": "lstm",
        "hidden_size": 128,
        "num_layers": 1,
        "bidirectional": False,
        "embedding_size": 64,
        "dropout": 0.0,
        "dtype": "float32",
    }
    assert SequenceClassifier(**config).config == config


def test_accuracy_is_the_share_of_right_labels():
    model = build("classifier last")
    inputs, _ = batch_of(model)
    right = model.predict(inputs)
    assert model.accuracy(inputs, right) == 1
    wrong = right.copy()
    wrong[:2] = (wrong[:2] + 1) % 3
    assert model.accuracy(inputs, wrong) == 0.6


def test_probabilities_of_large_logits():
    model = build("classifier last")
    model.parameters["head.bias"] = [1e4, 1e4, -1e4]
    np.testing.assert_allclose(model.predict_proba(X), [[0.5, 0.5, 0.0]] * 2, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {},
            ValueError,
            "input_size: expected either input_size or num_tokens, got input_size=None and num_tokens=None",
        ),
        (
            {"input_size": 3, "num_tokens": 4},
            ValueError,
            "input_size: expected either input_size or num_tokens, got input_size=3 and num_tokens=4",
        ),
        ({"input_size": 0}, ValueError, "input_size: expected an integer >= 1, got 0"),
        ({"num_tokens": 0}, ValueError, "num_tokens: expected an integer >= 1, got 0"),
        ({"num_tokens": 4, "embedding_size": -1}, ValueError, "embedding_size: expected an integer >= 0, got -1"),
        ({"input_size": 3, "pooling": "first"}, ValueError, "pooling: expected one of last, mean, max, got 'first'"),
        ({"input_size": 3, "cell": "sine"}, ValueError, "cell: expected one of tanh, relu, gru, lstm, got 'sine'"),
        ({"input_size": 3, "hidden_size": 0}, ValueError, "hidden_size: expected an integer >= 1, got 0"),
        ({"input_size": 3, "dropout": 2}, ValueError, "dropout: expected a number in 0..1, got 2"),
        ({"input_size": 3, "dtype": "int8"}, TypeError, "dtype: expected float32 or float64, got int8"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        SequenceClassifier(3, **arguments)


@pytest.mark.parametrize(("Model", "name"), [(SequenceClassifier, "num_classes"), (SequenceRegressor, "num_outputs")])
def test_bad_sizes(Model, name):
    for value, error in (
        (0, f"{name}: expected an integer >= 1, got 0"),
        (2.0, f"{name}: expected an integer, got 2.0"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^{re.escape(error)}$"):
            Model(value, input_size=3)


@pytest.mark.parametrize(
    ("kind", "inputs", "targets", "error", "message"),
    [
        ("classifier last", X, [0, 3], ValueError, "targets: expected 0 <= label < 3, got 3"),
        ("classifier last", X, [-1, 0], ValueError, "targets: expected 0 <= label < 3, got -1"),
        ("classifier last", X, [0.0, 1.0], TypeError, "targets: expected integers, got dtype float64"),
        ("classifier last", X, [0], ValueError, "targets: expected shape (2,), got (1,)"),
        ("classifier last", X, [[0], [1]], ValueError, "targets: expected shape (2,), got (2, 1)"),
        ("classifier last", [], [], ValueError, "inputs: expected at least one sequence, got none"),
        (
            "classifier last",
            [X[0], np.zeros((5, 3))],
            [0, 1],
            ValueError,
            "inputs[1]: expected shape (T, 4), got (5, 3)",
        ),
        ("classifier last", np.zeros((2, 5, 3)), [0, 1], ValueError, "inputs[0]: expected shape (T, 4), got (5, 3)"),
        (
            "classifier last",
            Packed(np.zeros((5, 3)), [0, 5]),
            [0],
            ValueError,
            "inputs: expected shape (N, input_size) = (5, 4), got (5, 3)",
        ),
        (
            "classifier last",
            [np.zeros((2, 4), np.float32)],
            [0],
            TypeError,
            "inputs: expected dtype float64, got float32",
        ),
        ("regressor last", X, np.zeros(2), ValueError, "targets: expected shape (2, 3), got (2,)"),
        ("regressor last", X, np.zeros((1, 3)), ValueError, "targets: expected shape (2, 3), got (1, 3)"),
        ("regressor last", X, np.zeros((2, 3), int), TypeError, "targets: expected dtype float64, got int64"),
    ],
)
def test_bad_batches(kind, inputs, targets, error, message):
    model = build(kind)
    for way in (model.loss, model.loss_and_gradients):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            way((inputs, targets))
    if message.startswith("inputs"):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            model.predict(inputs)


def test_bad_tokens():
    model = build("classifier last", "tokens")
    with pytest.raises(ValueError, match=r"^inputs: expected 0 <= token < 9, got 9$"):
        model.loss(([[0, 9]], [0]))
    with pytest.raises(TypeError, match=r"^inputs: expected integers, got dtype float64$"):
        model.loss(([[0.0, 1.0]], [0]))
    with pytest.raises(ValueError, match=re.escape("inputs[0]: expected shape (T,), got (2, 4)")):
        model.loss((X, [0, 1]))
