"""SIMD vectors as Numba values, so that kernels are plain arithmetic.

`Vec(scalar, lanes)` is one register. It has + - * / < <= > >= ==, unary -, and on integers & | ^ << >>; a Python number
beside a vector takes the vector's type.
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


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(_LLVM_SCALAR[fe_type.scalar], fe_type.lanes))


def register(dtype):
    """The full vector of a Numba element type."""
    return Vec(dtype, lanes_of(np.dtype(str(dtype)).itemsize))


def splat(builder, vector_type, scalar):
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(first, undefined, zeros)


def as_vector(context, builder, vec, value_type, value):
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
        a, b = (as_vector(context, builder, vec, t, v) for t, v in zip(sig.args, args, strict=True))
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
    _on_float, _on_int = _comparison(_sign)
    _operator(_op, _on_float, _on_int, result=_mask)


@type_callable(operator.neg)
def _type_negative(context):
    return lambda x: x if isinstance(x, Vec) and isinstance(x.scalar, types.Float) else None


@lower_builtin(operator.neg, Vec)
def _negative(context, builder, sig, args):
    return builder.fneg(args[0])


@intrinsic
def fma(typingctx, a, b, c):
    """a*b + c, rounded once where the CPU has FMA (`llvm.fmuladd`: never a libm call)."""
    vec = next((t for t in (a, b, c) if isinstance(t, Vec)), None)
    if vec is None:
        return None

    def codegen(context, builder, sig, args):
        values = [as_vector(context, builder, vec, t, v) for t, v in zip(sig.args, args, strict=True)]
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
        values = [as_vector(context, builder, vec, t, v) for t, v in zip(sig.args[1:], args[1:], strict=True)]
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
            as_vector(context, builder, x, coefficients.dtype, c)
            for c in cgutils.unpack_tuple(builder, args[1], coefficients.count)
        ]
        total = terms.pop()
        while terms:
            total = call(builder, "fmuladd", total.type, [total, args[0], terms.pop()])
        return total

    return x(x, coefficients), codegen


@intrinsic
def zeros(typingctx, p):
    """A full vector of 0, of the type of the vector p or of what p points to."""
    vec = p if isinstance(p, Vec) else register(p.dtype)

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(vec), None)

    return vec(p), codegen
