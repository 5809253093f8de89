"""accelerate and restore: what changes class, what is left and why, and that nothing else of a model changes."""

import abc
import copy
import functools
import pickle
import threading

import pytest
from oracles import import_torch
from torch_twins import leaves

torch = import_torch()
nn = torch.nn

import fastrnn.torch as fast  # noqa: E402
from fastrnn.torch import accelerate, function, install, restore  # noqa: E402


class Tagger(nn.Module):
    """A model with recurrent modules at several depths, one of them twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnns = nn.ModuleList([nn.GRU(6, 6), nn.Sequential(nn.RNN(6, 6, nonlinearity="relu"))])
        self.again = self.rnns[0]
        self.lstm = nn.LSTM(6, 5, proj_size=3, bidirectional=True)
        self.cell = nn.LSTMCell(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, tokens):
        x, _ = self.again(self.rnns[1](self.rnns[0](self.embedding(tokens))[0])[0])
        return self.head(self.cell(self.lstm(x)[0][-1])[0])


NAMES = ("rnns.0", "rnns.1.0", "lstm", "cell")
LEFT = "a single step, in which torch is as fast: cells=True replaces it all the same"
TOKENS = torch.arange(12).reshape(4, 3) % 11


def test_a_model_and_back():
    model = Tagger().double()
    before = {name: (id(module), type(module)) for name, module in model.named_modules()}
    state, expected = {name: id(p) for name, p in model.named_parameters()}, model(TOKENS)
    text = repr(model)
    report = accelerate(model, cells=True)
    assert report == (NAMES, {})
    assert str(report) == "replaced 4: rnns.0, rnns.1.0, lstm, cell"
    for name, module in model.named_modules():
        identity, kind = before[name]
        assert id(module) == identity
        assert type(module) is (getattr(fast, kind.__name__) if name in NAMES else kind)
    assert {name: id(p) for name, p in model.named_parameters()} == state
    assert repr(model) == text
    torch.testing.assert_close(model(TOKENS), expected)
    assert accelerate(model, cells=True) == ((), {})
    assert str(accelerate(model)) == "replaced 0: nothing"
    assert restore(model) == NAMES
    assert {name: (id(module), type(module)) for name, module in model.named_modules()} == before
    assert torch.equal(model(TOKENS), expected)
    assert restore(model) == ()


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_a_module_by_itself(name):
    module = getattr(nn, name)(3, 4)
    if name.endswith("Cell"):
        assert accelerate(module) == ((), {name: LEFT})
        assert type(module) is getattr(nn, name)
    assert accelerate(module, cells=True).replaced == (name,)
    assert type(module) is getattr(fast, name)
    assert restore(module) == (name,)
    assert type(module) is getattr(nn, name)


def test_a_running_optimiser_goes_on():
    torch.manual_seed(0)
    slow = Tagger().double()
    quick = copy.deepcopy(slow)
    optimizers = [torch.optim.Adam(m.parameters(), 0.01) for m in (slow, quick)]
    for step in range(4):
        if step == 2:
            accelerate(quick, cells=True)
        for model, optimizer in zip((slow, quick), optimizers, strict=True):
            optimizer.zero_grad()
            model(TOKENS).square().sum().backward()
            optimizer.step()
    assert not torch.equal(slow.cell.weight_hh, Tagger().double().cell.weight_hh)
    for a, b in zip(slow.parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_what_is_left_and_why():
    model = nn.ModuleDict(
        {
            "bfloat": nn.LSTM(3, 4, dtype=torch.bfloat16),
            "meta": nn.RNN(3, 4, device="meta"),
            "script": torch.jit.script(nn.LSTM(3, 4)),
            "good": nn.GRU(3, 4),
        }
    )
    report = accelerate(model)
    assert str(report).splitlines() == [
        "replaced 1: good",
        "left bfloat: of dtype torch.bfloat16, expected torch.float32 or torch.float64",
        "left meta: on device meta, expected cpu",
        "left script: a ScriptModule, whose code is fixed",
    ]
    assert [type(m) for m in model.values()][:2] == [nn.LSTM, nn.RNN]


HIDDEN = "a forward of its own hides its class's: accelerate the model before it gets one"


def test_a_module_with_a_forward_of_its_own():
    """As hooks and wrappers of other libraries give one; set on a fast module they run kernels."""

    def hooked(module):
        def forward(module, *arguments):
            return module.theirs(*arguments)

        module.theirs = module.forward
        module.forward = functools.partial(forward, module)

    model = nn.ModuleDict({"late": nn.GRU(3, 4), "early": nn.GRU(3, 4), "cell": nn.LSTMCell(3, 4)})
    x = torch.randn(5, 2, 3)
    accelerate(model["early"])
    expected = model["early"](x)
    for module in model.values():
        hooked(module)
    report = accelerate(model, cells=True)
    assert report == ((), {"late": HIDDEN, "cell": HIDDEN})
    assert str(report).splitlines() == ["replaced 0: nothing", f"left late: {HIDDEN}", f"left cell: {HIDDEN}"]
    assert type(model["late"]) is nn.GRU
    assert all(torch.equal(a, b) for a, b in zip(model["early"](x), expected, strict=True))
    assert restore(model) == ("early",)
    for a, b in zip(model["early"](x), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_class_whose_forward_is_not_torchs(monkeypatch):
    theirs = nn.GRU.forward

    @functools.wraps(theirs)
    def forward(self, *arguments):
        return theirs(self, *arguments)

    class Own(nn.GRU):
        pass

    monkeypatch.setattr(nn.GRU, "forward", forward)
    reason = "torch.nn.GRU.forward is not torch's: something has replaced it"
    report = accelerate(nn.ModuleList([nn.GRU(3, 4), nn.RNN(3, 4), Own(3, 4)]))
    assert report == (("1",), {"0": reason, "2": reason})
    monkeypatch.setattr(nn.GRU, "forward", theirs)
    assert accelerate(Own(3, 4)).replaced == ("Own",)


def test_other_types_of_parameters():
    class Quantised(nn.Parameter):
        pass

    module = nn.GRU(3, 4)
    module.weight_hh_l0 = Quantised(module.weight_hh_l0.data)
    assert accelerate(module) == ((), {"GRU": "of type Quantised, expected Parameter"})


class Forgetful(nn.LSTM):
    """Derived for its initial values alone."""

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.ones_(self.bias_ih_l0)


class Last(abc.ABC, nn.GRU):
    """With a forward around torch's, and a metaclass."""

    def forward(self, x, hx=None):
        return super().forward(x, hx)[0][-1]


