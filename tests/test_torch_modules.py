"""fastrnn.torch's modules against torch.nn's: values, gradients, every kind of input, and errors in the same words."""

import copy
import io
import pickle
import warnings

import pytest
from torch_twins import (
    KINDS,
    H,
    I,
    assert_same,
    compare,
    dtypes,
    initial,
    kinds,
    leaves,
    nn,
    rnn,
    same_error,
    torch,
    twins,
)

import fastrnn.torch as fast
from fastrnn.torch import function


@pytest.fixture
def calls(monkeypatch):
    """One entry for each layer that a kernel has run."""
    found, run = [], function._forward

    def count(*arguments, **options):
        found.append(arguments[0].kind.name)
        return run(*arguments, **options)

    monkeypatch.setattr(function, "_forward", count)
    return found


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's, of its own speed
@dtypes
@kinds
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"batch_first": True},
        {"bidirectional": True},
        {"num_layers": 3, "bidirectional": True, "batch_first": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_values_and_gradients(calls, kind, dtype, options):
    ours, theirs = twins(kind, dtype, **options)
    x = torch.randn(5, 7, I, dtype=dtype, requires_grad=True)
    hx = initial(ours, 5 if ours.batch_first else 7)
    compare(ours, theirs, [x], x)
    compare(ours, theirs, [x, *leaves(hx)], x, hx)
    assert len(calls) == 2 * ours.num_layers


@kinds
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_sequence_alone(calls, kind, batch_first):
    ours, theirs = twins(kind, batch_first=batch_first, num_layers=2, bidirectional=True)
    x, hx = torch.randn(6, I, dtype=torch.float64, requires_grad=True), initial(ours, 1, batched=False)
    compare(ours, theirs, [x], x)
    compare(ours, theirs, [x, *leaves(hx)], x, hx)
    assert calls


@kinds
@pytest.mark.parametrize("ordered", [False, True], ids=["unsorted", "sorted"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences(calls, kind, ordered, bidirectional):
    ours, theirs = twins(kind, num_layers=2, bidirectional=bidirectional, batch_first=True)
    lengths = [5, 4, 4, 1] if ordered else [4, 1, 5, 4]
    x = torch.randn(4, 5, I, dtype=torch.float64, requires_grad=True)
    hx = initial(ours, 4)
    packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered)
    for arguments in [(packed,), (packed, hx)]:
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered)
        arguments = (packed, *arguments[1:])
        y, _ = ours(*arguments)
        expected, _ = theirs(*arguments)
        assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(y[1:], expected[1:], strict=True))
        compare(ours, theirs, [x, *leaves(arguments[1:])], *arguments)
    assert calls


def test_batch_sizes_that_do_not_fit_are_left_to_torch(calls):
    ours, theirs = twins("gru")
    x = torch.randn(6, I, dtype=torch.float64)
    for sizes in ([3, 2], [3, 4], [2, 4], [6, 0]):
        wrong = rnn.PackedSequence(x, torch.tensor(sizes))
        same_error(lambda m, wrong=wrong: m(wrong), ours, theirs)
    assert not calls


