"""fastrnn.RNN, GRU and LSTM over the registry, over sequences of different lengths, and one step at a time."""

import pytest
from ragged import draw
from registry import CASES, DEFAULT_CELLS, SHAPES, Shape
from step import fastrnn_calls
from systems import fastrnn_system, problem

import fastrnn

RAGGED, STEP = Shape(100, 64, 128, 256), Shape(1, 1, 64, 128)

cells = pytest.mark.parametrize("cell", DEFAULT_CELLS)
passes = pytest.mark.parametrize(("run", "factor"), [("forward", 1), ("backward", 3)], ids=["forward", "both"])


def time(benchmark, cell, shape, dtype, run, factor, lengths=None):
    """A pass of a layer, and its GF/s."""
    system = fastrnn_system(problem(cell, shape, dtype), fastrnn.get_num_threads(), lengths)
    call = getattr(system, run)[""]
    call()
    benchmark(call)
    steps = shape.T * shape.B if lengths is None else lengths.sum()
    benchmark.extra_info["GF/s"] = factor * shape.flops(cell, steps) / benchmark.stats["median"] / 1e9


@passes
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda value: str(value).replace(" ", "-"))
@cells
def test_layer(benchmark, cell, name, dtype, run, factor):
    benchmark.group = f"{cell} {'forward' if factor == 1 else 'forward+backward'}, {dtype}"
    time(benchmark, cell, SHAPES[name], dtype, run, factor)


@passes
@cells
def test_ragged(benchmark, cell, run, factor):
    benchmark.group = f"lengths 5..100, {'forward' if factor == 1 else 'forward+backward'}"
    time(benchmark, cell, RAGGED, "float32", run, factor, draw(RAGGED, 5))


@pytest.mark.parametrize("way", ["stream", "cell", "layer"])
@cells
def test_step(benchmark, cell, way):
    call = fastrnn_calls(problem(cell, STEP, "float32"), fastrnn.get_num_threads())[f"fastrnn {way}"]
    call()
    benchmark.group = f"one step, {cell}"
    benchmark(call)