class Plain(nn.RNN):
    """With a forward that has nothing of torch's."""

    def forward(self, x, hx=None):
        return x @ self.weight_ih_l0.T


@pytest.mark.parametrize(("Own", "kernels"), [(Forgetful, 1), (Last, 1), (Plain, 0)])
def test_derived_classes(Own, kernels, monkeypatch):
    calls, run = [], function._forward
    monkeypatch.setattr(function, "_forward", lambda *given, **options: calls.append(1) or run(*given, **options))
    module, x = Own(3, 4), torch.randn(5, 2, 3)
    expected = module(x)
    assert not calls
    assert accelerate(module).replaced == (Own.__name__,)
    assert isinstance(module, Own)
    assert type(module).__name__ == Own.__name__
    torch.testing.assert_close(module(x), expected)
    assert len(calls) == kernels
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is type(module)
        torch.testing.assert_close(other(x), expected, rtol=1e-5, atol=1e-6)
    assert accelerate(module) == ((), {})
    assert accelerate(Own(3, 4)).replaced == (Own.__name__,)
    assert restore(module) == (Own.__name__,)
    assert type(module) is Own
    assert all(torch.equal(a, b) for a, b in zip(leaves(module(x)), leaves(expected), strict=True))


def test_classes_derived_from_fast_ones_are_fast_already():
    class Own(fast.GRU):
        pass

    module = Own(3, 4)
    assert accelerate(module) == ((), {})
    assert restore(module) == ()
    assert type(module) is Own


