"""Text for a character model: read, split, and cut into windows."""

import gzip
import io
import os
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from fastrnn import checks

MOST_BYTES = 1 << 30  # of a text; its characters and tokens take ten times that
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20  # bytes read at once
# Tests, tables and bundled programs: bulky, repetitive, or absent from some installations.
_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "idle_test", "lib2to3"}
_SKIPPED |= {"ensurepip", "turtledemo", "distutils", "encodings", "pydoc_data"}


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """The characters of a UTF-8 file, plain or gzip (told apart by its first bytes), line ends as they are.

    path : "-" is standard input
    most : bytes of text; a longer one, also one that a small gzip expands to, is read no further

    Raises OSError if the file can't be read, and ValueError: `book.txt: expected UTF-8, got byte 0xff at 1024`,
    `book.gz: damaged gzip: ...`, `book.txt: empty`, `book.gz: expected at most 1073741824 bytes of text, got more`.
    """
    checks.path(path)
    name, most = source_name(path), checks.integer("most", most, 1)
    with _opened(path) as file:
        data = _read(name, file, most)
    if data.startswith(_GZIP_MAGIC):
        try:
            data = _read(name, gzip.GzipFile(fileobj=io.BytesIO(data)), most)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{name}: damaged gzip: {error}") from None
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")  # a byte order mark is no character of the text
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
    if not text:
        raise ValueError(f"{name}: empty")
    return text


def source_name(path: str | os.PathLike[str]) -> str:
    """What messages call a file."""
    return "standard input" if path == "-" else os.fspath(path)


def _opened(path):
    if path != "-":
        return open(path, "rb")
    if not hasattr(sys.stdin, "buffer"):
        raise ValueError("standard input: closed")
    return nullcontext(sys.stdin.buffer)


def _read(name, file, most):
    """All bytes of a file, which may have no end."""
    data = bytearray()
    while piece := file.read(_PIECE):
        data += piece
        if len(data) > most:
            raise ValueError(f"{name}: expected at most {most} bytes of text, got more")
    return data


def standard_library(limit: int = 5_000_000) -> str:
    """Up to `limit` characters of source code of the running Python's standard library.

    Files that are not pure ASCII are left out, which keeps the vocabulary below 100. The files follow each other in
    a fixed order that shuffles the modules, so that the end of the text is like its beginning.
    """
    root, limit = Path(sysconfig.get_path("stdlib")), checks.integer("limit", limit, 1)
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = set(subfolders) - _SKIPPED
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    parts, size = [], 0
    for path in sorted(files, key=lambda path: zlib.crc32(path.relative_to(root).as_posix().encode())):
        data = path.read_bytes()
        if data.isascii():
            parts.append(data)
            size += len(data)
        if size >= limit:
            break
    if not size:
        raise ValueError(f"{root}: no source code of the standard library; give a text file")
    return b"".join(parts)[:limit].decode("ascii")


def vocabulary_of(text: str) -> str:
    """The characters of a text, each once, sorted."""
    checks.instance("text", text, str)
    return "".join(sorted(set(text)))


def split(text: str, val_fraction: float, batch: int, seq_length: int) -> tuple[str, str]:
    """(training text, validation text): the last `val_fraction` of the text, but at least one window, validates.

    val_fraction 0 <= f < 1, dimensionless; 0 gives an empty validation text.
    Raises ValueError: `text: expected at least 2*(batch*seq_length + 1) = 6402 characters, got 12`, without
    validation `text: expected at least batch*seq_length + 1 = 3201 characters, got 12`.
    """
    checks.instance("text", text, str)
    val_fraction = checks.number("val_fraction", val_fraction, 0.0, 1.0)
    window = checks.integer("batch", batch, 1) * checks.integer("seq_length", seq_length, 1) + 1
    if not val_fraction:
        _long_enough(len(text), "batch*seq_length + 1", window)
        return text, ""
    _long_enough(len(text), "2*(batch*seq_length + 1)", 2 * window)
    end = len(text) - min(max(int(len(text) * val_fraction), window), len(text) - window)
    return text[:end], text[end:]


def _long_enough(length: int, formula: str, least: int) -> None:
    if length < least:
        raise ValueError(f"text: expected at least {formula} = {least} characters, got {length}")


class Batches:
    """The windows of a text, in order: `batches[i]` is (x, y), both (T, B) int64, y being one character ahead of x.

    Parameters
    ----------
    tokens : (N,) integers
    batch : number of lanes B; lane b is the b-th of B equal, contiguous stretches of the text
    seq_length : characters T of one window

    Lane b of window i + 1 continues lane b of window i, so a model's state is carried from one to the next; one
    epoch is `len(batches)` windows. Characters that fill no window, fewer than B*(T + 1), are left out at the end of
    the lanes. The position in an epoch is the index i alone.

    Raises ValueError: `text: expected at least batch*seq_length + 1 = 3201 characters, got 12`.
    """

    def __init__(self, tokens: np.ndarray, batch: int, seq_length: int) -> None:
        self.batch = checks.integer("batch", batch, 1)
        self.seq_length = checks.integer("seq_length", seq_length, 1)
        tokens = checks.rank("tokens", tokens, "(N,)", 1, 1)
        _long_enough(len(tokens), "batch*seq_length + 1", batch * seq_length + 1)
        tokens = checks.tokens("tokens", tokens, 1 << 63, None)
        lane = (len(tokens) - 1) // batch
        self._windows = lane // seq_length
        self._x = tokens[: batch * lane].reshape(batch, lane)
        self._y = tokens[1 : batch * lane + 1].reshape(batch, lane)

    def __len__(self) -> int:
        return self._windows

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return map(self.__getitem__, range(self._windows))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < self._windows:
            raise IndexError(f"window: expected 0 <= index < {self._windows}, got {index}")
        window = slice(index * self.seq_length, (index + 1) * self.seq_length)
        return self._x[:, window].T.copy(), self._y[:, window].T.copy()
