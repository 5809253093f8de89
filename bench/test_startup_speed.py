"""Fresh processes: import, the first training step from the disk cache, and with every kernel to compile."""

from startup import FIRST_STEP, cold_step, run


def test_import(benchmark):
    benchmark.group = "fresh process"
    benchmark.pedantic(run, ("import fastrnn",), rounds=5, warmup_rounds=1)


def test_first_step_from_cache(benchmark):
    benchmark.group = "fresh process"
    benchmark.pedantic(run, (FIRST_STEP,), rounds=5, warmup_rounds=1)


def test_first_step_compiling(benchmark):
    benchmark.group = "fresh process, empty cache"
    benchmark.pedantic(cold_step, rounds=1)
