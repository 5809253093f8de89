"""Rows gathered by token and added back: exact, whatever the threads."""

import numpy as np
import pytest
from cases import DTYPES, EMBEDDING, check

from fastrnn import functional, threads
from fastrnn.reference import embedding as reference

SIZES = [(1, 1, 1), (5, 3, 2), (40, 7, 15), (40, 7, 16), (100, 3, 33), (7, 200, 65), (0, 3, 5)]

pytestmark = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients(size, dtype):
    check(EMBEDDING, size, dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_bits_are_those_of_adding_in_order(size, count, dtype, monkeypatch):
    """Repeated tokens are summed from the first to the last, by any number of threads."""
    monkeypatch.setattr(threads, "for_bytes", lambda size: count)
    inputs = EMBEDDING.draw(size, dtype)
    got = EMBEDDING.compiled(**inputs)
    np.testing.assert_array_equal(got["y"], inputs["weight"][inputs["tokens"]])
    expected = reference.scatter_add(inputs["tokens"], inputs["dy"], size[1])
    np.testing.assert_array_equal(got["d_weight"], expected)


@pytest.mark.parametrize("count", [1, 3])
def test_rows_between_columns(count, dtype, monkeypatch):
    """A part of the columns goes to a part of the columns; a negative index gives 0; the rest is left as it was."""
    monkeypatch.setattr(threads, "for_bytes", lambda size: count)
    source = np.arange(5 * 40, dtype=dtype).reshape(5, 40)
    index = np.array([4, -1, 0, 0, -1, 3, 2])
    for column, width, out_column in ((0, 40, 0), (3, 17, 5), (23, 17, 0), (39, 1, 22), (7, 16, 7)):
        out = np.full((7, 23 if width < 40 else 40), 7.5, dtype)
        expected = out.copy()
        expected[:, out_column : out_column + width] = reference.gather(source[:, column : column + width], index)
        functional.gather(source, index, column, width, out, out_column)
        np.testing.assert_array_equal(out, expected)
        alone = functional.gather(source, index, column, width)
        np.testing.assert_array_equal(alone, expected[:, out_column : out_column + width])


def test_memory_beyond_the_rows_is_not_touched(dtype, fenced):
    for D in (1, 15, 17):
        weight, dy = fenced(3 * D, dtype).reshape(3, D), fenced(4 * D, dtype).reshape(4, D)
        weight[:], dy[:] = np.arange(3 * D).reshape(3, D), 1
        y, pullback = functional.embedding(np.array([2, 0, 2, 2]), weight)
        d_weight = fenced(3 * D, dtype).reshape(3, D)
        pullback(dy, d_weight)
        np.testing.assert_array_equal(y, weight[[2, 0, 2, 2]])
        np.testing.assert_array_equal(d_weight, np.array([1, 0, 3])[:, None].repeat(D, 1))


def test_rows_with_nan_go_to_their_token_only(dtype):
    inputs = EMBEDDING.draw((20, 5, 17), dtype)
    inputs["tokens"][3] = 4
    clean = EMBEDDING.compiled(**inputs)["d_weight"]
    inputs["dy"][3] = np.nan
    got = EMBEDDING.compiled(**inputs)["d_weight"]
    assert np.isnan(got[4]).all()
    np.testing.assert_array_equal(got[:4], clean[:4])
