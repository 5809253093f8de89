"""The callback for Lightning, in stand-ins for Lightning's two packages that keep its protocol."""

import importlib
import sys
from types import ModuleType

import pytest
from oracles import import_torch

torch = import_torch()
nn = torch.nn

import fastrnn.torch as fast  # noqa: E402

PACKAGES = ("lightning", "pytorch_lightning")


@pytest.fixture
def lightning(monkeypatch):
    """fastrnn.torch.lightning where the packages named are installed, and their classes Callback."""

    def imported(*installed):
        callbacks = []
        for name in PACKAGES:
            inner = f"{name}.pytorch" if name == "lightning" else name
            monkeypatch.setitem(sys.modules, name, None)
            if name in installed:
                monkeypatch.setitem(sys.modules, name, ModuleType(name))
                module = ModuleType(inner)
                module.Callback = type("Callback", (), {"setup": lambda self, trainer, model, stage: None})
                monkeypatch.setitem(sys.modules, inner, module)
                callbacks.append(module.Callback)
        monkeypatch.delitem(sys.modules, "fastrnn.torch.lightning", raising=False)
        return importlib.import_module("fastrnn.torch.lightning"), callbacks

    yield imported
    monkeypatch.undo()
    sys.modules.pop("fastrnn.torch.lightning", None)


class Trainer:
    """Calls hooks in Lightning's order."""

    def __init__(self, callback, seen):
        self.callback, self.seen = callback, seen

    def run(self, stage, model, starts, fails=False):
        self.callback.setup(self, model, stage)
        model.rnn = model.rnn or nn.GRU(3, 4)  # as configure_model may do
        try:
            for start in starts:
                getattr(self.callback, start)(self, model)
                self.seen.append(type(model.rnn))
            if fails:
                raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            self.callback.on_exception(self, model, error)
        else:
            self.callback.teardown(self, model, stage)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.mine, self.cell = None, fast.LSTM(3, 4), nn.GRUCell(3, 4)


@pytest.mark.parametrize("installed", [PACKAGES[:1], PACKAGES[1:], PACKAGES], ids="-".join)
def test_a_model_is_fast_while_a_trainer_runs(lightning, installed):
    module, callbacks = lightning(*installed)
    callback, model, seen = module.Accelerate(), Model(), []
    assert all(isinstance(callback, Callback) for Callback in callbacks)
    assert callback.report is None
    trainer = Trainer(callback, seen)
    for stage, starts in [
        ("fit", ["on_fit_start", "on_validation_start", "on_validation_start"]),
        ("validate", ["on_validation_start"]),
        ("test", ["on_test_start"]),
        ("predict", ["on_predict_start"]),
    ]:
        for fails in (False, True):
            trainer.run(stage, model, starts, fails)
            assert seen == [fast.GRU] * len(starts)
            assert (type(model.rnn), type(model.mine), type(model.cell)) == (nn.GRU, fast.LSTM, nn.GRUCell)
            assert callback.report.replaced == ("rnn",)
            assert list(callback.report.left) == ["cell"]
            seen.clear()


def test_cells_and_the_model_itself(lightning):
    module, _ = lightning("lightning")

    class Own(nn.GRUCell):
        pass

    callback, model = module.Accelerate(cells=True), Own(3, 4)
    callback.on_predict_start(None, model)
    assert isinstance(model, fast.GRUCell)
    assert callback.report == (("Own",), {})
    callback.teardown(None, model, "predict")
    assert type(model) is Own


def test_without_lightning(lightning):
    with pytest.raises(ImportError) as error:
        lightning()
    assert str(error.value) == "fastrnn.torch.lightning: needs Lightning: pip install lightning"


def test_a_broken_lightning_is_not_a_missing_one(lightning, monkeypatch):
    lightning("pytorch_lightning")

    class Broken:
        def find_spec(self, name, path, target=None):
            if name.startswith("lightning"):
                raise ModuleNotFoundError("No module named 'torchmetrics'", name="torchmetrics")

    for name in ("lightning", "fastrnn.torch.lightning"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="torchmetrics"):
        importlib.import_module("fastrnn.torch.lightning")
