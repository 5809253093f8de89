"""The hot loops hold multiply-adds and nothing that slows them, as `tools/asm.py` counts it in their assembly."""

import functools

import pytest

from fastrnn.kernels import tile
from tools import asm

DTYPES = ("float32", "float64")
KERNELS = ("recurrent_forward", "recurrent_backward", "linear_cross_entropy", "adam")


@pytest.fixture(scope="module", params=DTYPES)
def dtype(request):
    asm.train(request.param)
    return request.param


@functools.cache
def functions_of(kernel, dtype, cell="ElmanTanh"):
    return asm.counts(asm.assembly(kernel, dtype, cell))


def test_tile_loops_are_multiply_adds(dtype):
    functions = {function.name: function for function in functions_of("tile", dtype)}
    for rows, vectors in tile.shapes():
        loops = functions[f"tile_{rows}x{vectors}"].loops
        assert loops, (rows, vectors)
        for loop in loops:
            sums = loop.fma or loop.products
            assert sums > 0, (rows, vectors, loop)
            assert sums % (rows * vectors) == 0, (rows, vectors, loop)
            assert loop.scalar == 0, (rows, vectors, loop)
            # 5x5 moves 2 registers for 50 FMAs, at no measurable cost; one register too many moves 34 for 48
            assert loop.spills * 5 <= sums, (rows, vectors, loop)


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_kernel_calls_libm(kernel, dtype):
    functions = functions_of(kernel, dtype)
    assert functions
    for function in functions:
        assert not function.libm, function


@pytest.mark.parametrize("kernel", ["recurrent_forward", "recurrent_backward"])
def test_time_loops_and_products_are_vectors_only(kernel, dtype):
    functions = functions_of(kernel, dtype)
    parts = {"recurrent_forward": {"forward_rows"}, "recurrent_backward": {"backward_rows", "_multiply_shard"}}
    assert parts[kernel] | {"tile_block"} <= {function.name for function in functions}
    assert any("_tile_" in symbol for function in functions for symbol in function.external)
    for function in functions:
        for loop in function.loops:
            assert loop.scalar == 0, (function.name, loop)
            assert not (loop.innermost and (loop.fma or loop.products) and loop.spills), (function.name, loop)


@pytest.mark.parametrize("cell", sorted({*asm.CELLS} - {"ElmanTanh"}))
@pytest.mark.parametrize("kernel", ["recurrent_forward", "recurrent_backward"])
def test_time_loops_of_gated_cells(kernel, cell, dtype):
    functions = functions_of(kernel, dtype, cell)
    assert max(loop.fma + loop.products for function in functions for loop in function.loops) >= 20
    for function in functions:
        for loop in function.loops:
            assert loop.scalar == 0, (function.name, loop)
            if loop.innermost and (loop.fma or loop.products):
                # constants: GRU in float64 reads 34 for 201 instructions
                assert loop.spills * 5 <= loop.instructions, (function.name, loop)


def test_recurrent_forward_holds_the_cell(dtype):
    loops = [loop for function in functions_of("recurrent_forward", dtype) for loop in function.loops]
    products = max(loop.fma or loop.products for loop in loops)
    assert products >= 10  # tanh alone


X86 = """
kernel:
	testq	%rdi, %rdi
	jle	.LBB0_4
.LBB0_1:
	xorl	%eax, %eax
	jmp	.LBB0_3
.LBB0_2:
	vfmadd231ps	(%rsi), %zmm1, %zmm2
{planted}
	incq	%rax
.LBB0_3:
	cmpq	%rcx, %rax
	jl	.LBB0_2
	decq	%rdi
	jne	.LBB0_1
.LBB0_4:
	retq
.LBB0_5:
	vmovups	%zmm0, 64(%rsp)
	jmp	.LBB0_4
"""


def test_counts_nested_and_rotated_loops():
    (function,) = asm.counts(X86.format(planted=""))
    outer, inner = function.loops
    assert (outer.label, outer.innermost, outer.instructions, outer.fma) == (".LBB0_1", False, 8, 1)
    assert (inner.label, inner.innermost, inner.instructions, inner.fma) == (".LBB0_3", True, 4, 1)
    assert outer.spills == inner.spills == 0


@pytest.mark.parametrize(
    ("planted", "field"),
    [
        ("\tvmovups\t64(%rsp), %zmm3", "spills"),
        ("\tvaddps\t-64(%rsp), %ymm3, %ymm4", "spills"),
        ("\tvmovaps\t%ymm4, -64(%rsp,%rax)", "spills"),
        ("\tvmulss\t%xmm0, %xmm1, %xmm2", "scalar"),
        ("\tvfmadd213sd\t%xmm0, %xmm1, %xmm2", "scalar"),
        ("\tvcvtps2pd\t%ymm0, %zmm1", "scalar"),
        ("\tcvtss2sd\t%xmm0, %xmm1", "scalar"),
        ("\tvmulpd\t%zmm0, %zmm1, %zmm2", "products"),
    ],
)
def test_counts_see_what_is_planted(planted, field):
    (function,) = asm.counts(X86.format(planted=planted))
    inner = function.loops[1]
    found = {name: getattr(inner, name) for name in ("spills", "scalar", "products")}
    assert found == {"spills": 0, "scalar": 0, "products": 0} | {field: 1}


def test_counts_see_calls():
    planted = "\tmovabsq\t$expf, %rbx\n\tcallq\t*%rbx\n\tmovabsq\t$fastrnn_tile_float32, %rbx\n\tmovabsq\t$kernel, %rbx"
    (function,) = asm.counts(X86.format(planted=planted))
    assert function.external == ("expf", "fastrnn_tile_float32")
    assert function.libm == ("expf",)


AARCH64 = """
_ZN7fastrnn7kernels5vmath4tanhE:
	cbz	x0, .LBB0_2
.LBB0_1:
	ldr	q1, [x1], #16
	fmla	v0.4s, v1.4s, v2.s[0]
	fmul	v3.4s, v1.4s, v1.4s
	str	q3, [sp, #16]
	fmadd	s4, s5, s6, s7
	fcvt	d4, s4
	bl	tanhf
	subs	x0, x0, #1
	b.ne	.LBB0_1
.LBB0_2:
	ret
"""


def test_counts_aarch64():
    (function,) = asm.counts(AARCH64)
    (loop,) = function.loops
    assert function.name == "tanh"
    assert function.libm == ("tanhf",)
    assert loop == asm.Loop(".LBB0_1", True, 9, fma=1, products=1, spills=1, scalar=2)
