"""Pooling against loops over sequences: values, gradients, and bits."""

from types import SimpleNamespace

import numpy as np
import pytest

from fastrnn.layers.batch import packed
from fastrnn.models.pooling import POOLINGS
from fastrnn.ragged import Packed

LENGTHS = [3, 0, 33, 1, 3, 16]


def encoded(lengths=LENGTHS, width=5, dtype="float64", ties=False):
    """What an encoder might give, and its sequences (T, width) in the order of the features."""
    rng, offsets = np.random.default_rng(0), np.append(0, np.cumsum(lengths))
    data = rng.standard_normal((offsets[-1], width)).astype(dtype)
    if ties:
        data = np.round(data)
    batch = packed(Packed(data, offsets))
    y = data[batch.places]
    return SimpleNamespace(batch=batch, y=y), [data[offsets[i] : offsets[i + 1]] for i in batch.order]


@pytest.mark.parametrize(("pooling", "function"), [("mean", np.mean), ("max", np.max)])
@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4], [0, 0], [1]], ids=str)
def test_values(pooling, function, lengths):
    given, sequences = encoded(lengths)
    expected = [function(one, axis=0) if len(one) else np.zeros(5) for one in sequences]
    np.testing.assert_allclose(POOLINGS[pooling](given)[0], expected, rtol=1e-14)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_gradients(pooling, ties):
    given, sequences = encoded(ties=ties)
    features, pullback = POOLINGS[pooling](given)
    d = np.random.default_rng(1).standard_normal(features.shape)
    dy, d_final = pullback(d)
    assert d_final is None
    places = packed(Packed(np.arange(56.0)[:, None], given.batch.offsets)).places
    expected = np.zeros((56, 5))
    for one, own, i in zip(sequences, d, given.batch.order, strict=True):
        rows = expected[given.batch.offsets[i] : given.batch.offsets[i + 1]]
        if pooling == "mean":
            rows += own / max(len(one), 1)
        elif len(one):
            rows[one.argmax(0), np.arange(5)] = own
    np.testing.assert_allclose(dy, expected[places], rtol=1e-14)


def test_the_last_state_of_each_direction():
    """final is (L*D, B, H), of two layers the upper; the reverse direction lies behind."""
    h, c = np.arange(4 * 3 * 2.0).reshape(4, 3, 2), np.ones((4, 3, 2))
    for D in (1, 2):
        given = SimpleNamespace(y=np.empty((9, 2 * D)), final=(h, c))
        features, pullback = POOLINGS["last"](given)
        np.testing.assert_array_equal(features, np.concatenate(list(h[-D:]), axis=1))
        dy, (dh, dc) = pullback(features)
        assert dy is None
        assert not dc.any()
        assert not dh[:-D].any()
        np.testing.assert_array_equal(dh[-D:], h[-D:])


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_sequence_has_the_same_bits_alone(pooling):
    given, sequences = encoded(width=3, dtype="float32")
    together = POOLINGS[pooling](given)[0]
    for one, features in zip(sequences, together, strict=True):
        alone = SimpleNamespace(batch=packed(Packed(one, [0, len(one)])), y=one)
        np.testing.assert_array_equal(POOLINGS[pooling](alone)[0][0], features, strict=True)
