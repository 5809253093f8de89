"""Fresh processes: import, the first training step from the disk cache, and with every kernel to compile."""

import pytest
from registry import DEFAULT_CELLS
from startup import cold_step, first_step, run


def test_import(benchmark):
    benchmark.group = "fresh process"
    benchmark.pedantic(run, ("import fastrnn",), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("cell", DEFAULT_CELLS)
def test_first_step_from_cache(benchmark, cell):
    benchmark.group = "fresh process"
    benchmark.pedantic(first_step, (cell,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("cell", DEFAULT_CELLS)
def test_first_step_compiling(benchmark, cell):
    benchmark.group = "fresh process, empty cache"
    benchmark.pedantic(cold_step, (cell,), rounds=1)
