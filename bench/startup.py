"""What a user waits for before anything is trained: `python bench/startup.py [--cell lstm] [--cold-repeats 1]`.

Every measurement is a fresh process: imports, and a first training step of a character model of each cell (import
included), with all kernels in the disk cache and with an empty one.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial

import click
from machine import describe
from options import cell_option
from rates import markdown

FIRST_STEP = """
import numpy as np
import fastrnn
model = fastrnn.models.CharLM("abcdefgh", "{cell}", 512, seed=0)
optimizer = fastrnn.optim.Adam(model.parameters)
tokens = np.random.default_rng(0).integers(0, 8, (50, 64))
model.train_step(tokens, tokens, None, optimizer, clip_norm=5.0)
"""
TIMED = "import time\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"


def run(code: str, cache: str | None = None) -> float:
    """Seconds that the code takes in a fresh process, without the start of the interpreter; cache: Numba's folder."""
    environment = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    command = [sys.executable, "-c", TIMED.format(code=code)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(result.stdout)


def first_step(cell: str, cache: str | None = None) -> float:
    """Seconds of import and a first training step in a fresh process."""
    return run(FIRST_STEP.format(cell=cell), cache)


def cold_step(cell: str) -> float:
    """Seconds of a first step with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        return first_step(cell, folder)


@click.command()
@cell_option
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--cold-repeats", type=click.IntRange(0), default=1, show_default=True)
def main(cells: tuple[str, ...], repeats: int, cold_repeats: int) -> None:
    """Print medians in seconds."""
    measurements = {f"import {package}": partial(run, f"import {package}") for package in ("numba", "fastrnn")}
    measurements |= {f"first step of {cell}, kernels cached": partial(first_step, cell) for cell in cells}
    for measure in measurements.values():
        measure()
    rows = [[name, f"{statistics.median(m() for _ in range(repeats)):.2f}"] for name, m in measurements.items()]
    for cell in cells if cold_repeats else ():
        cold = statistics.median(cold_step(cell) for _ in range(cold_repeats))
        rows.append([f"first step of {cell}, empty cache", f"{cold:.1f}"])
    click.echo(markdown(["what"], ["seconds"], rows))
    click.echo(f"\n{describe(os.cpu_count() or 1)}")


if __name__ == "__main__":
    main()
