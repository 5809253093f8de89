"""One step at batch 1 from Python, nothing kept for gradients: `python bench/step.py [--cell lstm]`.

fastrnn and torch as a cell and as a layer over one step, fastrnn's stream, and the layers of jax and onnxruntime as in
peers.py over one step. A stream keeps its own state and has packed the weights before; all others are given the state.
torch is called within inference_mode, entered once for all calls. Fairness is kept as in peers.py, and no time is
printed unless the results agree.
"""

import statistics
from functools import partial

import click
from machine import describe, fastest, interleave, pin
from options import cell_option, repeats_option, threads_option
from rates import markdown
from registry import Shape
from systems import NAMES, SYSTEMS, Call, Problem, check, given, inference, installed, problem

import fastrnn

STEP_NAMES = [name.removesuffix("_l0") for name in NAMES]


def fastrnn_calls(p: Problem, threads: int) -> dict[str, Call]:
    fastrnn.set_num_threads(threads)
    layer, cell = p.built(fastrnn), p.built(fastrnn, step=True)
    layer.load_state_dict(p.weights)
    cell.load_state_dict(dict(zip(STEP_NAMES, p.weights.values(), strict=True)))
    stream = layer.stream()
    stream.state = given([state[:, 0] for state in p.initial])
    return {
        "fastrnn stream": partial(stream, p.x[0, 0]),
        "fastrnn cell": partial(cell, p.x[0], given([state[0] for state in p.initial])),
        "fastrnn layer": partial(layer, p.x, given(p.initial)),
    }


def torch_calls(p: Problem, threads: int) -> dict[str, Call]:
    import torch

    torch.set_num_threads(threads)
    x, *initial = (torch.from_numpy(array) for array in (p.x, *p.initial))
    weights = [torch.from_numpy(value) for value in p.weights.values()]
    layer, cell = p.built(torch.nn), p.built(torch.nn, step=True)
    layer.load_state_dict(dict(zip(NAMES, weights, strict=True)))
    cell.load_state_dict(dict(zip(STEP_NAMES, weights, strict=True)))
    return {
        "torch cell": partial(cell, x[0], given([state[0] for state in initial])),
        "torch layer": partial(layer, x, given(initial)),
    }


def calls(p: Problem, threads: int) -> dict[str, Call]:
    """Every way to take the step; each returns h after it, or a tuple that starts with it."""
    ways = fastrnn_calls(p, threads)
    if "torch" in installed():
        ways |= torch_calls(p, threads)
    for name in ("jax", "onnxruntime"):
        if name in installed():
            _, ways[name] = fastest(SYSTEMS[name](p, threads).forward)
    return ways


def compare(cell: str, shape: Shape, threads: int, repeats: int) -> dict[str, list[float]]:
    """Microseconds of every way in every repeat."""
    p = problem(cell, shape, "float32")
    with inference():
        ways = calls(p, threads)
        results = {name: call() for name, call in ways.items()}
        states = {name: [result[0] if isinstance(result, tuple | list) else result] for name, result in results.items()}
        check(states, "float32")
        return {name: [1e6 * t for t in ts] for name, ts in interleave(ways, repeats).items()}


def lead(times: dict[str, list[float]]) -> float:
    """The time of the fastest peer over that of fastrnn's fastest way: the median over repeats."""
    ours, peers = ([ts for name, ts in times.items() if name.startswith("fastrnn") is own] for own in (True, False))
    repeats = zip(zip(*ours, strict=True), zip(*peers, strict=True), strict=True)
    return statistics.median(min(theirs) / min(own) for own, theirs in repeats)


@click.command()
@cell_option
@click.option("--input", "I", type=click.IntRange(1), default=64, show_default=True, help="Input size.")
@click.option("--hidden", "H", type=click.IntRange(1), default=128, show_default=True, help="Hidden size.")
@threads_option
@repeats_option
def main(cells: tuple[str, ...], I: int, H: int, threads: int, repeats: int) -> None:
    """Print microseconds a step."""
    pin(threads)
    measured = {cell: compare(cell, Shape(1, 1, I, H), threads, repeats) for cell in cells}
    ways = list(next(iter(measured.values())))
    rows = [[cell, *(f"{statistics.median(times[way]):.1f}" for way in ways)] for cell, times in measured.items()]
    if any(not way.startswith("fastrnn") for way in ways):
        for row, times in zip(rows, measured.values(), strict=True):
            row.append(f"{lead(times):.2f}")
        ways.append("fastest peer / fastrnn's fastest")
    click.echo(f"us a step, batch 1, input {I}, hidden {H}, float32, medians of {repeats} interleaved repeats\n")
    click.echo(markdown(["cell"], ways, rows))
    click.echo(f"\n{describe(threads, 'torch', 'jax', 'onnxruntime')}")


if __name__ == "__main__":
    main()
