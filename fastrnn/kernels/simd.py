"""SIMD vectors and typed pointers as Numba values, so that kernels are plain arithmetic.

`Vec(scalar, lanes)` is one register. It has + - * / < <= > >= ==, and on integers & | ^ << >>; a Python number
beside a vector takes the vector's type. `Pointer(dtype)` is an address: `pointer(array)`, `p + n` (elements),
`load(p)`, `load_first(p, n)` (n lanes, the others 0; memory beyond them is not touched), `store`, `store_first`.
Loads and stores claim no more than the element's own alignment.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from fastrnn.kernels.target import lanes_of

_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)
_LLVM_SCALAR = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: _INT32,
    types.int64: _INT64,
    types.boolean: ir.IntType(1),
}
_SAME_WIDTH = {
    types.float32: types.int32,
    types.float64: types.int64,
    types.int32: types.float32,
    types.int64: types.float64,
}


class Vec(types.Type):
    """One SIMD register of `lanes` elements of the Numba type `scalar`; boolean ones are comparison masks."""

    def __init__(self, scalar, lanes):
        self.scalar, self.lanes = scalar, lanes
        super().__init__(name=f"Vec({scalar}, {lanes})")


class Pointer(types.Type):
    """The address of an element of the Numba type `dtype`."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Pointer({dtype})")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(_LLVM_SCALAR[fe_type.scalar], fe_type.lanes))


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, dmm.lookup(fe_type.dtype).get_data_type().as_pointer())


def _register(dtype):
    """The full vector of a Numba element type."""
    return Vec(dtype, lanes_of(np.dtype(str(dtype)).itemsize))


def splat(builder, vector_type, scalar):
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _as_vector(context, builder, vec, value_type, value):
    """`value` itself, or a number spread over the lanes of `vec`."""
    if isinstance(value_type, Vec):
        return value
    return splat(builder, context.get_value_type(vec), context.cast(builder, value, value_type, vec.scalar))


def call(builder, name, result_type, arguments, overloaded=None):
    """Call LLVM's vector intrinsic `name`, mangled by the `overloaded` types (the result's by default)."""

    def mangle(t):
        if isinstance(t, ir.PointerType):
            return "p0"
        element = t.element
        return f"v{t.count}" + {"float": "f32", "double": "f64"}.get(str(element), str(element))

    full = ".".join(["llvm", name, *map(mangle, overloaded or [result_type])])
    function = builder.module.globals.get(full)
    if function is None:
        signature = ir.FunctionType(result_type, [a.type for a in arguments])
        function = ir.Function(builder.module, signature, full)
    return builder.call(function, arguments)


def _operator(op, on_float, on_int, result=lambda vec: vec):
    """Teach Numba `op` on two vectors, or a vector and a number; None where it has no meaning."""

    @type_callable(op)
    def typer(context):
        def typed(a, b):
            vec = a if isinstance(a, Vec) else b
            if not isinstance(vec, Vec) or (isinstance(a, Vec) and isinstance(b, Vec) and a != b):
                return None
            other = b if vec is a else a
            if not isinstance(other, (Vec, types.Number)):
                return None
            return result(vec)

        return typed

    def lower(context, builder, sig, args):
        vec = next(t for t in sig.args if isinstance(t, Vec))
        emit = on_float if isinstance(vec.scalar, types.Float) else on_int
        a, b = (_as_vector(context, builder, vec, t, v) for t, v in zip(sig.args, args, strict=True))
        return emit(builder, a, b)

    for pair in ((Vec, Vec), (Vec, types.Number), (types.Number, Vec)):
        lower_builtin(op, *pair)(lower)


def _method(name):
    return lambda builder, a, b: getattr(builder, name)(a, b)


def _comparison(sign):
    return (
        lambda builder, a, b: builder.fcmp_ordered(sign, a, b),
        lambda builder, a, b: builder.icmp_signed(sign, a, b),
    )


_SIGNS = ("<", "<=", ">", ">=", "==")


def _mask(vec):
    return Vec(types.boolean, vec.lanes)


