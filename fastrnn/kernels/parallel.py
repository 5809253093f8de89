"""Parallel regions: one compiled body, run for every part by as many threads.

Numba's `prange` compiles its body apart for threads, and takes the GIL at every region; here the threads of Numba's
layer run the very function that a serial caller runs, so a kernel is compiled once. A body's share is its shard.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTES = ir.IntType(8).as_pointer()
_INT = ir.IntType(64)
# The function type of NumPy's inner loops, which Numba's threading layers run: (data pointers, counts, steps, extra).
_LOOP = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _INT.as_pointer(), _INT.as_pointer(), _BYTES])
_PARALLEL_FOR = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [_INT] * 3)


@intrinsic
def share(typingctx, shards, body, arguments):
    """Run `body(shard, *arguments)` for shard = 0..shards-1, each on one thread; one shard, or one thread, right here.

    body: a device function; it must neither raise nor allocate, and shards must not write what others touch.
    """
    operands = [types.unliteral(t) for t in arguments.types]
    body_sig = body.get_call_type(typingctx, (types.int64, *operands), {})
    packed_type = types.Tuple(operands)

    def codegen(context, builder, sig, args):
        compiled = body.dispatcher.overloads[body_sig.args]
        context.add_linking_libs([compiled.library])
        count = context.cast(builder, args[0], shards, types.int64)
        values = cgutils.unpack_tuple(builder, args[2], len(operands))
        packed = context.make_tuple(builder, packed_type, values)
        loop = _loop_function(context, builder.module, compiled.fndesc, body_sig, packed_type)
        # the layer hands out pointers 8 bytes apart, from address 0: the pointer itself tells the shard
        data = cgutils.alloca_once_value(builder, packed)
        pointers = cgutils.alloca_once(builder, _BYTES, _INT(2))
        builder.store(ir.Constant(_BYTES, None), pointers)
        builder.store(builder.bitcast(data, _BYTES), builder.gep(pointers, [_INT(1)]))
        counts = cgutils.alloca_once_value(builder, count)
        steps = cgutils.alloca_once(builder, _INT, _INT(2))
        builder.store(_INT(8), steps)
        builder.store(_INT(0), builder.gep(steps, [_INT(1)]))
        operand = [pointers, counts, steps, ir.Constant(_BYTES, None)]
        most = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT, []), "get_num_threads")
        available = builder.call(most, [])
        threads = builder.select(builder.icmp_signed("<", count, available), count, available)
        with builder.if_else(builder.icmp_signed(">", threads, _INT(1))) as (several, one):
            with several:
                launch = cgutils.get_or_insert_function(builder.module, _PARALLEL_FOR, "numba_parallel_for")
                opaque = [builder.bitcast(v, _BYTES) for v in (loop, *operand)]
                builder.call(launch, [*opaque, _INT(0), _INT(2), threads])
            with one:
                builder.call(loop, operand)
        return context.get_dummy_value()

    return types.void(shards, body, arguments), codegen


def _loop_function(context, module, body, body_sig, packed_type):
    """body for the numbers counts[0] times from pointers[0] on, as an inner loop of NumPy's type."""
    function = ir.Function(module, _LOOP, _unused(module, "share_" + body.qualname))
    function.linkage = "internal"
    pointers, counts, _, _ = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    first = builder.udiv(builder.ptrtoint(builder.load(pointers), _INT), _INT(8))
    data = builder.load(builder.gep(pointers, [_INT(1)]))
    packed = builder.load(builder.bitcast(data, context.get_value_type(packed_type).as_pointer()))
    values = cgutils.unpack_tuple(builder, packed, len(packed_type))
    with cgutils.for_range(builder, builder.load(counts), intp=_INT) as loop:
        shard = builder.add(first, loop.index)
        context.call_internal_no_propagate(builder, body, body_sig, [shard, *values])
    builder.ret_void()
    return function


def _unused(module, name):
    """A name that the module does not use yet."""
    count = sum(1 for known in module.globals if known.startswith(name))
    return f"{name}_{count}"
