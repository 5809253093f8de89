"""The layers, and whole trainings, against torch.nn with the same weights."""

from typing import Any

import numpy as np
import pytest
from cases import DTYPES, wide
from cells import torch_layer
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st
from numerics import assert_close, relative_error, rounding_budget
from oracles import arrays_of, assert_within, import_torch, normal, state_in
from recurrent_layers import arguments, build, expected_results, results, rows_of

from fastrnn import GRU, LSTM, RNN, Embedding, GRUCell, Linear, LSTMCell, RNNCell, cross_entropy, kinds, optim
from fastrnn.models import CharLM
from fastrnn.training.text import Batches, vocabulary_of

TOLERANCE = 1e-12


def torch_twin(layer: Any) -> Any:
    """torch's layer with the options and weights of ours, in float64."""
    torch = import_torch()
    names = ["input_size", "hidden_size", "bias", "nonlinearity", "num_layers", "batch_first", "bidirectional"]
    options = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    if layer.proj_size:
        options["proj_size"] = layer.proj_size
    theirs = getattr(torch.nn, type(layer).__name__)(**options, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in layer.parameters.items()})
    return theirs


def torch_results(layer, given, lengths=None):
    """What `results` of our layer should be, by torch's autograd; lengths >= 1, of sequences that it packs."""
    torch, theirs = import_torch(), torch_twin(layer)
    rnn, first = torch.nn.utils.rnn, layer.batch_first
    given = {name: torch.tensor(np.float64(value)) for name, value in given.items()}
    for name in ("x", "h0", "c0"):
        if name in given:
            given[name].requires_grad_()
    x = given["x"]
    if lengths is not None:
        T = x.shape[1] if first else len(x)
        x = rnn.pack_padded_sequence(x, lengths, first, enforce_sorted=False)
    y, state = theirs(x, state_in(given))
    if lengths is not None:
        y, _ = rnn.pad_packed_sequence(y, first, total_length=T)
    found = {"y": y, **dict(zip(("h_n", "c_n"), arrays_of(state), strict=False))}
    sum((value * given["d" + name]).sum() for name, value in found.items()).backward()
    found |= {"d" + name: given[name].grad for name in ("x", "h0", "c0") if name in given}
    found |= {name: parameter.grad for name, parameter in theirs.named_parameters()}
    return {name: value.detach().numpy() for name, value in found.items()}


@st.composite
def layers(draw):
    """A layer's kind, the layer, arguments for it, and lengths or None."""
    kind = draw(st.sampled_from(["tanh", "relu", "gru", "lstm", "lstm_projected"]))
    size = st.integers(1, 40)
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "dtype": draw(st.sampled_from(DTYPES)),
        "seed": draw(st.integers(0, 1 << 20)),
    }
    H = draw(size)
    if kind == "lstm_projected":
        options["proj_size"] = draw(st.integers(0, H - 1))
    layer = build(kind, draw(size), H, **options)
    T, B = draw(st.integers(1, 12)), draw(st.integers(1, 20))
    given, form = arguments(layer, T, B, options["seed"]), draw(st.sampled_from(["dense", "unbatched", "ragged"]))
    lengths = None
    if form == "unbatched":
        given = {name: value[:, 0] for name, value in given.items()}
    elif form == "ragged":
        lengths = draw(st.lists(st.integers(0, T), min_size=B, max_size=B).filter(any))
    return kind, layer, given, lengths


def laid_out(layer, arrays):
    """Arrays with time first as the layer has them, and back."""
    swap = layer.batch_first and arrays["x" if "x" in arrays else "dx"].ndim == 3
    return {n: a.swapaxes(0, 1) if swap and n in ("x", "dy", "y", "dx") else a for n, a in arrays.items()}


@settings(max_examples=100)
@drawn_from(layers())
def test_layers(drawn):
    assert_agrees(*drawn)


@pytest.mark.exhaustive
@settings(max_examples=3000)
@drawn_from(layers())
def test_many_layers(drawn):
    assert_agrees(*drawn)


