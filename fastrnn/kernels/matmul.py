"""Whole products from tiles: C = C0 + A B for any strides, so nn, nt and tn are one kernel.

Every element of C is one chain of FMAs over k = 0..K-1: blocks of K continue the chain through C, and threads own
elements of C, never parts of the sum.
"""

from typing import Any, NamedTuple

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.pack import pack_range, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import lanes, load_first, pointer, prefetch_write, store_first
from fastrnn.kernels.simd import zeros
from fastrnn.kernels.target import TARGET
from fastrnn.kernels.tile import tile, tile_rows, widest
from fastrnn.kernels.workspace import Elements, carve

VECTOR_BYTES, SET_BYTES = TARGET.vector_bytes, TARGET.set_bytes
ROW_BLOCK, K_BLOCK, B_BLOCK = TARGET.row_block, TARGET.k_block, TARGET.b_block


class Matrix(NamedTuple):
    """An operand of a product: element (i, j) at data + i*row + j*column."""

    data: Any
    row: int
    column: int


class Rows(NamedTuple):
    """C or C0: element (i, j) at data + i*row + j; with a row of 0 one row, repeated."""

    data: Any
    row: int


class Panels(NamedTuple):
    """Panels one after another, `size` elements apart."""

    data: Any
    size: int


class Shape(NamedTuple):
    """Of a product: C is (M, N), A is (M, K)."""

    M: int
    N: int
    K: int


@device
def by_rows(data, row):
    """A matrix whose rows are contiguous."""
    return Matrix(data, row, 1)


@device
def transposed(matrix):
    """The same memory, read as the transpose."""
    return Matrix(matrix.data, matrix.column, matrix.row)


@device
def repeated(data):
    """One row, for every row of C: a bias."""
    return Rows(data, 0)


@device
def prefetch_block(p, stride, rows, vectors, width):
    """Ask for a block that is about to be written."""
    for i in range(rows):
        for j in range(vectors):
            prefetch_write(p + (i * stride + j * width))


