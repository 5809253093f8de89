"""fastrnn.RNN: forward, and forward with backward, over the registry."""

import pytest
from peers import fastrnn_system, problem
from registry import CASES, SHAPES

import fastrnn


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda value: str(value).replace(" ", "-"))
@pytest.mark.parametrize(("run", "factor"), [("forward", 1), ("backward", 3)], ids=["forward", "forward+backward"])
def test_rnn(benchmark, run, factor, name, dtype):
    shape = SHAPES[name]
    call = getattr(fastrnn_system(problem(shape, dtype), fastrnn.get_num_threads()), run)
    call()
    benchmark.group = f"RNN {'forward' if factor == 1 else 'forward+backward'}, {dtype}"
    benchmark(call)
    benchmark.extra_info["GF/s"] = factor * shape.flops / benchmark.stats["median"] / 1e9
