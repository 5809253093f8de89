"""Operations on arrays: check, allocate, launch. Each returns its result and a pullback.

`out, pullback = operation(...)`; `pullback(d_out, ...)` gives the gradients of sum(d_out * out). Parameters' gradients
go into arrays that the caller provides, so that a model's land in one flat buffer. A pullback uses the operation's
inputs and output as they are when it is called: call it before they change.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fastrnn import threads
from fastrnn.kernels import embedding as embedding_kernels
from fastrnn.kernels import loss as loss_kernels
from fastrnn.kernels import matmul, pack, sequence
from fastrnn.kernels.cells import TRAITS
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros

_NO_TOKENS = np.empty(0, np.int64)
# Logits and their gradient, in one buffer of this size or 16 rows, whichever is more: rows enough to keep the
# products busy, and a vocabulary of any size never fills memory.
_LOGITS_BYTES = 1 << 25
_LEAST_ROWS = 16


def _product(a, b, c, *, c0=None, a_transposed=False, b_transposed=False):
    """c = c0 + a b (2-D, C-contiguous); c0: c itself, a row (bias), or None for 0."""
    (M, N), K = c.shape, a.shape[0] if a_transposed else a.shape[1]
    lanes, dtype = lanes_of(c.itemsize), c.dtype
    c0_row = N if c0 is c else 0
    if c0 is None:
        c0 = zeros(N, dtype)
    a_row, a_k = (1, a.shape[1]) if a_transposed else (a.shape[1], 1)
    b_k, b_n = (1, b.shape[1]) if b_transposed else (b.shape[1], 1)
    count = threads.for_work(2 * M * N * K * c.itemsize / 4)
    work = scratch("product", matmul.product_work(M, N, K, lanes, count), dtype)
    a, b, c0, c = (array.reshape(-1) for array in (a, b, c0, c))
    matmul.product(count, a, 0, a_row, a_k, b, 0, b_k, b_n, c0, 0, c0_row, c, 0, N, M, N, K, work, count)


def _column_sums(a, total, add=False):
    count = threads.for_bytes(a.nbytes)
    matmul.column_sums(count, a.reshape(-1), *a.shape, total, add, count)


def _packed(purpose, weight, k_stride, n_stride, K, N, gates):
    """Panels of a weight matrix, in scratch; see fastrnn.kernels.pack.pack_weights."""
    lanes = lanes_of(weight.itemsize)
    panels = scratch(purpose, gates * -(-N // lanes) * pack.panel_size(K, lanes), weight.dtype)
    count = threads.for_bytes(2 * weight.nbytes)
    pack.pack_weights(count, weight.reshape(-1), k_stride, n_stride, K, N, gates, panels, count)
    return panels


def _tile_order(bias, gates, H, lanes):
    """(gates*H,) rearranged as the time loop keeps pre-activations: unit blocks outside, gates inside, 0 beyond H."""
    blocks = -(-H // lanes)
    ordered = np.zeros((gates, blocks * lanes), bias.dtype)
    ordered[:, :H] = bias.reshape(gates, H)
    return ordered.reshape(gates, blocks, lanes).swapaxes(0, 1).reshape(-1)


@lru_cache
def _dense(T, B):
    """The first row and the number of rows of each of T steps with B rows."""
    return np.arange(T) * B, np.full(T, B)


def recurrent(
    cell: type,
    x: np.ndarray,
    initial: np.ndarray,
    W_ih: np.ndarray,
    W_hh: np.ndarray,
    bias: np.ndarray,
    table: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """One layer in one direction over all steps.

    Parameters
    ----------
    cell : tag type of fastrnn.kernels.cells with G gates and S states
    x : (T, B, I), or tokens (T, B), int64, that stand for one-hot rows of size I
    initial : (S, B, H); W_ih : (G*H, I); W_hh : (G*H, H); bias : (G*H,), the sum of both
    table : (V, E) with tokens only: rows of an embedding that take the place of the one-hot rows (I = E)

    Returns y (T, B, H), final (S, B, H), and pullback(dy or None, d_final, dW_ih, dW_hh, d_bias, d_table=None) that
    writes the weights' gradients and returns dx (None for tokens), d_initial (S, B, H).

    All arrays C-contiguous and of one dtype. Cost: 2*T*B*G*H*(I+H) flop forward, twice that backward; tokens cost no
    input product beyond the V rows of the table. Reference twin: fastrnn.reference.sequence.
    """
    G, S, A = TRAITS[cell]
    T, B = x.shape[:2]
    H, I = W_hh.shape[1], W_ih.shape[1]
    N, dtype, lanes = T * B, initial.dtype, lanes_of(initial.itemsize)
    full = -(-H // lanes) * lanes
    plan = threads.for_sequence(T, B, G * H * H, dtype.itemsize)
    first, count = _dense(T, B)
    tag = cell(_tile_order(bias, G, H, lanes))
    panels = _packed("W_ih", W_ih, 1, I, I, H, G)
    tokens, inputs, width = _NO_TOKENS, x.reshape(-1), I
    if x.dtype == np.int64:
        tokens, inputs = inputs, np.empty(0, dtype)
    if table is not None:
        width = len(table)
        rows = scratch("table", G * full // lanes * pack.panel_size(width, lanes), dtype)
        shards = threads.for_work(2 * width * G * H * I)
        room = scratch("work", shards * matmul.spread_size(I, lanes), dtype)
        sequence.project_table(shards, table.reshape(-1), I, panels, tag, rows, width, G * full // lanes, room, shards)
        panels, tag = rows, cell(np.zeros_like(tag.bias))
    states = empty((T + 1, B, H), dtype)  # h_0 first, so that h_{t-1} of all steps is one stretch of rows
    states[0] = initial[0]
    y, final = states[1:], empty((S, B, H), dtype)
    history, kept = empty(N * (S - 1) * full, dtype), empty(N * A * full, dtype)
    shard_rows, shard_blocks = -(-B // plan.row_shards), -(-full // lanes // plan.unit_shards)
    z = scratch("z", plan.shards * sequence.chunk_rows(shard_rows) * G * shard_blocks * lanes, dtype)
    work = scratch("work", plan.shards * sequence.input_work(width, shard_rows, lanes), dtype)
    state = scratch("state", 2 * S * B * sequence.state_stride(H, lanes), dtype)
    sequence.sequence_forward(
        plan.shards, inputs, tokens, width, panels, _packed("W_hh", W_hh, 1, H, H, H, G), tag, initial.reshape(-1), first, count,
        y.reshape(-1), 0, H, final.reshape(-1), history, kept, B, H, plan.stretch, plan.row_shards,
        plan.unit_shards, z, state, work,
    )  # fmt: skip

    def pullback(dy, d_final, dW_ih, dW_hh, d_bias, d_table=None):
        dz, d_initial = scratch("dz", N * G * H, dtype).reshape(N, G * H), empty((S, B, H), dtype)
        dy_row = H
        if dy is None:
            dy, dy_row = zeros(H, dtype), 0
        dz_state = scratch("state", 2 * B * sequence.state_stride(G * H, lanes), dtype)
        sequence.sequence_backward(
            plan.shards, y.reshape(-1), 0, H, _packed("W_hh", W_hh, H, 1, G * H, H, 1), tag, initial.reshape(-1), first, count,
            history, kept, dy.reshape(-1), 0, dy_row, d_final.reshape(-1), d_initial.reshape(-1), dz.reshape(-1), B, H,
            plan.stretch, plan.row_shards, plan.unit_shards, dz_state, scratch("carry", S * B * full, dtype),
            scratch("start", S * B * full, dtype),
        )  # fmt: skip
        _product(dz, states[:-1].reshape(N, H), dW_hh, a_transposed=True)
        _column_sums(dz, d_bias)
        if not tokens.size:
            dx = empty((T, B, I), dtype)
            _product(dz, W_ih, dx.reshape(N, I))
            _product(dz, x.reshape(N, I), dW_ih, a_transposed=True)
            return dx, d_initial
        d_rows = scratch("d_rows", width * G * H, dtype).reshape(width, G * H)
        d_rows.fill(0)
        shards = threads.for_bytes(dz.nbytes)
        embedding_kernels.scatter_add(shards, dz.reshape(-1), tokens, G * H, d_rows.reshape(-1), shards)
        if table is None:
            dW_ih[...] = d_rows.T
        else:
            _product(d_rows, W_ih, d_table)
            _product(d_rows, table, dW_ih, a_transposed=True)
        return None, d_initial

    return y, final, pullback


def linear(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """y (N, O) = x (N, I) weight^T + bias; pullback(dy, d_weight, d_bias or None) writes both and returns dx.

    Cost: 2*N*I*O flop, twice that backward. Reference twin: fastrnn.reference.matmul.product.
    """
    y = empty((len(x), len(weight)), x.dtype)
    _product(x, weight, y, c0=bias, b_transposed=True)

    def pullback(dy, d_weight, d_bias):
        dx = empty(x.shape, x.dtype)
        _product(dy, weight, dx)
        _product(dy, x, d_weight, a_transposed=True)
        if d_bias is not None:
            _column_sums(dy, d_bias)
        return dx

    return y, pullback


def embedding(tokens: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Callable[..., None]]:
    """Rows (N, D) of weight (V, D) by tokens (N,), int64; pullback(dy, d_weight) writes d_weight.

    Cost: N*D elements copied. Reference twin: fastrnn.reference.embedding.
    """
    D = weight.shape[1]
    y = empty((len(tokens), D), weight.dtype)
    count = threads.for_bytes(2 * y.nbytes)
    embedding_kernels.gather(count, weight.reshape(-1), tokens, D, y.reshape(-1), count)

    def pullback(dy, d_weight):
        d_weight[...] = 0
        embedding_kernels.scatter_add(count, dy.reshape(-1), tokens, D, d_weight.reshape(-1), count)

    return y, pullback


def _softmax_cross_entropy(logits, targets, scale, d_logits):
    """The losses (N,); scale*gradient goes to d_logits, which may be logits or empty."""
    N, V = logits.shape
    count = threads.for_work(100 * N * V)
    losses = np.empty(N, logits.dtype)
    work = scratch("softmax", 2 * N + 64 // logits.itemsize * count, logits.dtype)
    loss_kernels.softmax_cross_entropy(
        count, logits.reshape(-1), V, targets, V, scale, losses, d_logits.reshape(-1), V, work, count
    )
    return losses


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, Callable[[float], np.ndarray]]:
    """Mean of -log softmax(logits)[target] over N rows of (N, V), in nats; pullback(d_loss) returns d_logits.

    Cost: one exponential a logit. Reference twin: fastrnn.reference.loss.softmax_cross_entropy.
    """
    losses = _softmax_cross_entropy(logits, targets, 0.0, np.empty(0, logits.dtype))

    def pullback(d_loss):
        d_logits = empty(logits.shape, logits.dtype)
        _softmax_cross_entropy(logits, targets, float(d_loss) / len(targets), d_logits)
        return d_logits

    return float(losses.mean(dtype=np.float64)), pullback


def linear_cross_entropy(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    targets: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray] | None = None,
    scale: float = 1.0,
) -> tuple[float, np.ndarray | None]:
    """cross_entropy(linear(x, weight, bias), targets), block by block, so that the logits never exist as a whole.

    Parameters
    ----------
    x : (N, H); weight : (V, H); bias : (V,); targets : (N,), int64 below V
    gradients : arrays for d_weight, d_bias; without them only the loss is computed
    scale : factor of the gradients

    Returns the loss in nats and dx (N, H), or None. Cost: 2*N*H*V flop, three times that with gradients; logits in
    blocks of 32 MiB, or 16 rows. Reference twin: fastrnn.reference.loss.linear_cross_entropy.
    """
    N, V = len(x), len(weight)
    rows = min(N, max(_LEAST_ROWS, _LOGITS_BYTES // max(V * x.itemsize, 1)))
    total, dx = 0.0, None
    if gradients is not None:
        dx, (d_weight, d_bias) = empty(x.shape, x.dtype), gradients
    for start in range(0, max(N, 1), max(rows, 1)):
        part, wanted = x[start : start + rows], targets[start : start + rows]
        logits = scratch("logits", len(part) * V, x.dtype).reshape(len(part), V)
        _product(part, weight, logits, c0=bias, b_transposed=True)
        d_logits = np.empty(0, x.dtype) if gradients is None else logits
        total += float(_softmax_cross_entropy(logits, wanted, scale / N, d_logits).sum(dtype=np.float64))
        if gradients is not None:
            _product(logits, weight, dx[start : start + rows])
            _product(logits, part, d_weight, c0=d_weight if start else None, a_transposed=True)
            _column_sums(logits, d_bias, add=start > 0)
    return total / max(N, 1), dx
