"""Reading, splitting and windowing text."""

import gzip
import io
import os
import re
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from fastrnn.training.text import Batches, read_text, split, standard_library, vocabulary_of

AWKWARD = "a\r\nb\n\tc\x00\u00e9\u2028\u4e2d\U0001f600\ufeff"  # every length of UTF-8, both line ends, NUL, inner mark


def write(tmp_path, data, name="book.txt"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def error_of(path):
    with pytest.raises(ValueError) as caught:
        read_text(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_text_is_read_character_for_character(tmp_path):
    assert read_text(write(tmp_path, AWKWARD.encode())) == AWKWARD


def test_a_byte_order_mark_is_dropped_once(tmp_path):
    assert read_text(write(tmp_path, b"\xef\xbb\xbf\xef\xbb\xbfab")) == "\ufeffab"


def test_gzip_is_known_by_its_bytes_not_its_name(tmp_path):
    assert read_text(write(tmp_path, gzip.compress(AWKWARD.encode()), "book.txt")) == AWKWARD
    assert read_text(write(tmp_path, AWKWARD.encode(), "book.gz")) == AWKWARD
    assert read_text(write(tmp_path, gzip.compress(b"ab") + gzip.compress(b"cd"))) == "abcd"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"abc\xffdef", "expected UTF-8, got byte 0xff at 3"),
        ("caf\u00e9".encode("latin-1"), "expected UTF-8, got byte 0xe9 at 3"),
        ("ab\u4e2d".encode()[:-1], "expected UTF-8, got byte 0xe4 at 2"),  # cut within a character
        ("abc".encode("utf-16-le") + b"\xd8", "expected UTF-8, got byte 0xd8 at 6"),
        (b"a\xed\xa0\x80", "expected UTF-8, got byte 0xed at 1"),  # a surrogate
        (gzip.compress(b"ab\xff", mtime=0), "expected UTF-8, got byte 0xff at 2"),
        (gzip.compress(b"ab", mtime=0) + b"x", "damaged gzip: Not a gzipped file (b'x')"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, message):
    assert error_of(write(tmp_path, data)) == message


def test_gzip_damaged_anywhere_is_an_error(tmp_path):
    whole = gzip.compress(AWKWARD.encode() * 3, mtime=0)
    for end in range(2, len(whole)):
        assert error_of(write(tmp_path, whole[:end])).startswith("damaged gzip: ")
    for i in range(len(whole) - 8, len(whole)):  # checksum and length
        damaged = bytearray(whole)
        damaged[i] ^= 0x10
        assert error_of(write(tmp_path, bytes(damaged))).startswith("damaged gzip: ")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_text_may_be_so_long_and_no_longer(tmp_path, compress):
    path = write(tmp_path, compress(b"ab" * 50))
    assert read_text(path, 100) == "ab" * 50
    with pytest.raises(ValueError) as caught:
        read_text(path, 99)
    assert str(caught.value) == f"{path}: expected at most 99 bytes of text, got more"


@pytest.mark.real_memory
def test_a_gzip_that_expands_is_read_no_further(tmp_path):
    """16 KB that stand for 16 MiB."""
    path = write(tmp_path, gzip.compress(bytes(1 << 24)))
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected at most 100000 bytes of text, got more"):
            read_text(path, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_a_file_without_an_end_is_read_no_further():
    with pytest.raises(ValueError) as caught:
        read_text("/dev/zero", 1 << 21)
    assert str(caught.value) == "/dev/zero: expected at most 2097152 bytes of text, got more"


@pytest.mark.parametrize("data", [AWKWARD.encode(), gzip.compress(AWKWARD.encode(), mtime=0)], ids=["plain", "gzip"])
def test_a_pipe_is_read_to_its_end(tmp_path, data):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def fill():
        with open(path, "wb", buffering=0) as file:
            for i in range(len(data)):  # the first bytes, which tell gzip, one by one
                file.write(data[i : i + 1])

    writer = threading.Thread(target=fill)
    writer.start()
    assert read_text(path) == AWKWARD
    writer.join()


@pytest.mark.parametrize("data", [AWKWARD.encode(), gzip.compress(AWKWARD.encode(), mtime=0)], ids=["plain", "gzip"])
def test_standard_input(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_text("-") == AWKWARD


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (io.TextIOWrapper(io.BytesIO()), "standard input: empty"),
        (io.TextIOWrapper(io.BytesIO(b"a\xff")), "standard input: expected UTF-8, got byte 0xff at 1"),
        (io.TextIOWrapper(io.BytesIO(b"abcd")), "standard input: expected at most 3 bytes of text, got more"),
        (io.TextIOWrapper(io.BytesIO(b"\x1f\x8b")), "standard input: damaged gzip: "),
        (io.StringIO("text"), "standard input: closed"),
        (None, "standard input: closed"),
    ],
)
def test_what_is_no_text_on_standard_input_is_named(monkeypatch, stdin, message):
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(ValueError) as caught:
        read_text("-", 3)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("path", [None, 0, b"book.txt"], ids=repr)
def test_what_is_no_path_is_named(path):
    with pytest.raises(TypeError, match=f"^path: expected a string or a Path, got {type(path).__name__}$"):
        read_text(path)


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)


