"""Workspaces: one list of parts says their size and their places, in Python and in kernels, wherever memory begins."""

import sys
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest
from cases import CASES, DTYPES, UPDATES
from oracles import assert_same, normal

from fastrnn import Recursive, Trees, memory, threads
from fastrnn.functional import attention
from fastrnn.kernels.jit import Kernel, layout
from fastrnn.kernels.pointers import address, lanes, pointer, set_element
from fastrnn.kernels.target import TARGET, lanes_of
from fastrnn.kernels.workspace import Elements, Integers, Part, carve, room_size
from fastrnn.optim import grad_norm
from fastrnn.parameters import Parameters

LINE = TARGET.line_bytes
COUNTS = [(0, 0), (1, 0), (0, 1), (1, 1), (3, 5), (16, 8), (17, 9), (100, 33)]
SIZES = {"T": 7, "B": 5, "I": 19, "H": 37, "V": 31, "N": 23, "O": 41, "k": 3}


class Inner(NamedTuple):
    """A workspace within another one."""

    rows: Elements
    places: Integers


class Outer(NamedTuple):
    """Parts of two dtypes, one of them at no line, one that may be empty."""

    x: Elements
    order: Integers
    inner: Elements
    close: Annotated[Any, Part(align=8)]
    last: Integers


@layout
def inner_room(n, m):
    """As a kernel and Python both describe it."""
    return Inner(rows=n + m, places=m)


@layout
def outer_room(n, m, width):
    """As a kernel and Python both describe it."""
    return Outer(x=n, order=m, inner=room_size(inner_room(n, m), width), close=m, last=n)


@Kernel
def fill(work, n, m, sizes, addresses):
    """Write 0, 1, ... to the parts of an Outer and of its Inner, and note sizes and where they begin."""
    width = lanes(pointer(work))
    room = carve(pointer(work), outer_room(n, m, width))
    inner = carve(room.inner, inner_room(n, m))
    sizes[0], sizes[1] = room_size(outer_room(n, m, width), width), room_size(inner_room(n, m), width)
    addresses[0], addresses[1], addresses[2] = address(room.x), address(room.order), address(inner.rows)
    addresses[3], addresses[4], addresses[5] = address(inner.places), address(room.close), address(room.last)
    for i in range(n):
        set_element(room.x + i, i)
        set_element(room.last + i, i)
    for i in range(m):
        set_element(room.order + i, i)
        set_element(inner.places + i, i)
        set_element(room.close + i, i)
    for i in range(n + m):
        set_element(inner.rows + i, i)


def carved(work, n, m):
    """The parts as arrays, in the order of `fill`."""
    outer = carve(work, outer_room(n, m, lanes_of(work.itemsize)))
    inner = carve(outer.inner, inner_room(n, m))
    return [outer.x, outer.order, inner.rows, inner.places, outer.close, outer.last]


def misaligned(poison, count, dtype, skipped):
    """`count` elements `skipped` of them behind a line, between red zones; and a check of the zone before them."""
    whole = poison.empty(skipped + count, dtype)

    def check():
        assert (whole[:skipped].view(np.uint8) == 0xFF).all(), "written before the start"

    return whole[skipped:], check


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), COUNTS)
def test_python_and_kernels_find_the_same_places(n, m, dtype, poison):
    dtype = np.dtype(dtype)
    width, sizes, addresses = lanes_of(dtype.itemsize), np.zeros(2, np.int64), np.zeros(6, np.int64)
    outer, inner = room_size(outer_room(n, m, width), width), room_size(inner_room(n, m), width)
    for skipped in range(LINE // dtype.itemsize):
        work, check = misaligned(poison, outer, dtype, skipped)
        fill(work=work, n=n, m=m, sizes=sizes, addresses=addresses)
        check()
        assert sizes.tolist() == [outer, inner]
        parts = carved(work, n, m)
        assert [part.ctypes.data for part in parts] == addresses.tolist()
        assert [part.dtype for part in parts] == [dtype, "i8", dtype, "i8", dtype, "i8"]
        for part, count in zip(parts, (n, m, n + m, m, m, n), strict=True):
            np.testing.assert_array_equal(part, np.arange(count))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), COUNTS)
