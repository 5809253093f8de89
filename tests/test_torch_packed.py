"""Padding of what fast modules give: torch's values, to the bit, and torch's gradients; and batch_sizes that are plain
in everything else.
"""

import copy
import io
import pickle

import pytest
from torch_twins import I, assert_same, dtypes, nn, rnn, torch, twins

import fastrnn.torch as fast
from fastrnn.torch import packed
from fastrnn.torch.packed import BatchSizes

LENGTHS = [4, 1, 5, 4]


@pytest.fixture
def picked(monkeypatch):
    """One entry for each time that rows were picked by our kernel."""
    found, run = [], packed.functional.gather

    def count(*arguments):
        found.append(arguments[1])
        return run(*arguments)

    monkeypatch.setattr(packed.functional, "gather", count)
    return found


def sequences(ordered=False, dtype=torch.float64):
    """Four sequences of LENGTHS as our module's output, and the same with torch's batch_sizes."""
    ours, _ = twins("gru", dtype)
    lengths = sorted(LENGTHS, reverse=True) if ordered else LENGTHS
    given = rnn.pack_padded_sequence(torch.randn(5, 4, I, dtype=dtype), lengths, enforce_sorted=ordered)
    y, _ = ours(given)
    return y, rnn.PackedSequence(y.data, given.batch_sizes, y.sorted_indices, y.unsorted_indices)


@dtypes
@pytest.mark.parametrize("ordered", [False, True], ids=["unsorted", "sorted"])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"padding_value": -1.5}, {"total_length": 7}, {"batch_first": True, "total_length": 7}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_padding(picked, options, ordered, dtype):
    y, plain = sequences(ordered, dtype)
    assert type(y.batch_sizes) is BatchSizes
    (got, lengths), (expected, ends) = (rnn.pad_packed_sequence(s, **options) for s in (y, plain))
    assert len(picked) == 1
    assert torch.equal(got, expected) and torch.equal(lengths, ends)
    assert got.dtype == dtype and lengths.dtype == torch.int64
    d = torch.randn_like(got)
    ours, theirs = (torch.autograd.grad(out, y.data, d, retain_graph=True)[0] for out in (got, expected))
    assert torch.equal(ours, theirs)
    assert len(picked) == 2


def test_second_derivatives_and_many_cotangents():
    y, plain = sequences()
    data = y.data.detach().requires_grad_()

    def padded(data):
        return rnn.pad_packed_sequence(rnn.PackedSequence(data, *y[1:]))[0]

    assert torch.autograd.gradcheck(padded, data)
    assert torch.autograd.gradgradcheck(padded, data)
    found = []
    for sizes in (y, plain):
        out = rnn.pad_packed_sequence(rnn.PackedSequence(data, *sizes[1:]))[0]
        many = torch.stack(
            [torch.cos(i + torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape) for i in (0, 1)]
        )
        found.append(torch.autograd.grad(out, data, many, is_grads_batched=True))
    assert_same(*found, 0.0)


def test_padding_inside_a_model():
    """An LSTM between packing and padding: all gradients."""
    results = []
    for module in twins("lstm", bidirectional=True):
        torch.manual_seed(1)
        x = torch.randn(4, 5, I, dtype=torch.float64, requires_grad=True)
        given = rnn.pack_padded_sequence(x.transpose(0, 1), LENGTHS, enforce_sorted=False)
        y, lengths = rnn.pad_packed_sequence(module(given)[0], batch_first=True, total_length=6)
        assert lengths.tolist() == LENGTHS
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])])
    assert_same(*results, 1e-12)


def test_rows_of_any_shape(picked):
    y, plain = sequences()
    for data in (torch.randn(14), torch.randn(14, 2, 3), torch.randn(14, 2, 3).transpose(1, 2), torch.arange(14)):
        got, expected = (rnn.pad_packed_sequence(rnn.PackedSequence(data, *s[1:])) for s in (y, plain))
        assert torch.equal(got[0], expected[0])
    assert len(picked) == 3  # integers are left to torch


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # by forward mode itself
def test_what_is_left_to_torch(picked):
    y, plain = sequences()
    wrong = rnn.PackedSequence(y.data[:-1], *y[1:]), rnn.PackedSequence(plain.data[:-1], *plain[1:])
    messages = []
    for sequence in wrong:
        with pytest.raises(RuntimeError) as error:
            rnn.pad_packed_sequence(sequence)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    with pytest.raises(ValueError, match="Expected total_length to be at least the length"):
        rnn.pad_packed_sequence(y, total_length=3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(y.data.detach(), torch.ones_like(y.data))
        out, _ = rnn.pad_packed_sequence(rnn.PackedSequence(dual, *y[1:]))
        assert torch.autograd.forward_ad.unpack_dual(out).tangent is not None
    assert not picked


@pytest.mark.filterwarnings("ignore")
def test_compiled_padding():
    y, plain = sequences()
    torch._dynamo.reset()
    padded = torch.compile(lambda s: rnn.pad_packed_sequence(s)[0], backend="eager")
    assert torch.equal(padded(y), rnn.pad_packed_sequence(plain)[0])


def test_batch_sizes_are_plain_otherwise():
    y, plain = sequences()
    sizes, given = y.batch_sizes, plain.batch_sizes
    assert torch.equal(sizes, given)
    assert sizes.tolist() == given.tolist() and (sizes.numpy() == given.numpy()).all()
    for made in (sizes + 1, sizes[1:], sizes.clone(), torch.cat([sizes, sizes]), copy.deepcopy(sizes)):
        assert type(made) is torch.Tensor
    assert type(pickle.loads(pickle.dumps(sizes))) is torch.Tensor
    file = io.BytesIO()
    torch.save(sizes, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), given)
    detached = rnn.PackedSequence(y.data.detach(), *y[1:])
    for other in (
        copy.deepcopy(detached),
        pickle.loads(pickle.dumps(detached)),
        detached.to(torch.float32),
        y.double(),
    ):
        assert torch.equal(rnn.pad_packed_sequence(other)[0], rnn.pad_packed_sequence(plain)[0].to(other.data.dtype))
    module = nn.GRU(y.data.shape[1], 3).double()
    got, expected = (module(s)[0] for s in (y, plain))
    assert torch.equal(got.data, expected.data)
    assert [len(s) for s in rnn.unpack_sequence(y)] == LENGTHS
    again, _ = fast.GRU(y.data.shape[1], 3, dtype=torch.float64)(y)
    assert type(again.batch_sizes) is BatchSizes