def test_the_standard_library_is_plain_source_code():
    text = standard_library(300_000)
    assert len(text) == 300_000
    assert text.isascii()
    assert text.count("\ndef ") > 50
    assert len(vocabulary_of(text)) <= 100
    assert standard_library(300_000) == text
    assert standard_library(1000) == text[:1000]


def test_a_python_without_sources_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path}: no source code of the standard library; give a text file")
    ):
        standard_library()


def test_the_vocabulary_is_sorted_and_unique():
    assert vocabulary_of("hello\n") == "\nehlo"


@pytest.mark.parametrize(
    ("length", "fraction", "validated"),
    [(1000, 0.1, 100), (1000, 0.001, 21), (1000, 0.999, 979), (42, 0.3, 21), (42, 0, 0)],
)
def test_the_end_of_the_text_validates(length, fraction, validated):
    text = "".join(chr(i) for i in range(256, 256 + length))
    learned, rest = split(text, fraction, batch=4, seq_length=5)
    assert learned + rest == text
    assert len(rest) == validated


@pytest.mark.parametrize(
    ("length", "fraction", "message"),
    [
        (41, 0.1, "text: expected at least 2*(batch*seq_length + 1) = 42 characters, got 41"),
        (20, 0.0, "text: expected at least batch*seq_length + 1 = 21 characters, got 20"),
    ],
)
def test_a_text_too_short_to_split_is_an_error(length, fraction, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        split("x" * length, fraction, batch=4, seq_length=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Batches(np.zeros(12), 1, 1), "tokens: expected integers, got dtype float64"),
        (lambda: Batches("abc", 1, 1), "tokens: expected shape (N,), got ()"),
        (lambda: vocabulary_of(["ab"]), "text: expected str, got list"),
        (lambda: split(None, 0.1, 1, 1), "text: expected str, got NoneType"),
        (lambda: split("abc", "0.1", 1, 1), "val_fraction: expected a number, got '0.1'"),
        (lambda: split("abc", 1.5, 1, 1), "val_fraction: expected a number in 0..1, got 1.5"),
        (lambda: split("abc", 0, -1, 1), "batch: expected an integer >= 1, got -1"),
        (lambda: split("abc", 0, 1, 0.5), "seq_length: expected an integer, got 0.5"),
        (lambda: standard_library(None), "limit: expected an integer, got None"),
    ],
)
def test_what_is_no_argument_is_named(call, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("seq_length", [1, 2, 5])
@pytest.mark.parametrize("surplus", [0, 1, 2, 3, 20, 21, 22, 41])
def test_windows_run_through_contiguous_lanes(batch, seq_length, surplus):
    N = batch * seq_length + 1 + surplus
    tokens = np.arange(N)
    batches = Batches(tokens, batch, seq_length)
    windows = list(batches)
    assert len(windows) == len(batches) == (N - 1) // batch // seq_length
    for x, y in windows:
        for array in (x, y):
            assert array.shape == (seq_length, batch)
            assert array.dtype == np.int64
            assert array.flags.c_contiguous
        np.testing.assert_array_equal(y, x + 1)
    lanes = np.concatenate([x for x, _ in windows])
    np.testing.assert_array_equal(np.diff(lanes, axis=0), 1)
    np.testing.assert_array_equal(lanes[0], (N - 1) // batch * np.arange(batch))
    assert N - 1 - lanes.size < batch * (seq_length + 1)


def test_windows_are_told_by_their_index():
    batches = Batches(np.arange(41, dtype=np.uint8), 2, 5)
    np.testing.assert_array_equal(batches[2][0][:, 1], [30, 31, 32, 33, 34])
    for index in (-1, 4):
        with pytest.raises(IndexError, match=re.escape(f"window: expected 0 <= index < 4, got {index}")):
            batches[index]


def test_windows_own_their_memory():
    tokens = np.arange(22)
    for array in Batches(tokens, 1, 21)[0]:
        array[:] = -1
    np.testing.assert_array_equal(tokens, np.arange(22))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(12), 64, 50), "text: expected at least batch*seq_length + 1 = 3201 characters, got 12"),
        ((None, 1, 1), "tokens: expected shape (N,), got ()"),
        ((np.zeros((4, 3)), 1, 1), "tokens: expected shape (N,), got (4, 3)"),
        (([3, -1, 2], 1, 1), "tokens: expected 0 <= token < 9223372036854775808, got -1"),
        ((np.zeros(12), 0, 5), "batch: expected an integer >= 1, got 0"),
        ((np.zeros(12), 5, 0), "seq_length: expected an integer >= 1, got 0"),
    ],
)
def test_windows_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Batches(*arguments)
