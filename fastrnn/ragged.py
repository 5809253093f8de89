"""Sequences of unequal lengths: the order in which their rows are taken, and a batch of them without padding."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.memory import read_only


class Rows(NamedTuple):
    """Which rows each step takes: arguments of kernels, by their names."""

    first: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # hides tuple.count


class Followed(NamedTuple):
    """The arrays of Steps as kernels take them: what is read-only is another type to Numba, and compiled for again."""

    rows: Rows
    previous: slice | np.ndarray
    order: np.ndarray | None


class Steps:
    """The order in which a time loop takes N rows of B sequences: step s takes first[s] .. first[s]+count[s]-1.

    Rows lie step after step, and in each step the sequences that have one, the longest first. `previous` and `start`
    are rows of a buffer (N+2*B, W) that holds h_t of row n in row B+n, with room for B initial states at both ends.
    Kernels follow these arrays unchecked: none but `dense` and `ragged` make them, and what is shown is read-only.

    first : (T,) int64
    count : (T,) int64, never grows
    lengths : (B,) int64, descending: steps of each sequence
    equal : whether all have T
    previous : (N,) rows of the buffer with h_{t-1} of the rows, in the order they are taken
    start : row of the buffer where the initial states lie
    order : (N,) the rows as they are taken where that isn't their own order, else None; an involution
    """

    __slots__ = ("B", "N", "count", "equal", "first", "followed", "lengths", "order", "previous", "reverse", "start")

    def __init__(self, lengths: Sequence[int] | np.ndarray, T: int, reverse: bool) -> None:
        lengths = checks.descending("lengths", lengths, T)
        self.B = B = len(lengths)
        count = B - np.searchsorted(lengths[::-1], np.arange(T), side="right")
        first, self.N = np.cumsum(count) - count, int(count.sum())
        previous: slice | np.ndarray
        order, self.start, self.reverse, N = None, 0, reverse, self.N
        self.equal = N == T * B
        if self.equal:
            previous = slice(0, N)
            if reverse:
                first, previous, self.start = first[::-1].copy(), slice(2 * B, 2 * B + N), N + B
        else:
            previous = np.arange(N) + B - np.repeat(np.append(B, count)[:T], count)
            if reverse:
                s = np.repeat(np.arange(T), count)
                sequence = np.arange(N) - first[s]
                order = first[lengths[sequence] - 1 - s] + sequence
        self.followed = Followed(Rows(first, count), previous, order)
        self.first, self.count, self.lengths = read_only(first), read_only(count), read_only(lengths)
        self.previous = previous if isinstance(previous, slice) else read_only(previous)
        self.order = None if order is None else read_only(order)

    def rows(self, starts: np.ndarray, stride: int) -> np.ndarray:
        """(N,) where the rows come from if step t of sequence j lies at starts[j] + t*stride."""
        t = np.repeat(np.arange(len(self.count)), self.count)
        return starts[np.arange(len(t)) - self.first[t]] + t * stride


@lru_cache
def dense(T: int, B: int, reverse: bool = False) -> Steps:
    """The steps of B sequences of the same length T."""
    return Steps(np.full(B, T), T, reverse)


def ragged(lengths: np.ndarray, reverse: bool = False) -> Steps:
    """The steps of sequences of the given lengths (B,), descending; in reverse each starts at its own end.

    Raises ValueError: `lengths: expected lengths in 0..5, the longest first, got [3, 5]`.
    """
    T, least = (lengths[0], lengths[-1]) if len(lengths) else (0, 0)
    if least == T and (np.asarray(lengths) == T).all():
        return dense(int(T), len(lengths), reverse)
    return Steps(lengths, int(T), reverse)


def inverse(places: np.ndarray, total: int) -> np.ndarray:
    """(total,) which row lies at each place, -1 for none, of places (N,), all different."""
    origins = np.full(total, -1)
    origins[places] = np.arange(len(places))
    return origins


def longest_first(lengths: np.ndarray) -> np.ndarray:
    """(B,) the sequences by descending length, equal ones in their own order."""
    return np.argsort(-lengths, kind="stable")


class Packed:
    """Sequences of unequal lengths one after another: no padding.

    Parameters
    ----------
    data : (N, ...) all rows of the first sequence, then those of the second, and so on
    offsets : (B+1,) integers: sequence b is data[offsets[b] : offsets[b+1]]

    Raises ValueError: `offsets: expected to start at 0, end at 10 and never fall, got [0, 3, 9]`.
    """

    def __init__(self, data: np.ndarray, offsets: Sequence[int] | np.ndarray) -> None:
        self.data = checks.rank("data", data, "(N, ...)", 1)
        self._offsets = checks.offsets("offsets", offsets, len(self.data)).copy()

    @property
    def offsets(self) -> np.ndarray:
        """(B+1,) int64, read-only: kernels go where they lead."""
        return read_only(self._offsets)

    def __repr__(self) -> str:
        return f"Packed({self.data.dtype.name} {self.data.shape}, {len(self.offsets) - 1} sequences)"

    @property
    def lengths(self) -> np.ndarray:
        """(B,) rows of each sequence."""
        return np.diff(self._offsets)

    @classmethod
    def from_padded(cls, x: np.ndarray, lengths: Sequence[int] | np.ndarray, batch_first: bool = False) -> "Packed":
        """The rows within the lengths (B,) of x (T, B, ...), or (B, T, ...) with batch_first.

        Raises ValueError: `lengths: expected 0 <= length <= 50, got 51`.
        """
        x = checks.rank("x", x, "(B, T, ...)" if batch_first else "(T, B, ...)", 2)
        x = x if batch_first else x.swapaxes(0, 1)
        lengths = checks.lengths("lengths", lengths, *x.shape[1::-1])
        return cls(x[np.arange(x.shape[1]) < lengths[:, None]], np.append(0, np.cumsum(lengths)))

    def to_padded(self, batch_first: bool = False, total_length: int | None = None) -> np.ndarray:
        """(T, B, ...), or (B, T, ...) with batch_first, zeros beyond each length; T: the longest, or `total_length`."""
        lengths = self.lengths
        T = longest = int(lengths.max(initial=0))
        if total_length is not None:
            T = checks.integer("total_length", total_length, longest)
        checks.addressable("total_length", (len(lengths), T, *self.data.shape[1:]), self.data.itemsize)
        padded = np.zeros((len(lengths), T, *self.data.shape[1:]), self.data.dtype)
        padded[np.arange(T) < lengths[:, None]] = self.data
        return padded if batch_first else np.ascontiguousarray(padded.swapaxes(0, 1))

    @classmethod
    def from_torch(
        cls,
        data: np.ndarray,
        batch_sizes: Sequence[int] | np.ndarray,
        sorted_indices: Sequence[int] | np.ndarray | None = None,
        unsorted_indices: Sequence[int] | np.ndarray | None = None,
    ) -> "Packed":
        """The sequences of a torch PackedSequence, by its fields: `Packed.from_torch(*packed_sequence)`.

        data : (N, ...) rows, step after step, in each step the longest sequence first
        batch_sizes : (T,) rows of each step
        sorted_indices : (B,) the sequence that each place belongs to; None where that is the place itself
        unsorted_indices : its inverse, not read

        Raises ValueError: `batch_sizes: expected sizes >= 1 that never grow, 10 in all, got [4, 5, 1]`.
        """
        data = checks.rank("data", data, "(N, ...)", 1)
        count = checks.batch_sizes("batch_sizes", batch_sizes, len(data))
        B = int(count.max(initial=0))
        order = np.arange(B) if sorted_indices is None else checks.permutation("sorted_indices", sorted_indices, B)
        sorted_lengths = len(count) - np.searchsorted(count[::-1], np.arange(B), side="right")
        lengths = np.empty(B, np.int64)
        lengths[order] = sorted_lengths
        packed = cls(np.empty_like(data), np.append(0, np.cumsum(lengths)))
        packed.data[ragged(sorted_lengths).rows(packed.offsets[order], 1)] = data
        return packed

    def to_torch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """data, batch_sizes, sorted_indices, unsorted_indices: the fields of a torch PackedSequence.

        Raises ValueError: `length: expected an integer >= 1, got 0`.
        """
        checks.integer("length", self.lengths.min(initial=1), 1)
        order = longest_first(self.lengths)
        steps = ragged(self.lengths[order])
        return self.data[steps.rows(self.offsets[order], 1)], steps.count.copy(), order, np.argsort(order)
