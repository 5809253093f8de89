"""ONNX models against onnxruntime: exported ones compute the same there, and nodes of others the same here."""

import numpy as np
import pytest
from cells import CELLS
from numerics import assert_close, relative_error
from oracles import arrays_of, assert_same, normal, state_of
from recurrent_layers import build

from fastrnn import GRU, LSTM, Linear, kinds
from fastrnn.models import CharLM

REASON = "compares with onnxruntime: pip install fastrnn[test]"
onnx = pytest.importorskip("onnx", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)
travel = pytest.importorskip("fastrnn.onnx")

TOLERANCE = 1e-5
# Attributes of a node with D directions that are not what ONNX takes if they are not there, or are said all the same.
ATTRIBUTES = {
    "relu": lambda D: {"activations": ["Relu"] * D},
    "gru": lambda D: {"linear_before_reset": 1},
    "lstm_peepholes": lambda D: {"activations": ["sigmoid", "tanh", "tanh"] * D},
}
KINDS = {name: cell for name, cell in CELLS.items() if cell.kind.onnx and not cell.projected}
STATES = ("initial_h", "initial_c")


def session(model):
    """onnxruntime's, on one thread: feeds -> outputs by name."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in run.get_outputs()]
    return lambda feeds: dict(zip(names, run.run(None, feeds), strict=True))


def inputs_of(layer, T, B, seed=0):
    """x and the initial state by the names of a model's inputs."""
    D, dtype = 2 if layer.bidirectional else 1, layer.dtype
    leading = (B, T) if layer.batch_first else (T, B)
    names, shape = [f"{s}0" for s in layer.state_names], (layer.num_layers * D, B, layer.hidden_size)
    states = {name: normal(*shape, seed=seed + i, dtype=dtype) for i, name in enumerate(names)}
    return {"x": normal(*leading, layer.input_size, seed=seed + 9, dtype=dtype), **states}


def outputs_of(layer, feeds):
    """What the layer computes of it, by the names of a model's outputs."""
    first, *initial = feeds.values()
    rnn = layer.rnn if isinstance(layer, CharLM) else layer
    y, state = layer(first, state_of(tuple(initial)))
    names = ["logits" if isinstance(layer, CharLM) else "y", *(f"{s}_n" for s in rnn.state_names)]
    return dict(zip(names, (y, *arrays_of(state)), strict=True))


def random(layer, seed=0):
    """The layer with parameters of N(0, 1/4), in which no gate is like another."""
    layer.parameters.flat[:] = 0.5 * normal(layer.parameters.flat.size, seed=seed)
    return layer


# num_layers, hidden_size, bias, batch_first
SHAPES = [(1, 7, True, False), (1, 1, False, True), (3, 5, True, True), (2, 1, True, False), (2, 18, False, False)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, bidirectional, shape):
    """The same results at any T and B, and the same parameters back."""
    L, H, bias, batch_first = shape
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
    layer = random(build(kind, 5, H, num_layers=L, **options))
    model = travel.export(layer)
    run = session(model)
    for T, B in ((6, 3), (1, 1), (13, 2)):
        feeds = inputs_of(layer, T, B)
        assert_close(run(feeds), outputs_of(layer, feeds), TOLERANCE)
    nodes = travel.load(model)
    assert [node.layer.batch_first for node in nodes] == [False] * L
    found = {}
    for k, node in enumerate(nodes):
        assert (node.reverse, node.initial, node.lengths) == (False, None, None)
        found |= {name.replace("_l0", f"_l{k}"): value for name, value in node.layer.parameters.items()}
    assert_same(found, layer.parameters)


@pytest.mark.parametrize("embedding_size", [0, 6])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", kinds.names())
def test_character_models(cell, num_layers, embedding_size):
    lm = random(CharLM("abcdé\n漢", cell, 9, num_layers, embedding_size))
    model = travel.export(lm)
    run = session(model)
    for T, B in ((5, 3), (1, 1)):
        states = {f"{s}0": normal(num_layers, B, 9, seed=i, dtype="float32") for i, s in enumerate(lm.rnn.state_names)}
        feeds = {"tokens": np.random.default_rng(0).integers(0, 7, (T, B)), **states}
        assert_close(run(feeds), outputs_of(lm, feeds), TOLERANCE)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"vocabulary": lm.vocabulary}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "relu"])
def test_float64(kind):
    """onnxruntime has no such operators; onnx's own evaluator has, but for relu and in one direction."""
    layer = random(build(kind, 5, 7, num_layers=2, dtype="float64"))
    model, feeds = travel.export(layer), inputs_of(layer, 6, 3)
    onnx.checker.check_model(model, full_check=True)
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(model)
    found = dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))
    assert_close(found, outputs_of(layer, feeds), 1e-12)


def test_files(tmp_path):
    layer = build("lstm", 5, 7)
    model = travel.export(layer, tmp_path / "lstm.onnx")
    assert onnx.load(tmp_path / "lstm.onnx") == model
    for path in (tmp_path / "lstm.onnx", str(tmp_path / "lstm.onnx")):
        (node,) = travel.load(path)
        assert_same(node.layer.parameters, layer.parameters)
    layer.parameters.flat[:] = 0
    assert travel.load(model)[0].layer.parameters.flat.any()


def test_what_is_not_exported():
    with pytest.raises(ValueError, match="proj_size: expected 0, got 3"):
        travel.export(LSTM(5, 7, proj_size=3))
    with pytest.raises(TypeError, match="layer: expected RNN, GRU, LSTM, CharLM, got Linear"):
        travel.export(Linear(5, 7))