_operator(operator.add, _method("fadd"), _method("add"))
_operator(operator.sub, _method("fsub"), _method("sub"))
_operator(operator.mul, _method("fmul"), _method("mul"))
_operator(operator.truediv, _method("fdiv"), None)
_operator(operator.and_, None, _method("and_"))
_operator(operator.or_, None, _method("or_"))
_operator(operator.xor, None, _method("xor"))
_operator(operator.lshift, None, _method("shl"))
_operator(operator.rshift, None, _method("ashr"))
for _op, _sign in zip((operator.lt, operator.le, operator.gt, operator.ge, operator.eq), _SIGNS, strict=True):
    _operator(_op, *_comparison(_sign), result=_mask)


@intrinsic
def fma(typingctx, a, b, c):
    """a*b + c, rounded once where the CPU has FMA (`llvm.fmuladd`: never a libm call)."""
    vec = next((t for t in (a, b, c) if isinstance(t, Vec)), None)
    if vec is None:
        return None

    def codegen(context, builder, sig, args):
        values = [_as_vector(context, builder, vec, t, v) for t, v in zip(sig.args, args, strict=True)]
        return call(builder, "fmuladd", context.get_value_type(vec), values)

    return vec(a, b, c), codegen


@intrinsic
def sqrt(typingctx, x):
    """Correctly rounded square root."""

    def codegen(context, builder, sig, args):
        return call(builder, "sqrt", args[0].type, args)

    return x(x), codegen


@intrinsic
def select(typingctx, mask, a, b):
    """a where the mask holds, else b."""
    vec = a if isinstance(a, Vec) else b

    def codegen(context, builder, sig, args):
        values = [_as_vector(context, builder, vec, t, v) for t, v in zip(sig.args[1:], args[1:], strict=True)]
        return builder.select(args[0], *values)

    return vec(mask, a, b), codegen


@intrinsic
def bits(typingctx, x):
    """The same register read as integers of the same width (or, from integers, as floats)."""
    vec = Vec(_SAME_WIDTH[x.scalar], x.lanes)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def horner(typingctx, x, coefficients):
    """coefficients[0] + x*(coefficients[1] + x*(...)), one FMA a term; a tuple of numbers, lowest power first."""

    def codegen(context, builder, sig, args):
        terms = [
            _as_vector(context, builder, x, coefficients.dtype, c)
            for c in cgutils.unpack_tuple(builder, args[1], coefficients.count)
        ]
        total = terms.pop()
        while terms:
            total = call(builder, "fmuladd", total.type, [total, args[0], terms.pop()])
        return total

    return x(x, coefficients), codegen


@intrinsic
def pointer(typingctx, array):
    """The address of the first element of a C-contiguous array; no other compiles."""
    if array.layout != "C":
        return None

    def codegen(context, builder, sig, args):
        return context.make_array(array)(context, builder, args[0]).data

    return Pointer(array.dtype)(array), codegen


@type_callable(operator.add)
def _type_advance(context):
    def typed(p, n):
        return p if isinstance(p, Pointer) and isinstance(n, types.Integer) else None

    return typed


@lower_builtin(operator.add, Pointer, types.Integer)
def _advance(context, builder, sig, args):
    offset = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.gep(args[0], [offset])


@intrinsic
def lanes(typingctx, p):
    """Elements of a full vector of what p points to: a constant of the compiled code."""
    count = _register(p.dtype).lanes

    def codegen(context, builder, sig, args):
        return _INT64(count)

    return types.int64(p), codegen


