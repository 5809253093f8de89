"""The table of kinds of cells: what its rows promise, and rows that others add."""

import copy
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from cells import CELLS, OWN
from oracles import import_torch

import fastrnn
from fastrnn import gradcheck, kinds
from fastrnn.kernels.cells import TRAITS, X_H, Traits, X
from fastrnn.layers.sequence import Recurrent
from fastrnn.models import CharLM
from fastrnn.models.seq2seq import Seq2Seq

every_kind = pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.tag.__name__)


@every_kind
def test_a_layer_is_of_the_kind_that_its_options_choose(kind):
    assert kind.layer_class is getattr(fastrnn, kind.layer_name)
    for name in (kind.layer_name, f"{kind.layer_name}Cell"):
        layer = getattr(fastrnn, name)(3, 5, **kind.options)
        assert layer.state_names == kind.states
        assert layer.parameters[next(iter(layer.parameters))].shape == (5 * len(kind.gates), 3)
        for own in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert own.kind is kind


def test_names_are_of_one_kind_each():
    assert [kinds.named(name).name for name in kinds.names()] == list(kinds.names())
    assert len({kind.name for kind in OWN if kind.name}) == len(kinds.names())
    with pytest.raises(ValueError, match=r"^cell: expected one of tanh, relu, gru, lstm, got 'LSTM'$"):
        kinds.named("LSTM")


@pytest.mark.parametrize("library", ["onnx", "keras"])
@every_kind
def test_other_libraries_have_the_same_gates(kind, library):
    order = kind.order(library)
    assert sorted(order) == list(range(len(kind.gates)))
    assert getattr(kind, library).gates in ((), tuple(kind.gates[i] for i in order))
    assert {*getattr(kind, library).weights} in (set(), {*kind.weights})


@every_kind
def test_torch_has_the_same_parameters_and_mode(kind):
    if kind.torch is None:
        assert kind.options == {"reset_after": False}
        return
    from fastrnn.torch.function import MODES

    ours = kind.layer_class(3, 5, **kind.options).parameters.shapes
    theirs = getattr(import_torch().nn, kind.torch.name)(3, 5, **kind.torch.attributes)
    assert list(ours.items()) == [(name, tuple(p.shape)) for name, p in theirs.named_parameters()]
    assert MODES[kind] == theirs.mode


def test_a_cell_and_its_twin_have_one_name():
    assert [cell.reference.__name__ for cell in CELLS.values()] == [cell.kind.tag.__name__ for cell in CELLS.values()]


class Tag(NamedTuple):
    """A cell of four states, of which nothing is compiled."""


class FourStates(Recurrent):
    """y = x + h0; the k-th state ends as k times what it was."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> None:
        super().__init__(kinds.chosen("FourStates"), input_size, hidden_size, num_layers, **options)

    def __call__(self, x, initial=None):
        states = initial or [np.zeros((1, x.shape[1], self.hidden_size))] * 4
        return x + states[0], tuple(k * state for k, state in enumerate(states, 1))

    def vjp(self, x, initial=None):
        def pullback(dy, d_state, grads=None):
            d_initial = [k * d for k, d in enumerate(d_state, 1)]
            d_initial[0] = d_initial[0] + dy.sum(0, keepdims=True)
            return dy, tuple(d_initial), self.parameters.zeros_like()

        return self(x, initial), pullback


@pytest.fixture
def four_states(monkeypatch):
    """A kind that somebody else has added."""
    monkeypatch.setitem(TRAITS, Tag, Traits(gates={"a": X_H, "b": X}, states=("h", "c", "n", "m"), weights=("p", "q")))
    kind = kinds.Kind(Tag, layer=f"{__name__}:FourStates", name="four")
    monkeypatch.setitem(kinds.KINDS, Tag, kind)
    return kind


def test_gradients_of_four_states_are_compared_by_name(four_states):
    layer = FourStates(3, 3, dtype="float64")
    assert repr(layer) == "FourStates(3, 3)"
    report = gradcheck.check_layer(layer)
    report.raise_if_wrong()
    assert list(report.inputs) == ["x", "h0", "c0", "n0", "m0", *layer.parameters]
    blocks = {name: {row.block for row in report.rows if row.input == name} for name in layer.parameters}
    assert blocks["weight_ih_l0"] == blocks["bias_ih_l0"] == {"gate a", "gate b"}
    assert blocks["weight_hh_l0"] == blocks["bias_hh_l0"] == {"gate a"}
    assert blocks["weight_ch_l0"] == {"p", "q"}
    assert {row.output for row in report.rows} >= {"y first step", "h_n", "c_n", "n_n", "m_n"}


def test_models_are_made_of_a_new_kind(four_states):
    lm = CharLM("abc", "four", 5, 2)
    assert type(lm.rnn) is FourStates
    assert [state.shape for state in lm.initial_state(7)] == [(2, 7, 5)] * 4
    translator = Seq2Seq(7, 7, cell="four", hidden_size=5, bidirectional=True)
    bridges = [name for name in translator.parameters if name.startswith("bridge")]
    assert bridges == [f"bridge.{state}.{part}" for state in "hcnm" for part in ("weight", "bias")]
    with pytest.raises(ValueError, match="cell: expected one of tanh, relu, gru, lstm, four, got 'five'"):
        CharLM("abc", "five")


def test_a_new_kind_is_not_in_other_libraries(four_states):
    from fastrnn.keras import to_keras

    with pytest.raises(TypeError, match="layer: expected RNN, GRU, LSTM, got FourStates"):
        to_keras(FourStates(3, 5))
    onnx = pytest.importorskip("fastrnn.onnx")
    for layer in (FourStates(3, 5), CharLM("abc", "four")):
        with pytest.raises(TypeError, match=r"layer: expected RNN, GRU, LSTM,.* got FourStates"):
            onnx.export(layer)