@device
def tile_block(rows, columns, K, a, panels, c0, c):
    """C = C0 + A P for `rows` rows and `columns` columns from consecutive panels: panels outside, rows inside.

    a: a Matrix; panels: Panels; c0, c: Rows. The next tile's part of C is asked for before each tile: 92 -> 105 GF/s a
    core where C comes from memory.
    """
    width = lanes(panels.data)
    height = tile_rows(rows)
    vectors = widest(height)
    n = 0
    while n < columns:
        v = min(vectors, -(-(columns - n) // width))
        tail = min(width, columns - n - (v - 1) * width)
        p = panels.data + n // width * panels.size
        i = 0
        while i < rows:
            r = min(height, rows - i)
            if i + r < rows:
                prefetch_block(c.data + ((i + r) * c.row + n), c.row, r, v, width)
            elif n + v * width < columns:
                prefetch_block(c.data + (n + v * width), c.row, height, v, width)
            start = c0.data + (i * c0.row + n)
            target = c.data + (i * c.row + n)
            tile(r, v, K, a.data + i * a.row, a.row, a.column, p, panels.size, start, c0.row, target, c.row, tail)
            i += r
        n += v * width


@layout
def k_block(K, N):
    """Length of the blocks that K is cut into."""
    return min(K, max(K_BLOCK, B_BLOCK // max(N, 1)))


@device
def crowded(stride, width):
    """Whether rows `stride` elements apart share one set of the L1 cache, so that a tile's rows evict each other."""
    return stride * VECTOR_BYTES // width % SET_BYTES == 0


@device
def copy_row(target, source, columns):
    """Copy a row of `columns` elements."""
    for j in range(0, columns, lanes(target)):
        store_first(target + j, load_first(source + j, columns - j), columns - j)


@device
def copy_rows(target, target_row, source, source_row, rows, columns):
    """Copy `rows` rows of `columns` elements."""
    for i in range(rows):
        copy_row(target + i * target_row, source + i * source_row, columns)


@device
def zero_row(target, columns):
    """Write a row of zeros."""
    for j in range(0, columns, lanes(target)):
        store_first(target + j, zeros(target), columns - j)


@layout
def spread_size(K, width):
    """Elements of workspace that `row_blocks` needs."""
    return ROW_BLOCK * (K + width)


@device
def row_blocks(rows, columns, K, a, panels, c0, c, work):
    """`tile_block` for any number of rows of A, which are contiguous, in blocks that stay in L2."""
    width = lanes(panels.data)
    for i in range(0, rows, ROW_BLOCK):
        count = min(ROW_BLOCK, rows - i)
        source = a.data + i * a.row
        stride = a.row
        if crowded(a.row, width):
            copy_rows(work, K + width, source, a.row, count, K)
            source = work
            stride = K + width
        start, target = Rows(c0.data + i * c0.row, c0.row), Rows(c.data + i * c.row, c.row)
        tile_block(count, columns, K, by_rows(source, stride), panels, start, target)


class ProductRoom(NamedTuple):
    """Workspace of `multiply`."""

    b: Elements  # a block of B in panels
    a: Elements  # one of A^T in panels, or rows of A that were crowded, for each thread


@layout
def product_room(shape, width, threads):
    """The workspace of `multiply`."""
    K = max(k_block(shape.K, shape.N), 1)
    size = panel_size(K, width)
    return ProductRoom(
        b=-(-shape.N // width) * size, a=max(-(-shape.M // width) * size, threads * spread_size(K, width))
    )


@device
def _pack_operands(shard, shards, a, b, shape, room):
    width = lanes(room.b)
    panels = -(-shape.N // width)
    a_panels = -(-shape.M // width)
    first, last = split(panels, shards, shard), split(panels, shards, shard + 1)
    pack_range(room.b, b.data, b.row, b.column, shape.K, shape.N, first, last)
    if a.column != 1:
        first, last = split(a_panels, shards, shard), split(a_panels, shards, shard + 1)
        pack_range(room.a, a.data, a.column, a.row, shape.K, shape.M, first, last)


@device
def _multiply_shard(shard, shards, a, c0, c, shape, room):
    M, N, K = shape
    width = lanes(room.b)
    size = panel_size(K, width)
    low, high, left, right = 0, M, 0, N
    if M >= N:
        count = -(-M // width)
        low = split(count, shards, shard) * width
        high = min(M, split(count, shards, shard + 1) * width)
    else:
        count = -(-N // width)
        left = split(count, shards, shard) * width
        right = min(N, split(count, shards, shard + 1) * width)
    columns = right - left
    panels = Panels(room.b + left // width * size, size)
    start = c0.data + (low * c0.row + left)
    target = c.data + (low * c.row + left)
    if a.column == 1:
        own = Matrix(a.data + low * a.row, a.row, a.column)
        spread = room.a + shard * spread_size(K, width)
        row_blocks(high - low, columns, K, own, panels, Rows(start, c0.row), Rows(target, c.row), spread)
        return
    for i in range(low, high, width):
        own = transposed(by_rows(room.a + i // width * size, width))  # a packed panel
        from_c0, to_c = Rows(start + (i - low) * c0.row, c0.row), Rows(target + (i - low) * c.row, c.row)
        tile_block(min(width, high - i), columns, K, own, panels, from_c0, to_c)


@device
def multiply(a, b, c0, c, shape, work, threads):
    """C (M, N) = C0 + A (M, K) B (K, N).

    a, b: Matrix, with one stride of each 1; c0, c: Rows, C0 may be C, or one row, repeated; shape: Shape.
    work: product_room(...). Cost: 2*M*N*K flop, and a copy of B (of A too if its rows are not contiguous).
    """
    M, N, K = shape
    room = carve(work, product_room(shape, lanes(work), threads))
    block = max(k_block(K, N), 1)
    for k in range(0, max(K, 1), block):
        part = Shape(M, N, min(block, K - k))
        start = c0
        if k > 0:  # the first block starts from C0, the others go on
            start = c
        left = a.data + k * a.column
        right = b.data + k * b.row
        own_a, own_b = Matrix(left, a.row, a.column), Matrix(right, b.row, b.column)
        share(threads, _pack_operands, (threads, own_a, own_b, part, room))
        share(threads, _multiply_shard, (threads, own_a, start, c, part, room))


@Kernel
def product(a, b, c0, c, a_transposed, b_transposed, work, threads):
    """C (M, N) = C0 + A (M, K) B (K, N), all C-contiguous.

    a: (M, K), or (K, M) if a_transposed; b: (K, N), or (N, K) if b_transposed; c0: (N,); c: (M, N), out
    work: room_size(product_room(Shape(M, N, K), ...)) elements

    Cost: as `multiply`. Reference twin: fastrnn.reference.matmul.product.
    """
    M, N = c.shape
    left = by_rows(pointer(a), a.shape[1])
    right = by_rows(pointer(b), b.shape[1])
    K = a.shape[1]
    if a_transposed:
        left = transposed(left)
        K = a.shape[0]
    if b_transposed:
        right = transposed(right)
    multiply(left, right, repeated(pointer(c0)), Rows(pointer(c), N), Shape(M, N, K), pointer(work), threads)


@device
def _column_sums(shard, shards, a, rows, columns, total, add):
    width = lanes(a)
    count = -(-columns // width)
    for v in range(split(count, shards, shard), split(count, shards, shard + 1)):
        n = columns - v * width
        source = a + v * width
        sums = load_first(total + v * width, n) if add else zeros(source)
        for i in range(rows):
            sums = sums + load_first(source + i * columns, n)
        store_first(total + v * width, sums, n)


@Kernel
def column_sums(a, rows, columns, total, add, threads):
    """total (columns,) = the sum of the rows of a (rows, columns), first to last; with `add`, on top of total."""
    share(threads, _column_sums, (threads, pointer(a), rows, columns, pointer(total), add))
