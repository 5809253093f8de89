"""Parameters: names, views of one buffer, groups of it, and copies."""

import copy
import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from cases import DTYPES
from oracles import import_torch

from fastrnn import RNN, Embedding, Linear, Parameters, optim
from fastrnn.models import CharLM

SHAPES = {"weight": (3, 4), "empty": (0, 5), "bias": (3,), "scale": ()}


def numbered(shapes=SHAPES, dtype="float32"):
    """Parameters whose buffer counts 0, 1, 2, ..."""
    p = Parameters(shapes, dtype)
    p.flat[:] = np.arange(p.flat.size)
    return p


def assert_one_buffer(p):
    """Every view is where the layout says, in the memory of `flat`."""
    at = p.flat.__array_interface__["data"][0]
    for name, view in p.items():
        assert view.flags.c_contiguous
        assert view.shape == p.shapes[name]
        if view.size:
            assert view.__array_interface__["data"][0] == at
        at += view.nbytes
    assert at == p.flat.__array_interface__["data"][0] + p.flat.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout(dtype):
    p = numbered(dtype=dtype)
    assert isinstance(p, Mapping)
    assert list(p) == list(SHAPES) == list(p.keys())
    assert len(p) == 4
    assert p.dtype == p.flat.dtype == dtype
    assert p.flat.shape == (16,)
    assert p.flat.flags.c_contiguous
    assert p.shapes == SHAPES
    np.testing.assert_array_equal(p["weight"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(p["bias"], [12, 13, 14])
    assert p["scale"] == 15
    assert p["empty"].size == 0
    assert_one_buffer(p)
    assert repr(p) == f"Parameters(16 x {dtype}: weight, empty, bias, scale)"


def test_views_and_buffer_are_the_same_memory():
    p = numbered()
    p.flat[12] = -1
    p["bias"][1] = -2
    p["weight"][...] = 7
    p["scale"] = 9
    np.testing.assert_array_equal(p.flat, [7] * 12 + [-1, -2, 14, 9])


def test_assignment_copies():
    p, value = numbered(), np.arange(12.0).reshape(4, 3).T
    p["weight"] = value
    np.testing.assert_array_equal(p["weight"], value)
    p["weight"].fill(0)
    assert value[1, 1] == 4
    p["bias"] = [1, 2.5, 3]
    np.testing.assert_array_equal(p["bias"], [1, 2.5, 3])
    p["bias"] = p["bias"][::-1]
    np.testing.assert_array_equal(p["bias"], [3, 2.5, 1])
    p["bias"] += 1
    np.testing.assert_array_equal(p.flat[12:15], [4, 3.5, 2])
    assert_one_buffer(p)


def test_assignment_rounds_to_the_dtype():
    p = numbered()
    p["bias"] = np.array([0.1, 0.2, 0.3])
    np.testing.assert_array_equal(p["bias"], np.array([0.1, 0.2, 0.3], np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_buffers(dtype):
    p = numbered(dtype=dtype)
    zeros, empty = p.zeros_like(), p.empty_like()
    assert not zeros.flat.any()
    for new in (zeros, empty):
        new.flat.fill(5)
        assert (new.shapes, new.dtype) == (p.shapes, p.dtype)
        assert_one_buffer(new)
    np.testing.assert_array_equal(p.flat, np.arange(16))


@pytest.mark.parametrize("shapes", [{}, {"a": (0,)}, {"a": (2, 0), "b": (0, 3)}])
def test_empty_parameters(shapes):
    p = Parameters(shapes, "float32")
    assert p.flat.size == 0
    assert list(p.zeros_like()) == list(shapes)


def test_update():
    p, values = numbered(), {name: np.full(shape, 2.0) for name, shape in SHAPES.items()}
    p.update(dict(reversed(values.items())))
    np.testing.assert_array_equal(p.flat, 2)
    p.update(numbered())
    np.testing.assert_array_equal(p.flat, np.arange(16))


def test_a_group_is_the_same_memory_under_shorter_names():
    p = numbered({"a.x": (2,), "b.x": (2, 2), "b.y.z": (3,), "ba.x": (1,)})
    group = p.group("b")
    assert list(group) == ["x", "y.z"]
    np.testing.assert_array_equal(group.flat, np.arange(2, 9))
    assert_one_buffer(group)
    group["x"] = np.zeros((2, 2))
    group.flat[-1] = -1
    np.testing.assert_array_equal(p.flat, [0, 1, 0, 0, 0, 0, 6, 7, -1, 9])
    np.testing.assert_array_equal(group.group("y")["z"], [6, 7, -1])
    np.testing.assert_array_equal(p.group("a").flat, [0, 1])
    np.testing.assert_array_equal(p.group("ba").flat, [9])


def test_joined_groups():
    parts = {"first": numbered({"x": (2,)}), "second": numbered({"x": (2, 2), "y": (1,)})}
    joined = Parameters.joined(parts)
    assert list(joined) == ["first.x", "second.x", "second.y"]
    np.testing.assert_array_equal(joined.flat, [0, 1, 0, 1, 2, 3, 4])
    assert_one_buffer(joined)
    joined.flat[:] = np.arange(7)
    np.testing.assert_array_equal(parts["first"].flat, [0, 1])
    np.testing.assert_array_equal(parts["second"]["y"], [6])
    for name, part in parts.items():
        assert joined.group(name).shapes == part.shapes
        assert_one_buffer(part)
        assert np.shares_memory(part.flat, joined.flat)


def test_one_optimiser_trains_joined_layers():
    """The layers read what it wrote, also where they had run before, and as two optimisers would have it."""
    x = np.random.default_rng(0).standard_normal((4, 2, 3), dtype=np.float32)

    def pair():
        return RNN(3, 4, seed=0), Linear(4, 2, seed=1)

    def gradients(rnn, linear):
        (y, _), back = rnn.vjp(x)
        z, unlinear = linear.vjp(y)
        dy, d_linear = unlinear(z)
        return back(dy)[2], d_linear

    (rnn, linear), (twin, twin_linear) = pair(), pair()
    twins = optim.Adam(twin.parameters), optim.Adam(twin_linear.parameters)
    before = linear(rnn(x)[0])
    joined = Parameters.joined({"rnn": rnn.parameters, "head.linear": linear.parameters})
    optimizer = optim.Adam(joined)
    for _ in range(2):
        d_rnn, d_linear = gradients(rnn, linear)
        optimizer.step(Parameters.joined({"rnn": d_rnn, "head.linear": d_linear}))
        for own, grads in zip(twins, gradients(twin, twin_linear), strict=True):
            own.step(grads)
    after = linear(rnn(x)[0])
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_array_equal(after, twin_linear(twin(x)[0]))
    np.testing.assert_array_equal(joined["rnn.weight_hh_l0"], twin.parameters["weight_hh_l0"])


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_joined_layers_share_a_buffer(how):
    layers = [Linear(2, 3, seed=0), Linear(3, 1, seed=1)]
    joined = Parameters.joined({str(i): layer.parameters for i, layer in enumerate(layers)})
    twin, (first, second) = copies((joined, layers))[how]
    twin.flat.fill(5)
    assert (first.parameters["weight"] == 5).all()
    assert (second.parameters["bias"] == 5).all()
    assert not (joined.flat == 5).any()


def a_part():
    p = numbered()
    Parameters.joined({"p": p})
    return p


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (dict, TypeError, "groups: expected a mapping of names to Parameters, got none"),
        (lambda: [numbered()], TypeError, "groups: expected a mapping of names to Parameters, got list"),
        (lambda: {"a": Linear(2, 3)}, TypeError, "a: expected Parameters, got Linear; write layer.parameters"),
        (lambda: {"a": a_part()}, ValueError, "a: expected Parameters of their own, got a part of others"),
        (
            lambda: dict.fromkeys("ab", numbered()),
            ValueError, "a: expected Parameters of their own, got a part of others",
        ),
        (
            lambda: {"a": CharLM("ab").rnn.parameters},
            ValueError, "a: expected Parameters of their own, got a part of others",
        ),
        (
            lambda: {"a": numbered(), "b": numbered(dtype="float64")},
            TypeError, "b: expected dtype float32 as of a, got float64",
        ),
        (lambda: {"a": numbered(), "a.b": numbered()}, ValueError, "groups: expected names apart, got a and a.b"),
        (lambda: {"a": numbered({})}, ValueError, "a: expected at least one parameter, got none"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_stays_apart(groups, error, message):
    groups = groups()
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else groups[0]
    before = getattr(first, "flat", None)
    with pytest.raises(error) as caught:
        Parameters.joined(groups)
    assert str(caught.value) == message
    assert getattr(first, "flat", None) is before


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        (None, TypeError, "shapes: expected a mapping of names to shapes, got NoneType"),
        ([("w", (2,))], TypeError, "shapes: expected a mapping of names to shapes, got list"),
        ({"w": 2}, TypeError, "shapes: expected a mapping of names to shapes, got {'w': 2}"),
        ({0: (2,)}, TypeError, "shapes: expected a mapping of names to shapes, got {0: (2,)}"),
        ({"w": (2.0,)}, TypeError, "w: expected an integer, got 2.0"),
        ({"w": (2, -1)}, ValueError, "w: expected an integer >= 0, got -1"),
        (
            {"a": (2,), "w": (2**40, 2**40)},
            ValueError, f"w: expected at most {2**63 - 1} bytes, got {2**82}",
        ),
        ({"w": (0, 2**70)}, ValueError, f"w: expected at most {2**63 - 1} bytes, got {2**72}"),
        ({"a": (2**60,), "b": (2**60,)}, ValueError, f"parameters: expected at most {2**63 - 1} bytes, got {2**63}"),
    ],
)  # fmt: skip
def test_what_cannot_be_laid_out(shapes, error, message):
    with pytest.raises(error) as caught:
        Parameters(shapes, "float32")
    assert str(caught.value) == message


# State dicts of tensors


def tensor_dict(change):
    """A layer's state dict in torch's tensors, one of which is changed."""
    torch = import_torch()
    layer = RNN(2, 3, seed=0)
    state = {name: torch.tensor(value) for name, value in layer.state_dict().items()}
    return layer, state | {"bias_hh_l0": change(torch, state["bias_hh_l0"])}


@pytest.mark.parametrize(
    "change",
    [
        lambda torch, t: t.bfloat16(),
        lambda torch, t: t.half(),
        lambda torch, t: t.to(torch.float8_e4m3fn),
        lambda torch, t: t.double(),
        lambda torch, t: torch.nn.Parameter(t),
        lambda torch, t: torch.nn.Parameter(t.bfloat16()),
        lambda torch, t: torch._neg_view(t),
        lambda torch, t: torch.stack([t, t], 1)[:, 0],
        lambda torch, t: (10 * t).long(),
        lambda torch, t: t != 0,
    ],
    ids=["bfloat16", "float16", "float8", "float64", "parameter", "both", "negative", "strided", "integers", "bools"],
)
def test_tensors_load_with_their_values(change):
    layer, state = tensor_dict(change)
    expected = state["bias_hh_l0"].detach().double().numpy()
    assert np.abs(expected).max() > 0
    layer.load_state_dict(state)
    np.testing.assert_array_equal(layer.parameters["bias_hh_l0"], expected.astype(np.float32))
    layer.parameters["bias_ih_l0"] = state["bias_hh_l0"]
    np.testing.assert_array_equal(layer.parameters["bias_ih_l0"], expected.astype(np.float32))


@pytest.mark.parametrize(
    "change",
    [
        lambda torch, t: t.to_sparse(),
        lambda torch, t: t.to("meta"),
        lambda torch, t: torch.empty_quantized([3], torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        lambda torch, t: t.to_mkldnn(),
        lambda torch, t: t.to(torch.complex64),
        lambda torch, t: None,
        lambda torch, t: "abc",
        lambda torch, t: ["a", "b", "c"],
        lambda torch, t: t.numpy().astype(object),
        lambda torch, t: [[1], [1, 2], []],
        lambda torch, t: {1: 2},
        lambda torch, t: np.zeros(3, "datetime64[s]"),
        lambda torch, t: np.zeros(3, "V2"),
        lambda torch, t: np.zeros(3, [("x", "f4")]),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about quantised tensors
def test_what_holds_no_real_numbers_is_named(change):
    layer, state = tensor_dict(change)
    before = layer.parameters.flat.copy()
    with pytest.raises(TypeError) as caught:
        layer.load_state_dict(state)
    assert str(caught.value).startswith("bias_hh_l0: expected real numbers, got ")
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(layer.parameters.flat, before)


def test_jax_gives_its_own_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    layer, value = RNN(2, 3), np.array([0.1, -3, 1e30], ml_dtypes.bfloat16)
    layer.parameters["bias_hh_l0"] = value
    np.testing.assert_array_equal(layer.parameters["bias_hh_l0"], value.astype(np.float32))


@pytest.mark.parametrize(
    "layer",
    [
        RNN(3, 4, 2, seed=0),
        RNN(3, 4, bias=False, seed=0),
        Linear(3, 4, seed=0),
        Linear(3, 4, bias=False, seed=0),
        Embedding(3, 4),
    ],
    ids=["rnn", "rnn_without_bias", "linear", "linear_without_bias", "embedding"],
)
def test_parameters_of_layers(layer):
    assert_one_buffer(layer.parameters)
    state = layer.state_dict()
    assert list(state) == list(layer.parameters)
    for name, value in state.items():
        np.testing.assert_array_equal(value, layer.parameters[name], strict=True)
        assert not np.shares_memory(value, layer.parameters.flat)
    layer.load_state_dict({name: value + 1 for name, value in reversed(state.items())})
    for name, value in layer.parameters.items():
        np.testing.assert_array_equal(value, state[name] + np.float32(1))


@pytest.mark.parametrize("embedding_size", [0, 3])
def test_the_parts_of_a_model_share_its_buffer(embedding_size):
    lm = CharLM("abcd", hidden_size=5, num_layers=2, embedding_size=embedding_size, seed=0)
    names = ["embedding.weight"] * bool(embedding_size)
    names += [f"rnn.{kind}_l{k}" for k in (0, 1) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert list(lm.parameters) == [*names, "decoder.weight", "decoder.bias"]
    assert_one_buffer(lm.parameters)
    lm.parameters.flat[:] = np.arange(lm.parameters.flat.size)
    for prefix, part in {"embedding": lm.embedding, "rnn": lm.rnn, "decoder": lm.decoder}.items():
        for name, value in part.parameters.items() if part else ():
            np.testing.assert_array_equal(value, lm.parameters[f"{prefix}.{name}"])
            assert np.shares_memory(value, lm.parameters.flat)


def copies(value):
    return {"deepcopy": copy.deepcopy(value), "pickle": pickle.loads(pickle.dumps(value))}


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_have_one_buffer_of_their_own(how):
    p = numbered()
    assert_one_buffer(p)
    twin = copies(p)[how]
    assert_one_buffer(twin)
    np.testing.assert_array_equal(twin.flat, p.flat, strict=True)
    twin.flat.fill(-1)
    assert (twin["weight"] == -1).all()
    np.testing.assert_array_equal(p.flat, np.arange(16))


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copied_model_can_be_trained(how):
    """A copy whose views had left its buffer would be stepped where it is not read."""
    lm = CharLM("abcd", hidden_size=5, seed=0)
    twin = copies(lm)[how]
    tokens = np.array([[0, 1, 2], [3, 2, 1]])
    before = lm.loss(tokens, tokens)[0]
    twin.parameters.flat.fill(0)
    assert twin.loss(tokens, tokens)[0] == pytest.approx(np.log(4), rel=1e-6)
    assert lm.loss(tokens, tokens)[0] == before
