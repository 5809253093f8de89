"""Data that are counted alike, and batches of them."""

import numpy as np
import pytest

from fastrnn import Packed
from fastrnn.models.batches import batches, count, not_finite, taken, terms

SEQUENCES = [np.arange(n) + 10 * n for n in (3, 0, 1, 4)]
PACKED = Packed(np.concatenate(SEQUENCES), [0, 3, 3, 4, 8])


@pytest.mark.parametrize("index", [[], [0], [3, 0], [1, 1], [2, 1, 0, 3, 3]], ids=str)
def test_what_is_taken_is_what_the_index_says(index):
    index = np.array(index, np.int64)
    expected = [SEQUENCES[i] for i in index]
    found = taken(PACKED, index)
    np.testing.assert_array_equal(found.lengths, [len(one) for one in expected])
    for got, one in zip(np.split(found.data, found.offsets[1:-1]), expected, strict=False):
        np.testing.assert_array_equal(got, one)
    for got, one in zip(taken(SEQUENCES, index), expected, strict=True):
        assert got is one
    np.testing.assert_array_equal(taken(np.arange(4) * 2, index), 2 * index)


def test_rows_of_vectors_are_taken_whole():
    data = np.random.default_rng(0).standard_normal((8, 2, 3))
    found = taken(Packed(data, PACKED.offsets), np.array([3, 0]))
    np.testing.assert_array_equal(found.data, np.concatenate([data[4:], data[:3]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found(bad):
    data = np.zeros((8, 2), np.float32)
    data[5, 1] = bad
    for values in (data, data[5], Packed(data, [0, 8])):
        assert not_finite(values) == str(bad)
    for values in (data[:5], data[:0], np.arange(3), PACKED, [bad]):
        assert not_finite(values) == ""


def test_counts():
    assert [count(PACKED), count(SEQUENCES), count(np.zeros((5, 2)))] == [4, 4, 5]
    assert [terms(PACKED), terms(np.zeros((5, 2)))] == [8, 5]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_batches_hold_everything_once(size):
    order = np.array([2, 0, 3, 1])
    for given in (None, order):
        found = list(batches((PACKED, np.arange(4)), size, given))
        assert [len(labels) for _, labels in found] == [min(size, 4 - start) for start in range(0, 4, size)]
        labels = np.concatenate([labels for _, labels in found])
        np.testing.assert_array_equal(labels, np.arange(4) if given is None else order)
        rows = np.concatenate([part.data for part, _ in found])
        np.testing.assert_array_equal(rows, np.concatenate([SEQUENCES[i] for i in labels]))
