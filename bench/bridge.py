"""fastrnn.torch's modules against torch.nn's and against fastrnn called directly: `python bench/bridge.py --cell gru`.

Passes. Forward+backward: x -> y -> the gradients of x and of every weight, from the cotangent of y. A training step:
the same without that of x, and torch.optim.Adam (with lr=0, so that every step works on the same numbers). The direct
call is a layer's vjp and its pullback. Ragged: lengths as in ragged.py; both modules pack a padded batch and pad their
result with torch's own functions.

Calls. What one call at batch 1 costs: inference, and forward+backward, beside an autograd function of as many tensors
that computes nothing: no function written in Python can cost less.

Fairness is kept as in peers.py: same cores, one process, interleaved repeats, ratios taken within a repeat; no time is
printed unless the results agree.
"""

import statistics
from typing import Any

import click
import numpy as np
from machine import describe, interleave, pin
from options import ShapeType, cell_option, dtype_option, repeats_option, threads_option
from ragged import draw
from rates import markdown_lines
from registry import SHAPES, Shape
from systems import Call, Problem, check, problem

import fastrnn

try:
    import torch
except ImportError:
    raise SystemExit("bench/bridge.py: needs torch: pip install torch") from None

from torch import nn
from torch.nn.utils import rnn

import fastrnn.torch

PASSES = ["torch", "direct", "bridge", "of direct", "/ torch", "torch step", "bridge step", "/ torch"]
CALLS = ["torch", "direct", "bridge", "over direct", "torch both", "direct both", "bridge both", "over direct", "empty"]
SINGLE = (Shape(1, 1, 64, 128), Shape(25, 1, 64, 100), Shape(100, 1, 64, 128))
RAGGED = Shape(100, 64, 128, 256)


def built(p: Problem, library: Any) -> nn.Module:
    """A module of torch.nn or fastrnn.torch with the problem's weights."""
    module = p.built(library, dtype=torch.from_numpy(p.x).dtype)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in p.weights.items()})
    return module


def module_calls(p: Problem, library: Any, lengths: np.ndarray | None = None) -> tuple[Call, Call, Call]:
    """Inference, forward+backward, and a training step, of a module of torch.nn or fastrnn.torch."""
    module, x, dy = built(p, library), torch.from_numpy(p.x), torch.from_numpy(p.dy)
    given, weights = x.clone().requires_grad_(), list(module.parameters())
    optimizer = torch.optim.Adam(weights, lr=0.0)

    def forward(x):
        if lengths is None:
            return module(x)[0]
        packed = rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
        return rnn.pad_packed_sequence(module(packed)[0], total_length=len(x))[0]

    def inference():
        with torch.inference_mode():
            return forward(x)

    def backward():
        return torch.autograd.grad(forward(given), [given, *weights], dy)

    def step():
        optimizer.zero_grad()
        forward(x).backward(dy)
        optimizer.step()

    return inference, backward, step


def direct_calls(p: Problem, lengths: np.ndarray | None = None) -> tuple[Call, Call]:
    """Inference and forward+backward of a layer of fastrnn."""
    layer = p.built(fastrnn, dtype=p.x.dtype)
    layer.load_state_dict(p.weights)

    def backward():
        _, pullback = layer.vjp(p.x, lengths=lengths)
        dx, _, grads = pullback(p.dy)
        return dx, *grads.values()

    return lambda: layer(p.x, lengths=lengths)[0], backward


