"""torch's PackedSequences: the steps that they stand for, and their padding at the cost of one copy.

torch pads by one write into the result for each length in the batch, and its gradient copies the whole result once for
each of them (100 steps of 64 sequences, 256 units: 34 ms, of which 1.7 are needed). So the packed sequences that a fast
module gives have `batch_sizes` of a class that torch.nn.utils.rnn.pad_packed_sequence hands on to `_pad` here, and that
is a plain tensor in everything else.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastrnn import functional, ragged, threads
from fastrnn.torch.tensors import array, batched, eager, fit, ordinary


@lru_cache(maxsize=16)  # for the modules of one model and the padding behind them: batches seldom come again
def _steps(batch_sizes: bytes, N: int, directions: int) -> tuple[ragged.Steps, ...] | None:
    count = np.frombuffer(batch_sizes, np.int64)
    if count.sum() != N or count.min() < 1 or (np.diff(count) > 0).any():
        return None
    lengths = len(count) - np.searchsorted(count[::-1], np.arange(count[0]), side="right")
    return tuple([ragged.ragged(lengths, bool(d)) for d in range(directions)])


def steps_of(batch_sizes: Any, N: int, directions: int) -> tuple[ragged.Steps, ...] | None:
    """The steps of N packed rows in each direction, None where batch_sizes don't fit."""
    sizes = batch_sizes.as_subclass(Tensor) if type(batch_sizes) is BatchSizes else batch_sizes
    if not isinstance(sizes, Tensor) or not fit((sizes,), [(sizes.numel(),)], torch.int64):
        return None
    return _steps(array(sizes).tobytes(), N, directions)


class BatchSizes(Tensor):
    """The batch_sizes of a PackedSequence, which know a faster way to be padded."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """torch's own function on plain tensors, but for the padding."""
        with torch._C.DisableTorchFunctionSubclass():
            padded = _pad(*args) if function == torch._VF._pad_packed_sequence and len(args) == 5 else None
            return function(*args, **(kwargs or {})) if padded is None else padded

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles are plain."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Tensor:
        """So are copies."""
        return self.as_subclass(Tensor).clone()


def packed_like(sequence: PackedSequence, data: Tensor) -> PackedSequence:
    """Other rows of the same sequences."""
    return PackedSequence(data, sequence.batch_sizes.as_subclass(BatchSizes), *sequence[2:])


def _pad(data, batch_sizes, batch_first, padding_value, total_length):
    """As torch's, None for what is left to it."""
    if not eager() or not ordinary(data) or not data.dim() or not data.numel():
        return None
    if type(batch_first) is not bool or type(padding_value) not in (int, float) or type(total_length) is not int:
        return None
    steps = steps_of(batch_sizes, len(data), 1)
    if steps is None or total_length < len(steps[0].count):
        return None
    lengths = steps[0].lengths
    B, T = len(lengths), total_length
    starts, stride, leading = (np.arange(B) * T, 1, (B, T)) if batch_first else (np.arange(B), B, (T, B))
    places = steps[0].rows(starts, stride)
    padded = PickRows.apply(data.reshape(len(data), -1), ragged.inverse(places, T * B), places, padding_value)
    return padded.reshape(*leading, *data.shape[1:]), torch.from_numpy(lengths.copy())


class PickRows(torch.autograd.Function):
    """Rows of x by index, and of `other` where it is negative; inverse: where each row of x goes, an index, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: np.ndarray, inverse: np.ndarray, other: float) -> Tensor:
        ctx.index, ctx.inverse = index, inverse
        with threads.at_most(torch.get_num_threads()):
            y = torch.from_numpy(functional.gather(array(x), index))
        return y.masked_fill_(torch.from_numpy(index < 0)[:, None], other) if other else y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        if batched((dy,)):
            index = torch.from_numpy(ctx.inverse)
            rows = dy.index_select(0, index.clamp(min=0)).masked_fill((index < 0)[:, None], 0.0)
            return rows, None, None, None
        return PickRows.apply(dy, ctx.inverse, ctx.index, 0.0), None, None, None
