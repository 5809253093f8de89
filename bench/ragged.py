"""One layer over sequences of different lengths: `python bench/ragged.py [--cell lstm]`.

fastrnn with `lengths`, against its own speed at the same shape without them (dense) and against torch's packed path:
pack_padded_sequence with enforce_sorted=False, the layer, pad_packed_sequence. Lengths are uniform, from the shortest
to T. GF/s count useful work: as many steps as the lengths add up to; without lengths, all T*B.

Inputs and results are padded. Passes, gradients and fairness are those of peers.py, and no time is printed unless the
results agree, zeros in the padding included.
"""

import click
import numpy as np
from machine import describe, pin
from options import ShapeType, cell_option, dtype_option, repeats_option, threads_option
from peers import PASSES
from rates import Rates, markdown, measure, peak_note, ratio, speed
from registry import Shape
from systems import check, fastrnn_system, installed, problem, torch_system


def draw(shape: Shape, shortest: int) -> np.ndarray:
    """Lengths (B,) of shortest..T steps."""
    return np.random.default_rng(0).integers(shortest, shape.T, shape.B, endpoint=True)


def compare(
    cell: str, shape: Shape, lengths: np.ndarray, dtype: str, threads: int, repeats: int
) -> list[tuple[str, Rates]]:
    """The measurements of both passes."""
    p = problem(cell, shape, dtype)
    ragged = {"fastrnn": fastrnn_system(p, threads, lengths)}
    if "torch" in installed():
        ragged["torch packed"] = torch_system(p, threads, lengths)
    dense, rows = fastrnn_system(p, threads), []
    for i, (name, (factor, context)) in enumerate(PASSES.items()):
        with context():
            calls = {system: calls[i][""] for system, calls in ragged.items()}
            check({system: call() for system, call in calls.items()}, dtype)
            runs = {system: (call, factor * shape.flops(cell, lengths.sum())) for system, call in calls.items()}
            runs["dense"] = dense[i][""], factor * shape.flops(cell)
            rows.append((name, measure(runs, dtype, threads, repeats)))
    return rows


@click.command()
@cell_option
@click.option("--shape", type=ShapeType(), default="100,64,128,256", show_default=True)
@click.option("--shortest", type=click.IntRange(1), default=5, show_default=True, help="Steps of a sequence.")
@threads_option
@dtype_option
@repeats_option
def main(cells: tuple[str, ...], shape: Shape, shortest: int, threads: int, dtype: str, repeats: int) -> None:
    """Print a table of useful GF/s and ratios."""
    pin(threads)
    lengths = draw(shape, shortest)
    systems = ["fastrnn", "dense", *(["torch packed"] if "torch" in installed() else [])]
    rows, measured = [], []
    for cell in cells:
        for name, rates in compare(cell, shape, lengths, dtype, threads, repeats):
            ratios = [f"{ratio(rates, 'fastrnn', [other]):.2f}" for other in systems[1:]]
            rows.append([cell, name, *(speed(rates, system) for system in (*systems, "peak")), *ratios])
            measured.append(rates)
    click.echo(f"Useful GF/s (share of the FMA peak), {dtype}, medians of {repeats} interleaved repeats")
    click.echo(f"T,B,I,H = {shape}, lengths {shortest}..{shape.T}, {lengths.mean() / shape.T:.0%} of all steps\n")
    click.echo(markdown(["cell", "pass"], [*systems, "peak", *(f"/ {other}" for other in systems[1:])], rows))
    click.echo(f"\n{describe(threads, 'torch')}")
    click.echo(peak_note(measured), nl=False)


if __name__ == "__main__":
    main()