def model_of(kind, direction, bias=True, constants=None, inputs=(), names=None, **attributes):
    """A model of one node, of N(0, 1/4) in ONNX's own order of gates.

    constants: arrays for further inputs, or other arrays for W, R, B, P
    inputs: names of those inputs that the model has too
    names: for inputs of the node other than their own, of what `wrapped` adds
    """
    own, S, G = KINDS[kind].kind, len(KINDS[kind].kind.states), len(KINDS[kind].kind.gates)
    D, H, I = 2 if direction == "bidirectional" else 1, 7, 5
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H)} | ({"B": (D, 2 * G * H)} if bias else {})
    shapes |= {"P": (D, 3 * H)} if KINDS[kind].peepholes else {}
    weights = {n: 0.5 * normal(*shape, seed=i, dtype="float32") for i, (n, shape) in enumerate(shapes.items())}
    values = weights | (constants or {})
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", *["initial_c", "P"] * (S == 2)]
    given = [name if name in ("X", *values, *inputs) else "" for name in order]
    outputs = ["Y", "Y_h", *["Y_c"] * (S == 2)]
    attributes = {"hidden_size": H, "direction": direction, **ATTRIBUTES.get(kind, lambda D: {})(D), **attributes}
    given = [(names or {}).get(name, name) for name in given]
    node = onnx.helper.make_node(own.layer_name, given, outputs, "the node", **attributes)
    shapes = dict.fromkeys(("initial_h", "initial_c", "Y_h", "Y_c"), (D, "B", H))
    shapes |= {"X": ("T", "B", I), "sequence_lens": ("B",), "Y": ("T", D, "B", H)}

    def value(name):
        kind = onnx.TensorProto.INT32 if name == "sequence_lens" else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_value_info(name, kind, shapes[name])

    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in values.items()]
    graph = onnx.helper.make_graph([node], "graph", [*map(value, ("X", *inputs))], [*map(value, outputs)], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def as_onnx(layer, y, state):
    """Results as a node has them, by the names of its outputs."""
    D = 2 if layer.bidirectional else 1
    Y = y.reshape(*y.shape[:2], D, -1).swapaxes(1, 2)
    return {"Y": Y, **dict(zip(("Y_h", "Y_c"), arrays_of(state), strict=False))}


DIRECTIONS = ["forward", "reverse", "bidirectional"]


@pytest.mark.parametrize("states", ["none", "constant", "given"])
@pytest.mark.parametrize("lengths", ["none", "constant", "given"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_nodes(kind, direction, lengths, states):
    """Directions, sequence_lens and initial states, held by the model or computed there, which a caller then gives."""
    T, B, D, S = 6, 4, 2 if direction == "bidirectional" else 1, len(KINDS[kind].kind.states)
    further = {name: normal(D, B, 7, seed=20 + i, dtype="float32") for i, name in enumerate(STATES[:S])}
    all_lengths = {"sequence_lens": np.array([3, 6, 1, 5], np.int32)}
    groups = ((states, further), (lengths, all_lengths))
    constants = {n: v for how, values in groups if how == "constant" for n, v in values.items()}
    given = {n: v for how, values in groups if how == "given" for n, v in values.items()}
    model = model_of(kind, direction, bias=lengths != "given", constants=constants, inputs=tuple(given))
    x = normal(T, B, 5, seed=30, dtype="float32")
    (node,) = travel.load(model)
    assert node.name == "the node"
    assert node.reverse == (direction == "reverse")
    here = {"initial_h": "h0", "initial_c": "c0", "sequence_lens": "lengths"}
    assert set(node.computed) == {here[name] for name in given}
    assert (node.initial is None) == (states != "constant")
    assert (node.lengths is None) == (lengths != "constant")
    initial = state_of(tuple(further.values())) if states == "given" else None
    got = node(x, initial, all_lengths["sequence_lens"] if lengths == "given" else None)
    assert_close(as_onnx(node.layer, *got), session(model)({"X": x, **given}), TOLERANCE)


def test_half_a_state():
    """h or c alone, and a state given in the place of that which the node has."""
    h, other = (normal(1, 4, 7, seed=i, dtype="float32") for i in range(2))
    for name, place in (("initial_h", 0), ("initial_c", 1)):
        model = model_of("lstm", "forward", constants={name: h})
        (node,) = travel.load(model)
        assert node.initial[1 - place] is None
        x = normal(6, 4, 5, seed=30, dtype="float32")
        assert_close(as_onnx(node.layer, *node(x)), session(model)({"X": x}), TOLERANCE)
        np.testing.assert_array_equal(node(x, (other, other))[0], node.layer(x, (other, other))[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_in_front(kind, direction):
    """layout 1, which onnxruntime has not: the same as layout 0 with the axes exchanged."""
    D, lengths = 2 if direction == "bidirectional" else 1, np.array([3, 6, 1, 5], np.int32)
    states = STATES[: len(KINDS[kind].kind.states)]
    initial = {name: normal(D, 4, 7, seed=i, dtype="float32") for i, name in enumerate(states)}
    (plain,) = travel.load(model_of(kind, direction, constants=initial))
    swapped = {name: np.ascontiguousarray(value.swapaxes(0, 1)) for name, value in initial.items()}
    (node,) = travel.load(model_of(kind, direction, constants=swapped, layout=1))
    x = normal(6, 4, 5, seed=30, dtype="float32")
    for each in (None, lengths):
        y, state = node(np.ascontiguousarray(x.swapaxes(0, 1)), lengths=each)
        expected, last = plain(x, lengths=each)
        np.testing.assert_array_equal(y.swapaxes(0, 1), expected)
        for got, wanted in zip(arrays_of(state), arrays_of(last), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_constants_of_nodes():
    """Weights that Constant nodes hold, and that other names stand for."""
    model = model_of("gru", "forward", names={"W": "W_alias"})
    expected = travel.load(model_of("gru", "forward"))[0].layer.parameters
    graph, make = model.graph, onnx.helper.make_node
    R = next(tensor for tensor in graph.initializer if tensor.name == "R")
    graph.initializer.remove(R)
    graph.node.insert(0, make("Constant", [], ["R"], value=R))
    graph.node.insert(0, make("Identity", ["W"], ["W_alias"]))
    assert_same(travel.load(model)[0].layer.parameters, expected)
    for each in graph.node:
        each.domain = "ai.onnx"  # the other name of ONNX's own
    assert_same(travel.load(model)[0].layer.parameters, expected)


def test_nodes_by_name():
    """All of a model in its order, or one; those without a name go by their output's."""
    layer = random(GRU(5, 7, 3))
    model = travel.export(layer)
    names = ["GRU_Y_l0", "GRU_Y_l1", "GRU_Y_l2"]
    assert [node.name for node in travel.load(model)] == names
    (node,) = travel.load(model, "GRU_Y_l1")
    np.testing.assert_array_equal(node.layer.parameters["weight_ih_l0"], layer.parameters["weight_ih_l1"])
    with pytest.raises(ValueError, match="node: expected one of GRU_Y_l0, GRU_Y_l1, GRU_Y_l2, got 'gru'"):
        travel.load(model, "gru")
    for each in model.graph.node:
        each.name = ""
    assert [node.name for node in travel.load(model)] == ["Y_l0", "Y_l1", "Y_l2"]
    assert [node.name for node in travel.load(model, "Y_l2")] == ["Y_l2"]
    for each in model.graph.node:
        each.domain = "ai.onnx"
    assert [node.name for node in travel.load(model)] == ["Y_l0", "Y_l1", "Y_l2"]
    for each in model.graph.node:
        each.output[:] = []
    with pytest.raises(ValueError, match="node: expected one of GRU, GRU, GRU, got 'Y_l2'"):
        travel.load(model, "Y_l2")


BAD = [
    ("gru", {"layout": 2}, "layout: expected an integer in 0..1, got 2"),
    ("gru", {"activations": [1, 2]}, "activations: expected .'sigmoid', 'tanh'., got .'1', '2'."),
    ("lstm", {"input_forget": 1}, "input_forget: expected 0, got 1"),
    ("gru", {"activations": ["HardSigmoid", "Tanh"]}, "activations: expected .'sigmoid', 'tanh'., got .'hardsigm"),
    ("lstm", {"activations": ["Sigmoid", "Tanh", "Relu"]}, "activations: expected .'sigmoid', 'tanh', 'tanh'., got "),
    ("tanh", {"activations": ["Elu"]}, "activations: expected one of tanh, relu, got 'elu'"),
    ("gru", {"hidden_size": 8}, "hidden_size: expected 7, got 8"),
    ("gru", {"direction": "sideways"}, "direction: expected one of forward, reverse, bidirectional, got 'sideways'"),
]


@pytest.mark.parametrize(("kind", "attributes", "message"), BAD)
def test_nodes_that_we_do_not_have(kind, attributes, message):
    with pytest.raises(ValueError, match="^node 'the node': " + message):
        travel.load(model_of(kind, **{"direction": "forward"} | attributes))


def test_directions_that_differ():
    with pytest.raises(ValueError, match=r"activations: expected \['tanh', 'tanh'\], got \['tanh', 'relu'\]"):
        travel.load(model_of("tanh", "bidirectional", activations=["Tanh", "Relu"]))


@pytest.mark.parametrize(
    ("constants", "error", "message"),
    [
        ({"W": np.zeros((1, 20, 5), "f")}, ValueError, r"W: expected shape \(1, 21, 5\), got \(1, 20, 5\)"),
        ({"R": np.zeros((2, 21, 7), "f")}, ValueError, r"R: expected shape \(1, 21, 7\), got \(2, 21, 7\)"),
        ({"B": np.zeros((1, 21), "f")}, ValueError, r"B: expected shape \(1, 42\), got \(1, 21\)"),
        ({"R": np.zeros((21, 7), "f")}, ValueError, r"R: expected shape \(num_directions, G\*H, H\), got \(21, 7\)"),
        ({"W": np.zeros((1, 21, 5), "e")}, TypeError, "W: expected dtype float32 or float64, got float16"),
        ({"R": np.zeros((1, 21, 7), "d")}, TypeError, "R: expected dtype float32, got float64"),
        ({"B": np.zeros((1, 42), "e")}, TypeError, "B: expected dtype float32, got float16"),
        (
            {"initial_h": np.zeros((2, 4, 7), "f")},
            ValueError,
            r"initial_h: expected shape \(1, any, 7\), got \(2, 4, 7\)",
        ),
        ({"initial_h": np.zeros(7, "f")}, ValueError, r"initial_h: expected shape \(1, any, 7\), got \(7,\)"),
    ],
)
def test_wrong_weights(constants, error, message):
    with pytest.raises(error, match="^node 'the node': " + message):
        travel.load(model_of("gru", "forward", constants=constants))


def test_weights_that_are_not_constant():
    model = model_of("gru", "forward")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    model.graph.initializer.remove(tensors["B"])
    model.graph.input.append(value("B", 1, 42))
    with pytest.raises(ValueError, match="node 'the node': B: expected a constant, got an input of the model"):
        travel.load(model)
    del model.graph.input[1]
    sparse = onnx.helper.make_sparse_tensor(tensors["B"], onnx.numpy_helper.from_array(np.arange(42), "at"), [1, 42])
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ValueError, match="node 'the node': B: expected a constant, got a sparse tensor"):
        travel.load(model)
    del model.graph.sparse_initializer[:]
    model.graph.node[0].input[3] = "nowhere"
    with pytest.raises(ValueError, match="node 'the node': B: expected a constant, got no value of the model"):
        travel.load(model)
    model.graph.node[0].input[3] = "B"
    for operator, given in (("Neg", ["X"]), ("RandomNormal", []), ("Unknown", ["W"]), ("MatMul", ["W", "W"])):
        node = onnx.helper.make_node(operator, given, ["B"], **{"shape": [1, 42]} if operator == "RandomNormal" else {})
        model.graph.node.insert(0, node)
        with pytest.raises(ValueError, match=f"node 'the node': B: expected a constant, got what {operator} computes$"):
            travel.load(model)
        del model.graph.node[0]
    model.graph.node.insert(0, onnx.helper.make_node("Neg", ["R"], ["B"], domain="another"))
    with pytest.raises(ValueError, match=r"node 'the node': B: expected a constant, got what Neg computes$"):
        travel.load(model)
    model.graph.node[1].input[2] = ""
    with pytest.raises(ValueError, match="node 'the node': R: expected a constant, got none"):
        travel.load(model)


def saturating(kind, clip, scale=40.0):
    """A model whose pre-activations, of N(0, scale) and hardly of the state, lie far beyond where gates are 0 or 1."""
    given = {} if clip is None else {"clip": clip}
    model = model_of(kind, "forward", bias=False, **given)
    for tensor in model.graph.initializer:
        factor = {"W": scale, "R": 1e-3}.get(tensor.name, 0)
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(np.float32(factor) * onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    return model


@pytest.mark.parametrize(
    ("kind", "bound"), [("tanh", 9.01091), ("gru", 17.3287), ("gru_reset_before", 17.3287), ("lstm", 17.3287)]
)
def test_clip(kind, bound):
    """Passed over from where onnxruntime, which heeds it, differs by rounding alone."""
    x = normal(6, 4, 5, seed=30, dtype="float32")
    for clip in (1.001 * bound, 50.0, 9999.0, np.inf):
        (node,) = travel.load(saturating(kind, clip))
        assert_close(as_onnx(node.layer, *node(x)), session(saturating(kind, clip))({"X": x}), 1e-6)
    Y = session(saturating(kind, None))({"X": x})["Y"]
    assert relative_error(session(saturating(kind, bound / 2))({"X": x})["Y"], Y) > 1e-5
    for clip, shown in ((0.999 * bound, f"{0.999 * bound:g}"), (0.0, "0"), (-50.0, "-50"), (np.nan, "nan")):
        message = f"node 'the node': clip: expected a number >= {bound:g}, got {shown}"
        with pytest.raises(ValueError, match=f"^{message}$"):
            travel.load(saturating(kind, clip))


def test_clip_of_relu():
    """It acts wherever it is."""
    with pytest.raises(ValueError, match=r"clip: expected a number >= 3\.40282e\+38, got 9999"):
        travel.load(model_of("relu", "forward", clip=9999.0))
    assert travel.load(model_of("relu", "forward", clip=float(np.finfo("f").max)))


def test_what_saturation_means():
    """Beyond it, to rounding, an activation is what it is at infinity, and half an ulp further down is not."""
    from fastrnn.onnx.operators import saturation

    for dtype, half in (("f", 2.0**-25), ("d", 2.0**-54)):
        for activation, function, ends in (
            ("tanh", np.tanh, (-1, 1)),
            ("sigmoid", lambda a: 1 / (1 + np.exp(-a)), (0, 1)),
        ):
            bound = np.longdouble(saturation(activation, np.dtype(dtype)))
            for sign, end in zip((-1, 1), ends, strict=True):
                assert abs(function(sign * bound) - end) <= 1.001 * half
                assert abs(function(sign * (bound - 0.5)) - end) > 1.3 * half


def test_clip_in_float64():
    """The bound is that of float64: here against onnx's own evaluator, which doesn't know clip."""
    constants = {n: normal(*shape, seed=i) for i, (n, shape) in enumerate({"W": (1, 28, 5), "R": (1, 28, 7)}.items())}
    with pytest.raises(ValueError, match=r"clip: expected a number >= 37\.4299, got 37"):
        travel.load(model_of("lstm", "forward", bias=False, constants=constants, clip=37.0))
    (node,) = travel.load(model_of("lstm", "forward", bias=False, constants=constants, clip=38.0))
    assert node.layer.dtype == "float64"


def test_numbers_of_activations():
    """Those that ours don't take change nothing, in onnxruntime as here."""
    x = normal(6, 4, 5, seed=30, dtype="float32")
    model = model_of("lstm", "forward", activation_alpha=[2.0, 3.0, 4.0], activation_beta=[0.1])
    (node,) = travel.load(model)
    assert_close(as_onnx(node.layer, *node(x)), session(model)({"X": x}), TOLERANCE)


@pytest.mark.parametrize("opset", [7, 11, 13, 14, 17, 21, 22])
@pytest.mark.parametrize("kind", ["tanh", "gru", "lstm_peepholes"])
def test_operator_sets(kind, opset):
    model = model_of(kind, "bidirectional")
    model.opset_import[0].version, model.ir_version = opset, 10 if opset > 17 else 8
    x = normal(6, 4, 5, seed=30, dtype="float32")
    (node,) = travel.load(model)
    assert_close(as_onnx(node.layer, *node(x)), session(model)({"X": x}), TOLERANCE)


def test_without_hidden_size():
    model = model_of("gru", "forward")
    attributes = [each for each in model.graph.node[0].attribute if each.name != "hidden_size"]
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.extend(attributes)
    assert travel.load(model)[0].layer.hidden_size == 7


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ["relu", "gru", "lstm"])
def test_sequences_of_no_steps(kind, direction):
    """They end in their initial state here, and in 0 in onnxruntime; y and all other sequences agree."""
    D, S = 2 if direction == "bidirectional" else 1, 2 if kind == "lstm" else 1
    states = {name: normal(D, 4, 7, seed=20 + i, dtype="float32") for i, name in enumerate(STATES[:S])}
    model = model_of(kind, direction, constants=states | {"sequence_lens": np.array([3, 0, 6, 0], np.int32)})
    x = normal(6, 4, 5, seed=30, dtype="float32")
    (node,) = travel.load(model)
    found, expected = as_onnx(node.layer, *node(x)), session(model)({"X": x})
    assert_close({"Y": found.pop("Y")}, {"Y": expected.pop("Y")}, TOLERANCE)
    for (name, value), initial in zip(found.items(), states.values(), strict=True):
        np.testing.assert_array_equal(value[:, [1, 3]], initial[:, [1, 3]])
        assert not expected[name][:, [1, 3]].any()
        assert_close({name: value[:, [0, 2]]}, {name: expected[name][:, [0, 2]]}, TOLERANCE)


def with_nodes(model, *nodes):
    """The model with nodes before its own."""
    own = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *own])
    return model


make = onnx.helper.make_node


def ints(*values):
    return np.array(values, np.int64)


# What a W (1, 21, 5) called W is computed of, by nodes of constants
COMPUTED = {
    "Unsqueeze": (lambda W: {"a": W[0], "n": ints(0)}, [make("Unsqueeze", ["a", "n"], ["W"])]),
    "Squeeze": (lambda W: {"a": W[None], "n": ints(0)}, [make("Squeeze", ["a", "n"], ["W"])]),
    "Cast": (lambda W: {"a": W.astype("d")}, [make("Cast", ["a"], ["W"], to=onnx.TensorProto.FLOAT)]),
    "Transpose": (lambda W: {"a": W.transpose(2, 0, 1).copy()}, [make("Transpose", ["a"], ["W"], perm=[1, 2, 0])]),
    "Concat": (lambda W: {"a": W[:, :7], "b": W[:, 7:]}, [make("Concat", ["a", "b"], ["W"], axis=1)]),
    "Reshape": (lambda W: {"a": W.ravel(), "n": ints(1, 21, -1)}, [make("Reshape", ["a", "n"], ["W"])]),
    "Slice": (
        lambda W: {"a": np.concatenate([W, W], 1), "n": ints(21), "m": ints(42), "k": ints(1)},
        [make("Slice", ["a", "n", "m", "k"], ["W"])],
    ),
    "Split": (
        lambda W: {"a": np.concatenate([0 * W, W]), "n": ints(1, 1)},
        [make("Split", ["a", "n"], ["other", "W"], axis=0)],
    ),
    "Identity": (lambda W: {"a": W}, [make("Identity", ["a"], ["W"])]),
    "Constant of floats": (
        lambda W: {"n": ints(1, 21, 5)},
        lambda W: [make("Constant", [], ["a"], value_floats=W.ravel().tolist()), make("Reshape", ["a", "n"], ["W"])],
    ),
    "Constants of a number": (
        lambda W: {"a": 2 * W},
        [
            make("Constant", [], ["n"], value_float=0.5),
            make("Constant", [], ["m"], value_ints=[1, 21, 5]),
            make("Expand", ["n", "m"], ["b"]),
            make("Mul", ["a", "b"], ["W"]),
        ],
    ),
    "ConstantOfShape": (
        lambda W: {"a": W[:, :, :2], "b": W[:, :, 2:]},
        lambda W: [
            make("Constant", [], ["n"], value=onnx.numpy_helper.from_array(ints(1, 21, 0))),
            make("ConstantOfShape", ["n"], ["none"]),
            make("Concat", ["a", "none", "b"], ["W"], axis=2),
        ],
    ),
    "Shape and Gather": (
        lambda W: {"a": W[:, ::-1].copy(), "n": np.arange(20, -1, -1)},
        [make("Gather", ["a", "n"], ["b"], axis=1), make("Shape", ["a"], ["s"]), make("Reshape", ["b", "s"], ["W"])],
    ),
    "a long chain": (
        lambda W: {"v0": -W},
        [make("Neg", [f"v{i}"], ["W" if i == 1000 else f"v{i + 1}"]) for i in range(1001)],
    ),
}


@pytest.mark.parametrize("how", COMPUTED)
def test_weights_computed_of_constants(how):
    """The same as onnxruntime computes, and the same bits as of an initializer."""
    plain = model_of("gru", "forward")
    tensors = {tensor.name: tensor for tensor in plain.graph.initializer}
    W = onnx.numpy_helper.to_array(tensors["W"])
    expected = travel.load(plain)[0].layer.parameters
    constants, nodes = COMPUTED[how]
    model = with_nodes(model_of("gru", "forward"), *(nodes(W) if callable(nodes) else nodes))
    model.graph.initializer.remove(tensors["W"])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in constants(W).items())
    (node,) = travel.load(model)
    assert_same(node.layer.parameters, expected)
    x = normal(6, 4, 5, seed=30, dtype="float32")
    assert_close(as_onnx(node.layer, *node(x)), session(model)({"X": x}), TOLERANCE)


@pytest.mark.parametrize("opset", [13, 21])
def test_weights_of_integers(opset):
    """Quantised and scaled back by the model itself."""
    model = with_nodes(model_of("gru", "forward"), make("DequantizeLinear", ["a", "scale", "zero"], ["W"]))
    model.opset_import[0].version, model.ir_version = opset, 10
    W = next(tensor for tensor in model.graph.initializer if tensor.name == "W")
    quantised = np.random.default_rng(0).integers(-128, 128, (1, 21, 5)).astype(np.int8)
    W.CopyFrom(onnx.numpy_helper.from_array(quantised, "a"))
    for name, number in (("scale", np.float32(0.01)), ("zero", np.int8(7))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(number), name))
    (node,) = travel.load(model)
    x = normal(6, 4, 5, seed=30, dtype="float32")
    assert_close(as_onnx(node.layer, *node(x)), session(model)({"X": x}), TOLERANCE)


@pytest.mark.parametrize("opset", [7, 11])
def test_attributes_that_became_inputs(opset):
    """Axes, starts and sizes were attributes in old operator sets."""
    model = model_of("gru", "forward")
    W = next(tensor for tensor in model.graph.initializer if tensor.name == "W")
    expected, held = travel.load(model)[0].layer.parameters, onnx.numpy_helper.to_array(W)
    nodes = [
        make("Squeeze", ["a"], ["b"], axes=[0]),
        make("Split", ["b"], ["c", "d"], axis=0, split=[1, 1]),
        make("Slice", ["d"], ["e"], axes=[1], starts=[0], ends=[21]) if opset < 10 else make("Neg", ["d"], ["e"]),
        make("Squeeze", ["e"], ["f"], axes=[0]),
        make("Unsqueeze", ["f"], ["W"], axes=[0]),
    ]
    model = with_nodes(model, *nodes)
    model.opset_import[0].version = opset
    W.CopyFrom(onnx.numpy_helper.from_array(np.stack([0 * held, held if opset < 10 else -held], 1), "a"))
    assert_same(travel.load(model)[0].layer.parameters, expected)


def test_small_models_that_grow_large():
    """Constants beyond 64 MiB and sixteen times what the model holds are not computed."""
    doubling = [make("Concat", [f"a{i}"] * 2, [f"a{i + 1}"], axis=0) for i in range(60)]
    for nodes, operator, size in (
        ([make("ConstantOfShape", ["n"], ["big"])], "ConstantOfShape", 4 << 40),
        ([make("Expand", ["a0", "n"], ["big"])], "Expand", 4 << 40),
        ([make("Tile", ["a0", "n"], ["big"])], "Tile", 4 << 40),
        (doubling, "Concat", None),
        ([make("ConstantOfShape", ["m"], ["b"]), make("Neg", ["b"], ["c"])], "Neg", 10 << 22),
    ):
        model = model_of("gru", "forward", names={"W": nodes[-1].output[0]})
        constants = {"n": ints(1 << 20, 1 << 20), "m": ints(10, 1 << 20), "a0": np.ones((1, 1), "f")}
        model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in constants.items())
        message = f"W: expected a constant, got what {operator} computes{f', {size} bytes' if size else ''}"
        with pytest.raises(ValueError, match=f"^node 'the node': {message}$"):
            travel.load(with_nodes(model, *nodes))


