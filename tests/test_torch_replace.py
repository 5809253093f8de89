"""accelerate and restore: what changes class, what is left and why, and that nothing else of a model changes."""

import copy

import pytest
from oracles import import_torch

torch = import_torch()
nn = torch.nn

import fastrnn.torch as fast  # noqa: E402
from fastrnn.torch import accelerate, restore  # noqa: E402


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
TOKENS = torch.arange(12).reshape(4, 3) % 11


def test_a_model_and_back():
    model = Tagger().double()
    before = {name: (id(module), type(module)) for name, module in model.named_modules()}
    state, expected = {name: id(p) for name, p in model.named_parameters()}, model(TOKENS)
    text = repr(model)
    report = accelerate(model)
    assert report == (NAMES, {})
    assert str(report) == "replaced 4: rnns.0, rnns.1.0, lstm, cell"
    for name, module in model.named_modules():
        identity, kind = before[name]
        assert id(module) == identity
        assert type(module) is (getattr(fast, kind.__name__) if name in NAMES else kind)
    assert {name: id(p) for name, p in model.named_parameters()} == state
    assert repr(model) == text
    torch.testing.assert_close(model(TOKENS), expected)
    assert accelerate(model) == ((), {})
    assert str(accelerate(model)) == "replaced 0: nothing"
    assert restore(model) == NAMES
    assert {name: (id(module), type(module)) for name, module in model.named_modules()} == before
    assert torch.equal(model(TOKENS), expected)
    assert restore(model) == ()


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_a_module_by_itself(name):
    module = getattr(nn, name)(3, 4)
    assert accelerate(module).replaced == (name,)
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
            accelerate(quick)
        for model, optimizer in zip((slow, quick), optimizers, strict=True):
            optimizer.zero_grad()
            model(TOKENS).square().sum().backward()
            optimizer.step()
    assert not torch.equal(slow.cell.weight_hh, Tagger().double().cell.weight_hh)
    for a, b in zip(slow.parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_what_is_left_and_why():
    class Own(nn.GRU):
        pass

    model = nn.ModuleDict(
        {
            "own": Own(3, 4),
            "bfloat": nn.LSTM(3, 4, dtype=torch.bfloat16),
            "meta": nn.RNN(3, 4, device="meta"),
            "script": torch.jit.script(nn.LSTM(3, 4)),
            "good": nn.GRU(3, 4),
        }
    )
    report = accelerate(model)
    assert str(report).splitlines() == [
        "replaced 1: good",
        "left own: Own is a class of its own",
        "left bfloat: of dtype torch.bfloat16, expected torch.float32 or torch.float64",
        "left meta: on device meta, expected cpu",
        "left script: a ScriptModule, whose code is fixed",
    ]
    assert [type(m) for m in model.values()][:3] == [Own, nn.LSTM, nn.RNN]


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
