"""The FMA limit of all threads together: the largest register tile, run over operands that stay in the L1 cache."""

from collections.abc import Callable

from fastrnn.kernels.jit import Kernel, device
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import pointer
from fastrnn.kernels.target import TARGET, lanes_of
from fastrnn.kernels.tile import tile, widest
from fastrnn.parameters import Parameters

K = 256
TILES = 1000  # a thread


@device
def _repeat_tile(shard, shards, a, rows, vectors, width, count, tiles):
    row = vectors * width
    p, c = a + rows * count * (1 + shards), a + rows * count * (1 + shard)
    for _ in range(tiles):
        tile(rows, vectors, count, a, count, 1, p, (count + 2) * width, c, row, c, row, width)


@Kernel
def run_tiles(a, rows, vectors, width, count, tiles, threads):
    """`tiles` products of a (rows, count) and a (count, vectors*width) matrix of zeros on each thread.

    a: rows*count elements for A, as many for C of each thread, and (count + 2)*width a vector for the panels.
    """
    share(threads, _repeat_tile, (threads, pointer(a), rows, vectors, width, count, tiles))


def peak(dtype: str, threads: int) -> tuple[Callable[[], object], int]:
    """A call that keeps every thread at its FMA limit, and the flop it does."""
    itemsize = 4 if dtype == "float32" else 8
    rows, width = TARGET.max_rows, lanes_of(itemsize)
    vectors = widest(rows)
    size = rows * K * (1 + threads) + vectors * (K + 2) * width
    a = Parameters({"a": (size,)}, dtype).zeros_like().flat
    flops = 2 * rows * vectors * width * K * TILES * threads

    def run():
        run_tiles(a=a, rows=rows, vectors=vectors, width=width, count=K, tiles=TILES, threads=threads)

    return run, flops
