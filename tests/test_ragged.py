"""Ragged batches: the order of rows against its definition, packed sequences against padded ones and torch's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import import_torch, normal

from fastrnn import Packed
from fastrnn.ragged import dense, longest_first, ragged

LENGTHS = {
    "none": [],
    "all zero": [0, 0, 0],
    "some zero": [3, 0, 2, 0],
    "zero in the middle": [4, 0, 5],
    "ties": [2, 4, 2, 4, 4],
    "unsorted": [1, 7, 3, 5, 0, 2],
    "all equal": [4, 4, 4],
    "one": [6],
}
batches = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
any_lengths = st.lists(st.integers(0, 9), max_size=12)


def sorted_lengths(lengths):
    lengths = np.array(lengths, np.int64)
    return lengths[longest_first(lengths)]


def check_order(steps, T, B, reverse):
    """Every row is taken once, in the order of its own sequence, and its predecessor is where the buffer has it."""
    rows = {(t, b): steps.first[t] + b for t in range(T) for b in range(B) if t < steps.lengths[b]}
    if reverse and steps.order is None:
        rows = {(t, b): steps.first[T - 1 - t] + b for t, b in rows}
    assert sorted(rows.values()) == list(range(len(rows)))
    assert all(later <= earlier for earlier, later in zip(steps.count, steps.count[1:], strict=False))
    N = len(rows)
    previous = np.arange(N + 2 * B)[steps.previous]
    assert len(previous) == N
    order = np.arange(N) if steps.order is None else steps.order
    np.testing.assert_array_equal(order[order], np.arange(N))
    taken = []
    for s in range(T):
        for b in range(steps.count[s]):
            place = steps.first[s] + b
            t = steps.lengths[b] - 1 - s if reverse else s
            assert order[place] == rows[t, b]
            # the buffer of a direction that is put back into order afterwards holds the rows as they are taken
            expected = steps.start + b if s == 0 else B + steps.first[s - 1] + b
            assert previous[place] == expected
            taken.append(place)
    assert sorted(taken) == list(range(N))


@pytest.mark.parametrize("reverse", [False, True])
@batches
def test_ragged_steps(lengths, reverse):
    steps = ragged(sorted_lengths(lengths), reverse)
    assert steps.first.dtype == steps.count.dtype == steps.lengths.dtype == np.int64
    assert len(steps.first) == max(lengths, default=0)
    check_order(steps, len(steps.first), len(lengths), reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "B"), [(0, 0), (0, 3), (3, 0), (1, 1), (5, 1), (1, 5), (4, 3)])
def test_dense_steps(T, B, reverse):
    steps = dense(T, B, reverse)
    assert steps.order is None
    assert isinstance(steps.previous, slice), "no copy of what lies in a row"
    check_order(steps, T, B, reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [5], [0, 0], []], ids=str)
def test_equal_lengths_are_dense(lengths, reverse):
    """The rows need not be gathered, and weights' gradients are summed in the same order."""
    expected = dense(max(lengths, default=0), len(lengths), reverse)
    assert ragged(np.array(lengths, np.int64), reverse) is expected


def test_longest_first_keeps_the_order_of_equals():
    np.testing.assert_array_equal(longest_first(np.array([2, 4, 0, 2, 4])), [1, 4, 0, 3, 2])


# Packed


def padded(lengths, T=None, dtype="float32"):
    """x (T, B, 2) with NaN for padding, and its sequences."""
    T = max(lengths, default=0) if T is None else T
    x = normal(T, len(lengths), 2, dtype=dtype)
    x[np.arange(T)[:, None] >= np.array(lengths, int)] = np.nan
    return x, [x[:length, b] for b, length in enumerate(lengths)]


@batches
def test_packed_rows_are_the_sequences(lengths):
    x, sequences = padded(lengths)
    for batch_first in (False, True):
        packed = Packed.from_padded(x.swapaxes(0, 1) if batch_first else x, lengths, batch_first)
        np.testing.assert_array_equal(packed.data, np.concatenate([np.empty((0, 2)), *sequences]))
        np.testing.assert_array_equal(packed.lengths, lengths)
        for b, sequence in enumerate(sequences):
            np.testing.assert_array_equal(packed.data[packed.offsets[b] : packed.offsets[b + 1]], sequence)


@given(any_lengths, st.booleans(), st.integers(0, 3))
def test_padded_and_back(lengths, batch_first, more):
    x, _ = padded(lengths)
    T = len(x) + more
    packed = Packed.from_padded(x, lengths)
    got = packed.to_padded(batch_first, T)
    assert got.flags.c_contiguous
    got = got.swapaxes(0, 1) if batch_first else got
    assert got.shape == (T, *x.shape[1:])
    np.testing.assert_array_equal(got[: len(x)], np.nan_to_num(x))
    assert not got[len(x) :].any()
    again = Packed.from_padded(got, lengths)
    np.testing.assert_array_equal(again.data, packed.data)
    np.testing.assert_array_equal(again.offsets, packed.offsets)


@pytest.mark.parametrize("features", [(), (2, 3)])
@pytest.mark.parametrize("dtype", ["int64", "float32", "float64"])
def test_packed_rows_of_any_kind(dtype, features):
    x = np.arange(60 if features else 10).reshape(5, 2, *features).astype(dtype)
    packed = Packed.from_padded(x, [2, 5])
    np.testing.assert_array_equal(packed.data, np.concatenate([x[:2, 0], x[:, 1]]), strict=True)
    assert packed.to_padded().dtype == dtype