def test_graphs_of_fx():
    """A fast module is a leaf of the graph, as torch's own is."""
    slow = nn.ModuleDict({"rnn": nn.GRU(3, 4, batch_first=True), "cell": nn.LSTMCell(4, 5)})

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = copy.deepcopy(slow)

        def forward(self, x, h):
            y, h = self.parts["rnn"](x, h)
            return self.parts["cell"](y[:, -1])[0] + h.sum()

    model, x, h = Model(), torch.randn(2, 5, 3), torch.randn(1, 2, 4)
    expected = model(x, h)
    before = torch.fx.symbolic_trace(model)
    accelerate(model, cells=True)
    after = torch.fx.symbolic_trace(model)
    assert [str(node) for node in after.graph.nodes] == [str(node) for node in before.graph.nodes]
    assert type(after.get_submodule("parts.rnn")) is fast.GRU
    torch.testing.assert_close(after(x, h), expected)


@pytest.mark.parametrize("function", [accelerate, restore])
def test_a_model_is_a_module(function):
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        function([nn.GRU(3, 4)])


def test_parametrised_modules():
    slow = nn.GRU(3, 4)
    nn.utils.parametrizations.weight_norm(slow, "weight_hh_l0")
    x, quick = torch.randn(5, 2, 3), copy.deepcopy(slow)
    expected = slow(x)[0]
    assert accelerate(quick).replaced == ("ParametrizedGRU",)
    assert isinstance(quick, fast.GRU)
    assert not isinstance(slow, fast.GRU), "a copy shares its class with what it was copied from"
    assert accelerate(quick) == ((), {})
    torch.testing.assert_close(quick(x)[0], expected)
    quick(x)[0].sum().backward()
    assert quick.parametrizations.weight_hh_l0.original0.grad is not None
    nn.utils.parametrize.remove_parametrizations(quick, "weight_hh_l0")
    assert type(quick) is fast.GRU
    torch.testing.assert_close(quick(x)[0], expected)
    accelerate(slow)
    assert restore(slow) == ("GRU",)
    assert not isinstance(slow, fast.GRU)
    torch.testing.assert_close(slow(x)[0], expected)


def kinds(model):
    return {name: (id(module), type(module)) for name, module in model.named_modules()}


def test_restored_for_a_block():
    model = Tagger().double()
    nn.utils.parametrizations.weight_norm(model.lstm, "weight_hr_l0")
    slow = kinds(model)
    accelerate(model, cells=True)
    restore(model.rnns[1])
    before, y = {name: isinstance(m, fast.modules._Fast) for name, m in model.named_modules()}, model(TOKENS)
    names = tuple(name for name in NAMES if name != "rnns.1.0")
    restored = restore(model)
    for _ in range(2):
        with restored as found:
            assert found is restored == names
            assert {n: v for n, v in kinds(model).items() if n != "lstm"} == {
                n: v for n, v in slow.items() if n != "lstm"
            }
            assert not isinstance(model.lstm, fast.LSTM)
            torch.testing.assert_close(model(TOKENS), y)
            with restore(model) as inner:
                assert inner == ()
            assert type(model.cell) is nn.LSTMCell
        assert {name: isinstance(m, fast.modules._Fast) for name, m in model.named_modules()} == before
    assert torch.equal(model(TOKENS), y)
    with pytest.raises(ZeroDivisionError), restore(model):
        raise ZeroDivisionError
    assert type(model.cell) is fast.LSTMCell


