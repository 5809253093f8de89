"""TimeDelay against torch.nn.Conv1d with padding="same": `python bench/time_delay.py`.

Each in its own layout: (T, B, channels) here, (B, channels, T) there, with no transposition timed. GF/s count every
product of a window, zeros beyond the ends included; forward alone, without gradients, and forward with backward: the
gradients of input, weight and bias. No time is printed unless the results agree.
"""

from typing import NamedTuple

import click
import numpy as np
from machine import describe, pin
from options import dtype_option, repeats_option, threads_option
from rates import Rates, markdown, measure, peak_note, ratio, speed
from systems import System, check

import fastrnn

try:
    import torch
except ImportError:
    raise SystemExit("bench/time_delay.py: needs torch: pip install torch") from None


class Shape(NamedTuple):
    """Steps, batch, channels in and out, kernel size and dilation."""

    T: int
    B: int
    I: int
    O: int
    k: int
    dilation: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


SHAPES = (
    Shape(50, 32, 64, 64, 3, 1),
    Shape(100, 32, 64, 64, 5, 4),
    Shape(50, 64, 64, 64, 9, 1),
    Shape(50, 32, 128, 128, 3, 1),
    Shape(100, 64, 128, 128, 5, 1),
    Shape(50, 32, 128, 128, 9, 4),
    Shape(50, 64, 256, 256, 3, 1),
    Shape(100, 32, 256, 256, 5, 4),
    Shape(50, 32, 256, 256, 9, 1),
    Shape(1000, 1, 64, 64, 5, 1),
    Shape(1000, 1, 128, 128, 3, 4),
    Shape(1000, 1, 256, 256, 3, 1),
)


def systems(shape: Shape, dtype: str, threads: int) -> dict[str, System]:
    """Both layers with the same weights; results in fastrnn's layout."""
    T, B, I, O, k, dilation = shape
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((T, B, width)).astype(dtype) for width in (I, O))
    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    ours = fastrnn.TimeDelay(I, O, k, dilation, dtype=dtype, seed=0)
    theirs = torch.nn.Conv1d(I, O, k, padding="same", dilation=dilation, dtype=getattr(torch, dtype))
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    x_torch, dy_torch = (torch.from_numpy(rows.transpose(1, 2, 0).copy()) for rows in (x, dy))
    x_torch.requires_grad_()

    def backward():
        y, pullback = ours.vjp(x)
        dx, grads = pullback(dy)
        return y, dx, *grads.values()

    def torch_forward():
        with torch.inference_mode():
            return (theirs(x_torch).permute(2, 0, 1),)

    def torch_backward():
        y = theirs(x_torch)
        dx, *gradients = torch.autograd.grad(y, (x_torch, *theirs.parameters()), dy_torch)
        return y.detach().permute(2, 0, 1), dx.permute(2, 0, 1), *gradients

    return {
        "fastrnn": System({"": lambda: (ours(x),)}, {"": backward}),
        "torch": System({"": torch_forward}, {"": torch_backward}),
    }


def compare(shape: Shape, dtype: str, threads: int, repeats: int) -> list[tuple[str, Rates]]:
    """The measurements of both passes."""
    T, B, I, O, k, _ = shape
    flops, rows = 2 * T * B * I * O * k, []
    both = systems(shape, dtype, threads)
    for i, (name, factor) in enumerate((("forward", 1), ("forward+backward", 3))):
        calls = {system: calls[i][""] for system, calls in both.items()}
        check({system: call() for system, call in calls.items()}, dtype)
        runs = {system: (call, factor * flops) for system, call in calls.items()}
        rows.append((name, measure(runs, dtype, threads, repeats)))
    return rows


@click.command()
@threads_option
@dtype_option
@repeats_option
def main(threads: int, dtype: str, repeats: int) -> None:
    """Print a table of GF/s and ratios."""
    pin(threads)
    rows, measured = [], []
    for shape in SHAPES:
        for name, rates in compare(shape, dtype, threads, repeats):
            speeds = [speed(rates, system) for system in ("fastrnn", "torch", "peak")]
            rows.append([str(shape), name, *speeds, f"{ratio(rates, 'fastrnn', ['torch']):.2f}"])
            measured.append(rates)
    click.echo(f"GF/s (share of the FMA peak), {dtype}, medians of {repeats} interleaved repeats\n")
    click.echo(markdown(["T,B,I,O,k,dilation", "pass"], ["fastrnn", "torch", "peak", "/ torch"], rows))
    click.echo(f"\n{describe(threads, 'torch')}")
    click.echo(peak_note(measured), nl=False)


if __name__ == "__main__":
    main()
