"""Sums over the units of a row, for cells that have them.

All shards of the row's units write terms; after their meeting every shard adds them up for itself, in one order.
"""

from typing import NamedTuple

from fastrnn.kernels.cells import sum_terms
from fastrnn.kernels.cells.shape import counts, gates_at, load_states, sums
from fastrnn.kernels.frame import Reduction, shards_of
from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.pack import padded
from fastrnn.kernels.pointers import lanes, load_first, set_element, store, store_many
from fastrnn.kernels.reduce import PARTS, add_up
from fastrnn.kernels.simd import zeros
from fastrnn.kernels.workspace import Elements, carve


class ReductionRoom(NamedTuple):
    """Workspace of sums over a row's units, none without."""

    terms: Elements
    totals: Elements  # each shard's
    partial: Elements  # each shard's virtual vector


@layout
def reduction_room(counts, sizes, cut, width):
    """The workspace of sums over a row's units."""
    shards = shards_of(cut)
    return ReductionRoom(
        terms=sizes.B * counts.R * padded(sizes.H, width),
        totals=shards * cut.most_rows * counts.R,
        partial=shards * PARTS * width if counts.R > 0 else 0,
    )


@device
def own_reduction(cell, shard, begin, sizes, cut, work):
    """The Reduction of a shard, of the rows from `begin` on."""
    width = lanes(work)
    room = carve(work, reduction_room(counts(cell), sizes, cut, width))
    R = sums(cell)
    terms = room.terms + begin * R * padded(sizes.H, width)
    return Reduction(terms, room.totals + shard * cut.most_rows * R, room.partial + shard * PARTS * width)


@device
def store_terms(cell, piece, sizes, z, step, reduction):
    """The terms of a cell's sums, for other shards to read after the meeting."""
    width = lanes(z.data)
    blocks = padded(sizes.H, width) // width
    R = sums(cell)
    for q in range(piece.low, piece.high):
        for v in range(piece.left, piece.right):
            unit = v * width
            state = load_states(cell, step.prev + (q * step.row + unit), step.size)
            terms = sum_terms(cell, unit, gates_at(cell, z, q, v), state)
            store_many(reduction.terms + (q * blocks + v) * R * width, width, terms)


@device
def add_terms(cell, rows, H, reduction):
    """The sums of some rows: over the units in the order of `reduce`, whoever computed their terms."""
    width = lanes(reduction.terms)
    blocks = padded(H, width) // width
    R = sums(cell)
    for q in range(rows):
        for s in range(R):
            for part in range(PARTS):
                total = zeros(reduction.terms)
                for v in range(part, blocks, PARTS):
                    term = load_first(reduction.terms + ((q * blocks + v) * R + s) * width, H - v * width)
                    total = total + term
                store(reduction.partial + part * width, total)
            set_element(reduction.totals + (q * R + s), add_up(reduction.partial))