def test_what_changes_within_a_block_stays():
    model = nn.Sequential(nn.GRU(3, 4), nn.GRU(4, 5), nn.GRU(5, 6))
    accelerate(model)
    Own = type("Own", (nn.GRU,), {})
    gone, other = model[1], nn.GRU(4, 5)
    with restore(model):
        model[1] = other
        model[0].__class__ = Own
        accelerate(model[2])
    assert [type(m) for m in (*model, gone)] == [Own, nn.GRU, fast.GRU, fast.GRU]


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it calls deprecated
def test_tools_that_ask_for_torchs_exact_classes(tmp_path):
    model, x = nn.Sequential(nn.LSTM(3, 4)), torch.randn(5, 2, 3)
    accelerate(model)
    y = model(x)[0]
    with restore(model):
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM}, torch.qint8)
        torch.save(model, tmp_path / "model.pt")
    assert type(quantised[0]) is torch.ao.nn.quantized.dynamic.LSTM
    assert b"fastrnn" not in (tmp_path / "model.pt").read_bytes()
    torch.testing.assert_close(torch.load(tmp_path / "model.pt", weights_only=False)(x)[0], y)
    assert torch.equal(model(x)[0], y)


class Late(nn.GRU):
    """With parameters of its own, made after torch's."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_parameter("gain", nn.Parameter(torch.ones(())))
        self.inner = nn.LSTMCell(3, 3)


def test_new_modules():
    Rnn = nn.RNN  # known before, as by `from torch.nn import RNN`
    slow = nn.GRU(3, 4)
    pickled = pickle.dumps(slow)
    with install() as installed:
        model = nn.ModuleList([Rnn(3, 4), nn.GRU(3, 4, device="meta"), nn.LSTM(3, 4, proj_size=2), Late(3, 4)])
        assert [type(m) for m in model] == [fast.RNN, fast.GRU, fast.LSTM, fast.modules.fast_class(Late)]
        assert isinstance(model[3], Late)
        assert [type(m) for m in (model[3].inner, nn.GRUCell(3, 4))] == [nn.LSTMCell, nn.GRUCell]
        assert [type(m) for m in (copy.deepcopy(slow), pickle.loads(pickled))] == [nn.GRU, nn.GRU]
        slow.weight_ih_l0 = nn.Parameter(torch.zeros(12, 3))
        slow.load_state_dict({k: v.clone() for k, v in slow.state_dict().items()}, assign=True)
        assert type(slow) is nn.GRU
        assert [type(m) for m in (fast.GRU(3, 4), nn.Linear(3, 4))] == [fast.GRU, nn.Linear]
    assert [type(m) for m in (nn.RNN(3, 4), nn.GRU(3, 4), nn.LSTM(3, 4), Late(3, 4))] == [nn.RNN, nn.GRU, nn.LSTM, Late]
    assert type(copy.deepcopy(model)[3]) is type(model[3])
    installed.remove()
    torch.manual_seed(0)
    x, expected = torch.randn(5, 2, 3), nn.LSTM(3, 4)
    with install():
        torch.manual_seed(0)
        x, module = torch.randn(5, 2, 3), nn.LSTM(3, 4)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), expected.parameters(), strict=True))
    torch.testing.assert_close(module(x), expected(x))


def test_installed_more_than_once():
    """And undone in any order; single cells where one of them asks for these."""
    first, second = install(), install(cells=True)
    assert [type(m) for m in (nn.GRU(3, 4), nn.GRUCell(3, 4))] == [fast.GRU, fast.GRUCell]
    second.remove()
    second.remove()
    assert [type(m) for m in (nn.GRU(3, 4), nn.GRUCell(3, 4))] == [fast.GRU, nn.GRUCell]
    with pytest.raises(ZeroDivisionError), install(cells=True):
        first.remove()
        assert type(nn.RNNCell(3, 4)) is fast.RNNCell
        raise ZeroDivisionError
    assert [type(m) for m in (nn.GRU(3, 4), nn.GRUCell(3, 4))] == [nn.GRU, nn.GRUCell]


def test_other_threads_make_modules_meanwhile():
    running, failed = threading.Event(), []

    def work():
        try:
            while not running.is_set():
                assert type(nn.GRU(3, 4)) in (nn.GRU, fast.GRU)
        except Exception as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(200):
            with install():
                assert type(nn.GRU(3, 4)) is fast.GRU
            assert type(nn.GRU(3, 4)) is nn.GRU
    finally:
        running.set()
        for worker in workers:
            worker.join()
    assert not failed