def test_large_models_may_compute():
    """The limit grows with what they hold: here five copies of 25 MB are computed."""
    weights = {"W": (1, 3 * 512, 4096), "R": (1, 3 * 512, 512)}
    constants = {name: np.zeros(shape, "f") for name, shape in weights.items()}
    model = model_of("gru", "forward", bias=False, constants=constants, names={"W": "a5"}, hidden_size=512)
    nodes = [make("Neg", ["W" if i == 0 else f"a{i}"], [f"a{i + 1}"]) for i in range(5)]
    assert travel.load(with_nodes(model, *nodes))[0].layer.input_size == 4096


def test_nodes_that_compute_each_other():
    model = with_nodes(
        model_of("gru", "forward", names={"W": "a"}), make("Neg", ["b"], ["a"]), make("Neg", ["a"], ["b"])
    )
    with pytest.raises(ValueError, match="W: expected a constant, got what Neg computes"):
        travel.load(model)


def value(name, *shape, kind="FLOAT"):
    return onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), shape)


def nested(how):
    """A GRU in a body, whose W is computed outside, R is an initializer of its own and B one of the model."""
    (gru,) = model_of("gru", "forward").graph.node
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model_of("gru", "forward").graph.initializer}
    Y = ("T", 1, "B", 7)

    def body(sign=1, nodes=(), inputs=(), outputs=()):
        own = [onnx.numpy_helper.from_array(sign * arrays["R"], "R")]
        return onnx.helper.make_graph([*nodes, gru], "body", inputs, [*outputs, value("Y", *Y)], own)

    branches, out = {"then_branch": body(), "else_branch": body(sign=-1)}, value("out", *Y)
    if how == "If":
        node = make("If", ["flag"], ["out"], "if", **branches)
    elif how == "If in If":
        outer = onnx.helper.make_graph([make("If", ["flag"], ["Z"], **branches)], "outer", [], [value("Z", *Y)])
        node = make("If", ["flag"], ["out"], "if", then_branch=outer, else_branch=outer)
    elif how == "Loop":
        given = [value("i", kind="INT64"), value("go", kind="BOOL")]
        kept = body(1, [make("Identity", ["go"], ["on"])], given, [value("on", kind="BOOL")])
        node, out = make("Loop", ["n", "flag"], ["out"], body=kept), value("out", 1, *Y)
    else:
        sliced = body(inputs=[value("X", 6, 4, 5)])
        node, out = make("Scan", ["XS"], ["out"], "scan", num_scan_inputs=1, body=sliced), value("out", 1, *Y)
    constants = {"B": arrays["B"], "turned": np.ascontiguousarray(arrays["W"].transpose(0, 2, 1)), "n": np.array(1)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = [*([] if how == "Scan" else [value("X", 6, 4, 5)]), value("XS", 1, 6, 4, 5), value("flag", kind="BOOL")]
    nodes = [make("Transpose", ["turned"], ["W"], perm=[0, 2, 1]), node]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, [out], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("If", ["if/else_branch/the node", "if/then_branch/the node"]),
        ("If in If", [f"if/{a}_branch/Z/{b}_branch/the node" for a in ("else", "then") for b in ("else", "then")]),
        ("Loop", ["out/body/the node"]),
        ("Scan", ["scan/body/the node"]),
    ],
)
def test_nodes_in_bodies(how, names):
    """All of them, named after what they are in; If runs one of its two."""
    model, x = nested(how), normal(6, 4, 5, seed=30, dtype="float32")
    nodes = travel.load(model)
    assert [node.name for node in nodes] == names
    assert [node.name for node in travel.load(model, names[-1])] == names[-1:]
    for node, flag in ((nodes[-1], True), (nodes[0], how[:2] != "If")):
        feeds = {each.name: {"X": x, "XS": x[None], "flag": np.array(flag)}[each.name] for each in model.graph.input}
        out = session(model)(feeds)["out"].reshape(6, 1, 4, 7)
        assert_close({"Y": as_onnx(node.layer, *node(x))["Y"]}, {"Y": out}, TOLERANCE)


