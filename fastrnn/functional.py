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
from fastrnn.kernels import matmul, sequence
from fastrnn.kernels import recurrent as recurrent_kernels
from fastrnn.kernels.cells import TRAITS
from fastrnn.kernels.pack import padded
from fastrnn.kernels.target import lanes_of
from fastrnn.memory import aligned_empty as empty
from fastrnn.memory import scratch, zeros

_NO_TOKENS = np.empty(0, np.int64)
# Logits and their gradient, in one buffer of this size or 16 rows, whichever is more: rows enough to keep the
# products busy, and a vocabulary of any size never fills memory.
_LOGITS_BYTES = 1 << 25
_LEAST_ROWS = 16


def _product(a, b, c, *, c0=None, a_transposed=False, b_transposed=False):
    """c = c0 + a b (2-D, C-contiguous); c0: a row (bias), or None for 0."""
    (M, N), K, dtype = c.shape, a.shape[0] if a_transposed else a.shape[1], c.dtype
    a_row, a_k = (1, a.shape[1]) if a_transposed else (a.shape[1], 1)
    b_k, b_n = (1, b.shape[1]) if b_transposed else (b.shape[1], 1)
    parts = threads.for_work(2 * M * N * K * c.itemsize / 4)
    work = scratch(matmul.product_work(M, N, K, lanes_of(c.itemsize), parts), dtype)
    c0 = zeros(N, dtype) if c0 is None else c0
    matmul.product(
        parts, a.reshape(-1), a_row, a_k, b.reshape(-1), b_k, b_n, c0, 0, c.reshape(-1), N, M, N, K, work, parts
    )


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
    none = np.empty(0, dtype)
    one_hot = x.dtype == np.int64
    tokens, inputs = (x.reshape(-1), none) if one_hot else (_NO_TOKENS, x.reshape(-1))
    rows, V = (none, 0) if table is None else (table.reshape(-1), len(table))
    W_ih, W_hh = W_ih.reshape(-1), W_hh.reshape(-1)
    plan = threads.for_sequence(T, B, G * H * H, dtype.itemsize)
    first, count = _dense(T, B)
    states = empty((T + 1, B, H), dtype)  # h_0 first, so that h_{t-1} of all steps is one stretch of rows
    states[0] = initial[0]
    y, final = states[1:], empty((S, B, H), dtype)
    full = padded(H, lanes)
    history, kept = empty(N * (S - 1) * full, dtype), empty(N * A * full, dtype)
    work = scratch(sequence.forward_work(B, I, H, V, G, S, plan.row_shards, plan.unit_shards, lanes), dtype)
    sequence.sequence_forward(
        plan.shards, inputs, tokens, rows, W_ih, W_hh, bias, cell(), initial.reshape(-1), first, count, y.reshape(-1),
        H, final.reshape(-1), history, kept, B, I, H, plan.stretch, plan.row_shards, plan.unit_shards, work,
    )  # fmt: skip

    def pullback(dy, d_final, dW_ih, dW_hh, d_bias, d_table=None):
        d_initial, dx = empty((S, B, H), dtype), none if one_hot else empty((T, B, I), dtype)
        zero = zeros(max(I, H), dtype)
        dy, dy_row = (zero, 0) if dy is None else (dy.reshape(-1), H)
        parts = max(plan.shards, threads.for_work(4 * N * G * H * H))
        work = scratch(
            recurrent_kernels.recurrent_backward_work(N, B, I, H, (V or I) if one_hot else 0, G, S, lanes, parts), dtype
        )
        recurrent_kernels.recurrent_backward(
            parts, y.reshape(-1), states[:-1].reshape(-1), inputs, tokens, rows, W_ih, W_hh, cell(),
            initial.reshape(-1), first, count, history, kept, dy, dy_row, d_final.reshape(-1), d_initial.reshape(-1),
            dx.reshape(-1), none if d_table is None else d_table.reshape(-1), dW_ih.reshape(-1), dW_hh.reshape(-1),
            d_bias, zero, B, I, H, plan.stretch, plan.row_shards, plan.unit_shards, work, parts,
        )  # fmt: skip
        return None if one_hot else dx, d_initial

    return y, final, pullback


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
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
            parts = threads.for_bytes(dy.nbytes)
            matmul.column_sums(parts, dy.reshape(-1), *dy.shape, d_bias, False, parts)
        return dx

    return y, pullback


def embedding(tokens: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Callable[..., None]]:
    """Rows (N, D) of weight (V, D) by tokens (N,), int64; pullback(dy, d_weight) writes d_weight.

    Cost: N*D elements copied. Reference twin: fastrnn.reference.embedding.
    """
    D = weight.shape[1]
    y = empty((len(tokens), D), weight.dtype)
    parts = threads.for_bytes(2 * y.nbytes)
    embedding_kernels.gather(parts, weight.reshape(-1), tokens, D, y.reshape(-1), parts)

    def pullback(dy, d_weight):
        d_weight[...] = 0
        embedding_kernels.scatter_add(parts, dy.reshape(-1), tokens, D, d_weight.reshape(-1), parts)

    return y, pullback


def _softmax_cross_entropy(logits, targets, scale, d_logits):
    """The losses (N,); scale*gradient goes to d_logits, which may be empty."""
    N, V = logits.shape
    parts = threads.for_work(100 * N * V)
    losses = np.empty(N, logits.dtype)
    work = scratch(loss_kernels.softmax_work(N, lanes_of(logits.itemsize), parts), logits.dtype)
    loss_kernels.softmax_cross_entropy(
        parts, logits.reshape(-1), V, targets, V, scale, losses, d_logits.reshape(-1), V, work, parts
    )
    return losses


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, Callable[[float], np.ndarray]]:
    """Mean of -log softmax(logits)[target] over N rows of (N, V), in nats; pullback(d_loss) returns d_logits.

    Cost: one exponential a logit. Reference twin: fastrnn.reference.loss.softmax_cross_entropy.
    """
    losses = _softmax_cross_entropy(logits, targets, 0.0, np.empty(0, logits.dtype))

    def pullback(d_loss):
        d_logits = empty(logits.shape, logits.dtype)
        _softmax_cross_entropy(logits, targets, float(d_loss) / max(len(targets), 1), d_logits)
        return d_logits

    return float(losses.sum(dtype=np.float64)) / max(len(targets), 1), pullback


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
    (N, H), V, dtype = x.shape, len(weight), x.dtype
    rows = max(1, min(N, max(_LEAST_ROWS, _LOGITS_BYTES // (V * x.itemsize))))
    parts = threads.for_work(2 * rows * V * H * x.itemsize / 4)
    work = scratch(loss_kernels.linear_cross_entropy_work(rows, V, H, lanes_of(x.itemsize), parts), dtype)
    none = np.empty(0, dtype)
    dx, d_weight, d_bias = none, none, none
    if gradients is not None:
        dx, (d_weight, d_bias) = empty(x.shape, dtype), gradients
    losses = np.empty(N, dtype)
    for start in range(0, max(N, 1), rows):
        part = slice(start, start + rows)
        loss_kernels.linear_cross_entropy(
            parts, x[part].reshape(-1), weight.reshape(-1), bias, targets[part], scale / max(N, 1), losses[part],
            dx[part].reshape(-1), d_weight.reshape(-1), d_bias, start > 0, zeros(H, dtype), len(targets[part]), V, H,
            work, parts,
        )  # fmt: skip
    return float(losses.sum(dtype=np.float64)) / max(N, 1), None if gradients is None else dx
