"""The CPU that kernels are compiled for: one row of numbers a family.

`TARGET` is chosen once, at import, from the vectors that LLVM really emits for the CPU that Numba compiles
for (so `NUMBA_CPU_NAME` is honoured). `FASTRNN_TARGET=avx512|avx2|neon|generic` overrides the row: narrow rows
run on wide CPUs, which is how they are tested.
"""

import os
from typing import NamedTuple

import llvmlite.binding as llvm
from numba.core import config
from numba.core.codegen import get_host_cpu_features


class Target(NamedTuple):
    """One CPU family: registers, caches, blocks and rates. The defaults were measured on two Zen 4 cores."""

    name: str
    vector_bytes: int  # width of one SIMD register
    registers: int  # SIMD registers; a tile holds its sums, one row of its panels and one broadcast in them
    max_rows: int  # most rows of one tile
    max_vectors: int  # most vectors of one tile row

    line_bytes: int = 64  # of the cache; two threads that write to one line wait for each other
    set_bytes: int = 4096  # rows this far apart share one set of the L1 cache, and evict each other
    l2_bytes: int = 1 << 20

    # Rows of A, rows of B and elements of B that stay in L2 while a block of a product is worked on. Between 128 and
    # 512 steps the products of the 512 and 1024 layers differ by < 3 %; below 256 the traffic of C shows (-10 %).
    row_block: int = 96
    k_block: int = 384
    b_block: int = 384 * 512
    # Columns of a block of row_block windows of a convolution, and of k_block windows: 400 kB of float32 each.
    window_columns: int = 1024
    sum_columns: int = 256

    # What `threads` plans with; only the ratios matter for a choice.
    flops: float = 1.1e11  # float32 a second and core with several rows a tile; float64 runs at half
    l2_rate: float = 1.1e11  # bytes a second of weights that are read once a step
    l3_rate: float = 2.5e10
    region: float = 2e-6  # seconds to start and join a parallel region: 1.4 to 1.7 where threads still spin
    level_flops: float = 5e5  # of a level of trees: 5 us, below which a thread more costs what it brings


# Every tile with >= 8 sums in flight and nothing spilled reaches 96-99 % of the FMA limit (Zen 4, in cache);
# 3x8, one register too many, drops to 35-70 %.
TARGETS = {
    row.name: row
    for row in (
        Target("avx512", 64, 32, 12, 8),
        Target("avx2", 32, 16, 6, 8),
        Target("neon", 16, 30, 12, 8),  # two fewer: its broadcasts are not part of the multiply-add
        Target("generic", 16, 16, 6, 8),
    )
}

_PROBE = """
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %r = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %r
}
declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


def _detect() -> str:
    """Name the row whose vectors LLVM uses for a 16-float multiply-add on Numba's CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:  # a named CPU brings its own
        features = "" if config.CPU_NAME else get_host_cpu_features()
    triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(_PROBE))
    if "zmm" in assembly:
        return "avx512"
    if "ymm" in assembly and "vfmadd" in assembly:
        return "avx2"
    return "neon" if triple.startswith(("aarch64", "arm64")) else "generic"


def _choose() -> Target:
    name = os.environ.get("FASTRNN_TARGET") or _detect()
    if name not in TARGETS:
        raise ImportError(f"FASTRNN_TARGET: expected one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name]


TARGET = _choose()


def lanes_of(itemsize: int) -> int:
    """Elements of `itemsize` bytes in one SIMD register."""
    return TARGET.vector_bytes // itemsize
