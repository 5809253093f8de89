"""ONNX models against onnxruntime: exported ones compute the same there, and nodes of others the same here."""

import numpy as np
import pytest
from numerics import assert_close, relative_error
from oracles import arrays_of, assert_same, normal, state_of
from recurrent_layers import build

from fastrnn import GRU, LSTM, RNN, Linear
from fastrnn.models import CharLM

REASON = "compares with onnxruntime: pip install fastrnn[test]"
onnx = pytest.importorskip("onnx", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)
travel = pytest.importorskip("fastrnn.onnx")

TOLERANCE = 1e-5
# kind: class, options, and the same as attributes of a node, given to D directions
KINDS = {
    "tanh": (RNN, {}, lambda D: {}),
    "relu": (RNN, {"nonlinearity": "relu"}, lambda D: {"activations": ["Relu"] * D}),
    "gru": (GRU, {}, lambda D: {"linear_before_reset": 1}),
    "gru_reset_before": (GRU, {"reset_after": False}, lambda D: {}),
    "lstm": (LSTM, {}, lambda D: {}),
    "lstm_peepholes": (LSTM, {"peepholes": True}, lambda D: {"activations": ["sigmoid", "tanh", "tanh"] * D}),
}
GATES = {RNN: 1, GRU: 3, LSTM: 4}
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
    Layer, options, _ = KINDS[kind]
    L, H, bias, batch_first = shape
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, **options}
    layer = random(Layer(5, H, L, **options))
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
@pytest.mark.parametrize("cell", ["tanh", "relu", "gru", "lstm"])
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
    Layer, options, _ = KINDS[kind]
    layer = random(Layer(5, 7, 2, dtype="float64", **options))
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
    Layer, _, own = KINDS[kind]
    D, G, H, I = 2 if direction == "bidirectional" else 1, GATES[Layer], 7, 5
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H)} | ({"B": (D, 2 * G * H)} if bias else {})
    shapes |= {"P": (D, 3 * H)} if kind == "lstm_peepholes" else {}
    weights = {n: 0.5 * normal(*shape, seed=i, dtype="float32") for i, (n, shape) in enumerate(shapes.items())}
    values = weights | (constants or {})
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", *["initial_c", "P"] * (Layer is LSTM)]
    given = [name if name in ("X", *values, *inputs) else "" for name in order]
    outputs = ["Y", "Y_h", *["Y_c"] * (Layer is LSTM)]
    attributes = {"hidden_size": H, "direction": direction} | own(D) | attributes
    given = [(names or {}).get(name, name) for name in given]
    node = onnx.helper.make_node(Layer.__name__, given, outputs, "the node", **attributes)
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
    T, B, D, S = 6, 4, 2 if direction == "bidirectional" else 1, 2 if KINDS[kind][0] is LSTM else 1
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
    initial = {name: normal(D, 4, 7, seed=i, dtype="float32") for i, name in enumerate(STATES)}
    if KINDS[kind][0] is not LSTM:
        del initial["initial_c"]
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
        each.domain = "another"
    assert travel.load(model) == []


BAD = [
    ("lstm", {"clip": 5.0}, "clip: expected None, got 5.0"),
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
    ],
)
def test_wrong_weights(constants, error, message):
    with pytest.raises(error, match="^node 'the node': " + message):
        travel.load(model_of("gru", "forward", constants=constants))


def test_weights_that_are_not_constant():
    model = model_of("gru", "forward")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    model.graph.initializer.remove(tensors["B"])
    with pytest.raises(ValueError, match="node 'the node': B: expected a constant, got an input of the model"):
        travel.load(model)
    model.graph.node.insert(0, onnx.helper.make_node("Neg", ["W"], ["B"]))
    with pytest.raises(ValueError, match="node 'the node': B: expected a constant, got what Neg computes"):
        travel.load(model)
    model.graph.node[1].input[2] = ""
    with pytest.raises(ValueError, match="node 'the node': R: expected a constant, got none"):
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
    Layer = KINDS[kind][0]
    x, G = normal(6, 3, 5, seed=30, dtype="float32"), GATES[Layer]
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
