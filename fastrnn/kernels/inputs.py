"""The inputs' part of the pre-activations, chunk by chunk: z = bias + x W_ih^T, or rows of a table by token.

Rows are tokens in the order of memory: step t owns rows first[t] .. first[t]+count[t]-1. Pre-activations live in "tile
order": for each block of `lanes` units, its gates' vectors side by side.
"""

import numpy as np

from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.matmul import ROW_BLOCK, copy_rows, row_blocks, spread_size, tile_block
from fastrnn.kernels.pack import panel_size, split
from fastrnn.kernels.pointers import lanes, load, store


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
def input_work(I, rows, width):
    """Elements of workspace for the gathered inputs of a chunk, or for one block of a step's rows."""
    return max(chunk_rows(rows) * (I + width), spread_size(I, width))


@device
def look_up(tokens, first_row, rows, table, size, bias, z, z_row, left, right):
    """z = bias + the rows of a table in panels that the tokens name."""
    width = lanes(z)
    for i in range(rows):
        for p in range(left, right):
            row = load(table + (p * size + tokens[first_row + i] * width))
            store(z + (i * z_row + (p - left) * width), row + load(bias + p * width))


@device
def project(x, tokens, first, count, start, stop, low, high, I, W_ih, bias, z, z_row, left, right, work):
    """z = bias + x W_ih^T for the steps start..stop-1, their rows low..high-1, and the panels left..right-1.

    The rows of a chunk are gathered first, so that few rows a step still share one reading of the weights.
    """
    width = lanes(z)
    size = panel_size(I, width)
    stride, total = I + width, np.int64(0)
    none, one = np.int64(0), np.int64(1)  # not literals, for which tile_block would be compiled again
    for t in range(start, stop):
        rows = max(0, min(high, count[t]) - low)
        row = first[t] + low
        if tokens.size:
            look_up(tokens, row, rows, W_ih, size, bias, z + total * z_row, z_row, left, right)
        elif stop - start > 1:
            copy_rows(work + total * stride, stride, x + row * I, I, rows, I)
        else:
            row_blocks(
                rows, I, x + row * I, I, W_ih + left * size, size, bias + left * width, none, z, z_row,
                (right - left) * width, work,
            )  # fmt: skip
        total += rows
    if not tokens.size and stop - start > 1:
        tile_block(
            total, I, work, stride, one, W_ih + left * size, size, bias + left * width, none, z, z_row,
            (right - left) * width,
        )  # fmt: skip


@device
def project_table(part, parts, weight, I, W_ih, bias, table, V, panels, work):
    """The rows of a table, projected into panels that `look_up` reads."""
    width = lanes(weight)
    own = work + part * spread_size(I, width)
    for p in range(split(panels, parts, part), split(panels, parts, part + 1)):
        source, target = W_ih + p * panel_size(I, width), table + p * panel_size(V, width)
        row_blocks(
            V, I, weight, I, source, panel_size(I, width), bias + p * width, np.int64(0), target, width, width, own
        )  # fmt: skip
