"""The layers, and whole trainings, against torch.nn with the same weights."""

import numpy as np
import pytest
from cases import DTYPES, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import assert_close, relative_error, rounding_budget
from oracles import assert_within, import_torch, normal, rnn_results, rnn_vjp

from fastrnn import RNN, Embedding, Linear, cross_entropy, optim
from fastrnn.models import CharLM
from fastrnn.training.text import Batches, vocabulary_of

TOLERANCE = 1e-12


def torch_rnn(rnn):
    """torch.nn.RNN with the options and weights of ours, in float64."""
    torch = import_torch()
    options = {name: getattr(rnn, name) for name in ("nonlinearity", "bias", "batch_first")}
    theirs = torch.nn.RNN(rnn.input_size, rnn.hidden_size, rnn.num_layers, **options, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in rnn.parameters.items()})
    return theirs


def torch_results(rnn, x, h0, dy, dh_n):
    """What `rnn_results` of our layer should be, by torch's autograd."""
    torch, theirs = import_torch(), torch_rnn(rnn)
    x, h0, dy, dh_n = (torch.tensor(np.float64(a)) for a in (x, h0, dy, dh_n))
    x.requires_grad_(), h0.requires_grad_()
    y, h_n = theirs(x, h0)
    ((y * dy).sum() + (h_n * dh_n).sum()).backward()
    results = {"y": y, "h_n": h_n, "dx": x.grad, "dh0": h0.grad}
    results |= {name: parameter.grad for name, parameter in theirs.named_parameters()}
    return {name: value.detach().numpy() for name, value in results.items()}


@st.composite
def rnns(draw):
    """A layer and x, h0, dy, dh_n for it."""
    size = st.integers(1, 40)
    options = {
        "num_layers": draw(st.integers(1, 3)),
        "nonlinearity": draw(st.sampled_from(["tanh", "relu"])),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "dtype": draw(st.sampled_from(DTYPES)),
        "seed": draw(st.integers(0, 1 << 20)),
    }
    rnn = RNN(draw(size), draw(size), **options)
    T, B, unbatched = draw(st.integers(1, 12)), draw(st.integers(1, 20)), draw(st.booleans())
    batch = () if unbatched else (B,)
    steps = (B, T) if rnn.batch_first and not unbatched else (T, *batch)
    shapes = [(*steps, rnn.input_size), (rnn.num_layers, *batch, rnn.hidden_size), (*steps, rnn.hidden_size)]
    arrays = [normal(*shape, seed=options["seed"] + i, dtype=rnn.dtype) for i, shape in enumerate([*shapes, shapes[1]])]
    return rnn, arrays


@settings(max_examples=60)
@given(rnns())
def test_rnn(drawn):
    rnn, arrays = drawn
    got, expected = rnn_results(rnn.vjp, *arrays), torch_results(rnn, *arrays)
    if rnn.dtype == "float64":
        assert_close(got, expected, TOLERANCE)
        return

    def exact(x, h0, dy, dh_n, **p):
        """In float64, dense and batched: what rounding does is the same in any layout."""
        batched = x.ndim == 3
        x, dy = (a.swapaxes(0, 1) if rnn.batch_first and batched else a if batched else a[:, None] for a in (x, dy))
        h0, dh_n = (a if batched else a[:, None] for a in (h0, dh_n))
        return rnn_results(lambda x, h0: rnn_vjp(p, x, h0, rnn.nonlinearity), x, h0, dy, dh_n)

    inputs = dict(zip(("x", "h0", "dy", "dh_n"), arrays, strict=True)) | dict(rnn.parameters)
    assert_within(got, expected, rounding_budget(exact, wide(inputs), rnn.dtype))


def test_weights_move_both_ways():
    """torch's tensors load as they are, and ours make torch compute the same."""
    torch = import_torch()
    theirs, ours = torch.nn.RNN(5, 18, 2), RNN(5, 18, 2)
    ours.load_state_dict(theirs.state_dict())
    x = normal(7, 3, 5, dtype="float32")
    y, h_n = ours(x)
    with torch.no_grad():
        torch_y, torch_h_n = theirs(torch.from_numpy(x))
    assert relative_error(y, torch_y.numpy()) < 1e-6
    assert relative_error(h_n, torch_h_n.numpy()) < 1e-6
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
@pytest.mark.parametrize("cell", ["tanh", "relu"])
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
    rnn = nn.RNN(embedding_size or V, 32, num_layers, cell, dtype=real)
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
        loss, norm, state = lm.train_step(x, y, state, optimizer, clip_norm=0.5)
        got.append((loss, norm))

        output, h = rnn(table(torch.tensor(x)), h)
        value = nn.functional.cross_entropy(model["decoder"](output).reshape(-1, V), torch.tensor(y).reshape(-1))
        h = h.detach()
        twin.zero_grad()
        value.backward()
        expected.append((value.item(), nn.utils.clip_grad_norm_(trained, 0.5).item()))
        twin.step()
    got, expected = np.array(got), np.array(expected)
    assert expected[-1, 0] < 0.8 * expected[0, 0]
    assert (expected[:, 1] > 0.5).sum() > 10
    assert np.abs(got / expected - 1).max() < tolerance
    for name, value in lm.parameters.items():
        assert relative_error(value, model.state_dict()[name].numpy()) < 10 * tolerance, name
