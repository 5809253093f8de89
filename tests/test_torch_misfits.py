"""Weights, states and batches whose sizes or memory don't fit: torch's outcome, and nothing is read beyond its end."""

import copy

import pytest
from torch_twins import H, I, assert_same, compare, dtypes, kinds, nn, rnn, same_error, torch, twins

import fastrnn.torch as fast
from fastrnn.torch import function

CUT = r"tensor of shape \({}\): expected a storage of {} bytes, got {}$"


@pytest.fixture
def calls(monkeypatch):
    """One entry for each layer that a kernel has run."""
    found, run = [], function._forward

    def count(*arguments, **options):
        found.append(arguments[0].kind.name)
        return run(*arguments, **options)

    monkeypatch.setattr(function, "_forward", count)
    return found


def pair(kind, *sizes, cells=False, **options):
    """torch's module made fast, and torch's with the same weights."""
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(*sizes, **options)
    ours = copy.deepcopy(theirs)
    assert fast.accelerate(ours, cells=True).replaced
    return ours, theirs


def train(module, *arguments):
    """The output and every gradient."""
    y = module(*arguments)
    y = y if isinstance(y, torch.Tensor) else y[0]
    y.sin().sum().backward()
    return [y, *[p.grad for p in module.parameters() if p.grad is not None]]


def same_outcome(ours, theirs, *arguments, tolerance=1e-5):
    if same_error(lambda m: train(m, *arguments), ours, theirs) is None:
        ours.zero_grad(), theirs.zero_grad()
        assert_same(train(ours, *arguments), train(theirs, *arguments), tolerance)


def test_a_weight_of_another_input_size(calls):
    ours, theirs = pair("GRU", 4, 6)
    ours.weight_ih_l0 = theirs.weight_ih_l0 = nn.Parameter(torch.randn(18, 3))
    found = same_error(lambda m: m(torch.randn(5, 3, 4)), ours, theirs)
    assert found == (RuntimeError, "mat1 and mat2 shapes cannot be multiplied (15x4 and 3x18)")
    assert not calls


def test_a_bias_that_is_broadcast(calls):
    ours, theirs = pair("GRU", 4, 6)
    for module in (ours, theirs):
        module.bias_hh_l0 = nn.Parameter(torch.ones(1))
    x = torch.randn(5, 3, 4)
    compare(ours, theirs, [], x)
    assert not calls


def test_a_weight_of_too_many_rows(calls):
    """Forward and backward, five times, of what once wrote beyond its memory; torch's LSTM takes the first rows."""
    ours, theirs = pair("LSTM", 4, 6)
    rows = torch.randn(2400, 6)
    for module in (ours, theirs):
        module.weight_hh_l0 = nn.Parameter(rows)
    x = torch.randn(5, 3, 4)
    for _ in range(5):
        assert_same(train(ours, x)[:1], train(theirs, x)[:1], 1e-5)
    assert not calls


SHAPES = {
    "weight_ih": [(18, 3), (18, 5), (6, 4), (19, 4), (1, 4), (4,), (18, 4, 1), (1, 18, 4), (), (4, 18), (36, 4)],
    "weight_hh": [(18, 5), (18, 7), (6, 6), (2400, 6), (6,), (1, 18, 6), (6, 18), ()],
    "bias_ih": [(1,), (), (6,), (1, 18), (3, 18), (19,), (0,), (18, 1), (36,)],
    "bias_hh": [(1,), (), (6,), (1, 18), (3, 18), (19,), (0,), (18, 1), (36,)],
}