def assert_agrees(kind, layer, given, lengths):
    """Sequences of length 0, which torch refuses, are left out there: they give nothing, and pass their state on."""
    got = laid_out(layer, results(layer, laid_out(layer, given), lengths=lengths))
    theirs, there = given, None
    if lengths is not None:
        there = [length > 0 for length in lengths]
        ended = np.logical_not(there)
        for ours, same in (("h_n", "h0"), ("c_n", "c0"), ("dh0", "dh_n"), ("dc0", "dc_n")):
            if ours in got:
                np.testing.assert_array_equal(got[ours][:, ended], given[same][:, ended])
        assert not got["y"][:, ended].any()
        assert not got["dx"][:, ended].any()
        theirs = {name: value[:, there] for name, value in given.items()}
        got |= rows_of(got, there)
    kept = None if lengths is None else [length for length in lengths if length]
    expected = laid_out(layer, torch_results(layer, laid_out(layer, theirs), kept))
    if layer.dtype == "float64":
        assert_close(got, expected, TOLERANCE)
        return

    def exact(**inputs):
        """In float64, dense and batched: what rounding does is the same in any layout."""
        p = {name: inputs[name] for name in layer.parameters}
        arrays = {name: inputs[name] if lengths or given["x"].ndim == 3 else inputs[name][:, None] for name in given}
        return expected_results(kind, p, arrays, kept)

    assert_within(got, expected, rounding_budget(exact, wide(theirs | dict(layer.parameters)), layer.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (1,), (7,)], ids=str)
@pytest.mark.parametrize(
    ("Cell", "options"), [(RNNCell, {}), (RNNCell, {"nonlinearity": "relu"}), (GRUCell, {}), (LSTMCell, {})]
)
def test_cells(Cell, options, batch, bias, dtype):
    torch, cell = import_torch(), Cell(5, 18, bias, **options, dtype=dtype, seed=0)
    theirs, arrays = torch_twin(cell), [normal(*batch, 18, seed=i, dtype=dtype) for i in range(4)]
    x = normal(*batch, 5, seed=4, dtype=dtype)
    state, d_state = (tuple(arrays[i : i + 2]) if Cell is LSTMCell else arrays[i] for i in (0, 2))
    new, pullback = cell.vjp(x, state)
    dx, d_initial, grads = pullback(d_state)
    got = {"dx": dx, **dict(zip(("h", "c"), arrays_of(new), strict=False)), **grads}
    got |= dict(zip(("dh", "dc"), arrays_of(d_initial), strict=False))

    x = torch.tensor(np.float64(x), requires_grad=True)
    inputs = [torch.tensor(np.float64(s), requires_grad=True) for s in arrays_of(state)]
    outputs = arrays_of(theirs(x, tuple(inputs) if Cell is LSTMCell else inputs[0]))
    sum((s * torch.tensor(np.float64(d))).sum() for s, d in zip(outputs, arrays_of(d_state), strict=True)).backward()
    expected = {"dx": x.grad, **dict(zip(("h", "c"), outputs, strict=False))}
    expected |= dict(zip(("dh", "dc"), (s.grad for s in inputs), strict=False))
    expected |= {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = {name: value.detach().numpy() for name, value in expected.items()}
    assert_close(got, expected, 2e-6 if dtype == "float32" else TOLERANCE)


@pytest.mark.parametrize("Layer", [RNN, GRU, LSTM])
def test_weights_move_both_ways(Layer):
    """torch's tensors load as they are, and ours make torch compute the same."""
    torch = import_torch()
    theirs, ours = getattr(torch.nn, Layer.__name__)(5, 18, 2, bidirectional=True), Layer(5, 18, 2, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    x = normal(7, 3, 5, dtype="float32")
    y, state = ours(x)
    with torch.no_grad():
        torch_y, torch_state = theirs(torch.from_numpy(x))
    assert relative_error(y, torch_y.numpy()) < 1e-6
    for got, expected in zip(arrays_of(state), arrays_of(torch_state), strict=True):
        assert relative_error(got, expected.numpy()) < 1e-6
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(value, theirs.state_dict()[name].numpy(), strict=True)


def test_linear():
    torch = import_torch()
    ours, theirs = Linear(9, 19, dtype="float64", seed=0), torch.nn.Linear(9, 19, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.parameters.items()})
    x, dy = torch.tensor(normal(5, 3, 9), requires_grad=True), normal(5, 3, 19)
    expected = theirs(x)
    (expected * torch.tensor(dy)).sum().backward()
    y, pullback = ours.vjp(x.detach().numpy())
    dx, grads = pullback(dy)
    got = {"y": y, "dx": dx, **grads}
    gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert_close(got, {"y": expected.detach().numpy(), "dx": x.grad.numpy(), **gradients}, TOLERANCE)


def test_embedding():
    torch = import_torch()
    ours, theirs = Embedding(11, 19, dtype="float64", seed=0), torch.nn.Embedding(11, 19, dtype=torch.float64)
    theirs.load_state_dict({"weight": torch.tensor(ours.parameters["weight"])})
    tokens, dy = np.random.default_rng(0).integers(0, 11, (5, 3)), normal(5, 3, 19)
    expected = theirs(torch.tensor(tokens))
    (expected * torch.tensor(dy)).sum().backward()
    y, pullback = ours.vjp(tokens)
    got = {"y": y, **pullback(dy)}
    assert_close(got, {"y": expected.detach().numpy(), "weight": theirs.weight.grad.numpy()}, TOLERANCE)


@pytest.mark.parametrize("leading", [(1,), (35,), (5, 7), (2, 3, 4)], ids=str)
def test_cross_entropy(leading):
    torch = import_torch()
    logits, targets = 5 * normal(*leading, 11), np.random.default_rng(0).integers(0, 11, leading)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs.reshape(-1, 11), torch.tensor(targets).reshape(-1))
    expected.backward()
    loss, pullback = cross_entropy(logits, targets)
    assert loss == pytest.approx(expected.item(), rel=TOLERANCE)
    assert relative_error(pullback(), theirs.grad.numpy()) < TOLERANCE


