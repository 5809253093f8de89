"""TorchScript, export and compilation of models with fast modules: torch's code, while the model itself stays fast."""

import copy
import io
import threading

import pytest
from torch_twins import leaves, nn, rnn, torch

import fastrnn.torch as fast
from fastrnn.torch import accelerate, function

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning",
    "ignore:.*torch.jit:FutureWarning",
    "ignore::torch.jit.TracerWarning",
)


@pytest.fixture
def calls(monkeypatch):
    """One entry for each layer that a kernel has run."""
    found, run = [], function._forward
    monkeypatch.setattr(function, "_forward", lambda *given, **options: found.append(1) or run(*given, **options))
    return found


class Tagger(nn.Module):
    """Recurrent modules in containers, one of them twice, one of them a cell."""

    def __init__(self):
        super().__init__()
        self.stack = nn.ModuleList([nn.GRU(6, 6), nn.GRU(6, 6, bidirectional=True)])
        self.parts = nn.ModuleDict({"narrow": nn.Sequential(nn.Linear(12, 6)), "rnn": nn.RNN(6, 6)})
        self.again = self.stack[0]
        self.lstm = nn.LSTM(6, 5, proj_size=3)
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.stack:
            x, _ = module(x)
        x, _ = self.parts["rnn"](self.parts["narrow"](x))
        x, _ = self.lstm(self.again(x)[0])
        return self.cell(x[-1])[0]


KERNELS = 6  # of one call: the modules, the one that is there twice twice


def made(Model=Tagger):
    """A fast model, a slow one with the same weights, and an input."""
    torch.manual_seed(0)
    slow = Model().double()
    quick = copy.deepcopy(slow)
    accelerate(quick, cells=True)
    return quick, slow, torch.randn(5, 3, 6, dtype=torch.float64)


def tree(model):
    return [(name, id(m), type(m)) for name, m in model.named_modules(remove_duplicate=False)]


def test_scripting_leaves_the_model_fast(calls):
    quick, slow, x = made()
    before = tree(quick)
    scripted = torch.jit.script(quick)
    assert tree(quick) == before
    assert scripted.lstm.original_name == "LSTM"
    torch.testing.assert_close(scripted(x), slow(x))
    assert not calls
    torch.testing.assert_close(quick(x), slow(x))
    assert len(calls) == KERNELS


