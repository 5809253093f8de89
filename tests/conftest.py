"""What every test runs under: memory that shows what is read before it is written or written beyond its end."""

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import memory

with contextlib.suppress(ImportError):  # pytest reads this file before benchmarks too, whose extra has no hypothesis
    from hypothesis import settings

    settings.register_profile("default", deadline=None, derandomize=True, database=None)
    settings.register_profile("random", deadline=None, database=None)
    settings.load_profile("default")


def pytest_configure(config):
    config.addinivalue_line("markers", "real_memory: without poison, to test how memory is kept and used again")


class Poison:
    """Arrays full of NaN between red zones, in place of uninitialised memory."""

    ZONE = 256  # bytes on either side
    HELD = 1 << 26  # bytes of arrays whose red zones are still to be looked at

    def __init__(self):
        self._zones, self._held, self._scratch = deque(), 0, {}

    def empty(self, shape, dtype=np.float64):
        """As np.empty."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if dtype.kind != "f":
            return np.empty(shape, dtype)
        block = np.full(count * dtype.itemsize + 2 * self.ZONE + 64, 0xFF, np.uint8)  # all bits 1 are NaN
        start = self.ZONE + -(block.ctypes.data + self.ZONE) % 64
        end = start + count * dtype.itemsize
        self._zones.append((block, start, end))
        self._held += block.size
        while self._held > self.HELD:
            self._check_oldest()
        return block[start:end].view(dtype).reshape(shape)

    def scratch(self, count, dtype):
        """As fastrnn.memory.scratch: the next request ends the life of what the last one gave."""
        key = threading.get_ident(), dtype
        if key in self._scratch:
            self._scratch[key].fill(np.nan)
        self._scratch[key] = self.empty(count, dtype)
        return self._scratch[key]

    def _check_oldest(self):
        block, start, end = self._zones.popleft()
        self._held -= block.size
        assert (block[:start] == 0xFF).all(), f"written before the start of {end - start} bytes"
        assert (block[end:] == 0xFF).all(), f"written beyond the end of {end - start} bytes"

    def check(self):
        """Every red zone is as it was."""
        while self._zones:
            self._check_oldest()


class _Numpy:
    """numpy, but for `empty`."""

    def __init__(self, empty):
        self.empty = empty

    def __getattr__(self, name):
        return getattr(np, name)


@pytest.fixture(autouse=True)
def poison(request, monkeypatch):
    """All memory that fastrnn asks for is poisoned."""
    if request.node.get_closest_marker("real_memory"):
        yield
        return
    poison = Poison()
    replaced = ((memory.aligned_empty, poison.empty), (memory.scratch, poison.scratch), (np, _Numpy(poison.empty)))
    for name, module in list(sys.modules.items()):
        if name.startswith("fastrnn.") and not name.startswith(("fastrnn.kernels", "fastrnn.reference")):
            for attribute, value in list(vars(module).items()):
                for original, substitute in replaced:
                    if value is original:
                        monkeypatch.setattr(module, attribute, substitute)
    yield poison
    monkeypatch.undo()
    poison.check()


@pytest.fixture(autouse=True)
def same_thread_count():
    """The number of threads is as it was after a test."""
    before = fastrnn.get_num_threads()
    yield
    fastrnn.set_num_threads(before)


@pytest.fixture
def fenced():
    """Arrays that end where readable memory ends, or begin where it begins: to touch what is beyond kills Python."""
    libc = ctypes.CDLL(None) if sys.platform != "win32" else None
    if libc is None:
        pytest.skip("Windows protects pages with another call")
    libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

    def array(count, dtype, at_end=True):
        dtype = np.dtype(dtype)
        size = count * dtype.itemsize
        pages = -(-size // mmap.PAGESIZE)
        whole = np.frombuffer(mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE), np.uint8)
        for page in (0, pages + 1):
            assert libc.mprotect(whole.ctypes.data + page * mmap.PAGESIZE, mmap.PAGESIZE, 0) == 0
        start = (pages + 1) * mmap.PAGESIZE - size if at_end else mmap.PAGESIZE
        return whole[start : start + size].view(dtype)

    return array


@pytest.fixture(scope="session")
def run_python():
    """Run a program in a Python of its own: (program, folder of fastrnn, environment) -> the completed process.

    Variables that choose a CPU, a target or threads are those of `environment` alone.
    """
    ours = ("NUMBA_CPU", "NUMBA_THREADING", "NUMBA_NUM_THREADS", "FASTRNN_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def run(program, folder=Path(__file__).parent.parent, **environment):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=inherited | environment, cwd=folder, capture_output=True, text=True)

    return run