def test_bodies_that_compute_their_weights():
    """What a body is given is no constant, though the model has one of that name outside."""
    model = nested("Scan")
    (scan,) = [node for node in model.graph.node if node.op_type == "Scan"]
    next(each.g for each in scan.attribute if each.name == "body").input[0].name = "B"
    with pytest.raises(
        ValueError, match="node 'scan/body/the node': B: expected a constant, got an input of the graph"
    ):
        travel.load(model)


def test_functions_of_a_model():
    """Calls are replaced by what the function does."""
    plain = model_of("gru", "forward")
    expected = travel.load(plain)[0].layer.parameters
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    node = make("GRU", ["x", "w", "r", "b"], ["y", "h"], "gru", hidden_size=7, linear_before_reset=1)
    nodes = [make("Neg", ["v"], ["w"]), node]
    plain.functions.append(
        onnx.helper.make_function("local", "Encoder", ["x", "v", "r", "b"], ["y", "h"], nodes, opsets[:1])
    )
    plain.graph.node[0].CopyFrom(make("Encoder", ["X", "V", "R", "B"], ["Y", "Y_h"], "call", domain="local"))
    with_nodes(plain, make("Neg", ["W"], ["V"]))
    plain.opset_import.append(opsets[1])
    (found,) = travel.load(plain)
    assert_same(found.layer.parameters, expected)
    assert found.name.startswith("gru")
    x = normal(6, 4, 5, seed=30, dtype="float32")
    assert_close(as_onnx(found.layer, *found(x)), session(plain)({"X": x}), TOLERANCE)


