"""The inputs' part of the pre-activations, chunk by chunk: z = bias + x W_ih^T, or rows of a table by token.

Rows are tokens in the order of memory: step t owns rows first[t] .. first[t]+count[t]-1. Pre-activations live in "tile
order": for each block of `lanes` units, its gates' vectors side by side.
"""

from typing import NamedTuple

from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.matmul import (
    ROW_BLOCK,
    Panels,
    Rows,
    by_rows,
    copy_rows,
    repeated,
    row_blocks,
    spread_size,
    tile_block,
)
from fastrnn.kernels.pack import split
from fastrnn.kernels.pointers import lanes, load, store


class Chunk(NamedTuple):
    """The rows low..high-1 of the steps begin..end-1, and vectors left..right-1 of their pre-activations."""

    begin: int
    end: int
    low: int
    high: int
    left: int
    right: int


@layout
def chunk_rows(rows):
    """Most rows of a chunk, whose steps bring `rows` rows or fewer each."""
    return max(1, ROW_BLOCK // max(rows, 1)) * rows


@device
def chunk_end(count, begin, rows, most):
    """The step before which a chunk ends that begins with the step `begin`: it has at most `most` rows of any shard of
    `rows` sequences or fewer, and is the same for all."""
    total = 0
    for t in range(begin, count.size):
        total += min(rows, count[t])
        if total > most:
            return t
    return count.size


@layout
def input_size(I, rows, width):
    """Elements of workspace for the gathered inputs of a chunk, or for one block of a step's rows."""
    return max(chunk_rows(rows) * (I + width), spread_size(I, width))


@device
def look_up(tokens, first_row, rows, table, bias, z, chunk):
    """z = bias + the rows of a table in panels that the tokens name."""
    width = lanes(z.data)
    for i in range(rows):
        for p in range(chunk.left, chunk.right):
            row = load(table.data + (p * table.size + tokens[first_row + i] * width))
            store(z.data + (i * z.row + (p - chunk.left) * width), row + load(bias + p * width))


@device
def project(inputs, order, chunk, I, bias, z, work):
    """z = bias + x W_ih^T for a chunk, row after row.

    inputs: Inputs; z: Rows; work: input_size(...) elements. The rows of a chunk are gathered first, so that few rows a
    step still share one reading of the weights.
    """
    width = lanes(z.data)
    steps = chunk.end - chunk.begin
    columns = (chunk.right - chunk.left) * width
    start = repeated(bias + chunk.left * width)
    panels = Panels(inputs.panels.data + chunk.left * inputs.panels.size, inputs.panels.size)
    row = I + width
    total = 0
    for t in range(chunk.begin, chunk.end):
        rows = max(0, min(chunk.high, order.count[t]) - chunk.low)
        first = order.first[t] + chunk.low
        if inputs.tokens.size:
            look_up(inputs.tokens, first, rows, inputs.panels, bias, Rows(z.data + total * z.row, z.row), chunk)
        elif steps > 1:
            copy_rows(work + total * row, row, inputs.x + first * I, I, rows, I)
        else:
            row_blocks(rows, columns, I, by_rows(inputs.x + first * I, I), panels, start, z, work)
        total += rows
    if not inputs.tokens.size and steps > 1:
        tile_block(total, columns, I, by_rows(work, row), panels, start, z)


@device
def project_table(shard, shards, rows, V, I, inputs, count, bias, table, work):
    """The rows (V, I) of a table, projected into panels that `look_up` reads.

    inputs: `count` Panels of W_ih; table: as many, out; work: spread_size(I, lanes) elements a shard.
    """
    width = lanes(rows)
    own = work + shard * spread_size(I, width)
    for p in range(split(count, shards, shard), split(count, shards, shard + 1)):
        source = Panels(inputs.data + p * inputs.size, inputs.size)
        target = Rows(table.data + p * table.size, width)
        row_blocks(V, width, I, by_rows(rows, I), source, repeated(bias + p * width), target, own)
