"""Parallel regions: every part runs once, with the arguments that were given."""

import numpy as np
import pytest

from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.parallel import share
from fastrnn.kernels.simd import element, pointer, set_element


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
