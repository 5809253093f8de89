"""fastrnn.torch's modules against torch.nn's and against fastrnn called directly: `python bench/bridge.py --cell gru`.

Forward+backward: x -> y -> the gradients of x and of every weight, from the cotangent of y. A training step: the same
without that of x, and torch.optim.Adam (with lr=0, so that every step works on the same numbers). The direct call is a
layer's vjp and its pullback. Ragged: lengths as in ragged.py; both modules pack a padded batch and pad their result.

Fairness is kept as in peers.py: same cores, one process, interleaved repeats, ratios taken within a repeat; no time is
printed unless the results agree.
"""

import statistics
from typing import Any

import click
import numpy as np
import torch
from machine import describe, interleave, pin
from options import ShapeType, cell_option, dtype_option, repeats_option, threads_option
from ragged import draw
from rates import markdown
from registry import SHAPES, Shape
from systems import Call, Problem, check, problem
from torch import nn
from torch.nn.utils import rnn

import fastrnn
import fastrnn.torch


def module_calls(p: Problem, library: Any, lengths: np.ndarray | None) -> tuple[Call, Call]:
    """Forward+backward, and a training step, of a module of torch.nn or fastrnn.torch."""
    module = p.built(library, dtype=torch.from_numpy(p.x).dtype)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in p.weights.items()})
    x, dy = torch.from_numpy(p.x), torch.from_numpy(p.dy)
    given, weights = x.clone().requires_grad_(), list(module.parameters())
    optimizer = torch.optim.Adam(weights, lr=0.0)

    def forward(x):
        if lengths is None:
            return module(x)[0]
        packed = rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
        return rnn.pad_packed_sequence(module(packed)[0], total_length=len(x))[0]

    def backward():
        return torch.autograd.grad(forward(given), [given, *weights], dy)

    def step():
        optimizer.zero_grad()
        forward(x).backward(dy)
        optimizer.step()

    return backward, step


def direct_call(p: Problem, lengths: np.ndarray | None) -> Call:
    """Forward+backward of a layer of fastrnn."""
    layer = p.built(fastrnn, dtype=p.x.dtype)
    layer.load_state_dict(p.weights)

    def backward():
        _, pullback = layer.vjp(p.x, lengths=lengths)
        dx, _, grads = pullback(p.dy)
        return dx, *grads.values()

    return backward


def compare(p: Problem, lengths: np.ndarray | None, dtype: str, repeats: int) -> list[str]:
    """Milliseconds of both passes, and ratios."""
    bridge, torchs = (module_calls(p, library, lengths) for library in (fastrnn.torch, nn))
    runs = {"torch": torchs[0], "direct": direct_call(p, lengths), "bridge": bridge[0]}
    check({name: [np.asarray(value) for value in run()] for name, run in runs.items()}, dtype)
    times = interleave(runs | {"torch step": torchs[1], "bridge step": bridge[1]}, repeats)

    def ratio(slow, quick):
        return f"{statistics.median(a / b for a, b in zip(times[slow], times[quick], strict=True)):.2f}"

    ms = {name: f"{1e3 * statistics.median(found):.3g}" for name, found in times.items()}
    return [
        *(ms[name] for name in ("torch", "direct", "bridge")), ratio("direct", "bridge"), ratio("torch", "bridge"),
        ms["torch step"], ms["bridge step"], ratio("torch step", "bridge step"),
    ]  # fmt: skip


@click.command()
@cell_option
@click.option("--shape", "shapes", multiple=True, type=ShapeType(), default=SHAPES.values(), help="Default: registry.")
@click.option("--ragged/--no-ragged", default=True, show_default=True, help="Sequences of 5..100 steps, too.")
@threads_option
@dtype_option
@repeats_option
def main(
    cells: tuple[str, ...], shapes: tuple[Shape, ...], ragged: bool, threads: int, dtype: str, repeats: int
) -> None:
    """Print milliseconds, the bridge's share of the direct speed, and its lead over torch.nn."""
    pin(threads)
    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    long = Shape(100, 64, 128, 256)
    cases = [(shape, None) for shape in shapes] + ([(long, draw(long, 5))] if ragged else [])
    rows = [
        [
            cell,
            f"{shape}{' ragged' * (lengths is not None)}",
            *compare(problem(cell, shape, dtype), lengths, dtype, repeats),
        ]
        for cell in cells
        for shape, lengths in cases
    ]
    passes = ["torch", "direct", "bridge", "of direct", "/ torch", "torch step", "bridge step", "/ torch"]
    click.echo(
        f"Milliseconds, forward+backward and training steps, {dtype}, medians of {repeats} interleaved repeats\n"
    )
    click.echo(f"{markdown(['cell', 'T,B,I,H'], passes, rows)}\n\n{describe(threads, 'torch')}")


if __name__ == "__main__":
    main()
