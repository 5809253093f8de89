"""What every benchmark program needs of the machine: a fixed set of cores, timing side by side, and its name."""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import fastrnn
from fastrnn.kernels.target import TARGET

WINDOW = 0.1  # seconds of calls in one measurement
PAUSE = 0.1  # seconds before each, longer than any library's idle threads keep spinning (onnxruntime's: 0.04)


def pin(threads: int) -> None:
    """Run this program on `threads` cores, where the system can confine it, with as many threads for every library.

    Libraries count cores when they are loaded, so the program starts again in a process that has the right number.
    """
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    wanted = dict.fromkeys(names, str(threads))
    confine = hasattr(os, "sched_setaffinity")
    cores = sorted(os.sched_getaffinity(0)) if confine else list(range(os.cpu_count() or 1))
    if threads > len(cores):
        raise click.ClickException(f"--threads: expected 1..{len(cores)}, the cores at hand, got {threads}")
    if wanted.items() <= os.environ.items() and (not confine or len(cores) == threads):
        return
    if confine:
        os.sched_setaffinity(0, cores[:threads])
    os.execve(sys.executable, sys.orig_argv, os.environ | wanted)


def cpu() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe(threads: int, *packages: str) -> str:
    """One line: CPU, target row, cores, versions of Python and of those packages that are installed."""
    versions = [f"fastrnn {fastrnn.__version__}", f"Python {platform.python_version()}"]
    for package in ("numba", "numpy", *packages):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{cpu()} ({TARGET.name}), {threads} of {os.cpu_count()} cores; {', '.join(versions)}"


def seconds(run: Callable[[], object], calls: int = 1) -> float:
    """Seconds a call, of `calls` calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def interleave(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds a call of every run, `repeats` times each; every repeat times them all, each time in another order.

    Before a measurement the process rests, so that the others' idle threads sleep, and makes one untimed call, which
    wakes its own and fills the caches.
    """
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = max(1, round(WINDOW / seconds(run)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for _ in range(repeats):
        for name in names:
            time.sleep(PAUSE)
            runs[name]()
            times[name].append(seconds(runs[name], calls[name]))
        names.append(names.pop(0))
    return times


def fastest(variants: Mapping[str, Callable[[], Any]]) -> tuple[str, Callable[[], Any]]:
    """The variant that took the least time in three interleaved measurements."""
    if len(variants) == 1:
        return next(iter(variants.items()))
    times = interleave(variants, 3)
    return min(variants.items(), key=lambda variant: min(times[variant[0]]))
