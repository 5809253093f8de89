"""The register tile: C = C0 + A P for a few rows and a few vectors, the loop that all products are built from.

A tile keeps rows x vectors sums in registers and adds one rank-1 term a step: `vectors` loads from a panel and
`rows` broadcasts of A feed rows*vectors FMAs. Every element of C is one chain of FMAs over k = 0..K-1 that starts
from C0, whatever the tile's shape, so results do not depend on how a product is cut into tiles.

    P: `vectors` panels, each (K, lanes) and contiguous, `panel` elements apart
    A: element (i, k) at a + i*a_row + k*a_k, so A may be transposed, or one row repeated (a_row = 0)
    C0, C: element (i, j) at c + i*c_row + j; may be the same memory; C0 with row stride 0 is a bias

All shapes live in one function that is compiled once a dtype and shared by name (see `jit.symbol`).
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn.kernels import jit, pointers, simd
from fastrnn.kernels.cache import STAMP
from fastrnn.kernels.target import TARGET, lanes_of

MAX_ROWS, MAX_VECTORS, REGISTERS = TARGET.max_rows, TARGET.max_vectors, TARGET.registers

_INT = ir.IntType(64)
_ARGUMENTS = ("rows", "vectors", "K", "a", "a_row", "a_k", "p", "panel", "c0", "c0_row", "c", "c_row", "tail")
_TYPE = ir.FunctionType(ir.VoidType(), [_INT] * len(_ARGUMENTS))


@jit.layout
def widest(rows):
    """Most vectors of a tile of `rows` rows: sums, a row of the panels and a broadcast fill the registers."""
    return min(MAX_VECTORS, (REGISTERS - 1) // (rows + 1))


@jit.device
def tile_rows(rows):
    """Rows of each tile when `rows` are cut into as few even tiles as possible."""
    count = -(-rows // MAX_ROWS)
    return -(-rows // max(count, 1))


def shapes() -> list[tuple[int, int]]:
    """Every (rows, vectors) that fits the target's registers."""
    return [(rows, vectors) for rows in range(1, MAX_ROWS + 1) for vectors in range(1, widest(rows) + 1)]


def _emit_shape(module, element, lanes, rows, vectors):
    """The function of one tile shape."""
    function = ir.Function(module, _TYPE, f"tile_{rows}x{vectors}")
    function.linkage = "internal"
    function.attributes.add("noinline")
    arg = dict(zip(_ARGUMENTS, function.args, strict=True))
    size = 4 if element == ir.FloatType() else 8
    vector, at = ir.VectorType(element, lanes), element.as_pointer()
    entry, loop, done = (function.append_basic_block(name) for name in ("entry", "loop", "done"))
    builder = ir.IRBuilder(entry)

    def vector_at(base, row_stride, i, j):
        offset = builder.add(builder.mul(row_stride, _INT(i)), _INT(j * lanes))
        return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

    a0, p0, c0, c = (builder.inttoptr(arg[name], at) for name in ("a", "p", "c0", "c"))
    cells = [(i, j) for i in range(rows) for j in range(vectors)]
    start = []
    for i, j in cells:
        source = vector_at(c0, arg["c0_row"], i, j)
        if j == vectors - 1:
            start.append(pointers.masked_load(builder, source, arg["tail"], size))
        else:
            start.append(builder.load(source, align=size))
    builder.cbranch(builder.icmp_signed(">", arg["K"], _INT(0)), loop, done)

    builder.position_at_end(loop)
    k, a, p = builder.phi(_INT), builder.phi(at), builder.phi(at)
    sums = [builder.phi(vector) for _ in cells]
    places = [builder.gep(p, [builder.mul(arg["panel"], _INT(j))]) for j in range(vectors)]
    row = [builder.load(builder.bitcast(place, vector.as_pointer()), align=size) for place in places]
    updated = list(sums)
    for i in range(rows):
        scalar = builder.load(builder.gep(a, [builder.mul(arg["a_row"], _INT(i))]))
        spread = simd.splat(builder, vector, scalar)
        for j in range(vectors):
            q = i * vectors + j
            updated[q] = simd.call(builder, "fmuladd", vector, [spread, row[j], updated[q]])
    k_next = builder.add(k, _INT(1))
    a_next, p_next = builder.gep(a, [arg["a_k"]]), builder.gep(p, [_INT(lanes)])
    for phi, first, following in (
        (k, _INT(0), k_next),
        (a, a0, a_next),
        (p, p0, p_next),
        *zip(sums, start, updated, strict=True),
    ):
        phi.add_incoming(first, entry)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", k_next, arg["K"]), loop, done)

    builder.position_at_end(done)
    totals = [builder.phi(vector) for _ in cells]
    for total, first, last in zip(totals, start, updated, strict=True):
        total.add_incoming(first, entry)
        total.add_incoming(last, loop)
    for total, (i, j) in zip(totals, cells, strict=True):
        target = vector_at(c, arg["c_row"], i, j)
        if j == vectors - 1:
            pointers.masked_store(builder, total, target, arg["tail"], size)
        else:
            builder.store(total, target, align=size)
    builder.ret_void()
    return function