@pytest.mark.parametrize(
    ("operator", "domain", "shown"),
    [
        ("DynamicQuantizeLSTM", "com.microsoft", "com.microsoft.DynamicQuantizeLSTM"),
        ("AttnLSTM", "com.microsoft", "com.microsoft.AttnLSTM"),
        ("QLinearGRU", "", "QLinearGRU"),
        ("LSTM", "another", "another.LSTM"),
    ],
)
def test_recurrent_nodes_of_others(operator, domain, shown):
    """Named, and no hindrance to the nodes beside them."""
    model = with_nodes(model_of("gru", "forward"), make(operator, ["X"], ["Q"], "quick", domain=domain))
    with pytest.raises(ValueError, match=f"^node 'quick': operator: expected one of RNN, GRU, LSTM, got '{shown}'$"):
        travel.load(model)
    assert [node.name for node in travel.load(model, "the node")] == ["the node"]


def test_models_without_such_nodes(tmp_path):
    model = model_of("gru", "forward")
    for nodes, got in (
        ([], "none"),
        ([make("Add", ["X", "X"], ["Y"])], "1 Add"),
        ([make("Neg", ["X"], ["Y"]), *[make("Add", ["X", "X"], ["Y"])] * 2], "2 Add, 1 Neg"),
        ([make("MatMulNBits", ["X"], ["Y"], domain="com.microsoft")], r"1 com\.microsoft\.MatMulNBits"),
        ([make(each, ["X"], ["Y"]) for each in "ABCDEFG"], "1 A, 1 B, 1 C, 1 D, 1 E, 1 F, ..."),
    ):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        onnx.save(model, tmp_path / "net.onnx")
        for each, name in ((model, "model"), (tmp_path / "net.onnx", tmp_path / "net.onnx")):
            with pytest.raises(ValueError, match=f"^{name}: expected nodes RNN, GRU or LSTM, got {got}$"):
                travel.load(each)
    with pytest.raises(ValueError, match=r"^model: expected nodes RNN, GRU or LSTM, got none$"):
        travel.load(onnx.ModelProto())