TEXT = "".join(
    "the quick brown fox jumps over the lazy dog, and the dog barks at it twice; "[: 76 - i] for i in range(40)
)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("cell", kinds.names())
@pytest.mark.parametrize(("embedding_size", "num_layers"), [(0, 1), (0, 2), (12, 1)])
def test_a_hundred_steps_of_training(embedding_size, num_layers, cell, dtype, tolerance):
    """The same loss and gradient norm at every step: state carried, Adam, clipped by the norm."""
    torch = import_torch()
    nn, real = torch.nn, getattr(torch, dtype)
    lm = CharLM(vocabulary_of(TEXT), cell, 32, num_layers, embedding_size, dtype=dtype, seed=0)
    V, batches, optimizer = len(lm.vocabulary), Batches(lm.encode(TEXT), 8, 10), optim.Adam(lm.parameters, 3e-3)

    table = nn.Embedding(V, embedding_size or V, dtype=real)
    if not embedding_size:
        table = nn.Embedding.from_pretrained(torch.eye(V, dtype=real))  # one-hot rows, which are not trained
    rnn = torch_layer(torch, cell, embedding_size or V, 32, num_layers, dtype=real)
    clip_norm = 0.25 if len(lm.rnn.kind.gates) > 1 else 0.5
    model = nn.ModuleDict({"embedding": table, "rnn": rnn, "decoder": nn.Linear(32, V, dtype=real)})
    state = {name: torch.tensor(value) for name, value in lm.parameters.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ([] if embedding_size else ["embedding.weight"])
    assert not unexpected
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    twin = torch.optim.Adam(trained, 3e-3)

    got, expected, state, h = [], [], None, None
    for step in range(100):
        x, y = batches[step % len(batches)]
        if step % len(batches) == 0:
            state = h = None
        loss, norm, state = lm.train_step(x, y, state, optimizer, clip_norm=clip_norm)
        got.append((loss, norm))

        output, h = rnn(table(torch.tensor(x)), h)
        value = nn.functional.cross_entropy(model["decoder"](output).reshape(-1, V), torch.tensor(y).reshape(-1))
        h = tuple(part.detach() for part in h) if cell == "lstm" else h.detach()
        twin.zero_grad()
        value.backward()
        expected.append((value.item(), nn.utils.clip_grad_norm_(trained, clip_norm).item()))
        twin.step()
    got, expected = np.array(got), np.array(expected)
    assert expected[-1, 0] < 0.8 * expected[0, 0]
    assert (expected[:, 1] > clip_norm).sum() > 10
    assert np.abs(got / expected - 1).max() < tolerance
    for name, value in lm.parameters.items():
        assert relative_error(value, model.state_dict()[name].numpy()) < 10 * tolerance, name