def test_a_workspace_is_as_large_as_its_parts(n, m, dtype, poison):
    """Aligned parts in order, none in another; of the size, what is not theirs is less than a line and an element."""
    dtype = np.dtype(dtype)
    width = lanes_of(dtype.itemsize)
    room = outer_room(n, m, width)
    for skipped in range(LINE // dtype.itemsize):
        work, _ = misaligned(poison, room_size(room, width), dtype, skipped)
        parts = carve(work, room)
        assert [part.size for part in parts] == list(room)
        places = [(part.ctypes.data, part.nbytes) for part in parts]
        assert [place % align for (place, _), align in zip(places, (LINE, LINE, LINE, 8, LINE), strict=True)] == [0] * 5
        for (place, nbytes), (following, _) in pairwise(places):
            assert 0 <= following - (place + nbytes) < LINE
        begin, end = places[0][0], sum(places[-1])
        assert 0 <= begin - work.ctypes.data < LINE
        assert end <= work.ctypes.data + work.nbytes
        assert work.nbytes - (end - begin) < LINE + dtype.itemsize


def trees(dtype):
    """A tree and a chain, from the leaves to the roots and back."""
    forest, found = Trees(np.concatenate([(np.arange(20) - 1) // 3, [-1], 20 + np.arange(9)])), {}
    for cell in ("tanh", "lstm"):
        for children in ("sum", 3):
            layer = Recursive(5, 17, cell, children, dtype=dtype, seed=0)
            state, pullback = layer.vjp(normal(len(forest), 5, dtype=dtype), forest)
            dx, grads = pullback(state)
            own = {"dx": dx, **grads, **dict(enumerate(state if cell == "lstm" else [state]))}
            found |= {f"{cell} {children} {name}": value for name, value in own.items()}
    return found


def sequences(dtype):
    """Attention of two sequences."""
    offsets = np.array([0, 3, 20]), np.array([0, 18, 20])
    context, pullback = attention(normal(20, 33, dtype=dtype), normal(20, 33, seed=1, dtype=dtype), *offsets)
    return dict(zip(("context", "d_queries", "d_memory"), (context, *pullback(context)), strict=True))


def norm(dtype):
    """The 2-norm of gradients."""
    grads = Parameters({"weight": (301, 83)}, dtype)
    grads["weight"] = normal(301, 83, dtype=dtype)
    return {"norm": np.array(grad_norm(grads))}


def registered(case, dtype):
    """An operation of cases.py."""
    return case.compiled(**case.draw([SIZES[letter] for letter in case.letters.split(", ")], dtype))


OPERATIONS = {
    **{name: partial(registered, case) for name, case in CASES.items() if name not in ("embedding", *UPDATES)},
    "trees": trees,
    "attention": sequences,
    "norm": norm,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("count", [1, 3])
def test_kernels_stay_within_workspaces_that_begin_anywhere(name, dtype, count, poison, monkeypatch):
    """As many elements as the size says, at no line, between red zones: no other is touched, and no bit changes."""
    monkeypatch.setattr(threads, "for_work", lambda flops: count)
    monkeypatch.setattr(threads, "for_bytes", lambda size: count)
    monkeypatch.setattr(threads, "for_sequence", lambda *work: threads.Plan(count, 1))
    expected, checks, modules = OPERATIONS[name](dtype), [], list(sys.modules.values())
    given = memory.scratch, poison.scratch
    for skipped in (1, lanes_of(np.dtype(dtype).itemsize) - 1):

        def scratch(count, dtype, skipped=skipped):
            work, check = misaligned(poison, count, dtype, skipped)
            checks.append(check)
            return work

        with monkeypatch.context() as patch:
            for module in modules:
                if module.__name__.startswith("fastrnn.") and getattr(module, "scratch", None) in given:
                    patch.setattr(module, "scratch", scratch)
            assert_same(OPERATIONS[name](dtype), expected)
    assert checks
    for check in checks:
        check()