@pytest.mark.parametrize("way", ["parameter", "data", "flat"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["GRU", "GRUCell", "two layers", "two directions"])
def test_no_wrong_shape_reaches_a_kernel(calls, kind, name, way):
    cell = kind == "GRUCell"
    options = {"two layers": {"num_layers": 2}, "two directions": {"bidirectional": True}}.get(kind, {})
    place = {"GRUCell": "", "two layers": "_l1", "two directions": "_l0_reverse"}.get(kind, "_l0")
    x = torch.randn(3, 6) if cell else torch.randn(5, 3, 6)
    for shape in SHAPES[name]:
        ours, theirs = pair("GRUCell" if cell else "GRU", 6, 6, **options)
        value, same = torch.randn([6 if n == 4 else n for n in shape]), getattr(ours, name + place).shape
        if value.shape == same:
            continue
        for module in (ours, theirs):
            if way == "data":
                getattr(module, name + place).data = value.clone()
            elif way == "parameter" or cell:
                setattr(module, name + place, nn.Parameter(value.clone()))
            else:
                module._flat_weights[module._flat_weights_names.index(name + place)] = value.clone()
        calls.clear()
        same_outcome(ours, theirs, x)
        assert not calls


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's, of its own speed
def test_wrong_projections(calls):
    for shape in [(3, 5), (2, 6), (4, 6), (3,), (6, 3), (3, 6, 1)]:
        ours, theirs = pair("LSTM", 4, 6, proj_size=3)
        for module in (ours, theirs):
            module.weight_hr_l0 = nn.Parameter(torch.randn(shape))
        assert same_error(lambda m: m(torch.randn(5, 3, 4)), ours, theirs) is not None
    assert not calls


@pytest.mark.parametrize(("kind", "G", "P"), [("GRU", 3, 3), ("LSTM", 4, 6)])
def test_projections_that_torch_does_not_have(calls, kind, G, P):
    """With weights that would do for a kernel: of a GRU, and as wide as the hidden state."""
    ours, theirs = pair(kind, 4, 6, dtype=torch.float64)
    shapes = [(6 * G, 4), (6 * G, P), (6 * G,), (6 * G,), (P, 6)]
    for module in (ours, theirs):
        module.proj_size = P
        module._flat_weights_names = [*module._flat_weights_names, "weight_hr_l0"]
        module._flat_weight_refs = [None] * 5
        module._flat_weights = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    x, h = torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(1, 3, P, dtype=torch.float64)
    for hx in (None, (h, h) if kind == "LSTM" else h):
        assert same_error(lambda m, hx=hx: m(x, hx), ours, theirs) is not None
    assert not calls


ATTRIBUTES = [
    ("input_size", 5), ("input_size", 4.0), ("input_size", [4]), ("hidden_size", 5), ("hidden_size", 6.0),
    ("hidden_size", None), ("hidden_size", 12), ("num_layers", 2), ("num_layers", 0), ("num_layers", True),
    ("bias", False), ("bias", 1), ("bidirectional", True), ("bidirectional", 0),
    ("batch_first", 1), ("dropout", None), ("dropout", 2), ("training", 1), ("proj_size", 3), ("proj_size", 6),
    ("proj_size", -1), ("proj_size", 7), ("mode", "RNN_RELU"), ("mode", "x"), ("mode", ["x"]), ("nonlinearity", "relu"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's, of its own speed
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize(("name", "value"), ATTRIBUTES, ids=lambda value: str(value))
def test_edited_attributes(kind, name, value):
    ours, theirs = pair(kind, 4, 6, dtype=torch.float64)
    x, h = torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(1, 3, 6, dtype=torch.float64)
    ours(x)
    for module in (ours, theirs):
        vars(module)[name] = value
    same_outcome(ours, theirs, x, tolerance=1e-12)
    same_outcome(ours, theirs, x, (h, h) if kind == "LSTM" else h, tolerance=1e-12)


def test_layers_without_end():
    ours, theirs = pair("GRU", 4, 6)
    ours.num_layers = theirs.num_layers = 10**12
    found = same_error(lambda m: m(torch.randn(5, 3, 4), torch.randn(1, 3, 6)), ours, theirs)
    assert found == (RuntimeError, "Expected hidden size (1000000000000, 3, 6), got [1, 3, 6]")


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("input_size", 5), ("hidden_size", 5), ("hidden_size", [6]), ("bias", False), ("nonlinearity", "relu"),
     ("nonlinearity", "x"), ("bias_ih", None), ("bias_hh", None)],
    ids=lambda value: str(value),
)  # fmt: skip
def test_edited_cells(kind, name, value):
    ours, theirs = pair(kind, 4, 6, dtype=torch.float64)
    for module in (ours, theirs):
        setattr(module, name, value)
    same_outcome(ours, theirs, torch.randn(3, 4, dtype=torch.float64), tolerance=1e-12)


def test_weights_that_are_no_parameters(calls):
    """What a program puts into `_flat_weights`, as modules with quantised weights do, is what counts."""
    ours, theirs = twins("gru")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    for module in (ours, theirs):
        module._flat_weights = [w.detach() * 0.5 for w in module._flat_weights]
    assert_same([ours(x)[0]], [theirs(x)[0]], 1e-12)
    assert calls == ["gru"]
    for module in (ours, theirs):
        replica = module._replicate_for_data_parallel()
        for name, value in module.named_parameters():
            setattr(replica, name, value * 2)
        replica._flat_weight_refs = [None] * 4
        module.replica = [replica]
    assert_same([ours.replica[0](x)[0]], [theirs.replica[0](x)[0]], 1e-12)
    assert len(calls) == 2


def test_a_parametrisation_is_computed_as_often_as_torch_does(calls):
    """Spectral norm's estimates move each time."""
    ours, theirs = twins("lstm")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    for module in (ours, theirs):
        torch.manual_seed(1)
        nn.utils.parametrizations.spectral_norm(module, "weight_hh_l0")
    for _ in range(2):
        compare(ours, theirs, [], x)
    assert calls


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_storages_that_are_freed_or_cut(kind, name):
    for size in (0, 8):
        ours, _ = pair(kind, 4, 6)
        weight = getattr(ours, name)
        weight.untyped_storage().resize_(size)
        shape = ", ".join(map(str, weight.shape)) + "," * (weight.dim() == 1)
        with pytest.raises(RuntimeError, match=CUT.format(shape, weight.nbytes, size)):
            ours(torch.randn(5, 3, 4))


def test_inputs_that_are_freed_or_cut():
    ours, _ = pair("LSTM", 4, 6)
    for k, shape in enumerate([(5, 3, 4), (1, 3, 6), (1, 3, 6)]):
        x, *hx = given = [torch.randn(5, 3, 4), torch.randn(1, 3, 6), torch.randn(1, 3, 6)]
        size = given[k].nbytes
        given[k].untyped_storage().resize_(size - 4)
        with pytest.raises(RuntimeError, match=CUT.format(", ".join(map(str, shape)), size, size - 4)):
            ours(x, tuple(hx))
    x = torch.randn(3, 5, 4).transpose(0, 1)
    x.untyped_storage().resize_(236)
    with pytest.raises(RuntimeError, match=CUT.format("5, 3, 4", 240, 236)):
        ours(x)
    base = torch.randn(2, 5, 3, 4)
    x = base[1]
    base.untyped_storage().resize_(240)  # as large as x, which begins at its end
    with pytest.raises(RuntimeError, match=CUT.format("5, 3, 4", 480, 240)):
        ours(x)
    packed = rnn.pack_padded_sequence(torch.randn(5, 3, 4), [2, 5, 4], enforce_sorted=False)
    h = torch.randn(1, 3, 6)
    h.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=CUT.format("1, 3, 6", 72, 0)):
        ours(packed, (h, h))
    packed = rnn.pack_padded_sequence(torch.randn(5, 3, 4), [2, 5, 4], enforce_sorted=False)
    packed.batch_sizes.untyped_storage().resize_(8)
    with pytest.raises(RuntimeError, match=CUT.format("5,", 40, 8)):
        ours(packed)


