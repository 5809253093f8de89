"""Panels: a matrix rearranged so that a tile reads it as one stream.

A panel holds `lanes` columns of a matrix S (K, N): element (k, lane) at k*lanes + lane, columns beyond N as 0.
Panels lie `panel_size` elements apart. Weights are packed once a call, the operands of big products block by block.
"""

from fastrnn.kernels.jit import device, layout
from fastrnn.kernels.parallel import share
from fastrnn.kernels.pointers import element, lanes, load_first, set_element, store, transpose
from fastrnn.kernels.simd import zeros


@layout
def split(total, shards, shard):
    """The first of the items that a shard owns; shards differ by one item at most."""
    return total * shard // shards


@layout
def padded(count, width):
    """`count`, filled up to whole vectors."""
    return -(-count // width) * width


@layout
def row_stride(count, width):
    """Elements from row to row of a workspace: whole vectors, and never a power of two, which would crowd the cache."""
    return padded(count, width) + width


@layout
def panel_size(K, width):
    """Elements from one panel of `width` lanes to the next: one row more than K, so that the panels of a tile
    don't fall into the same set of the cache (2x8 at K=256: 95 -> 110 GF/s)."""
    return (K + 2) * width


@device
def pack_panel(target, source, k_stride, n_stride, K, columns):
    """Copy K x columns of a matrix whose element (k, n) is at source + k*k_stride + n*n_stride into one panel.

    1 <= columns <= lanes. Cost: K*lanes elements read and written once.
    """
    width = lanes(target)
    if n_stride == 1:
        for k in range(K):
            store(target + k * width, load_first(source + k * k_stride, columns))
        return
    k = 0
    if columns == width and k_stride == 1:
        while k + width <= K:
            transpose(target + k * width, source + k, n_stride)
            k += width
    for rest in range(k, K):
        store(target + rest * width, zeros(target))
        for n in range(columns):
            set_element(target + (rest * width + n), element(source + (rest * k_stride + n * n_stride)))


@device
def pack_range(target, source, k_stride, n_stride, K, N, first, last):
    """Pack the panels first..last-1 of a (K, N) matrix; panel p goes to target + p*panel_size."""
    width = lanes(target)
    size = panel_size(K, width)
    for p in range(first, last):
        start = source + p * width * n_stride
        pack_panel(target + p * size, start, k_stride, n_stride, K, min(width, N - p * width))


@device
def _pack_weights(shard, shards, weight, k_stride, n_stride, K, N, gates, panels):
    width = lanes(panels)
    size = panel_size(K, width)
    count = gates * -(-N // width)
    for p in range(split(count, shards, shard), split(count, shards, shard + 1)):
        n = p // gates * width
        source = weight + (p % gates * N + n) * n_stride
        pack_panel(panels + p * size, source, k_stride, n_stride, K, min(width, N - n))


@device
def pack_weights(weight, K, N, gates, panels, threads):
    """Pack the matrices (N, K) of `gates` gates one below the other; a block of units' gates become neighbours.

    panels: gates*ceil(N/lanes) panels of panel_size(K, lanes); panel u*gates + g holds the units u*lanes... of gate g.
    """
    share(threads, _pack_weights, (threads, weight, 1, K, K, N, gates, panels))


@device
def pack_transposed(weight, K, N, panels, threads):
    """Pack a matrix (K, N)."""
    share(threads, _pack_weights, (threads, weight, N, 1, K, N, 1, panels))
