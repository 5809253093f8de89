"""The rows of the target table, and that every row, on every CPU with FMA, computes the same bits."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llvmlite import binding as llvm
from numba.core.codegen import get_host_cpu_features

from fastrnn.kernels import target, tile

X86 = llvm.get_process_triple().startswith("x86_64")


def features() -> set[str]:
    """What the CPU has, in LLVM's words."""
    return {word[1:] for word in get_host_cpu_features().split(",") if word.startswith("+")}


@pytest.mark.parametrize("row", target.TARGETS.values(), ids=lambda row: row.name)
def test_rows_are_consistent(row):
    assert row.vector_bytes in (16, 32, 64)
    assert 16 <= row.registers <= 32
    assert (row.max_rows + 1) * 1 + 1 <= row.registers
    assert row.max_vectors <= row.registers - 2


def test_tile_shapes_fit_the_registers():
    shapes = tile.shapes()
    assert len(set(shapes)) == len(shapes)
    for rows, vectors in shapes:
        assert rows * vectors + vectors + 1 <= target.TARGET.registers
    for rows in range(1, target.TARGET.max_rows + 1):
        assert (rows, 1) in shapes


def test_lanes():
    assert target.lanes_of(4) * 4 == target.lanes_of(8) * 8 == target.TARGET.vector_bytes


def test_an_unknown_target_is_refused_in_one_line(run_python):
    result = run_python("import fastrnn", FASTRNN_TARGET="nonsense")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last == "ImportError: FASTRNN_TARGET: expected one of avx512, avx2, neon, generic, got 'nonsense'"


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [("skylake-avx512", "avx512"), ("znver4", "avx512"), ("haswell", "avx2"), ("x86-64", "generic")],
)
@pytest.mark.skipif(not X86, reason="names x86 CPUs")
def test_detection_of_x86(cpu, expected, run_python):
    program = "from fastrnn.kernels.target import TARGET; print(TARGET.name)"
    result = run_python(program, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="")
    assert result.stdout.strip() == expected, result.stderr


# A layer forward and backward, and steps of training: with tokens, a table, two layers, tails and ragged tiles.
PROGRAM = """
import hashlib, sys
import numpy as np
import fastrnn
from fastrnn.kernels.target import TARGET

def results(dtype):
    rng = np.random.default_rng(0)
    for nonlinearity in {nonlinearities}:
        rnn = fastrnn.RNN(19, 37, 2, nonlinearity, dtype=dtype, seed=1)
        x = rng.standard_normal((7, 13, 19)).astype(dtype)
        (y, h_n), pullback = rnn.vjp(x)
        dx, dh0, grads = pullback(np.cos(y), np.sin(h_n))
        yield from (y, h_n, dx, dh0, grads.flat)
    lm = fastrnn.models.CharLM("abcdefghijklmnopqrs", "tanh", 37, embedding_size={embedding_size}, dtype=dtype, seed=2)
    optimizer = fastrnn.optim.Adam(lm.parameters, 0.01)
    state = None
    for _ in range(20):
        tokens, targets = rng.integers(0, 19, (2, 11, 9))
        loss, norm, state = lm.train_step(tokens, targets, state, optimizer, clip_norm=0.5)
        yield np.array([loss, norm])
    yield lm.parameters.flat

for dtype in {dtypes}:
    arrays = list(results(dtype))
    digest = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
    print(TARGET.name, dtype, digest, *[repr(float(np.float64(a).sum())) for a in arrays])
"""

FMA = {"avx2", "fma"}
# Environment, what the CPU must have, and whether multiply-adds round once.
ROWS = {
    "avx512": ({"FASTRNN_TARGET": "avx512"}, {"avx512f"}, True),
    "avx2": ({"FASTRNN_TARGET": "avx2"}, FMA, True),
    "neon": ({"FASTRNN_TARGET": "neon"}, FMA if X86 else set(), True),
    "generic": ({"FASTRNN_TARGET": "generic"}, FMA if X86 else set(), True),
    "haswell": ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, FMA, True),
    "no FMA": ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}, {"sse2"}, False),
}


QUICK = {"nonlinearities": ["tanh"], "embedding_size": 0, "dtypes": ["float32"]}
THOROUGH = {"nonlinearities": ["tanh", "relu"], "embedding_size": 8, "dtypes": ["float32", "float64"]}


def missing(name):
    """What this CPU lacks for a row of ROWS."""
    return ", ".join(sorted(ROWS[name][1] - features()))


def lines_of(options, run_python):
    """The words of each line of PROGRAM by row, for every row that this CPU can run; two run at a time."""
    rows = [name for name in ROWS if not missing(name)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda name: run_python(PROGRAM.format(**options), **ROWS[name][0]), rows))
    for result in results:
        assert result.returncode == 0, result.stderr
    return dict(zip(rows, [[line.split() for line in result.stdout.splitlines()] for result in results], strict=True))


@pytest.fixture(scope="module")
def quick(run_python):
    return lines_of(QUICK, run_python)


@pytest.fixture(scope="module")
def thorough(run_python):
    return lines_of(THOROUGH, run_python)


def compare(lines, baseline, same_bits):
    for (_, dtype, digest, *sums), (_, same_dtype, expected, *expected_sums) in zip(lines, baseline, strict=True):
        assert dtype == same_dtype
        tolerance = 2e4 * np.finfo(dtype).eps
        np.testing.assert_allclose(np.float64(sums), np.float64(expected_sums), rtol=tolerance, atol=tolerance)
        assert (digest == expected) == same_bits


def check(name, lines):
    if missing(name) or missing("generic"):
        pytest.skip(f"this CPU cannot run the row: it lacks {missing(name) or missing('generic')}")
    compare(lines[name], lines["generic"], ROWS[name][2])


OTHERS = [name for name in ROWS if name != "generic"]


@pytest.mark.parametrize("name", OTHERS)
def test_bits_are_those_of_the_generic_row(name, quick):
    check(name, quick)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", OTHERS)
def test_bits_of_everything_are_those_of_the_generic_row(name, thorough):
    check(name, thorough)


@pytest.mark.skipif(not X86, reason="names x86 CPUs")
def test_rows_are_what_they_claim(quick):
    detected = {"haswell": "avx2", "no FMA": "generic"}
    for name, lines in quick.items():
        assert {words[0] for words in lines} == {detected.get(name, name)}
