"""How many threads kernels use, and which way a piece of work is cut: a cost model picks, the user never does."""

import os
import warnings
from contextvars import ContextVar
from functools import lru_cache
from typing import NamedTuple

from numba import config

from fastrnn import checks
from fastrnn.kernels.jit import forked
from fastrnn.kernels.target import TARGET

_threads = config.NUMBA_NUM_THREADS
_most: ContextVar[int] = ContextVar("most", default=1 << 30)


def _alone() -> None:
    """The children of one process share its cores: each starts with one thread."""
    global _threads
    _threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)


def set_num_threads(count: int) -> None:
    """Use at most `count` threads (1..the number of cores, or NUMBA_NUM_THREADS); results do not change by a bit.

    The threads of a process that is forked stay with it: a child has one, and a RuntimeWarning says so,
    `count: expected 1 thread in a process forked after threads had started, got 2; it stays at 1`. Before, a child
    starts with one thread and may take more.

    Raises ValueError: `count: expected 1..2 threads, got 3`.
    """
    global _threads
    count = checks.integer("count", count, 1)
    if count > config.NUMBA_NUM_THREADS:
        raise ValueError(f"count: expected 1..{config.NUMBA_NUM_THREADS} threads, got {count}")
    if count > 1 and forked():
        message = f"count: expected 1 thread in a process forked after threads had started, got {count}; it stays at 1"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        count = 1
    _threads = count


class at_most:  # not a generator: 1 us less, twice a call
    """Use no more than `count` threads within the block, in the calling thread."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> None:
        self._token = _most.set(self._count)

    def __exit__(self, *error: object) -> None:
        _most.reset(self._token)


def get_num_threads() -> int:
    """The number of threads kernels may use."""
    return min(_threads, _most.get())


def for_work(flops: float) -> int:
    """Threads for a kernel of a few parallel regions: 1 unless sharing saves more than starting costs."""
    n = get_num_threads()
    return n if flops / TARGET.flops * (1 - 1 / n) > 4 * TARGET.region else 1


def for_bytes(count: float) -> int:
    """Threads for a kernel that only streams `count` bytes."""
    return for_work(count * TARGET.flops / TARGET.l3_rate)


class Plan(NamedTuple):
    """How a time loop is cut: see fastrnn.kernels.sequence."""

    row_shards: int
    unit_shards: int

    @property
    def shards(self) -> int:
        """Threads that work at the same time."""
        return self.row_shards * self.unit_shards


def for_sequence(T: int, B: int, N: int, weights: int, itemsize: int) -> Plan:
    """The cheapest of: one thread, shards of the batch, shards of the units; N rows in T steps of B sequences or fewer,
    and `weights` elements are read each step."""
    return _plan(T, B, -(-N // max(T, 1)), weights, itemsize, get_num_threads())


@lru_cache
def _plan(T, B, rows, weights, itemsize, n):
    def step(rows, elements):
        rate = TARGET.l2_rate if elements * itemsize <= TARGET.l2_bytes else TARGET.l3_rate
        return max(2 * rows * elements * itemsize / 4 / TARGET.flops, elements * itemsize / rate)

    costs = {(1, 1): T * step(rows, weights)}
    if n > 1 and B > 1:
        shards = min(n, B)
        costs[shards, 1] = T * step(-(-rows // shards), weights) + TARGET.region
    if n > 1:
        costs[1, n] = T * (step(rows, weights / n) + TARGET.region)
    return Plan(*min(costs, key=costs.__getitem__))