@intrinsic
def address(typingctx, p):
    """The address as an integer, in bytes."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(args[0], _INT64)

    return types.int64(p), codegen


@intrinsic
def zeros(typingctx, p):
    """A full vector of 0, of the type of the vector p or of what p points to."""
    vec = p if isinstance(p, Vec) else _register(p.dtype)

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(vec), None)

    return vec(p), codegen


def _vector_address(context, builder, vec, p):
    return builder.bitcast(p, context.get_value_type(vec).as_pointer())


def first_lanes(builder, vector_type, count):
    """Mask of the first `count` (int64) lanes of a vector of `vector_type`."""
    width = ir.VectorType(_INT32, vector_type.count)
    index = ir.Constant(width, list(range(vector_type.count)))
    most = _INT64(vector_type.count)
    valid = builder.select(builder.icmp_signed("<", count, most), count, most)  # fits 32 bits
    return builder.icmp_signed("<", index, splat(builder, width, builder.trunc(valid, _INT32)))


def masked_load(builder, at, count, align, other=None):
    """The first `count` lanes from the vector address `at`; the others from the vector `other`, or 0."""
    vector_type = at.type.pointee
    mask = first_lanes(builder, vector_type, count)
    arguments = [at, _INT32(align), mask, other or ir.Constant(vector_type, None)]
    return call(builder, "masked.load", vector_type, arguments, [vector_type, at.type])


def masked_store(builder, value, at, count, align):
    """Write the first `count` lanes of `value` at the vector address `at`."""
    arguments = [value, at, _INT32(align), first_lanes(builder, value.type, count)]
    call(builder, "masked.store", ir.VoidType(), arguments, [value.type, at.type])


def _itemsize(p):
    return np.dtype(str(p.dtype)).itemsize


@intrinsic
def load(typingctx, p):
    """The full vector at p."""
    vec = _register(p.dtype)

    def codegen(context, builder, sig, args):
        return builder.load(_vector_address(context, builder, vec, args[0]), align=_itemsize(p))

    return vec(p), codegen


@intrinsic
def load_first(typingctx, p, count):
    """The first `count` lanes at p (all of them when count >= lanes), the others 0."""
    vec = _register(p.dtype)

    def codegen(context, builder, sig, args):
        at = _vector_address(context, builder, vec, args[0])
        return masked_load(builder, at, context.cast(builder, args[1], count, types.int64), _itemsize(p))

    return vec(p, count), codegen


@intrinsic
def load_else(typingctx, p, count, other):
    """The first `count` lanes at p (all of them when count >= lanes), the others the number `other`."""
    vec = _register(p.dtype)

    def codegen(context, builder, sig, args):
        at = _vector_address(context, builder, vec, args[0])
        valid = context.cast(builder, args[1], count, types.int64)
        return masked_load(builder, at, valid, _itemsize(p), _as_vector(context, builder, vec, other, args[2]))

    return vec(p, count, other), codegen


@intrinsic
def store(typingctx, p, value):
    """Write the full vector at p."""

    def codegen(context, builder, sig, args):
        builder.store(args[1], _vector_address(context, builder, value, args[0]), align=_itemsize(p))
        return context.get_dummy_value()

    return types.void(p, value), codegen


@intrinsic
def store_first(typingctx, p, value, count):
    """Write the first `count` lanes at p (all of them when count >= lanes)."""

    def codegen(context, builder, sig, args):
        at = _vector_address(context, builder, value, args[0])
        masked_store(builder, args[1], at, context.cast(builder, args[2], count, types.int64), _itemsize(p))
        return context.get_dummy_value()

    return types.void(p, value, count), codegen


def _prefetch(p, write):
    def codegen(context, builder, sig, args):
        name = "llvm.prefetch.p0"
        signature = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), _INT32, _INT32, _INT32])
        function = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
        at = builder.bitcast(args[0], ir.IntType(8).as_pointer())
        builder.call(function, [at, _INT32(write), _INT32(3 if write else 2), _INT32(1)])
        return context.get_dummy_value()

    return types.void(p), codegen


@intrinsic
def prefetch(typingctx, p):
    """Ask for the cache line at p, to be read soon; any address is safe."""
    return _prefetch(p, 0)


@intrinsic
def prefetch_write(typingctx, p):
    """Ask for the cache line at p, to be written soon; any address is safe."""
    return _prefetch(p, 1)


@intrinsic
def element(typingctx, p):
    """The number at p."""

    def codegen(context, builder, sig, args):
        return builder.load(args[0])

    return p.dtype(p), codegen


@intrinsic
def set_element(typingctx, p, value):
    """Write a number at p."""

    def codegen(context, builder, sig, args):
        builder.store(context.cast(builder, args[1], value, p.dtype), args[0])
        return context.get_dummy_value()

    return types.void(p, value), codegen


def _transposed(builder, rows):
    """Transpose as many vectors as each has lanes: log2(lanes) rounds of two-vector shuffles."""
    count = len(rows)
    half = 1
    while half < count:
        low = [i if not i & half else count + i - half for i in range(count)]
        high = [i + half if not i & half else count + i for i in range(count)]
        mixed = list(rows)
        for i in range(count):
            if not i & half:
                a, b = rows[i], rows[i + half]
                for place, order in ((i, low), (i + half, high)):
                    mask = ir.Constant(ir.VectorType(_INT32, count), order)
                    mixed[place] = builder.shuffle_vector(a, b, mask)
        rows, half = mixed, 2 * half
    return rows


@intrinsic
def transpose(typingctx, target, source, stride):
    """Write the transpose of a lanes x lanes block: rows at source + i*stride, columns to target + i*lanes."""
    vec = _register(source.dtype)

    def codegen(context, builder, sig, args):
        to, start, step = args[0], args[1], context.cast(builder, args[2], stride, types.int64)
        align = _itemsize(source)

        def row(i):
            at = builder.gep(start, [builder.mul(step, _INT64(i))])
            return builder.load(_vector_address(context, builder, vec, at), align=align)

        for i, column in enumerate(_transposed(builder, [row(i) for i in range(vec.lanes)])):
            at = builder.gep(to, [_INT64(i * vec.lanes)])
            builder.store(column, _vector_address(context, builder, vec, at), align=align)
        return context.get_dummy_value()

    return types.void(target, source, stride), codegen


def _spaced(p, stride, count, signature, load):
    """An intrinsic's type and code: `count` vectors, `stride` elements apart, each by load(builder, address, args)."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    vec = _register(p.dtype)
    result = types.UniTuple(vec, count.literal_value)

    def codegen(context, builder, sig, args):
        step = context.cast(builder, args[1], stride, types.int64)
        places = [builder.gep(args[0], [builder.mul(step, _INT64(i))]) for i in range(result.count)]
        vectors = [load(builder, _vector_address(context, builder, vec, place), args) for place in places]
        return context.make_tuple(builder, result, vectors)

    return result(*signature), codegen


