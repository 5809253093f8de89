"""The rows of the target table, and how one is chosen; `test_bits` says that all compute the same bits."""

import pytest
from llvmlite import binding as llvm

from fastrnn.kernels import target, tile

X86 = llvm.get_process_triple().startswith("x86_64")


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


WITHOUT_FMA = """
import sys
sys.path.append("tests")
from cases import RECURRENT, UPDATES, check, fused
from fastrnn.kernels.target import TARGET
check(RECURRENT["recurrent tanh x"], (7, 13, 19, 37), "float32")
check(UPDATES["Adam"], (100, 3), "float32")
print(TARGET.name, fused())
"""


@pytest.mark.skipif(not X86, reason="names an x86 CPU")
def test_values_where_a_multiply_add_rounds_twice(run_python):
    result = run_python(WITHOUT_FMA, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="")
    assert result.stdout.split() == ["generic", "False"], result.stderr
