"""Panels against plain indexing."""

import numpy as np
import pytest
from cases import DTYPES

from fastrnn.kernels import pack
from fastrnn.kernels.jit import Kernel
from fastrnn.kernels.pointers import pointer
from fastrnn.kernels.target import lanes_of

SIZES = [(1, 1), (2, 3), (3, 16), (16, 16), (17, 15), (33, 31), (16, 33), (31, 64), (8, 8), (64, 1), (1, 64)]
SIZES += [(0, 5), (5, 0)]


@Kernel
def pack_arrays(weight, K, N, gates, transposed, panels, threads):
    """pack_weights, or pack_transposed, of arrays."""
    if transposed:
        pack.pack_transposed(pointer(weight), K, N, pointer(panels), threads)
    else:
        pack.pack_weights(pointer(weight), K, N, gates, pointer(panels), threads)


def packed(weight, K, N, gates, transposed, count=1):
    """Packed into memory full of NaN: (units' blocks, gates, panel_size)."""
    lanes = lanes_of(weight.itemsize)
    panels = np.full((-(-N // lanes), gates, pack.panel_size(K, lanes)), np.nan, weight.dtype)
    pack_arrays(
        weight=weight.reshape(-1), K=K, N=N, gates=gates, transposed=transposed, panels=panels.reshape(-1),
        threads=count,
    )  # fmt: skip
    return panels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("gates", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_panels(dtype, size, gates, transposed, count):
    """weight is (gates*N, K), or transposed one matrix (K, gates*N), as W_hh^T and W_hh are."""
    K, N = size
    weight = np.random.default_rng(0).standard_normal((gates * N, K)).astype(dtype)
    if transposed:
        N, gates = gates * N, 1
    panels = packed(np.ascontiguousarray(weight.T) if transposed else weight, K, N, gates, transposed, count)
    lanes = lanes_of(weight.itemsize)
    for u, g in np.ndindex(panels.shape[:2]):
        columns = weight.reshape(gates, N, K)[g, u * lanes : (u + 1) * lanes]
        panel = panels[u, g, : K * lanes].reshape(K, lanes)
        np.testing.assert_array_equal(panel[:, : len(columns)], columns.T)
        np.testing.assert_array_equal(panel[:, len(columns) :], 0)
    assert np.isnan(panels[:, :, K * lanes :]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_memory_beyond_the_matrix_is_not_read(dtype, transposed, fenced):
    for K, N in SIZES:
        for at_end in (True, False):
            weight = fenced(K * N, dtype, at_end)
            weight[:] = np.arange(K * N)
            panels = packed(weight, K, N, 1, transposed)
            assert np.nansum(panels.astype(np.float64)) == weight.astype(np.float64).sum()


@pytest.mark.parametrize("total", [0, 1, 7, 64])
@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_split(total, shards):
    bounds = [pack.split(total, shards, i) for i in range(shards + 1)]
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, total)
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_panels_of_a_tile_lie_in_different_cache_sets(lanes):
    for K in (64, 256, 512, 1024):
        assert pack.panel_size(K, lanes) >= K * lanes
        assert pack.panel_size(K, lanes) % 1024 != 0