@intrinsic(prefer_literal=True)
def load_many(typingctx, p, stride, count):
    """A tuple of `count` (a literal) full vectors, `stride` elements apart."""
    return _spaced(p, stride, count, (p, stride, count), lambda builder, at, args: builder.load(at, align=_itemsize(p)))


@intrinsic(prefer_literal=True)
def load_many_first(typingctx, p, stride, count, valid):
    """A tuple of the first `valid` lanes of `count` (a literal) vectors, `stride` elements apart; the others are 0."""

    def load(builder, at, args):
        return masked_load(builder, at, args[3], _itemsize(p))

    return _spaced(p, stride, count, (p, stride, count, types.int64), load)


@intrinsic
def store_many(typingctx, p, stride, vectors):
    """Write a tuple of full vectors, `stride` elements apart."""

    def codegen(context, builder, sig, args):
        step = context.cast(builder, args[1], stride, types.int64)
        for i, value in enumerate(cgutils.unpack_tuple(builder, args[2], vectors.count)):
            at = builder.gep(args[0], [builder.mul(step, _INT64(i))])
            builder.store(value, _vector_address(context, builder, vectors.dtype, at), align=_itemsize(p))
        return context.get_dummy_value()

    return types.void(p, stride, vectors), codegen


@intrinsic
def store_many_first(typingctx, p, stride, vectors, count):
    """Write the first `count` lanes of each vector of a tuple, `stride` elements apart."""

    def codegen(context, builder, sig, args):
        step = context.cast(builder, args[1], stride, types.int64)
        valid = context.cast(builder, args[3], count, types.int64)
        for i, value in enumerate(cgutils.unpack_tuple(builder, args[2], vectors.count)):
            at = _vector_address(context, builder, vectors.dtype, builder.gep(args[0], [builder.mul(step, _INT64(i))]))
            masked_store(builder, value, at, valid, _itemsize(p))
        return context.get_dummy_value()

    return types.void(p, stride, vectors, count), codegen
