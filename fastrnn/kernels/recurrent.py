"""A layer's whole backward pass in one call: through time, then the products for the inputs and the weights."""

import numpy as np

from fastrnn.kernels.cells import gates
from fastrnn.kernels.embedding import scatter_add
from fastrnn.kernels.jit import Kernel, layout
from fastrnn.kernels.matmul import column_sums, product, product_work
from fastrnn.kernels.pack import padded
from fastrnn.kernels.sequence import backward_work, sequence_backward
from fastrnn.kernels.simd import lanes, pointer


@layout
def recurrent_backward_work(N, B, I, H, V, G, S, width, parts):
    """Elements of workspace that `recurrent_backward` needs."""
    products = max(product_work(G * H, H, N, width, parts), product_work(N, I, G * H, width, parts))
    products = max(products, product_work(G * H, I, max(N, V), width, parts), product_work(V, I, G * H, width, parts))
    through_time = backward_work(B, H, G, S, width)
    return padded(N * G * H, width) + padded(V * G * H, width) + max(through_time, products)


@Kernel
def recurrent_backward(
    y, h, x, tokens, table, W_ih, W_hh, cell, initial, first, count, history, kept, dy, dy_row, d_final,
    d_initial, dx, d_table, dW_ih, dW_hh, d_bias, zero, B, I, H, stretch, row_shards, unit_shards, work, parts,
):  # fmt: skip
    """The gradients of a layer's inputs, initial states and weights.

    Parameters (as `sequence_forward` and `sequence_backward`, and)
    ----------
    h : (N, H), h_{t-1} of every row
    dx : (N, I), out; with tokens empty
    d_table : (V, I), out, with a table; d_rows of one-hot tokens go to dW_ih^T
    dW_ih, dW_hh, d_bias : (G*H, I), (G*H, H), (G*H,), out
    zero : at least max(I, H) zeros
    work : recurrent_backward_work(...) elements
    parts : shards of the products

    Cost: 2*N*G*H*(3*H + 2*I) flop, without I's share with tokens. Reference twin: fastrnn.reference.sequence.
    """
    width = lanes(pointer(y))
    K = gates(cell) * H
    N = h.size // max(H, 1)
    V = I if table.size == 0 else table.size // max(I, 1)
    one, none = np.int64(1), np.int64(0)  # not literals, for which the product would be compiled again
    dz, rest = work[: N * K], work[padded(N * K, width) :]
    sequence_backward(
        y, H, W_hh, cell, initial, first, count, history, kept, dy, dy_row, d_final, d_initial, dz, B, H, stretch,
        row_shards, unit_shards, rest,
    )  # fmt: skip
    product(dz, one, K, h, H, one, zero, none, dW_hh, H, K, H, N, rest, parts)
    column_sums(dz, N, K, d_bias, np.bool_(False), parts)
    if tokens.size == 0:
        d_table[:] = 0.0
        product(dz, K, one, W_ih, I, one, zero, none, dx, I, N, I, K, rest, parts)
        product(dz, one, K, x, I, one, zero, none, dW_ih, I, K, I, N, rest, parts)
        return
    d_rows, rest = rest[: V * K], rest[padded(V * K, width) :]
    d_rows[:] = 0.0
    scatter_add(dz, tokens, K, d_rows, parts)
    if table.size == 0:
        for k in range(K):
            for v in range(V):
                dW_ih[k * V + v] = d_rows[v * K + k]
    else:
        product(d_rows, K, one, W_ih, I, one, zero, none, d_table, I, V, I, K, rest, parts)
        product(d_rows, one, K, table, I, one, zero, none, dW_ih, I, K, I, V, rest, parts)
