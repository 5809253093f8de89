"""What a user waits for before anything is trained: `python bench/startup.py [--repeats 5] [--cold-repeats 1]`.

Every measurement is a fresh process: imports, and a first training step of the char-rnn model (import included), with
all kernels in the disk cache and with an empty one.
"""

import os
import statistics
import subprocess
import sys
import tempfile

import click
from machine import describe

FIRST_STEP = """
import numpy as np
import fastrnn
model = fastrnn.models.CharLM("abcdefgh", hidden_size=512, seed=0)
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


def cold_step() -> float:
    """Seconds of a first step with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        return run(FIRST_STEP, folder)


@click.command()
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--cold-repeats", type=click.IntRange(0), default=1, show_default=True)
def main(repeats: int, cold_repeats: int) -> None:
    """Print medians in seconds."""
    measurements = {
        "import numba": lambda: run("import numba"),
        "import fastrnn": lambda: run("import fastrnn"),
        "first step, kernels cached": lambda: run(FIRST_STEP),
    }
    run(FIRST_STEP)
    click.echo("| what | seconds |\n|---|---:|")
    for name, measure in measurements.items():
        click.echo(f"| {name} | {statistics.median(measure() for _ in range(repeats)):.2f} |")
    if cold_repeats:
        click.echo(f"| first step, empty cache | {statistics.median(cold_step() for _ in range(cold_repeats)):.1f} |")
    click.echo(f"\n{describe(os.cpu_count() or 1)}")


if __name__ == "__main__":
    main()
