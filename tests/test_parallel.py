"""Parallel regions: every part runs once, with the arguments that were given, and no result tells how many."""

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
def _count(part, counts, p, factor, flag):
    counts[part] += 1
    if flag:
        set_element(p + part, element(p + part) + part * factor)


@device
def _sum_of_before(part, totals):
    for i in range(part):
        totals[part] += i


@Kernel
def count_parts(values, counts, factor, flag, parts):
    """Two regions one after the other, the first twice."""
    share(parts, _count, (counts, pointer(values), factor, flag))
    share(parts, _count, (counts, pointer(values), factor, flag))


@Kernel
def sums(totals, parts):
    """A region whose parts take different times."""
    share(parts, _sum_of_before, (totals,))


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("flag", [False, True])
def test_every_part_runs_once(parts, flag):
    values, counts = np.zeros(parts + 1), np.zeros(parts + 1, np.int64)
    count_parts(2, values, counts, 0.5, flag, parts)
    np.testing.assert_array_equal(counts, [2] * parts + [0])
    np.testing.assert_array_equal(values, [part * flag for part in range(parts)] + [0])


def test_uneven_parts():
    for _ in range(20):
        totals = np.zeros(500)
        sums(2, totals, 500)
        np.testing.assert_array_equal(totals, np.arange(500) * (np.arange(500) - 1) / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_no_bit_depends_on_the_number_of_parts(name, dtype, monkeypatch):
    """Of any operation, values and gradients; parts end within vectors' multiples and may be more than threads."""
    case = CASES[name]
    inputs = case.draw([SIZES[letter] for letter in case.letters.split(", ")], dtype)
    results = []
    for parts in (1, 2, 3, 5):
        monkeypatch.setattr(threads, "for_work", lambda flops, parts=parts: parts)
        monkeypatch.setattr(threads, "for_bytes", lambda count, parts=parts: parts)
        monkeypatch.setattr(threads, "for_sequence", lambda *work, parts=parts: threads.Plan(parts, 1))
        results.append(case.compiled(**inputs))
    for result in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_array_equal(result[key], value, err_msg=key)
