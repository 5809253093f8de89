"""The only place with njit flags: how kernels are compiled, cached on disk, and launched.

`device` marks functions that kernels call, `layout` those that Python calls too; a `Kernel` is called by both, and is
compiled once for any number of threads (see `parallel`). `symbol` compiles a function once a process and lets every
kernel call it by name, so that shared machine code is neither inlined nor compiled again.

Numba stamps a cached function with its own file alone; here the cache directory carries a hash of every kernel
file and of the target row, so an edit below a kernel is never answered with stale code.
"""

import ctypes
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import config, event
from numba.extending import register_jitable, typeof_impl

from fastrnn.kernels.target import TARGET

# nogil lets several Python threads run kernels; the NumPy error model keeps division free of exceptions.
_FLAGS = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_KERNELS = Path(__file__).parent


def source_stamp() -> str:
    """Hash of every kernel file, the target row and Numba's version: the key of the disk cache."""
    digest = hashlib.sha256(f"{TARGET} numba {numba.__version__}".encode())
    for path in sorted(_KERNELS.rglob("*.py")):
        digest.update(str(path.relative_to(_KERNELS)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


STAMP = source_stamp()  # of the code that runs, whatever happens to its files


def _cache_root() -> Path:
    """Where compiled kernels are kept: under NUMBA_CACHE_DIR if set, else the user's own cache folder."""
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "fastrnn"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastrnn"


def _prepare_cache() -> Path | None:
    """The stamped cache directory, or None where it can't be written (kernels are then compiled anew)."""
    try:
        directory = _cache_root() / STAMP
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home directory
        return None
    return directory if os.access(directory, os.W_OK) else None


CACHE = _prepare_cache()


@contextmanager
def _cache_directory():
    """Point Numba at the stamped directory while a function is decorated."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE) if CACHE else before
    try:
        yield CACHE is not None
    finally:
        config.CACHE_DIR = before


device = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_FLAGS)
layout = register_jitable(**_FLAGS)  # sizes and places that both Python and kernels compute


class _Announce(event.Listener):
    """Say once, on standard error, that kernels are being compiled: the first minute of a new installation."""

    said = False

    def on_start(self, e):
        function = e.data["dispatcher"].py_func
        if self.said or not function.__module__.startswith("fastrnn.kernels"):
            return
        self.said = True
        kept = f"kept in {CACHE}" if CACHE else "not kept: no writable cache folder"
        print(f"fastrnn: compiling kernels for {TARGET.name}, {kept}", file=sys.stderr, flush=True)

    def on_end(self, e):
        logging.getLogger("fastrnn").debug("compiled %s", e.data["dispatcher"].py_func.__qualname__)


event.register("numba:compile", _Announce())


class Kernel:
    """A function of arrays and numbers that Python calls as `kernel(threads, *arguments)`, and kernels without threads.

    The first argument is an array, whose dtype names the symbols that the kernel links to; `threads` only says
    whether any of its parallel regions has more than one part.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        with _cache_directory() as cached:
            self.compiled = numba.njit(cache=cached, **_FLAGS)(function)

    def __call__(self, threads: int, *arguments: object) -> None:
        if arguments[0].dtype not in _linked:
            _link(arguments[0].dtype)
        if threads > 1 and _layer.exclusive:
            with _layer.turn:
                self.compiled(*arguments)
        else:
            self.compiled(*arguments)

    def resolved(self, *arguments: object) -> Callable[..., None]:
        """The compiled code for arguments of these types, to be called with no others: 1 us less to dispatch.

        For kernels without parallel regions.
        """
        if arguments[0].dtype not in _linked:
            _link(arguments[0].dtype)
        signature = tuple(numba.typeof(argument) for argument in arguments)
        self.compiled.compile(signature)
        return self.compiled.overloads[signature].entry_point


@typeof_impl.register(Kernel)
def _type_of_kernel(kernel, context):
    return typeof_impl(kernel.compiled, context)


def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library that Numba's threads run on, where there is one and it can be asked."""
    try:
        from numba.np.ufunc import omppool

        library = ctypes.CDLL(omppool.__file__)
    except (ImportError, OSError):
        return None
    return library if hasattr(library, "omp_get_max_threads") else None


class _Layer:
    """Numba's threads: started by the first kernel, and shared by everything in the process."""

    exclusive = False  # the workqueue layer aborts when two callers enter it
    turn = threading.Lock()
    started = False

    def __init__(self):
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.after_fork)

    def after_fork(self):
        """The threads stayed with the parent: every region of the child runs where it is called."""
        if self.started:
            numba.set_num_threads(1)

    def start(self):
        """Start the threads; OpenMP and torch, now or when it is loaded, keep their own number of them."""
        torch, openmp = sys.modules.get("torch"), _openmp()
        before = torch.get_num_threads() if torch else openmp.omp_get_max_threads() if openmp else 0
        numba.get_num_threads()
        if torch:
            torch.set_num_threads(before)
        elif openmp:
            openmp.omp_set_num_threads(before)
        self.started, self.exclusive = True, numba.threading_layer() == "workqueue"


_layer = _Layer()


_symbols: list[Callable[[str], tuple[str, object, Callable[..., None]]]] = []
_linked: dict[np.dtype, list[object]] = {}


def symbol(describe: Callable[[str], tuple[str, object, Callable[..., None]]]):
    """Register a shared function: `describe(dtype)` gives its symbol name, C signature and Python function."""
    _symbols.append(describe)
    return describe


def _link(dtype: np.dtype) -> None:
    """Compile, or load from disk, the shared functions of a dtype and make their names known to LLVM."""
    if not _layer.started:
        _layer.start()
    functions = []
    for describe in _symbols:
        name, signature, function = describe(dtype.name)
        with _cache_directory() as cached:
            compiled = numba.cfunc(signature, cache=cached, **_FLAGS)(function)
        llvm.add_symbol(name, compiled.address)
        functions.append(compiled)
    _linked[dtype] = functions