def test_files_that_are_not_read(tmp_path):
    """One line that begins with the file, whatever is wrong with it."""
    whole = travel.export(build("lstm", 5, 7)).SerializeToString()
    for name, data in (
        ("half.onnx", whole[: len(whole) // 2]),
        ("longer.onnx", whole + b"and a text"),
        ("text.onnx", b"no model"),
        ("brace.json", b"{"),
        ("words.textproto", b"ir_version: what"),
        ("bytes.textproto", b"\xff\xfe"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"^{tmp_path / name}: not read: .+$") as found:
            travel.load(str(tmp_path / name))
        assert "\n" not in str(found.value)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"empty\.onnx: expected nodes RNN, GRU or LSTM, got none$"):
        travel.load(tmp_path / "empty.onnx")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        travel.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        travel.load("nowhere.onnx")
    for value in (None, 0, whole, travel.export(build("lstm", 5, 7)).graph):
        with pytest.raises(TypeError, match=f"^model: expected ModelProto, str, PathLike, got {type(value).__name__}$"):
            travel.load(value)


def test_data_outside_of_the_file(tmp_path):
    """Read, or named: the model's file when it is loaded, the weights when they should have been."""
    model = travel.export(random(build("gru", 5, 7)))
    expected = travel.load(model)[0].layer.parameters
    onnx.save(model, tmp_path / "gru.onnx", save_as_external_data=True, location="gru.bin", size_threshold=0)
    assert_same(travel.load(tmp_path / "gru.onnx")[0].layer.parameters, expected)
    without = onnx.load(tmp_path / "gru.onnx", load_external_data=False)
    with pytest.raises(ValueError, match=r"^node 'GRU_Y_l0': W: expected a constant, got what can't be read: .+$"):
        travel.load(without)
    data = (tmp_path / "gru.bin").read_bytes()
    (tmp_path / "gru.bin").write_bytes(data[:100])
    with pytest.raises(ValueError, match=r"^(.*gru\.onnx: not read|node 'GRU_Y_l0': W: .*can't be read): .+$"):
        travel.load(tmp_path / "gru.onnx")
    (tmp_path / "gru.bin").unlink()
    with pytest.raises(ValueError, match=r"gru\.onnx: not read: .*gru\.bin.*$") as found:
        travel.load(tmp_path / "gru.onnx")
    assert "\n" not in str(found.value)


def test_damaged_tensors():
    model = model_of("gru", "forward")
    model.graph.initializer[0].dims[1] = 22
    with pytest.raises(ValueError, match=r"^node 'the node': W: expected a constant, got what can't be read: .+$"):
        travel.load(model)
    model.graph.initializer[0].data_type = 99
    with pytest.raises(ValueError, match=r"^node 'the node': W: expected a constant, got what can't be read: .+$"):
        travel.load(model)


def test_wrong_arguments_of_a_node():
    (node,) = travel.load(model_of("gru", "reverse"))
    x = normal(6, 4, 5, dtype="float32")
    with pytest.raises(ValueError, match=r"x: expected shape \(T, B, input_size\), got \(6, 5\)"):
        node(x[:, 0])
    with pytest.raises(ValueError, match="lengths: expected 0 <= length <= 6, got 7"):
        node(x, lengths=[7, 0, 0, 0])


@pytest.mark.parametrize("kind", ["gru", "gru_reset_before", "lstm_peepholes"])
def test_a_swapped_gate_is_seen(kind):
    """onnxruntime tells any two gates apart by far more than the tolerance."""
    x, G = normal(6, 3, 5, seed=30, dtype="float32"), len(KINDS[kind].kind.gates)
    plain = model_of(kind, "forward")
    expected = session(plain)({"X": x})["Y"]
    for tensor in plain.graph.initializer:
        value, blocks = onnx.numpy_helper.to_array(tensor)[0], {"P": 3, "B": 2 * G}.get(tensor.name, G)
        for gate in range(1, 3 if tensor.name == "P" else G):
            parts = np.split(value, blocks)
            parts[0], parts[gate] = parts[gate], parts[0]
            swapped = model_of(kind, "forward", constants={tensor.name: np.concatenate(parts)[None]})
            assert relative_error(session(swapped)({"X": x})["Y"], expected) > 1e-3


def test_onnx_is_imported_when_asked(run_python):
    done = run_python("import sys, fastrnn; assert 'onnx' not in sys.modules")
    assert done.returncode == 0, done.stderr