def empty_call(p: Problem) -> Call:
    """Forward+backward of an autograd function that takes and gives the same tensors, all there before."""
    x, *weights = (torch.from_numpy(a).requires_grad_() for a in (p.x, *p.weights.values()))
    y, h_n, dy = torch.from_numpy(p.dy), torch.zeros(1, *p.dy.shape[1:]), torch.from_numpy(p.dy)
    gradients = tuple(torch.empty_like(t) for t in (x, *weights))

    class Empty(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            return y.detach(), h_n.detach()

        @staticmethod
        def backward(ctx, *cotangents):
            return gradients

    return lambda: torch.autograd.grad(Empty.apply(x, *weights)[0], [x, *weights], dy)


def passes(p: Problem, lengths: np.ndarray | None, dtype: str, repeats: int) -> list[str]:
    """Milliseconds of both passes and of a training step, and ratios."""
    bridge, torchs = (module_calls(p, library, lengths) for library in (fastrnn.torch, nn))
    runs = {"torch": torchs[1], "direct": direct_calls(p, lengths)[1], "bridge": bridge[1]}
    check({name: [np.asarray(value) for value in run()] for name, run in runs.items()}, dtype)
    times = interleave(runs | {"torch step": torchs[2], "bridge step": bridge[2]}, repeats)

    def ratio(slow, quick):
        return f"{statistics.median(a / b for a, b in zip(times[slow], times[quick], strict=True)):.2f}"

    ms = {name: f"{1e3 * statistics.median(found):.3g}" for name, found in times.items()}
    return [
        *(ms[name] for name in ("torch", "direct", "bridge")), ratio("direct", "bridge"), ratio("torch", "bridge"),
        ms["torch step"], ms["bridge step"], ratio("torch step", "bridge step"),
    ]  # fmt: skip


def calls(p: Problem, dtype: str, repeats: int) -> list[str]:
    """Microseconds of a call, and what the bridge adds to the direct one."""
    ways = {"torch": module_calls(p, nn), "direct": direct_calls(p), "bridge": module_calls(p, fastrnn.torch)}
    check({name: [way[0](), *way[1]()] for name, way in ways.items()}, dtype)
    runs = {f"{name}{suffix}": way[i] for i, suffix in enumerate(("", " both")) for name, way in ways.items()}
    times = interleave(runs | {"empty": empty_call(p)}, repeats)
    for suffix in ("", " both"):
        both = zip(times[f"bridge{suffix}"], times[f"direct{suffix}"], strict=True)
        times[f"over direct{suffix}"] = [a - b for a, b in both]
    order = [f"{name}{suffix}" for suffix in ("", " both") for name in (*ways, "over direct")]
    return [f"{1e6 * statistics.median(times[name]):.0f}" for name in (*order, "empty")]


@click.command()
@cell_option
@click.option("--shape", "shapes", multiple=True, type=ShapeType(), default=SHAPES.values(), help="Default: registry.")
@click.option("--ragged/--no-ragged", default=True, show_default=True, help="Sequences of 5..100 steps, too.")
@click.option("--calls/--no-calls", "single", default=True, show_default=True, help="Single calls at batch 1, too.")
@threads_option
@dtype_option
@repeats_option
def main(
    cells: tuple[str, ...],
    shapes: tuple[Shape, ...],
    ragged: bool,
    single: bool,
    threads: int,
    dtype: str,
    repeats: int,
) -> None:
    """Print milliseconds, the bridge's share of the direct speed, its lead over torch.nn, and what a call costs."""
    pin(threads)
    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    cases = [(shape, None) for shape in shapes] + ([(RAGGED, draw(RAGGED, 5))] if ragged else [])
    rows = (
        [cell, f"{shape}{' ragged' * (ends is not None)}", *passes(problem(cell, shape, dtype), ends, dtype, repeats)]
        for cell in cells
        for shape, ends in cases
    )
    click.echo(
        f"Milliseconds, forward+backward and training steps, {dtype}, medians of {repeats} interleaved repeats\n"
    )
    for line in markdown_lines(["cell", "T,B,I,H"], PASSES, rows):
        click.echo(line)
    if single:
        rows = ([cell, str(s), *calls(problem(cell, s, dtype), dtype, repeats)] for cell in cells for s in SINGLE)
        click.echo("\nMicroseconds of one call, inference and forward+backward\n")
        for line in markdown_lines(["cell", "T,B,I,H"], CALLS, rows):
            click.echo(line)
    click.echo(f"\n{describe(threads, 'torch')}")


if __name__ == "__main__":
    main()