def test_scripted_once_an_epoch(calls, monkeypatch):
    """Training goes on with kernels in both directions, and the scripted copy shares the parameters."""
    backward, run = [], function.RecurrentLayer.backward
    monkeypatch.setattr(function.RecurrentLayer, "backward", lambda ctx, *d: backward.append(1) or run(ctx, *d))
    quick, slow, x = made()
    optimizers = [torch.optim.Adam(model.parameters(), 0.01) for model in (quick, slow)]
    for epoch in range(1, 4):
        for model, optimizer in zip((quick, slow), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        scripted = torch.jit.script(quick)
        torch.testing.assert_close(scripted(x), slow(x), rtol=1e-9, atol=1e-12)
        assert len(calls) == len(backward) == KERNELS * epoch
    for a, b in zip(scripted.parameters(), quick.parameters(), strict=True):
        assert a.data_ptr() == b.data_ptr()


@pytest.mark.parametrize("Rnn", [nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_module_by_itself(Rnn):
    module = Rnn(3, 4)
    expected = torch.jit.script(module)
    accelerate(module, cells=True)
    kind = type(module)
    scripted = torch.jit.script(module)
    assert type(module) is kind
    assert scripted.original_name == Rnn.__name__
    assert [n for n, _ in scripted.named_parameters()] == [n for n, _ in expected.named_parameters()]
    assert hasattr(scripted, "forward") == hasattr(expected, "forward")  # torch's own RNN, GRU and LSTM have none


class Scaled(nn.GRU):
    """Derived from torch's, with an attribute whose type TorchScript is told, and a method that it compiles."""

    scale: float

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.scale = 2.0

    @torch.jit.export
    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Pair(fast.GRU):
    """Derived from a fast class."""

    def forward(self, x: torch.Tensor):
        return x @ self.weight_ih_l0.T, self.weight_hh_l0


class Third(Pair):
    @torch.jit.export
    def third(self, x: torch.Tensor) -> torch.Tensor:
        return x / 3


class Plain(fast.RNNCell):
    """With a forward that is the fast one."""


def test_derived_classes():
    module, x = Scaled(3, 4), torch.randn(5, 2, 3)
    accelerate(module)
    kind = type(module)
    torch.testing.assert_close(torch.jit.script(module).scaled(x), 2 * x)
    assert type(module) is kind
    module = Third(3, 4)
    scripted = torch.jit.script(module)
    torch.testing.assert_close(scripted.third(x), x / 3)
    assert all(torch.equal(a, b) for a, b in zip(scripted(x), module(x), strict=True))
    assert type(module) is Third
    module = Plain(3, 4)
    torch.testing.assert_close(torch.jit.script(module)(x[0]), module(x[0]))
    assert type(module) is Plain


class Odd(nn.GRU):
    """With a forward that TorchScript can't compile."""

    def forward(self, x: torch.Tensor):
        return x.no_such_method()


def test_what_torch_cannot_compile():
    model = nn.Sequential(nn.GRU(3, 4), Odd(4, 5))
    accelerate(model)
    before = tree(model)
    with pytest.raises(RuntimeError, match="no_such_method"):
        torch.jit.script(model)
    assert tree(model) == before


def test_parametrised_modules():
    """torch does not script them; they stay what they are, in a class that copies share."""
    model = nn.Sequential(nn.GRU(3, 4))
    nn.utils.parametrizations.weight_norm(model[0], "weight_hh_l0")
    errors = []
    for quick in (False, True):
        if quick:
            accelerate(model)
        twin, before = copy.deepcopy(model), tree(model)
        with pytest.raises(RuntimeError) as error:
            torch.jit.script(model)
        errors.append(str(error.value))
        assert tree(model) == before
        assert type(twin[0]) is type(model[0])
    assert errors[0] == errors[1]


def test_the_constructor_of_a_script_module():
    def script_module(rnn):
        class Last(torch.jit.ScriptModule):
            def __init__(self):
                super().__init__()
                self.rnn, self.inner = rnn, nn.Sequential(nn.Linear(4, 6), fast.LSTMCell(6, 2))

            @torch.jit.script_method
            def forward(self, x):
                y, _ = self.rnn(x)
                return self.inner(y[-1])

        return Last()

    torch.manual_seed(0)
    ours, x = fast.GRU(3, 4), torch.randn(5, 2, 3)
    module = script_module(ours)
    assert type(ours) is fast.GRU
    theirs = nn.GRU(3, 4)
    theirs.load_state_dict(ours.state_dict())
    expected = script_module(theirs)
    expected.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x), expected(x), rtol=0, atol=0)
    assert module.rnn.original_name == "GRU"
    assert str(accelerate(module)).startswith("replaced 0: nothing\nleft rnn: a ScriptModule, whose code is fixed")


def test_two_threads_script_one_model():
    quick, slow, x = made()
    before, failed = tree(quick), []

    def work():
        try:
            torch.testing.assert_close(torch.jit.script(quick)(x), slow(x))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert tree(quick) == before


def test_what_is_scripted_or_traced_goes_on_as_torchs():
    """Saved, loaded, frozen and optimised."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 4, bidirectional=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor):
            return self.head(self.rnn(x)[0][-1])

    quick, slow, x = made(Last)
    before, expected = tree(quick), slow.eval()(x)
    for scripted in (torch.jit.script(quick.eval()), torch.jit.trace(quick.eval(), (x,))):
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        for module in (loaded, torch.jit.freeze(scripted), torch.jit.optimize_for_inference(scripted)):
            torch.testing.assert_close(module(x), expected)
    assert tree(quick) == before


@pytest.mark.filterwarnings("ignore:The tensor attributes self.rnn._flat_weights:UserWarning")  # of torch's own, too
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["GRU", "LSTM", "GRUCell"])
def test_export_of_a_batch_of_any_size(calls, name, strict):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(nn, name)(6, 4, **({} if name.endswith("Cell") else {"batch_first": True}))

        def forward(self, x):
            return leaves(self.rnn(x))[0] * 2

    quick, slow, x = made(Last)
    x = x[0] if name.endswith("Cell") else x
    exported = torch.export.export(quick, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    for batch in (x, torch.cat([x, x + 1, x])):
        torch.testing.assert_close(exported.module()(batch), slow(batch))
    assert not calls


@pytest.mark.filterwarnings("ignore")  # torch's own, of an exporter that it calls deprecated
def test_onnx_of_a_batch_of_any_size(calls):
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs ONNX models: pip install onnx onnxruntime")

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(6, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0][:, -1]

    quick, slow, x = made(Last)
    before, file = tree(quick.float()), io.BytesIO()
    torch.onnx.export(quick, (x.float(),), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "B", 1: "T"}})
    assert tree(quick) == before
    assert not calls
    (y,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"x": x[:2, :2].float().numpy()})
    torch.testing.assert_close(torch.from_numpy(y), slow.float()(x[:2, :2].float()))


def test_graphs_of_operations(calls):
    """No result of a kernel may become a constant of a graph."""
    from torch.fx.experimental.proxy_tensor import make_fx

    quick, slow, x = made(lambda: nn.LSTM(6, 4))
    for mode in ("real", "fake", "symbolic"):
        for pre_dispatch in (False, True):
            graph = make_fx(quick, tracing_mode=mode, pre_dispatch=pre_dispatch, _allow_non_fake_inputs=True)(x)
            torch.testing.assert_close(graph(x + 1), slow(x + 1))
    assert not calls


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models(calls, backend):
    """torch's code, whatever the sizes."""

    class Ragged(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(6, 4), nn.Linear(4, 2)

        def forward(self, x, lengths):
            y, _ = self.rnn(rnn.pack_padded_sequence(torch.relu(x), lengths, enforce_sorted=False))
            return self.head(rnn.pad_packed_sequence(y)[0]) * y.batch_sizes.sum()

    quick, slow, x = made(Ragged)
    compiled = torch.compile(quick, backend=backend, dynamic=True)
    for B in (3, 2):
        lengths = torch.tensor([4, 5, 2][:B])
        torch.testing.assert_close(compiled(x[:, :B], lengths), slow(x[:, :B], lengths))
    assert not calls
    torch._dynamo.reset()


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        y, h = fast.LSTM(3, 4)(torch.randn(5, 2, 3))
    assert type(y).__name__ == "FakeTensor"
    assert (y.shape, h[1].shape) == ((5, 2, 4), (1, 2, 4))
