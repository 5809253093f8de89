"""Typed pointers as Numba values: vectors and numbers read from memory, and written.

`Pointer(dtype)` is an address: `pointer(array)`, `p + n` (elements), `load(p)`, `load_first(p, n)` (n lanes, the others
0; memory beyond them is not touched), `store`, `store_first`. Loads and stores claim no more than the element's own
alignment.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from fastrnn.kernels.simd import as_vector, call, register, splat

_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)


class Pointer(types.Type):
    """The address of an element of the Numba type `dtype`."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Pointer({dtype})")


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, dmm.lookup(fe_type.dtype).get_data_type().as_pointer())


@intrinsic
def pointer(typingctx, array):
    """The address of the first element of a C-contiguous array; no other compiles. A pointer is its own."""
    if isinstance(array, Pointer):
        return array(array), lambda context, builder, sig, args: args[0]
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
    count = register(p.dtype).lanes

    def codegen(context, builder, sig, args):
        return _INT64(count)

    return types.int64(p), codegen


@intrinsic
def address(typingctx, p):
    """The address as an integer, in bytes."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(args[0], _INT64)

    return types.int64(p), codegen


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
    vec = register(p.dtype)

    def codegen(context, builder, sig, args):
        return builder.load(_vector_address(context, builder, vec, args[0]), align=_itemsize(p))

    return vec(p), codegen


@intrinsic
def load_first(typingctx, p, count):
    """The first `count` lanes at p (all of them when count >= lanes), the others 0."""
    vec = register(p.dtype)

    def codegen(context, builder, sig, args):
        at = _vector_address(context, builder, vec, args[0])
        return masked_load(builder, at, context.cast(builder, args[1], count, types.int64), _itemsize(p))

    return vec(p, count), codegen


@intrinsic
def load_else(typingctx, p, count, other):
    """The first `count` lanes at p (all of them when count >= lanes), the others the number `other`."""
    vec = register(p.dtype)

    def codegen(context, builder, sig, args):
        at = _vector_address(context, builder, vec, args[0])
        valid = context.cast(builder, args[1], count, types.int64)
        return masked_load(builder, at, valid, _itemsize(p), as_vector(context, builder, vec, other, args[2]))

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
    vec = register(source.dtype)

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
    """An intrinsic's type and code: `count` vectors, `stride` (or 1) elements apart, from load(builder, at, args)."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    vec = register(p.dtype)
    result = types.UniTuple(vec, count.literal_value)

    def codegen(context, builder, sig, args):
        step = _INT64(1) if stride is None else context.cast(builder, args[1], stride, types.int64)
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


@intrinsic(prefer_literal=True)
def load_spread(typingctx, p, count):
    """A tuple of the `count` (a literal) numbers at p, each in all lanes of a vector."""

    def spread(builder, at, args):
        scalar = builder.load(builder.bitcast(at, args[0].type))
        return splat(builder, at.type.pointee, scalar)

    return _spaced(p, None, count, (p, count), spread)


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
