"""Parallel regions: every shard runs once, with the arguments that were given, and no result tells how many."""

import numpy as np
import pytest
from cases import CASES, DTYPES

from fastrnn import threads
from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, pointer, set_element

# No multiple of a vector, and of two or three.
SIZES = {"T": 7, "B": 5, "I": 19, "H": 37, "V": 31, "N": 23, "O": 41, "D": 17, "n": 101, "k": 3, "steps": 4}


@device
def _count(shard, counts, p, factor, flag):
    counts[shard] += 1
    if flag:
        set_element(p + shard, element(p + shard) + shard * factor)


@device
def _sum_of_before(shard, totals):
    for i in range(shard):
        totals[shard] += i


@Kernel
def count_shards(values, counts, factor, flag, threads):
    """Two regions one after the other, the first twice."""
    share(threads, _count, (counts, pointer(values), factor, flag))
    share(threads, _count, (counts, pointer(values), factor, flag))


@Kernel
def sums(totals, threads):
    """A region whose shards take different times."""
    share(threads, _sum_of_before, (totals,))


@pytest.mark.parametrize("shards", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("flag", [False, True])
def test_every_shard_runs_once(shards, flag):
    values, counts = np.zeros(shards + 1), np.zeros(shards + 1, np.int64)
    count_shards(values=values, counts=counts, factor=0.5, flag=flag, threads=shards)
    np.testing.assert_array_equal(counts, [2] * shards + [0])
    np.testing.assert_array_equal(values, [shard * flag for shard in range(shards)] + [0])


def test_uneven_shards():
    for _ in range(20):
        totals = np.zeros(500)
        sums(totals=totals, threads=500)
        np.testing.assert_array_equal(totals, np.arange(500) * (np.arange(500) - 1) / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_no_bit_depends_on_the_number_of_shards(name, dtype, monkeypatch):
    """Of any operation, values and gradients; shards end within vectors' multiples and may be more than threads."""
    case = CASES[name]
    inputs = case.draw([SIZES[letter] for letter in case.letters.split(", ")], dtype)
    results = []
    for shards in (1, 2, 3, 5):
        monkeypatch.setattr(threads, "for_work", lambda flops, shards=shards: shards)
        monkeypatch.setattr(threads, "for_bytes", lambda count, shards=shards: shards)
        monkeypatch.setattr(threads, "for_sequence", lambda *work, shards=shards: threads.Plan(shards, 1))
        results.append(case.compiled(**inputs))
    for result in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_array_equal(result[key], value, err_msg=key)
