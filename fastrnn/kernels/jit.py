"""The only place with njit flags: how kernels are compiled, cached on disk, and launched.

`device` marks functions that kernels call, `layout` those that Python calls too; a `Kernel` is called by both, and is
compiled once for any number of threads (see `parallel`). `symbol` compiles a function once a process and lets every
kernel call it by name, so that shared machine code is neither inlined nor compiled again.

What is compiled is kept on disk: see `cache`.
"""

import ctypes
import functools
import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import config, event, sigutils
from numba.core.ccallback import CFunc
from numba.extending import typeof_impl
from numba.np.ufunc import parallel

from fastrnn.kernels.cache import DiskCache, folder
from fastrnn.kernels.target import TARGET

# nogil lets several Python threads run kernels; the NumPy error model keeps division free of exceptions.
_FLAGS = {"nogil": True, "error_model": "numpy", "boundscheck": False}

device = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_FLAGS)


class layout:  # a decorator, as `device` is
    """Sizes and places that both Python and kernels compute: a function in Python, and compiled once for kernels."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.compiled = function, device(function)
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)


class _Announce(event.Listener):
    """Say once, on standard error, that kernels are being compiled: the first minute of a new installation.

    A new kind of layer, forward and backward, takes 9 to 10 times as long as the shared functions of a dtype, which
    come first; 1.3 seconds is what these take on a Zen 4 core, for when they are on disk already.
    """

    said, shared = False, 1.3

    def on_start(self, e):
        function = e.data["dispatcher"].py_func
        if self.said or not function.__module__.startswith("fastrnn.kernels"):
            return
        self.said = True
        wait = f"about {10 * self.shared:.0f} s for each new kind of layer"
        print(f"fastrnn: compiling kernels for {TARGET.name}, {wait}, {folder().kept}", file=sys.stderr, flush=True)

    def on_end(self, e):
        logging.getLogger("fastrnn").debug("compiled %s", e.data["dispatcher"].py_func.__qualname__)


_announce = _Announce()
event.register("numba:compile", _announce)


_CALL = """
def __call__(self, {arguments}):
    if {first}.dtype not in _linked:
        _link({first}.dtype)
    if _layer.restricted and {threads} > 1:
        with _layer.turn():
            self.compiled({arguments})
    else:
        self.compiled({arguments})
"""


class Kernel:
    """A function of arrays and numbers that Python calls by the names of its arguments, and kernels by their places.

    Arguments that are the same at every call may come first and without names, from NamedTuples that were made once:
    a name costs 0.04 us. The first argument is an array, whose dtype names the symbols that the kernel links to; the
    last one of a kernel with parallel regions is `threads`, the most shards that any of them has.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.compiled = numba.njit(**_FLAGS)(function)
        self.compiled._cache = DiskCache(function)
        self.names = tuple(inspect.signature(function).parameters)
        # A method with the kernel's own arguments: Python finds them by name 0.4 us sooner than Numba does.
        threads = "threads" if "threads" in self.names else "1"
        made: dict[str, Any] = {}
        exec(_CALL.format(arguments=", ".join(self.names), first=self.names[0], threads=threads), globals(), made)
        self.__class__ = type(function.__name__, (Kernel,), made)

    if TYPE_CHECKING:

        def __call__(self, *arguments: object, **named: object) -> None: ...

    def resolved(self, *arguments: Any) -> Callable[..., None]:
        """The compiled code for arguments of these types, to be called with no others: 1 us less to dispatch.

        For kernels without parallel regions.
        """
        if arguments[0].dtype not in _linked:
            _link(arguments[0].dtype)
        signature = tuple(numba.typeof(argument) for argument in arguments)
        self.compiled.compile(signature)
        return self.compiled.overloads[signature].entry_point


@typeof_impl.register(layout)
@typeof_impl.register(Kernel)
def _type_of_kernel(kernel, context):
    return typeof_impl(kernel.compiled, context)


_WORKQUEUE = (
    "fastrnn: kernels run on Numba's workqueue, which ends the process if another package's parallel Numba code runs "
    "at the same time; with OpenMP's library (libgomp1) or tbb installed it would not"
)


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

    started = False
    exclusive = False  # the workqueue layer aborts when two callers enter it
    forked = False  # the threads stayed with the parent, and OpenMP ends a child that asks for them

    def __init__(self):
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.after_fork)

    @property
    def restricted(self):
        """Whether regions of several shards need a `turn`."""
        return self.exclusive or self.forked

    @contextmanager
    def turn(self):
        """Within the block the calling thread may enter parallel regions; in a forked child they run right here."""
        if self.forked:  # said anew each time, as Numba keeps the number for each thread
            numba.set_num_threads(1)
        with self._lock if self.exclusive else nullcontext():
            yield

    def after_fork(self):
        """Whoever started the threads, this process has none; nor the thread that may have held the lock."""
        self.forked = self.forked or parallel._is_initialized
        self._lock = threading.Lock()

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
        if self.exclusive:
            print(_WORKQUEUE, file=sys.stderr, flush=True)


_layer = _Layer()


def forked() -> bool:
    """Whether this process is the child of one whose threads ran: it has a single one."""
    return _layer.forked


Symbol = Callable[[str], tuple[str, object, Callable[..., None]]]  # dtype -> name, C signature, Python function

_symbols: list[Symbol] = []
_linked: dict[np.dtype, list[object]] = {}


def symbol(describe: Symbol) -> Symbol:
    """Register a shared function."""
    _symbols.append(describe)
    return describe


def _link(dtype: np.dtype) -> None:
    """Compile, or load from disk, the shared functions of a dtype and make their names known to LLVM.

    Raises RuntimeError: `NUMBA_DISABLE_JIT: expected 0, got 1: fastrnn's kernels only run compiled`.
    """
    if config.DISABLE_JIT:
        raise RuntimeError(
            f"NUMBA_DISABLE_JIT: expected 0, got {config.DISABLE_JIT}: fastrnn's kernels only run compiled"
        )
    if not _layer.started:
        _layer.start()
    functions = []
    for describe in _symbols:
        name, signature, function = describe(dtype.name)
        compiled = CFunc(function, sigutils.normalize_signature(signature), {}, _FLAGS)
        compiled._cache = DiskCache(function)
        start = time.perf_counter()
        compiled.compile()
        if not compiled.cache_hits:
            _announce.shared = time.perf_counter() - start
        llvm.add_symbol(name, compiled.address)
        functions.append(compiled)
    _linked[dtype] = functions