@intrinsic
def _every_shape(typingctx, zero, arguments):
    """Jump to the function of the tile's (rows, vectors); `zero` names the element type."""

    def codegen(context, builder, sig, args):
        element = context.get_value_type(zero)
        lanes = lanes_of(4 if element == ir.FloatType() else 8)
        args = cgutils.unpack_tuple(builder, args[1], len(_ARGUMENTS))
        key = builder.add(builder.mul(args[0], _INT(MAX_VECTORS + 1)), args[1])
        end = builder.append_basic_block("end")
        switch = builder.switch(key, end)
        for rows, vectors in shapes():
            block = builder.append_basic_block(f"case_{rows}x{vectors}")
            switch.add_case(_INT(rows * (MAX_VECTORS + 1) + vectors), block)
            with builder.goto_block(block):
                builder.call(_emit_shape(builder.module, element, lanes, rows, vectors), args, tail=True)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(zero, arguments), codegen


def _tile_float32(rows, vectors, K, a, a_row, a_k, p, panel, c0, c0_row, c, c_row, tail):
    _every_shape(types.float32(0), (rows, vectors, K, a, a_row, a_k, p, panel, c0, c0_row, c, c_row, tail))


def _tile_float64(rows, vectors, K, a, a_row, a_k, p, panel, c0, c0_row, c, c_row, tail):
    _every_shape(types.float64(0), (rows, vectors, K, a, a_row, a_k, p, panel, c0, c0_row, c, c_row, tail))


def _name(dtype):
    return f"fastrnn_tile_{dtype}_{STAMP}"


@jit.symbol
def _describe(dtype):
    function = {"float32": _tile_float32, "float64": _tile_float64}[dtype]
    return _name(dtype), types.void(*[types.int64] * len(_ARGUMENTS)), function


@intrinsic
def tile(typingctx, rows, vectors, K, a, a_row, a_k, p, panel, c0, c0_row, c, c_row, tail):
    """C = C0 + A P for a block of `rows` x `vectors` (see the file's head); strides in elements.

    tail: valid lanes of the last vector of C0 and C, 1..lanes; memory beyond is neither read nor written.
    Precondition: (rows, vectors) is one of `shapes()`; K >= 0; C may alias C0 but not A or P.
    Cost: 2*rows*vectors*lanes*K flop. Reference twin: fastrnn.reference.matmul.product.
    """
    arguments = (rows, vectors, K, a, a_row, a_k, p, panel, c0, c0_row, c, c_row, tail)

    def codegen(context, builder, sig, args):
        name = _name(str(p.dtype))
        function = builder.module.globals.get(name) or ir.Function(builder.module, _TYPE, name)
        values = [
            builder.ptrtoint(v, _INT) if isinstance(t, pointers.Pointer) else context.cast(builder, v, t, types.int64)
            for v, t in zip(args, sig.args, strict=True)
        ]
        builder.call(function, values)
        return context.get_dummy_value()

    return types.void(*arguments), codegen