def test_a_cell_whose_weights_are_freed():
    ours, _ = pair("GRUCell", 4, 6)
    ours.weight_hh.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=CUT.format("18, 6", 432, 0)):
        ours(torch.randn(3, 4))


@kinds
def test_memory_that_kernels_have_seen_stays(kind):
    """Sharded training frees weights between the passes: torch says that it can't, where a pullback would read them."""
    ours, theirs = twins(kind)
    x = torch.randn(4, 3, I, dtype=torch.float64)
    y = ours(x)[0].sin().sum()
    for given in (x, *ours.parameters()):
        with pytest.raises(RuntimeError, match="Trying to resize storage that is not resizable"):
            given.untyped_storage().resize_(0)
    found = torch.autograd.grad(y, list(ours.parameters()))
    assert_same(found, torch.autograd.grad(theirs(x)[0].sin().sum(), list(theirs.parameters())), 1e-12)


@kinds
def test_weights_with_other_data_before_the_backward_pass(kind):
    """The memory of the forward pass is what a pullback reads, and nobody else gets it meanwhile."""
    ours, theirs = twins(kind)
    x = torch.randn(4, 3, I, dtype=torch.float64)
    expected = torch.autograd.grad(theirs(x)[0].sin().sum(), list(theirs.parameters()))
    y = ours(x)[0].sin().sum()
    for p in ours.parameters():
        p.data = torch.full_like(p, float("nan"))
    others = [torch.full_like(p, float("nan")) for p in ours.parameters()]
    assert_same(torch.autograd.grad(y, list(ours.parameters())), expected, 1e-12)
    assert len(others) == len(expected)


