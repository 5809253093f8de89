"""The bits of every operation are those that `tools/bits.txt` keeps: for every plan, and on every row of targets."""

import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import by_name, fused
from click.testing import CliRunner
from llvmlite import binding as llvm
from numba.core.codegen import get_host_cpu_features

from fastrnn import threads
from tools import bits

X86 = llvm.get_process_triple().startswith("x86_64")
CASES = bits.cases()

FMA = {"avx2", "fma"}
# Environment, and what the CPU must have.
ROWS = {
    "avx512": ({"FASTRNN_TARGET": "avx512"}, {"avx512f"}),
    "avx2": ({"FASTRNN_TARGET": "avx2"}, FMA),
    "neon": ({"FASTRNN_TARGET": "neon"}, FMA if X86 else set()),
    "generic": ({"FASTRNN_TARGET": "generic"}, FMA if X86 else set()),
    "haswell": ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, FMA),
}


def missing(needed):
    """What this CPU lacks."""
    has = {word[1:] for word in get_host_cpu_features().split(",") if word.startswith("+")}
    return ", ".join(sorted(needed - has))


def run(*words):
    """The tool, in this process."""
    return CliRunner().invoke(bits.main, words)


def check_rows(words, run_python, names=tuple(ROWS)):
    """The tool in a process for those rows that this CPU can run; two run at a time."""
    program = f"from tools import bits; bits.main({['--check', *words]!r})"
    rows = {name: environment for name, (environment, needed) in ROWS.items() if name in names and not missing(needed)}
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda environment: run_python(program, **environment), rows.values()))
    for name, result in zip(rows, results, strict=True):
        assert result.returncode == 0, f"{name}: {result.stderr}"
        assert result.stderr.startswith(f"target {name.replace('haswell', 'avx2')}\n")


def test_every_case_has_a_hash():
    assert list(bits.kept()) == list(CASES)


@pytest.mark.skipif(not fused(), reason="a multiply-add that rounds twice has bits of its own")
@by_name(CASES)
def test_bits_are_those_that_are_kept(name):
    assert set(bits.hashes(CASES[name])) == {bits.kept()[name]}


def test_bits_of_other_rows(run_python):
    check_rows(["recurrent", "tanh", "float32"], run_python, ("avx2", "neon"))


@pytest.mark.exhaustive
def test_bits_of_everything_on_every_row(run_python):
    check_rows([], run_python)


@pytest.mark.exhaustive  # a target that nothing else compiles for
@pytest.mark.skipif(not X86, reason="names an x86 CPU")
def test_two_roundings_are_no_fault(run_python):
    program = "from tools import bits; bits.main(['--check', 'clipped', 'tanh', 'x', 'float32'])"
    result = run_python(program, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="")
    assert result.returncode == 1
    reason = "Error: 1 of 1 cases differ: this CPU rounds a multiply-add twice, and has bits of its own"
    assert reason in result.stderr.splitlines()


def test_inputs_are_the_same_everywhere():
    """As Python's own integers give them."""

    def expected(i):
        z = (zlib.crc32(b"W_ih") + i) * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    np.testing.assert_array_equal(bits.integers("W_ih", (2, 3)).ravel(), [expected(i) for i in range(6)])
    for dtype, digits in (("float32", 24), ("float64", 53)):
        found = bits.numbers("W_ih", (1000,), dtype)
        assert found.dtype == dtype
        assert [int(x * 2.0 ** (digits - 2)) + 2 ** (digits - 1) for x in found.astype(float)] == [
            expected(i) >> 64 - digits for i in range(1000)
        ]
        np.testing.assert_array_equal(bits.weights("W_ih", (40, 25), dtype).ravel(), found / dtype_of(dtype, 4))


def dtype_of(dtype, value):
    return np.dtype(dtype).type(value)


def test_a_hash_is_of_names_types_shapes_and_bits():
    one = {"b": np.float32([1, -0.0]), "a": 2.0}
    text = b"a float64 ()" + np.float64(2).tobytes() + b"b float32 (2,)" + np.float32([1, -0.0]).tobytes()
    assert bits.digest(one) == hashlib.sha256(text).hexdigest()[:16]
    others = [one | {"b": np.float32([1, 0.0])}, one | {"b": np.float64([1, -0.0])}, one | {"c": 2.0}, {"b": one["b"]}]
    assert len({bits.digest(each) for each in [one, *others]}) == 5
    with pytest.raises(ValueError, match=r"^b: expected finite numbers, got others$"):
        bits.digest({"b": np.array([1.0, np.nan])})


def fake(monkeypatch, tmp_path, lines, **computed):
    """Put other cases, and other kept hashes, in place of the tool's."""
    monkeypatch.setattr(bits, "KEPT", tmp_path / "bits.txt")
    monkeypatch.setattr(bits, "cases", lambda: {name.replace("_", " "): run for name, run in computed.items()})
    bits.KEPT.write_text(lines)


def test_what_differs_is_named(monkeypatch, tmp_path):
    one, two = (bits.digest({"y": value}) for value in (1.0, 2.0))
    lines = f"{one} right float32\n{two} wrong float32\n"
    computed = {name: lambda: {"y": 1.0} for name in ("right_float32", "wrong_float32", "new_float64")}
    fake(monkeypatch, tmp_path, lines, **computed)
    result = run("--check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [f"{one} right float32", f"{one} wrong float32", f"{one} new float64"]
    assert result.stderr.splitlines()[-3:] == [
        "Error: 2 of 3 cases differ",
        f"wrong float32: expected {two}, got {one}, {one}, {one}",
        f"new float64: expected one that is kept, got {one}, {one}, {one}",
    ]
    assert run("--check", "float32", "right").exit_code == 0
    assert run("wrong").exit_code == 0


def test_a_plan_that_shows_is_named(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path, "", shared=lambda: {"y": float(threads.for_sequence(9, 9, 9, 9, 4).row_shards)})
    one, three = (bits.digest({"y": value}) for value in (1.0, 3.0))
    result = run()
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"shared: expected {one}, got {one}, {three}, {one}"


def test_words_that_no_case_has():
    result = run("gru", "float16")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: words: expected some of a case's name, got gru float16"
