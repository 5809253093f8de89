"""Whole products from tiles: C = C0 + A B for any strides, so nn, nt and tn are one kernel.

Every element of C is one chain of FMAs over k = 0..K-1: blocks of K continue the chain through C, and threads own
elements of C, never parts of the sum.
"""

import numpy as np

from fastrnn.kernels.jit import Kernel, device, layout
from fastrnn.kernels.pack import pack_range, panel_size, split
from fastrnn.kernels.parallel import share
from fastrnn.kernels.simd import lanes, load_first, pointer, prefetch_write, store_first, zeros
from fastrnn.kernels.target import TARGET
from fastrnn.kernels.tile import tile

MAX_ROWS, MAX_VECTORS, REGISTERS = TARGET.max_rows, TARGET.max_vectors, TARGET.registers
VECTOR_BYTES = TARGET.vector_bytes

# Rows of A, and elements of B, that stay in L2 while the block is worked on. Between 128 and 512 steps the products
# of the 512 and 1024 layers differ by < 3 %; below 256 the traffic of C shows (-10 %).
ROW_BLOCK = 96
K_BLOCK = 384
B_BLOCK = K_BLOCK * 512


@layout
def widest(rows):
    """Most vectors of a tile of `rows` rows: the compiled twin of tile.widest."""
    return min(MAX_VECTORS, (REGISTERS - 1) // (rows + 1))


@device
def tile_rows(rows):
    """Rows of each tile when `rows` are cut into as few even tiles as possible."""
    count = -(-rows // MAX_ROWS)
    return -(-rows // max(count, 1))


@device
def prefetch_block(p, stride, rows, vectors, width):
    """Ask for a block that is about to be written."""
    for i in range(rows):
        for j in range(vectors):
            prefetch_write(p + (i * stride + j * width))


@device
def tile_block(rows, K, a, a_row, a_k, p, size, c0, c0_row, c, c_row, columns):
    """C = C0 + A P for `rows` rows and `columns` columns from consecutive panels: panels outside, rows inside.

    The next tile's part of C is asked for before each tile: 92 -> 105 GF/s a core where C comes from memory.
    """
    width = lanes(p)
    height = tile_rows(rows)
    vectors = widest(height)
    n = 0
    while n < columns:
        v = min(vectors, -(-(columns - n) // width))
        tail = min(width, columns - n - (v - 1) * width)
        i = 0
        while i < rows:
            r = min(height, rows - i)
            if i + r < rows:
                prefetch_block(c + ((i + r) * c_row + n), c_row, r, v, width)
            elif n + v * width < columns:
                prefetch_block(c + (n + v * width), c_row, height, v, width)
            tile(
                r, v, K, a + i * a_row, a_row, a_k, p + n // width * size, size,
                c0 + (i * c0_row + n), c0_row, c + (i * c_row + n), c_row, tail,
            )  # fmt: skip
            i += r
        n += v * width


@layout
def k_block(K, N):
    """Length of the blocks that K is cut into."""
    return min(K, max(K_BLOCK, B_BLOCK // max(N, 1)))


@device
def crowded(stride, width):
    """Whether rows `stride` elements apart share one set of the L1 cache, so that a tile's rows evict each other."""
    return stride * VECTOR_BYTES // width % 4096 == 0


@device
def copy_rows(target, target_row, source, source_row, rows, columns):
    """Copy `rows` rows of `columns` elements."""
    width = lanes(target)
    for i in range(rows):
        for j in range(0, columns, width):
            n = columns - j
            store_first(target + (i * target_row + j), load_first(source + (i * source_row + j), n), n)


@layout
def spread_size(K, width):
    """Elements of workspace that `row_blocks` needs."""
    return ROW_BLOCK * (K + width)


@device
def row_blocks(rows, K, a, a_row, p, size, c0, c0_row, c, c_row, columns, work):
    """C = C0 + A P for any number of rows of A (k-stride 1), in blocks that stay in L2."""
    width, a_k = lanes(p), np.int64(1)  # not a literal, for which tile_block would be compiled again
    for i in range(0, rows, ROW_BLOCK):
        count = min(ROW_BLOCK, rows - i)
        source, stride = a + i * a_row, a_row
        if crowded(a_row, width):
            copy_rows(work, K + width, source, a_row, count, K)
            source, stride = work, K + width
        tile_block(
            count, K, source, stride, a_k, p, size, c0 + i * c0_row, c0_row, c + i * c_row, c_row, columns
        )  # fmt: skip


@layout
def product_work(M, N, K, lanes, parts):
    """Elements of workspace that `product` needs."""
    kb = max(k_block(K, N), 1)
    size = panel_size(kb, lanes)
    return -(-N // lanes) * size + max(-(-M // lanes) * size, parts * spread_size(kb, lanes))


@device
def _pack_operands(part, parts, a, a_row, a_k, b, b_k, b_n, M, N, K, work, a_work):
    width = lanes(work)
    panels, a_panels = -(-N // width), -(-M // width)
    pack_range(work, b, b_k, b_n, K, N, split(panels, parts, part), split(panels, parts, part + 1))
    if a_k != 1:
        first, last = split(a_panels, parts, part), split(a_panels, parts, part + 1)
        pack_range(work + a_work, a, a_k, a_row, K, M, first, last)


@device
def _multiply_part(part, parts, a, a_row, a_k, c0, c0_row, c, c_row, M, N, K, work, a_work):
    width = lanes(work)
    size = panel_size(K, width)
    low, high, left, right = 0, M, 0, N
    if M >= N:
        count = -(-M // width)
        low, high = split(count, parts, part) * width, min(M, split(count, parts, part + 1) * width)
    else:
        count = -(-N // width)
        left, right = split(count, parts, part) * width, min(N, split(count, parts, part + 1) * width)
    start, target, columns = c0 + (low * c0_row + left), c + (low * c_row + left), right - left
    p, own = work + left // width * size, work + a_work
    if a_k == 1:
        own = own + part * spread_size(K, width)
        row_blocks(high - low, K, a + low * a_row, a_row, p, size, start, c0_row, target, c_row, columns, own)
        return
    row, step = np.int64(1), width  # of a packed panel
    for i in range(low, high, width):
        tile_block(
            min(width, high - i), K, own + i // width * size, row, step, p, size, start + (i - low) * c0_row, c0_row,
            target + (i - low) * c_row, c_row, columns,
        )  # fmt: skip


@Kernel
def product(a, a_row, a_k, b, b_k, b_n, c0, c0_row, c, c_row, M, N, K, work, parts):
    """C (M, N) = C0 + A (M, K) B (K, N).

    a, b, c0, c: flat arrays; element (i, k) of A at i*a_row + k*a_k, and so on; C and C0 have column stride 1, and C0
    may be C, or have row stride 0 (a bias). One of each operand's strides must be 1.
    work: at least product_work(...) elements. Cost: 2*M*N*K flop, and a copy of B (of A too if a_k != 1).
    Reference twin: fastrnn.reference.matmul.product.
    """
    width = lanes(pointer(b))
    block = max(k_block(K, N), 1)
    a_work = -(-N // width) * panel_size(block, width)
    w, target = pointer(work), pointer(c)
    for k0 in range(0, max(K, 1), block):
        kb = min(block, K - k0)
        start, row = pointer(c0), c0_row  # the first block starts from C0, the others go on
        if k0 > 0:
            start, row = target, c_row
        left, right = pointer(a) + k0 * a_k, pointer(b) + k0 * b_k
        share(parts, _pack_operands, (parts, left, a_row, a_k, right, b_k, b_n, M, N, kb, w, a_work))
        share(parts, _multiply_part, (parts, left, a_row, a_k, start, row, target, c_row, M, N, kb, w, a_work))


@device
def _column_sums(part, parts, a, rows, columns, total, add):
    width = lanes(a)
    count = -(-columns // width)
    for v in range(split(count, parts, part), split(count, parts, part + 1)):
        n = columns - v * width
        source = a + v * width
        sums = load_first(total + v * width, n) if add else zeros(source)
        for i in range(rows):
            sums = sums + load_first(source + i * columns, n)
        store_first(total + v * width, sums, n)


@Kernel
def column_sums(a, rows, columns, total, add, parts):
    """total (columns,) = the sum of the rows of a (rows, columns), first to last; with `add`, on top of total."""
    share(parts, _column_sums, (parts, pointer(a), rows, columns, pointer(total), add))