def test_packed_owns_its_rows():
    x = normal(4, 1, 2)
    packed = Packed.from_padded(x, [4])
    assert not np.shares_memory(packed.data, x)
    assert not np.shares_memory(packed.to_padded(), packed.data)
    assert repr(packed) == "Packed(float64 (4, 2), 1 sequences)"


@given(any_lengths)
def test_the_layout_of_torch_and_back(lengths):
    lengths = [length for length in lengths if length]
    packed = Packed.from_padded(padded(lengths)[0], lengths)
    again = Packed.from_torch(*packed.to_torch())
    np.testing.assert_array_equal(again.data, packed.data, strict=True)
    np.testing.assert_array_equal(again.offsets, packed.offsets, strict=True)


@pytest.mark.parametrize("lengths", [[3, 1, 5, 5, 2], [7, 4, 4], [1]], ids=str)
def test_the_layout_is_torchs(lengths):
    rnn = import_torch().nn.utils.rnn
    x, _ = padded(lengths)
    theirs = rnn.pack_padded_sequence(import_torch().from_numpy(x), lengths, enforce_sorted=False)
    packed = Packed.from_padded(x, lengths)
    np.testing.assert_array_equal(Packed.from_torch(*theirs).data, packed.data)
    np.testing.assert_array_equal(Packed.from_torch(*theirs).lengths, lengths)
    got = rnn.PackedSequence(*map(import_torch().from_numpy, packed.to_torch()))
    back, back_lengths = rnn.pad_packed_sequence(got)
    np.testing.assert_array_equal(back.numpy(), np.nan_to_num(x))
    np.testing.assert_array_equal(back_lengths.numpy(), lengths)
    np.testing.assert_array_equal(packed.to_torch()[0], theirs.data.numpy())


def test_sorted_sequences_need_no_indices():
    """As torch packs them with enforce_sorted=True."""
    x, _ = padded([5, 3, 3])
    theirs = import_torch().nn.utils.rnn.pack_padded_sequence(import_torch().from_numpy(x), [5, 3, 3])
    assert theirs.sorted_indices is None
    packed = Packed.from_torch(*theirs)
    np.testing.assert_array_equal(packed.data, Packed.from_padded(x, [5, 3, 3]).data)


ROWS = np.zeros((10, 2))
MISTAKES = {
    "data: expected shape (N, ...), got ()": lambda: Packed(1.0, [0, 1]),
    "offsets: expected shape (B+1,) = (any,), got ()": lambda: Packed(ROWS, 3),
    "offsets: expected to start at 0, end at 10 and never fall, got []": lambda: Packed(ROWS, []),
    "offsets: expected to start at 0, end at 10 and never fall, got [ 1, 10]": lambda: Packed(ROWS, [1, 10]),
    "offsets: expected to start at 0, end at 10 and never fall, got [0, 3, 9]": lambda: Packed(ROWS, [0, 3, 9]),
    "offsets: expected to start at 0, end at 10 and never fall, got [ 0,  5,  4, 10]": lambda: Packed(
        ROWS, [0, 5, 4, 10]
    ),
    "offsets: expected 0 <= offset <= 10, got 11": lambda: Packed(ROWS, [0, 11]),
    "offsets: expected 0 <= offset <= 10, got -1": lambda: Packed(ROWS, [0, -1, 10]),
    "x: expected shape (T, B, ...), got (10,)": lambda: Packed.from_padded(ROWS[:, 0], [1]),
    "x: expected shape (B, T, ...), got (10,)": lambda: Packed.from_padded(ROWS[:, 0], [1], True),
    "lengths: expected shape (B,) = (2,), got (3,)": lambda: Packed.from_padded(ROWS, [1, 2, 3]),
    "lengths: expected 0 <= length <= 10, got 11": lambda: Packed.from_padded(ROWS, [1, 11]),
    "lengths: expected 0 <= length <= 2, got 3": lambda: Packed.from_padded(ROWS, [3] * 10, True),
    "total_length: expected an integer >= 6, got 5": lambda: Packed(ROWS, [0, 4, 10]).to_padded(total_length=5),
    "batch_sizes: expected sizes >= 1 that never grow, 10 in all, got [4, 5, 1]": lambda: Packed.from_torch(
        ROWS, [4, 5, 1]
    ),
    "batch_sizes: expected sizes >= 1 that never grow, 10 in all, got [10,  0]": lambda: Packed.from_torch(
        ROWS, [10, 0]
    ),
    "batch_sizes: expected sizes >= 1 that never grow, 10 in all, got [5, 4]": lambda: Packed.from_torch(ROWS, [5, 4]),
    "sorted_indices: expected shape (B,) = (5,), got (2,)": lambda: Packed.from_torch(ROWS, [5, 5], [0, 1]),
    "sorted_indices: expected 0 <= index < 2, got 2": lambda: Packed.from_torch(ROWS, [2] * 5, [0, 2]),
    "sorted_indices: expected every index once, got [1, 1]": lambda: Packed.from_torch(ROWS, [2] * 5, [1, 1]),
    "length: expected an integer >= 1, got 0": lambda: Packed(ROWS, [0, 0, 10]).to_torch(),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message):
    with pytest.raises(ValueError) as caught:
        MISTAKES[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize("lengths", [[1.0, 2.0], [True, False], ["1", "2"]], ids=str)
def test_lengths_are_integers(lengths):
    with pytest.raises(TypeError, match="lengths: expected integers, got dtype"):
        Packed.from_padded(ROWS, lengths)


def test_long_lists_are_shown_in_one_short_line():
    with pytest.raises(ValueError, match=r"got \[ *0, .*\.\.\., .*\]") as caught:
        Packed(np.zeros((5000, 2)), np.arange(5000))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120