def test_tied_weights_and_states_that_are_one():
    ours, theirs = twins("lstm", sizes=(H, H))
    h = torch.randn(1, 3, H, dtype=torch.float64)
    for module in (ours, theirs):
        module.weight_hh_l0 = module.weight_ih_l0
    for _ in range(2):
        compare(ours, theirs, [], torch.randn(4, 3, H, dtype=torch.float64), (h, h))


def test_weights_that_fitted_once_are_looked_at_again(calls):
    """Whatever takes the place of weights that fitted is compared as they were."""
    ours, theirs = pair("GRU", 4, 6, bias=False)
    x, w = torch.randn(5, 3, 4), ours.weight_hh_l0.detach().clone()
    changes = [
        lambda: nn.Parameter(torch.randn(18, 5)), lambda: nn.Parameter(w.double()), lambda: nn.Parameter(w.T.clone().T),
        lambda: nn.Parameter(w.clone(), requires_grad=False), lambda: nn.Parameter(w[None].clone()),
        lambda: nn.Parameter(torch._neg_view(w.clone())), lambda: nn.Parameter(w.to_sparse()),
    ]  # fmt: skip
    for change in changes:
        for module in (ours, theirs):
            module.weight_hh_l0 = nn.Parameter(w.clone())
            module(x)
        assert calls.pop() == "gru"
        for module in (ours, theirs):
            module.weight_hh_l0 = change()
        found = same_error(lambda m: m(x), ours, theirs)
        if found is None:
            assert_same([ours(x)[0]], [theirs(x)[0]], 1e-5)
        calls.clear()


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
def test_weights_that_change_before_the_backward_pass(kind):
    """Other data: the gradients are those of the forward pass; another shape: torch's error."""
    ours, theirs = twins(kind)
    x = torch.randn(4, 3, I, dtype=torch.float64)

    def other(module, shape):
        module = copy.deepcopy(module)
        y = module(x)[0].sin().sum()
        module.weight_hh_l0.data = torch.ones(shape, dtype=torch.float64)
        y.backward()
        return [p.grad for p in module.parameters()]

    same = ours.weight_hh_l0.shape
    assert_same(other(ours, same), other(theirs, same), 1e-12)
    for shape in [(3, 5), (5,), (*same, 1)]:
        same_error(lambda m, shape=shape: other(m, shape), ours, theirs)

    def set_to(module):
        module = copy.deepcopy(module)
        y = module(x)[0].sum()
        with torch.no_grad():
            module.weight_hh_l0.set_(torch.ones(3, 5, dtype=torch.float64))
        y.backward()

    for module in (ours, theirs):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            set_to(module)