@dtypes
@pytest.mark.parametrize("kind", [kind for kind, cell in KINDS.items() if not cell.projected])  # torch has no such cell
@pytest.mark.parametrize("shape", [(I,), (4, I)], ids=["alone", "batch"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(calls, kind, dtype, shape, bias):
    ours, theirs = twins(kind, dtype, cell=True, bias=bias)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    states = [torch.randn(*shape[:-1], H, dtype=dtype, requires_grad=True) for _ in range(2)]
    hx, inputs = (tuple(states), states) if kind == "lstm" else (states[0], states[:1])
    compare(ours, theirs, [x], x)
    compare(ours, theirs, [x, *inputs], x, hx)
    assert len(calls) == 2


def test_dropout_draws_what_torch_draws():
    """The mask comes from torch's generator, in torch's order."""
    ours, theirs = twins("gru", num_layers=3, dropout=0.4)
    x = torch.randn(5, 7, I, dtype=torch.float64)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(1)
        results.append((module(x)[0], torch.rand(())))
    assert_same(results[0], results[1], 1e-12)
    assert not torch.equal(ours(x)[0], ours(x)[0])
    assert torch.equal(ours.eval()(x)[0], ours(x)[0])
    assert_same([ours(x)[0]], [theirs.eval()(x)[0]], 1e-12)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(calls, context):
    ours, theirs = twins("lstm")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    with context():
        y, state = ours(x)
        expected, _ = theirs(x)
    assert len(calls) == 1
    assert not y.requires_grad and y.is_inference() == expected.is_inference()
    assert_same([y], [expected], 1e-12)
    assert len(state) == 2


@kinds
def test_wrong_input_is_refused_in_torchs_words(kind):
    ours, theirs = twins(kind, num_layers=2)
    good, state = torch.randn(4, 3, I, dtype=torch.float64), initial(ours, 3)
    pair = len(KINDS[kind].kind.states) == 2

    def bad(h):
        return (h, h) if pair else h

    wrong = [
        (torch.randn(0, 3, I, dtype=torch.float64),),
        (torch.randn(4, 3, I + 1, dtype=torch.float64),),
        (torch.randn(4, dtype=torch.float64),),
        (torch.randn(1, 4, 3, I, dtype=torch.float64),),
        (good.float(),),
        (good.long(),),
        (good.numpy(),),
        (None,),
        (good, bad(torch.zeros(2, 3, H + 1, dtype=torch.float64))),
        (good, bad(torch.zeros(2, 4, H, dtype=torch.float64))),
        (good, bad(torch.zeros(2, H, dtype=torch.float64))),
        (good, bad(torch.zeros(2, 3, H))),
        (good, "state"),
        (good[:, 0], state),
    ]
    for arguments in wrong:
        assert same_error(lambda m, given=arguments: m(*given), ours, theirs) is not None, arguments
    empty = torch.randn(4, 0, I, dtype=torch.float64)
    if same_error(lambda m: m(empty), ours, theirs) is None:
        assert ours(empty)[0].shape == theirs(empty)[0].shape


@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm"])
def test_wrong_input_of_cells(kind):
    ours, theirs = twins(kind, cell=True)
    good = torch.randn(3, I, dtype=torch.float64)

    def bad(h):
        return (h, h) if kind == "lstm" else h

    wrong = [
        (torch.randn(3, I + 1, dtype=torch.float64),),
        (torch.randn(2, 3, I, dtype=torch.float64),),
        (good.float(),),
        (good, bad(torch.zeros(2, H, dtype=torch.float64))),
        (good, bad(torch.zeros(3, H - 1, dtype=torch.float64))),
        (good, bad(torch.zeros(1, 3, H, dtype=torch.float64))),
        (None,),
    ]
    for arguments in wrong:
        assert same_error(lambda m, given=arguments: m(*given), ours, theirs) is not None, arguments
    same_error(lambda m: m(torch.empty(0, I, dtype=torch.float64)), ours, theirs)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_constructors(name):
    Ours, Theirs = getattr(fast, name), getattr(nn, name)
    for sizes in ((3, 0), (3, 3, 0), (3.0, 3), (3,)):
        assert same_error(lambda C, sizes=sizes: C(*sizes), Ours, Theirs) is not None
    same_error(lambda C: C(0, 3), Ours, Theirs)  # an error in some versions of torch only
    for options in ({"dropout": 2}, {"proj_size": 3}, {"nonlinearity": "sigmoid"}, {"bias": 1}, {"size": 1}):
        same_error(lambda C, options=options: C(3, 3, **options), Ours, Theirs)
    torch.manual_seed(0)
    ours = Ours(3, 4, 2, bidirectional=True, bias=False, dropout=0.5, dtype=torch.float64, device="cpu")
    torch.manual_seed(0)
    theirs = Theirs(3, 4, 2, bidirectional=True, bias=False, dropout=0.5, dtype=torch.float64, device="cpu")
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, Theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert ours.flatten_parameters() is None
    ours.reset_parameters()
    assert not torch.equal(ours.weight_ih_l0, theirs.weight_ih_l0)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_copies(calls, name):
    module = getattr(fast, name)(I, H)
    x = torch.randn(2, I)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    expected = leaves(module(x))
    for other in copies:
        assert type(other) is type(module)
        assert all(p is not q for p, q in zip(other.parameters(), module.parameters(), strict=True))
        calls.clear()
        assert all(torch.equal(a, b) for a, b in zip(leaves(other(x)), expected, strict=True))
        assert calls
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    getattr(nn, name)(I, H).load_state_dict(torch.load(file, weights_only=True))


def test_weights_that_are_computed(calls):
    ours, theirs = twins("lstm")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    for module in (ours, theirs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(module, "weight_hh_l0")
        nn.utils.parametrizations.weight_norm(module, "weight_ih_l0")
        module(x)
        with torch.no_grad():
            module.weight_hh_l0_g.mul_(2)
    compare(ours, theirs, [], x)
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_run_torchs_code(calls, dtype):
    ours, theirs = (m.to(dtype) for m in twins("lstm"))
    x = torch.randn(4, 3, I, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if same_error(lambda m: m(x), ours, theirs) is None:
            assert torch.equal(ours(x)[0], theirs(x)[0])
    assert not calls
    ours.float()
    ours(x.float())
    assert calls == ["lstm"]


def test_other_devices_and_subclasses_run_torchs_code(calls):
    class Own(torch.Tensor):
        pass

    meta = fast.GRU(I, H, device="meta")
    assert meta(torch.empty(4, 3, I, device="meta"))[0].device.type == "meta"
    ours, _ = twins("gru")
    assert type(ours(torch.randn(4, 3, I, dtype=torch.float64).as_subclass(Own))[0]) is Own
    assert not calls


def test_autocast_runs_torchs_code(calls):
    ours, theirs = twins("lstm", torch.float32)
    x = torch.randn(4, 3, I)
    with torch.autocast("cpu", torch.bfloat16):
        a, b = ours(x)[0], theirs(x)[0]
    assert a.dtype == b.dtype and torch.equal(a, b)
    assert not calls


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # by vmap itself
def test_function_transforms_run_torchs_code(calls):
    ours, theirs = twins("gru")
    x = torch.randn(2, 4, 3, I, dtype=torch.float64)
    results = []
    for module in (ours, theirs):
        own = dict(module.named_parameters())

        def loss(own, x, module=module):
            return torch.func.functional_call(module, own, (x,))[0].square().sum()

        results.append([*torch.func.grad(loss)(own, x[0]).values()])
    assert_same(*results, 1e-12)
    same_error(lambda m: torch.func.vmap(lambda x: m(x)[0])(x), ours, theirs)
    assert not calls
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], torch.ones_like(x[0]))
        assert torch.autograd.forward_ad.unpack_dual(ours(dual)[0]).tangent is not None


@pytest.mark.filterwarnings("ignore")
def test_tracing_and_scripting(calls):
    ours, theirs = twins("gru")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    traced = torch.jit.trace(ours, (x,))
    scripted = torch.jit.script(nn.Sequential(ours))
    calls.clear()
    expected = theirs(x)[0]
    assert_same([traced(x)[0], scripted(x)[0]], [expected, expected], 1e-12)
    assert not calls
    assert type(ours) is fast.GRU


@pytest.mark.filterwarnings("ignore")
def test_compiling():
    ours, theirs = twins("lstm")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    for dynamo in ("eager", "aot_eager"):
        torch._dynamo.reset()
        compiled = torch.compile(nn.Sequential(ours), backend=dynamo)
        assert_same([compiled(x)[0]], [theirs(x)[0]], 1e-12)
