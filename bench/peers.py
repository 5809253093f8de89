"""A recurrent layer, one direction, in fastrnn and its peers: `python bench/peers.py --cell gru --shape 50,64,512,512`.

Peers run where they are installed: torch (nn.RNN, GRU, LSTM), jax (lax.scan under jit), onnxruntime (the operators of
those names; forward, float32 only). All work on the same arrays and weights, and no time is printed unless their
results agree.

Forward: x and the initial state -> y and the final state, without keeping anything for gradients. Forward+backward: x,
the initial state and the cotangents of y and the final state -> the gradients of x, the initial state and every weight.
GF/s count the products alone: 2*T*B*G*H*(I+H) flop forward with G gates, three times that with backward.

How fairness is kept
- The process is confined to as many cores as threads before any library is loaded. torch and onnxruntime are given
  the number, numba and XLA count the cores. (macOS can't confine a process: there XLA takes all cores.)
- One process, interleaved: each repeat times every system and the FMA peak, in an order that changes with the repeat.
  Shares of the peak and ratios are taken within a repeat; medians over repeats are printed.
- Each measurement starts with a pause, in which the idle threads of the others stop spinning, and an untimed call.
- Everybody reads inputs that are in place and allocates its own results. torch uses inference_mode, and autograd.grad
  in place of accumulating into .grad. jax gets jax.vjp under one jit, which does less than value_and_grad, and the
  input product taken out of the scan.
- Where there are several ways, all are tried for every shape and pass, and the fastest counts: jax's scan plain and
  unrolled; onnxruntime's idle threads spinning always, within a call, or never.
"""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from machine import describe, fastest, pin
from options import ShapeType, cell_option, dtype_option, repeats_option, threads_option
from rates import markdown, measure, peak_note, ratio, speed
from registry import SHAPES, Shape
from systems import SYSTEMS, check, inference, installed, problem

PASSES = {"forward": (1, inference), "forward+backward": (3, contextlib.nullcontext)}  # flop factor, context of calls

Row = dict[str, Any]


def compare(cell: str, shape: Shape, dtype: str, threads: int, repeats: int) -> list[Row]:
    """The measurements of both passes."""
    p = problem(cell, shape, dtype)
    systems = {name: SYSTEMS[name](p, threads) for name in installed()}
    rows = []
    for i, (name, (factor, context)) in enumerate(PASSES.items()):
        with context():
            runs = {system: fastest(calls[i]) for system, calls in systems.items() if calls[i]}
            check({system: run() for system, (_, run) in runs.items()}, dtype)
            flops = factor * shape.flops(cell)
            rates = measure({system: (run, flops) for system, (_, run) in runs.items()}, dtype, threads, repeats)
        ways = {system: way for system, (way, _) in runs.items() if way}
        rows.append({"cell": cell, "shape": shape, "dtype": dtype, "pass": name, "rates": rates, "ways": ways})
    return rows


def table(rows: list[Row]) -> str:
    """Markdown: GF/s (share of the peak) of every system, and fastrnn over each peer and over the best one."""
    systems = [name for name in SYSTEMS if any(name in row["rates"] for row in rows)]
    peers = systems[1:]
    lines = []
    for row in rows:
        rates = row["rates"]
        others = [[peer] if peer in rates else [] for peer in peers] + [[peer for peer in peers if peer in rates]]
        lines.append(
            [row["cell"], str(row["shape"]), row["pass"]]
            + [speed(rates, name) if name in rates else "" for name in (*systems, "peak")]
            + [f"{ratio(rates, 'fastrnn', names):.2f}" if names else "" for names in others]
        )
    names = [*systems, "peak", *(f"/ {peer}" for peer in peers), "/ best peer"]
    return markdown(["cell", "T,B,I,H", "pass"], names, lines)


@click.command()
@cell_option
@click.option("--shape", "shapes", multiple=True, type=ShapeType(), default=SHAPES.values(), help="Default: registry.")
@threads_option
@dtype_option
@repeats_option
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write every repeat there, too.")
def main(
    cells: tuple[str, ...], shapes: tuple[Shape, ...], threads: int, dtype: str, repeats: int, path: Path | None
) -> None:
    """Print a table of GF/s, shares of the FMA peak, and ratios to every peer."""
    pin(threads)
    rows = [row for cell in cells for shape in shapes for row in compare(cell, shape, dtype, threads, repeats)]
    line = describe(threads, "torch", "jax", "onnxruntime")
    click.echo(f"GF/s (share of the FMA peak), {dtype}, medians of {repeats} interleaved repeats\n")
    click.echo(f"{table(rows)}\n\n{line}")
    for system in SYSTEMS:
        if ways := Counter(row["ways"][system] for row in rows if system in row["ways"]):
            click.echo(f"Best way of {system}, in lines: {', '.join(f'{way} {n}' for way, n in ways.items())}.")
    click.echo(peak_note([row["rates"] for row in rows]), nl=False)
    if path:
        path.write_text(json.dumps({"machine": line, "threads": threads, "rows": rows}))


if __name__ == "__main__":
    main()