def test_saved_tensors_that_come_back_in_other_shapes():
    ours, _ = twins("lstm")
    x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
    for unpack in (lambda t: t[:1], lambda t: t.flatten(), lambda t: t.half(), lambda t: t.new_zeros(())):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), unpack):
            y = ours(x)[0].sum()
        with pytest.raises(
            RuntimeError, match=r"^saved tensors: expected the dtype, device and shapes that were saved, "
        ):
            y.backward()


def test_cotangents_of_every_layout():
    ours, theirs = twins("gru", bidirectional=True)
    x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
    odd = [
        torch.randn(2 * H, 3, 4, dtype=torch.float64).permute(2, 1, 0),
        torch.randn(1, 1, 1, dtype=torch.float64).expand(4, 3, 2 * H),
        torch.randn(8, 3, 4 * H, dtype=torch.float64)[::2, :, 1::2],
        torch.randn(4, 3, 2 * H, dtype=torch.complex128).conj().imag,
    ]
    for d in odd:
        results = [torch.autograd.grad(m(x)[0], [x, *m.parameters()], d) for m in (ours, theirs)]
        assert_same(*results, 1e-12)


def test_one_negated_number(calls):
    """The imaginary part of a conjugate is kept as what it is the negative of."""
    ours, theirs = twins("gru", sizes=(1, 3))
    x = torch.randn(1, 1, 1, dtype=torch.complex128).conj().imag
    assert x.is_neg() and x.is_contiguous()
    compare(ours, theirs, [], x)
    assert calls


@pytest.mark.parametrize("shape", [(5, 3), (1, 5), (), (0,)])
def test_batch_sizes_of_other_ranks(calls, shape):
    ours, theirs = pair("GRU", 4, 6)
    sizes = torch.ones(shape, dtype=torch.int64)
    wrong = rnn.PackedSequence(torch.randn(max(sizes.numel(), 1), 4), sizes)
    assert same_error(lambda m: m(wrong), ours, theirs) is not None or shape == (1, 5)
    assert not calls


def test_batch_sizes_of_other_dtypes(calls):
    ours, theirs = pair("GRU", 4, 6)
    for dtype in (torch.int32, torch.float64, torch.int16):
        wrong = rnn.PackedSequence(torch.randn(5, 4), torch.tensor([5, 0], dtype=dtype))
        assert same_error(lambda m, wrong=wrong: m(wrong), ours, theirs) is not None
    assert not calls


def test_batch_sizes_with_gaps_between_them():
    """torch reads what lies between."""
    ours, theirs = pair("GRU", 4, 6)
    x, sizes = torch.randn(6, 4), torch.tensor([3, 2, 1])
    expected = theirs(rnn.PackedSequence(x, sizes))[0].data
    got = ours(rnn.PackedSequence(x, torch.stack([sizes, sizes * 9], 1)[:, 0]))[0].data
    assert_same([got], [expected], 1e-5)


def test_indices_of_another_length(calls):
    ours, theirs = pair("GRU", 4, 6)
    h = torch.randn(1, 3, 6)
    data, sizes, order, back = rnn.pack_padded_sequence(torch.randn(5, 3, 4), [2, 5, 4], enforce_sorted=False)
    for wrong in (order[:2], order.repeat(2), order[:0], order.float(), order[:, None], order + 7):
        sequence = rnn.PackedSequence(data, sizes, wrong, back)
        assert same_error(lambda m, sequence=sequence: m(sequence, h), ours, theirs) is not None
    assert not calls


