"""Workspaces: a kernel names the parts of its memory once, and both the size and the places follow.

A workspace is a NamedTuple whose fields are annotated with what they hold, `Elements` of the kernel's dtype or
`Integers`. An instance of it with the number of each part's items gives the size (`room_size`), and `carve` puts in the
place of each number a pointer to the part; in Python, an array.

    class Room(NamedTuple):
        z: Elements
        order: Integers

    @layout
    def room(B, H):
        return Room(z=B * H, order=B)

    in Python: work = scratch(room_size(room(B, H), lanes), dtype)      in a kernel: z = carve(work, room(B, H)).z

The kernel's dtype is that of the memory it is given. A workspace within another one is a part of as many elements as
its size says; parts that are never in use at the same time are one, of the largest size.
"""

from functools import lru_cache
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from fastrnn.kernels.pointers import Pointer
from fastrnn.kernels.target import TARGET

_INT64 = ir.IntType(64)
VECTOR_BYTES, LINE = TARGET.vector_bytes, TARGET.line_bytes


class Part(NamedTuple):
    """What a field of a workspace holds."""

    dtype: type | None = None  # the kernel's own
    align: int = LINE  # bytes, LINE or less


Elements = Annotated[Any, Part()]
Integers = Annotated[Any, Part(np.int64)]


@lru_cache
def _parts(workspace: type) -> list[Part]:
    """The parts of a workspace, in order."""
    return [hint.__metadata__[0] for hint in get_type_hints(workspace, include_extras=True).values()]


@lru_cache
def _shapes(workspace: type) -> list[tuple[int, int]]:
    """Alignment and bytes of an item of each part, 0 for the kernel's own dtype."""
    return [(part.align, 0 if part.dtype is None else np.dtype(part.dtype).itemsize) for part in _parts(workspace)]


def _places(room: tuple[int, ...], own: int) -> tuple[list[int], int]:
    """The byte at which each part begins, and the end of the last; own: bytes of an element of the kernel's dtype."""
    starts, end = [], 0
    for (align, itemsize), count in zip(_shapes(type(room)), room, strict=True):
        start = -(-end // align) * align
        starts.append(start)
        end = start + count * (itemsize or own)
    return starts, end


def room_size(room: tuple[int, ...], width: int) -> int:
    """Elements of the kernel's dtype, `width` to a vector, that a workspace takes, wherever it begins."""
    own = VECTOR_BYTES // width
    _, end = _places(room, own)
    return -(-(end + LINE) // own)


@overload(room_size)
def _room_size(room, width):
    aligns, other = zip(*_shapes(room.instance_class), strict=True)
    own = tuple(int(itemsize == 0) for itemsize in other)

    def implementation(room, width):
        itemsize, end = VECTOR_BYTES // width, 0
        for i in range(len(room)):
            end = -(-end // aligns[i]) * aligns[i] + room[i] * (own[i] * itemsize + other[i])
        return -(-(end + LINE) // itemsize)

    return implementation


def carve(work: np.ndarray, room: tuple[int, ...]) -> Any:
    """The parts of a workspace: arrays in Python, pointers in a kernel."""
    skipped = -work.ctypes.data % LINE
    memory, (starts, _) = work.view(np.uint8), _places(room, work.itemsize)
    found = []
    for part, start, count in zip(_parts(type(room)), starts, room, strict=True):
        dtype = np.dtype(work.dtype if part.dtype is None else part.dtype)
        found.append(memory[skipped + start :][: count * dtype.itemsize].view(dtype))
    return type(room)(*found)


@intrinsic
def _pointers(typingctx, work, room):
    """A workspace of pointers, from the first that is aligned on."""
    parts = _parts(room.instance_class)
    dtypes = [work.dtype if part.dtype is None else from_dtype(np.dtype(part.dtype)) for part in parts]
    result = types.NamedTuple([Pointer(dtype) for dtype in dtypes], room.instance_class)
    if len(set(dtypes)) == 1:
        result = types.NamedUniTuple(Pointer(dtypes[0]), len(dtypes), room.instance_class)

    def codegen(context, builder, sig, args):
        def aligned(address, align):
            return builder.and_(builder.add(address, _INT64(align - 1)), _INT64(-align))

        end, found = aligned(builder.ptrtoint(args[0], _INT64), LINE), []
        for part, dtype, count in zip(parts, dtypes, cgutils.unpack_tuple(builder, args[1]), strict=True):
            start = aligned(end, part.align)
            found.append(builder.inttoptr(start, context.get_value_type(Pointer(dtype))))
            itemsize = np.dtype(str(dtype)).itemsize
            end = builder.add(start, builder.mul(count, _INT64(itemsize)))
        return context.make_tuple(builder, result, found)

    return result(work, room), codegen


@overload(carve)
def _carve(work, room):
    if isinstance(work, Pointer):
        return lambda work, room: _pointers(work, room)
