"""How a caller's arrays become the rows of a time loop, step after step and without padding, and back."""

import math
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from fastrnn import checks, ragged
from fastrnn.functional.rows import picked
from fastrnn.ragged import Packed, Steps

X = TypeVar("X", bound=np.ndarray | Packed)  # (T, B, width); what is laid out as x is of the same type


class Dense(NamedTuple):
    """Sequences of one length, whose rows stay where they are, but for batch_first."""

    leading: tuple[int, ...]  # (T, B), with batch_first (B, T), or unbatched (T,)
    T: int
    B: int
    batch_first: bool

    def steps(self, reverse: bool) -> Steps:
        """The order in which the rows are taken."""
        return ragged.dense(self.T, self.B, reverse)

    @property
    def batch(self) -> tuple[int, ...]:
        """The axes of a state between layers and units."""
        return (self.B,) if len(self.leading) == 2 else ()

    def take(self, name: str, value: object, dtype: np.dtype, width: int, letters: str = "") -> np.ndarray:
        """Rows (N, width) of an array in the caller's layout, (*leading, width)."""
        found = checks.array(name, value, dtype, *self.leading, width, letters=letters)
        if self.batch_first:
            found = np.ascontiguousarray(found.swapaxes(0, 1))
        return found.reshape(self.T * self.B, width)

    def put(self, rows: np.ndarray) -> np.ndarray:
        """The caller's layout of rows."""
        if self.batch_first:
            return np.ascontiguousarray(rows.reshape(self.T, self.B, rows.shape[1]).swapaxes(0, 1))
        return rows.reshape(*self.leading, rows.shape[1])

    def take_state(self, state: np.ndarray) -> np.ndarray:
        """(L*D, B, width) of a state as the caller has it."""
        return state if state.ndim == 3 else state[:, None]

    def put_state(self, state: np.ndarray) -> np.ndarray:
        """The other way."""
        return state if len(self.leading) == 2 else state[:, 0]


class Ragged(NamedTuple):
    """Sequences of unequal lengths, the longest first: rows are gathered, what remains is padding, and 0."""

    leading: tuple[int, ...]  # as in Dense, or (N,) of a Packed
    batch: tuple[int, ...]
    offsets: np.ndarray | None  # of a Packed
    order: np.ndarray  # (B,) the sequences by length
    forward: Steps
    places: np.ndarray  # (N,) where the rows lie in the caller's array
    origins: np.ndarray  # the row that each of the caller's comes from, -1 for padding

    def steps(self, reverse: bool) -> Steps:
        """The order in which the rows are taken."""
        return ragged.ragged(self.forward.lengths, True) if reverse else self.forward

    def take(self, name: str, value: object, dtype: np.dtype, width: int, letters: str = "") -> np.ndarray:
        """Rows (N, width) of an array or a Packed in the caller's layout, (*leading, width)."""
        if self.offsets is not None and isinstance(value, Packed):
            checks.same(f"{name}.offsets", value.offsets, self.offsets)
            value = value.data
        found = checks.array(name, value, dtype, *self.leading, width, letters=letters)
        return picked(found.reshape(math.prod(self.leading), width), self.places)

    def put(self, rows: np.ndarray) -> np.ndarray | Packed:
        """The caller's layout of rows."""
        found = picked(rows, self.origins).reshape(*self.leading, rows.shape[1])
        return found if self.offsets is None else Packed(found, self.offsets)

    def take_state(self, state: np.ndarray) -> np.ndarray:
        """(L*D, B, width) of a state as the caller has it."""
        return state.reshape(len(state), len(self.order), state.shape[-1]).take(self.order, axis=1)

    def put_state(self, state: np.ndarray) -> np.ndarray:
        """The other way."""
        found = np.empty_like(state)
        found[:, self.order] = state
        return found.reshape(len(state), *self.batch, state.shape[-1])


def packed(x: Packed) -> Ragged:
    """The batch of a Packed."""
    lengths = x.lengths
    return _ragged((int(x.offsets[-1]),), lengths.shape, x.offsets, lengths, x.offsets[:-1], 1)


def arranged(leading: tuple[int, ...], batch_first: bool, lengths: object) -> Dense | Ragged:
    """The batch of an array (*leading, width): (T, B), (B, T) with batch_first, or (T,)."""
    batch = _dense(leading, batch_first)
    if lengths is None:
        return batch
    T, B = batch.T, batch.B
    lengths = checks.lengths("lengths", lengths, T, B)
    if (lengths == T).all():
        return batch
    starts, stride = (np.arange(B) * T, 1) if batch.batch_first else (np.arange(B), B)
    return _ragged(leading, batch.batch, None, lengths, starts, stride)


def taken(
    x: np.ndarray | Packed, batch_first: bool, lengths: object, dtype: np.dtype, width: int, letters: str
) -> tuple[Dense | Ragged, np.ndarray]:
    """The batch that a layer's x is, and its rows (N, width); letters: the name of the width."""
    if isinstance(x, Packed):
        checks.absent("lengths", lengths, "with a Packed x")
        batch = packed(x)
        return batch, batch.take("x.data", x, dtype, width, f"(N, {letters})")
    letters = f"({'B, T' if batch_first else 'T, B'}, {letters}) or (T, {letters})"
    x = checks.rank("x", x, letters, 2, 3)
    batch = arranged(x.shape[:-1], batch_first, lengths)
    return batch, batch.take("x", x, dtype, width, letters)


@lru_cache
def _dense(leading, batch_first):
    if len(leading) == 1:
        return Dense(leading, leading[0], 1, False)
    T, B = leading[::-1] if batch_first else leading
    return Dense(leading, T, B, batch_first)


def _ragged(leading, batch, offsets, lengths, starts, stride):
    order = ragged.longest_first(lengths)
    forward = ragged.ragged(lengths[order])
    places = forward.rows(starts[order], stride)
    return Ragged(leading, batch, offsets, order, forward, places, ragged.inverse(places, math.prod(leading)))