def test_lengths_of_padding():
    ours, theirs = pair("GRU", 4, 6)
    given = rnn.pack_padded_sequence(torch.randn(5, 3, 4), [5, 4, 2])
    y, plain = ours(given)[0], theirs(given)[0]
    pad = torch._VF._pad_packed_sequence
    for arguments in [(False, 0.0, -1), (False, 0.0, 0), (True, 0.0, 4), (True, 0.0, 6), (0, 0.0, 5), (True, "0", 5),
                      (True, 1e300, 5), (True, 0.0, 5.0), (True, 0.0), (True, 0.5, -(1 << 62))]:  # fmt: skip
        found = same_error(lambda s, given=arguments: pad(s.data, s.batch_sizes, *given), y, plain)
        if found is None:
            got, expected = (pad(s.data, s.batch_sizes, *arguments) for s in (y, plain))
            assert_same(got, expected, 1e-5)
    y.data.untyped_storage()
    data = y.data.detach().clone()
    data.untyped_storage().resize_(8)
    with pytest.raises(RuntimeError, match=CUT.format("11, 6", 264, 8)):
        rnn.pad_packed_sequence(rnn.PackedSequence(data, y.batch_sizes))


def edge(fenced, tensor, at_end):
    """A copy whose memory ends, or begins, where readable memory does."""
    own = fenced(tensor.numel(), str(tensor.dtype).removeprefix("torch."), at_end)
    own[:] = tensor.detach().reshape(-1).numpy()
    return torch.from_numpy(own).view(tensor.shape)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's, of its own speed
@dtypes
@kinds
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 6), (I, H)], ids=str)
def test_memory_beyond_is_not_touched(fenced, kind, dtype, at_end, sizes):
    if kind == "lstm_projected" and sizes[1] < 6:
        sizes = (1, 6)
    ours, theirs = twins(kind, dtype, sizes, num_layers=2, bidirectional=True)
    for name, p in list(ours.named_parameters()):
        setattr(ours, name, nn.Parameter(edge(fenced, p, at_end)))
    x = edge(fenced, torch.randn(4, 3, sizes[0], dtype=dtype), at_end).requires_grad_()
    compare(ours, theirs, [x], x)
    packed = rnn.pack_padded_sequence(x, [4, 3, 1])
    packed = rnn.PackedSequence(edge(fenced, packed.data, at_end), edge(fenced, packed.batch_sizes, at_end))
    compare(ours, theirs, [], packed)


@dtypes
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_memory_beyond_misfits_is_not_touched(fenced, kind, dtype, at_end):
    """oneDNN, which runs torch's LSTM, reads beyond the end of weights that are too small: it is left out there."""
    G = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    x = edge(fenced, torch.randn(5, 3, 4, dtype=dtype), at_end)
    wrong = {
        "weight_ih_l0": [(6 * G, 3), (2, 4), (4,), ()],
        "weight_hh_l0": [(6 * G, 5), (1, 6), (6,)],
        "bias_hh_l0": [(1,), (), (2,), (1, 6 * G)],
        "bias_ih_l0": [(1,), (2,)],
    }
    for name, shapes in wrong.items():
        for shape in shapes:
            ours, theirs = pair(kind, 4, 6, dtype=dtype)
            value = edge(fenced, torch.randn(shape, dtype=dtype), at_end)
            for module in (ours, theirs):
                setattr(module, name, nn.Parameter(value))
            if name.startswith("weight"):
                with pytest.raises(RuntimeError, match=r"must match the existing|cannot be multiplied|matrix|1D"):
                    ours(x)
            else:
                same_outcome(ours, theirs, x, tolerance=1e-5)


def test_onednn_is_used_again_after_a_misfit():
    ours, _ = pair("LSTM", 4, 6)
    ours.weight_ih_l0 = nn.Parameter(torch.randn(2, 4))
    assert torch._C._get_mkldnn_enabled()
    with pytest.raises(RuntimeError):
        ours(torch.randn(5, 3, 4))
    assert torch._C._get_mkldnn_enabled()
