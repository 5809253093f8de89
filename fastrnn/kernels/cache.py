"""Compiled kernels on disk, one file a signature: used when it is known to be whole and ours, or else compiled anew.

A file's name is a hash of all that its machine code follows from: every source file of the kernels, the target row,
Numba, LLVM, Python, settings, the CPU and the types. Its content starts with a hash of that and of the rest. It is
written beside its place and moved there, by processes that need not know of each other, and unpickled only if nobody
but its reader or root could have written it. Whatever goes wrong with a file or its folder, the kernel is compiled.
"""

import hashlib
import itertools
import logging
import os
import pickle
import pkgutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import llvmlite
import numba
from numba.core import config, serialize
from numba.core.bytecode import FunctionIdentity
from numba.core.compiler import CompileResult

from fastrnn.kernels.target import TARGET

_PACKAGE = __name__.rpartition(".")[0]
_DIGEST = hashlib.sha256().digest_size
_ABANDONED = 3600  # seconds after which a half-written file is nobody's any more; to write one takes milliseconds
# Numba's settings that change the code it makes without being part of a signature.
_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")


def _modules(spec: Any) -> Iterator[Any]:
    """A package and all that is in it, in files, archives and frozen programs alike; nothing is imported."""
    yield spec
    for found in pkgutil.iter_modules(spec.submodule_search_locations or ()):
        finder: Any = found.module_finder
        yield from _modules(finder.find_spec(f"{spec.name}.{found.name}"))


def _of_code(code: CodeType) -> Iterator[str]:
    """What a compiled module does, where a frozen program comes without its source."""
    yield f"{code.co_code!r}{code.co_names}{code.co_varnames}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _of_code(constant)
        else:
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def source_stamp() -> str:
    """Hash of every kernel file and of all else that machine code follows from, but for the CPU and the types."""
    settings = [getattr(config, name, None) for name in _SETTINGS]
    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
    digest = hashlib.sha256(repr((TARGET, versions, settings)).encode())
    for name, loader in sorted((spec.name, spec.loader) for spec in _modules(sys.modules[_PACKAGE].__spec__)):
        source = loader.get_source(name)
        digest.update(f"\n{name}\n".encode())
        digest.update((source if source is not None else "".join(_of_code(loader.get_code(name)))).encode())
    return digest.hexdigest()[:16]


STAMP = source_stamp()  # of the code that runs, whatever happens to its files


class Folder(NamedTuple):
    """Where compiled kernels are kept."""

    path: Path | None  # None: they are neither read nor written
    kept: str  # in words, for the user


def _root() -> Path:
    """Under NUMBA_CACHE_DIR if set, else the user's own cache folder."""
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR).absolute() / "fastrnn"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "fastrnn"


def _trusted(found: os.stat_result) -> bool:
    """Whether nobody but this user and root can have written what was found."""
    if sys.platform == "win32":  # a profile's folders are its user's
        return True
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@cache
def folder() -> Folder:
    """The folder of this stamp, made if need be; one that cannot be written is still read."""
    nowhere = Folder(None, "not kept: no writable cache folder")
    try:
        path = _root() / STAMP
    except RuntimeError:  # a user without a home directory
        return nowhere
    with suppress(OSError):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not os.path.isdir(path):
        return nowhere
    if not _trusted(path.lstat()):
        return Folder(None, f"not kept: others than you can write {path}")
    return Folder(path, f"kept in {path}" if os.access(path, os.W_OK) else f"not kept: {path} cannot be written")


def _classes(kind: Any) -> Iterator[type]:
    """The classes of all named tuples within a type."""
    if hasattr(kind, "instance_class"):
        yield kind.instance_class
    for part in getattr(kind, "types", ()):
        yield from _classes(part)


class DiskCache:
    """The signatures of one function on disk, in the place of Numba's own cache."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._name, self._module = function.__qualname__, function.__module__

    def _place(self, signature: Any, codegen: Any) -> tuple[Path, bytes] | None:
        """The file of a signature and the hash of what it is of; None for what the stamp does not cover."""
        arguments = getattr(signature, "args", signature)
        classes = [f"{each.__module__}.{each.__qualname__}" for kind in arguments for each in _classes(kind)]
        root = folder().path
        if root is None or any(not name.startswith(f"{_PACKAGE}.") for name in classes):
            return None
        of = STAMP, self._module, self._name, arguments, classes, codegen.magic_tuple()
        key = hashlib.sha256(repr(of).encode())
        return root / f"{self._name}-{key.hexdigest()[:24]}.kernel", key.digest()

    def load_overload(self, signature: Any, target: Any) -> CompileResult | None:
        """The compiled function from disk, or None."""
        target.refresh()
        try:
            place = self._place(signature, target.codegen())
            if place is None:
                return None
            path, key = place
            with open(path, "rb") as file:
                if not _trusted(os.fstat(file.fileno())):
                    return None
                content = file.read()
            digest, data = content[:_DIGEST], content[_DIGEST:]
            if hashlib.sha256(key + data).digest() != digest:
                return None
            return CompileResult._rebuild(target, *pickle.loads(data))
        except FileNotFoundError:
            return None
        except Exception:
            logging.getLogger("fastrnn").debug("could not load %s", self._name, exc_info=True)
            return None

    def save_overload(self, signature: Any, compiled: CompileResult) -> None:
        """Write a compiled function to disk, where that is possible."""
        try:
            place = self._place(signature, compiled.codegen)
            if place is None or compiled.library.has_dynamic_globals:  # these hold addresses of this process
                return
            path, key = place
            data = serialize.dumps(compiled._reduce())
            _write(path, hashlib.sha256(key + data).digest() + data)
        except OSError as error:
            if folder().kept.startswith("kept"):
                _say_once(f"fastrnn: {path.parent}: {error.strerror}; what is compiled is not kept")
        except Exception:
            logging.getLogger("fastrnn").debug("could not save %s", self._name, exc_info=True)

    def flush(self) -> None:
        """Nothing: a file that is asked for again still holds."""


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(path: Path, content: bytes) -> None:
    """Write a file in one move, so that no reader meets a part of it."""
    _sweep(path.parent)
    descriptor, temporary = tempfile.mkstemp(".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # a cache in a container image serves every user
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


@cache
def _sweep(path: Path) -> None:
    """Remove what killed processes left half-written, once a process."""
    for each in path.glob("*.tmp"):
        if time.time() - each.stat().st_mtime > _ABANDONED:
            each.unlink(missing_ok=True)


def _number_from_anywhere() -> None:
    """Count the functions that Numba compiles from a random number on.

    The count is a part of their names, by which LLVM takes functions of several files for one: processes that all count
    from 1 would write files that cannot be loaded together.
    """
    FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(7), "little"))


_number_from_anywhere()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_number_from_anywhere)
