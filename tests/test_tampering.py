"""Layers and models whose arrays and attributes are changed behind their backs: right, or refused in one line."""

import numpy as np
import pytest

from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    GRUCell,
    Linear,
    LSTMCell,
    Packed,
    Parameters,
    Recursive,
    RNNCell,
    TimeDelay,
    Trees,
    cross_entropy,
    functional,
    optim,
    ragged,
)
from fastrnn.functional import Weights
from fastrnn.kernels.cells.elman import ElmanTanh
from fastrnn.models import CharLM, Seq2Seq, SequenceClassifier, SequenceGenerator, SequenceTagger

I, H = 5, 18
PARENTS = [2, 2, 6, 5, 5, 6, -1]
REFUSALS = (ValueError, TypeError, AttributeError)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


LAYERS = {
    "rnn": (lambda: RNN(I, H, 2, seed=0), lambda: normal(4, 3, I)),
    "gru, both ways": (lambda: GRU(I, H, bidirectional=True, seed=0), lambda: normal(4, 3, I)),
    "lstm": (lambda: LSTM(I, H, proj_size=7, peepholes=True, seed=0), lambda: normal(4, 3, I)),
    "gru of a packed": (lambda: GRU(I, H, reset_after=False, seed=0), lambda: Packed(normal(7, I), [0, 4, 4, 7])),
    "rnn cell": (lambda: RNNCell(I, H, seed=0), lambda: normal(3, I)),
    "gru cell": (lambda: GRUCell(I, H, seed=0), lambda: normal(3, I)),
    "lstm cell": (lambda: LSTMCell(I, H, peepholes=True, seed=0), lambda: normal(3, I)),
    "linear": (lambda: Linear(I, H, seed=0), lambda: normal(4, I)),
    "embedding": (lambda: Embedding(I, H, seed=0), lambda: np.array([[0, 4], [2, 2]])),
    "time delay": (lambda: TimeDelay(I, H, 3, seed=0), lambda: normal(4, 3, I)),
    "recursive": (lambda: Recursive(I, H, "lstm", 2, seed=0), lambda: normal(7, I)),
}
by_layer = pytest.mark.parametrize("name", LAYERS)


def arguments(layer, x):
    return (x, Trees(PARENTS)) if isinstance(layer, Recursive) else (x,)


def leaves(value):
    if isinstance(value, Packed):
        value = value.data
    if isinstance(value, Parameters):
        value = value.flat
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [np.array(value)]


def like(value):
    """Ones in place of every array."""
    if isinstance(value, tuple):
        return tuple(map(like, value))
    return Packed(np.ones_like(value.data), value.offsets) if isinstance(value, Packed) else np.ones_like(value)


def pulled(output, pullback):
    """The gradients of an output's sum."""
    recurrent = isinstance(output, tuple) and isinstance(output[0], (np.ndarray, Packed)) and len(output) == 2
    several = recurrent and pullback.__qualname__.startswith("Recurrent.")
    return leaves(pullback(*like(output)) if several else pullback(like(output)))


def everything(layer, given):
    """What a layer computes from its arguments, forward and backward."""
    output, pullback = layer.vjp(*given)
    return leaves(output) + pulled(output, pullback) + leaves(layer(*given))


def assert_same(got, expected):
    for one, wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, wanted)


def outcome(function):
    """The results; or None and what a refusal says, which is one line."""
    try:
        return function()
    except REFUSALS as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


SIZES = ("input_size", "hidden_size", "proj_size", "num_layers", "bidirectional", "bias", "in_features", "out_features")
SIZES += ("num_embeddings", "embedding_dim", "in_channels", "out_channels", "kernel_size", "children", "peepholes")
INTERNAL = ("_widths", "_K", "_cell")


def set_a_size(layer, rng):
    names = [name for name in SIZES if hasattr(layer, name)]
    setattr(layer, rng.choice(names), int(rng.integers(1, 99)))


def set_what_is_internal(layer, rng):
    names = [name for name in INTERNAL if hasattr(layer, name)]
    if names:
        name = rng.choice(names)
        value = getattr(layer, name)
        changed = {int: lambda: 3, tuple: lambda: value[:-1], list: lambda: value[:-1]}
        setattr(layer, name, changed.get(type(value), lambda: RNN)())


def reshape_a_view(layer, rng):
    view = layer.parameters[rng.choice(list(layer.parameters))]
    view.shape = (1, -1)


def retype_a_view(layer, rng):
    layer.parameters[rng.choice(list(layer.parameters))].dtype = np.int32


def reshape_the_buffer(layer, rng):
    layer.parameters.flat.shape = (1, -1)


def resize_the_buffer(layer, rng):
    layer.parameters.flat.resize(int(rng.integers(0, 9)), refcheck=False)


def resize_a_view(layer, rng):
    layer.parameters[rng.choice(list(layer.parameters))].resize((1,), refcheck=False)


def replace_the_buffer(layer, rng):
    layer.parameters.flat = np.zeros(int(rng.integers(0, layer.parameters.flat.size)), np.float32)


def replace_the_parameters(layer, rng):
    layer.parameters = rng.choice([RNN(3, 4), Linear(2, 3), Embedding(2, 2), GRU(I, H + 1)]).parameters


def replace_the_parameters_by_an_array(layer, rng):
    layer.parameters = layer.parameters.flat


def change_the_shapes(layer, rng):
    layer.parameters.shapes[rng.choice(list(layer.parameters))] = (10**6, 10**6)


TAMPERING = [
    set_a_size, set_what_is_internal, reshape_a_view, retype_a_view, reshape_the_buffer, resize_the_buffer,
    resize_a_view, replace_the_buffer, replace_the_parameters, replace_the_parameters_by_an_array, change_the_shapes,
]  # fmt: skip


def fenced_layer(name, fenced):
    """A layer whose parameters end where readable memory does, its arguments, and what is right."""
    build, draw = LAYERS[name]
    layer = build()
    given = arguments(layer, draw())
    expected = everything(layer, given)
    flat = fenced(layer.parameters.flat.size, np.float32)
    flat[:] = layer.parameters.flat
    layer.parameters = object.__new__(Parameters)._over(layer.parameters._layout, flat)
    return layer, given, expected


@by_layer
def test_memory_beyond_parameters_and_inputs_is_not_touched(name, fenced):
    layer, given, expected = fenced_layer(name, fenced)
    x = given[0].data if isinstance(given[0], Packed) else given[0]
    own = fenced(x.size, x.dtype).reshape(x.shape)
    own[...] = x
    own = Packed(own, given[0].offsets) if isinstance(given[0], Packed) else own
    assert_same(everything(layer, (own, *given[1:])), expected)


def tampered(name, rng, fenced):
    """What a layer gives after a few changes, all before, or some between forward and backward; and what is right."""
    layer, given, expected = fenced_layer(name, fenced)
    for _ in range(rng.integers(1, 3)):
        outcome(lambda: TAMPERING[rng.integers(len(TAMPERING))](layer, rng))
    found = outcome(lambda: layer.vjp(*given))
    if found is None:
        return None, expected
    for _ in range(rng.integers(0, 2)):
        outcome(lambda: TAMPERING[rng.integers(len(TAMPERING))](layer, rng))
    return outcome(lambda: leaves(found[0]) + pulled(*found)), expected


def fuzz(count, fenced):
    """How many of so many layers gave results, which were right; the others gave an error of one line."""
    rng, right = np.random.default_rng(0), 0
    for _ in range(count):
        got, expected = tampered(rng.choice(list(LAYERS)), rng, fenced)
        if got is not None:
            assert_same(got, expected[: len(got)])
            right += 1
    return right


def test_layers_that_were_tampered_with(fenced):
    assert 300 < fuzz(1000, fenced) < 1000


@pytest.mark.exhaustive
def test_many_layers_that_were_tampered_with(fenced):
    assert 6000 < fuzz(20_000, fenced) < 20_000


@by_layer
@pytest.mark.parametrize("change", [reshape_a_view, retype_a_view, reshape_the_buffer], ids=lambda f: f.__name__)
def test_views_of_a_callers_are_his_own(name, change, fenced):
    """Their shape and dtype may be set; the layer goes on as it was."""
    layer, given, expected = fenced_layer(name, fenced)
    rng = np.random.default_rng(0)
    for _ in range(4):
        outcome(lambda: change(layer, rng))
    assert_same(everything(layer, given), expected)
    assert {name: value.shape for name, value in layer.state_dict().items()} == layer.parameters.shapes


@by_layer
def test_what_was_given_may_change_its_shape_before_the_pullback(name):
    build, draw = LAYERS[name]
    layer = build()
    given = arguments(layer, draw())
    output, pullback = layer.vjp(*given)
    expected = pulled(output, pullback)
    x = given[0].data if isinstance(given[0], Packed) else given[0]
    ones = like(output)
    for array in [x, *[part.data if isinstance(part, Packed) else part for part in flattened(output)]]:
        array.shape = (-1,)
        array.dtype = np.uint8
    several = isinstance(output, tuple) and pullback.__qualname__.startswith("Recurrent.")
    assert_same(leaves(pullback(*ones) if several else pullback(ones)), expected)


def flattened(value):
    return [leaf for part in value for leaf in flattened(part)] if isinstance(value, tuple) else [value]


def test_tokens_and_targets_may_change_before_the_pullback():
    tokens, layer = np.array([3, 0, 4]), Embedding(I, H, seed=0)
    y, pullback = layer.vjp(tokens)
    expected = pullback(np.ones_like(y)).flat.copy()
    tokens[:] = 10**9
    np.testing.assert_array_equal(pullback(np.ones_like(y)).flat, expected)
    tokens, zero = np.array([3, 0, 4]), np.zeros((1, H), np.float32)
    weights, steps = Weights(normal(H, I), normal(H, H)), [ragged.dense(3, 1)]
    y, _, pullback, _ = functional.recurrent_layer(ElmanTanh, tokens, [(zero,)], [weights], steps)
    grads = [Weights(*[None if w is None else np.empty_like(w) for w in weights]) for _ in range(2)]
    pullback(y, [(zero,)], grads[:1])
    tokens[:] = 10**9
    pullback(y, [(zero,)], grads[1:])
    assert_same(grads[1][:2], grads[0][:2])
    targets, logits = np.array([3, 0, 4]), normal(3, I)
    _, pullback = cross_entropy(logits, targets)
    expected = pullback()
    targets[:] = -(10**9)
    np.testing.assert_array_equal(pullback(), expected)


def test_what_kernels_follow_is_read_only():
    packed, trees = Packed(normal(7, I), [0, 4, 4, 7]), Trees(PARENTS)
    steps = [ragged.dense(4, 3), ragged.dense(4, 3, True), ragged.ragged(np.array([4, 3, 1]), True)]
    shown = [packed.offsets, trees.parents, trees.positions, trees.roots, trees.order, trees.place, trees.levels]
    shown += [trees.above, *trees.slots(), *trees.slots(2)]
    shown += [array for each in steps for array in (each.first, each.count, each.lengths, each.previous, each.order)]
    for array in shown:
        if isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 10**9
    for owner, attribute in ((packed, "offsets"), (trees, "order"), (trees, "parents"), (trees, "levels")):
        with pytest.raises(AttributeError, match=attribute):
            setattr(owner, attribute, np.array([0, 10**9]))


def test_what_was_given_for_indices_is_copied():
    offsets, parents = np.array([0, 4, 4, 7]), np.array(PARENTS)
    packed, trees, layer = Packed(normal(7, I), offsets), Trees(parents), GRU(I, H, seed=0)
    tree = Recursive(I, H, seed=0)
    expected, expected_states = layer(packed)[0].data, tree(packed.data, trees)
    offsets[1], parents[:] = 10**9, -1
    np.testing.assert_array_equal(layer(packed)[0].data, expected)
    np.testing.assert_array_equal(tree(packed.data, trees), expected_states)


def test_counts_given_to_torch_are_the_callers():
    """A packed batch of equal lengths has the steps of every other such batch."""
    layer, x = GRU(I, H, seed=0), normal(4, 3, I)
    expected, _ = layer(x)
    _, count, *_ = Packed.from_padded(x, [4, 4, 4]).to_torch()
    count[:] = 10**9
    np.testing.assert_array_equal(layer(x)[0], expected)


def test_a_packed_whose_data_has_other_rows():
    layer, packed = GRU(I, H, seed=0), Packed(normal(7, I), [0, 4, 4, 7])
    for rows in (3, 6, 8, 0):
        packed.data = normal(rows, I)
        with pytest.raises(
            ValueError, match=rf"^x.data: expected shape \(N, input_size\) = \(7, 5\), got \({rows}, 5\)$"
        ):
            layer(packed)
    packed.data = normal(7, I)
    _, pullback = layer.vjp(packed)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(7, 18\), got \(8, 18\)$"):
        pullback(normal(8, H))


def test_cotangents_of_another_batch():
    layer = LSTM(I, H, seed=0)
    (y, state), pullback = layer.vjp(normal(4, 3, I))
    (other, other_state), _ = layer.vjp(normal(6, 2, I))
    for cotangents in ((other,), (y, other_state), (None, (state[0], other_state[1]))):
        with pytest.raises(ValueError, match=r": expected shape .*, got \(\d, 2, 18\)$"):
            pullback(*cotangents)


def test_optimizers_of_other_sizes():
    layer, other = RNN(I, H, seed=0), RNN(I, H + 1, seed=0)
    optimizer = optim.Adam(layer.parameters)
    with pytest.raises(AttributeError, match="parameters"):
        optimizer.parameters = other.parameters
    with pytest.raises(ValueError, match=r"^grads: expected 450 elements of float32, got 494 of float32$"):
        optimizer.step(other.parameters.zeros_like())
    optimizer.grads = other.parameters.zeros_like()
    with pytest.raises(ValueError, match=r"^grads: expected 450 elements of float32, got 494 of float32$"):
        optimizer.step(optimizer.grads)
    assert optimizer.steps == 0


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adam, optim.AdamW])
def test_memory_beyond_what_an_optimizer_updates_is_not_touched(kind, fenced):
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    results = []
    for memory in (lambda count, dtype: np.empty(count, dtype), fenced):
        p, g = (object.__new__(Parameters)._over(RNN(2, 3).parameters._layout, memory(21, "f")) for _ in range(2))
        p.flat, g.flat = np.arange(21), np.arange(21)[::-1]
        optimizer = kind(p, **options)
        optimizer._moments = {name: memory(21, "f") for name in optimizer.moments}
        for moment in optimizer._moments.values():
            moment[:] = 0
        for _ in range(2):
            optimizer.step(g)
        results.append([p.flat, optim.grad_norm(g)])
    assert_same(*results)


TEXT = [np.array([0, 1, 2]), np.array([2, 1])]
MODELS = {
    "charlm": (lambda: CharLM("abc", "lstm", 8, embedding_size=4, seed=0), ([[0, 1], [2, 0]], [[1, 2], [0, 1]])),
    "classifier": (lambda: SequenceClassifier(2, num_tokens=3, hidden_size=8, seed=0), ((TEXT, np.array([0, 1])),)),
    "tagger": (lambda: SequenceTagger(3, num_tokens=3, hidden_size=8, seed=0), ((TEXT, TEXT),)),
    "generator": (lambda: SequenceGenerator(3, 2, hidden_size=8, seed=0), ((normal(2, 2), TEXT),)),
    "seq2seq": (
        lambda: Seq2Seq(3, 3, hidden_size=8, bidirectional=True, attention=True, seed=0),
        ((TEXT, TEXT),),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_models(name):
    """A part can't be replaced; its parameters can, but a model doesn't train then what it doesn't read."""
    build, batch = MODELS[name]
    model = build()
    for part, own in model._parts.items():
        model = build()
        own = model._parts[part]
        holders = (
            model,
            getattr(model, "encoder", None),
            getattr(model, "_encoder", None),
            getattr(model, "_decoder", None),
        )
        found = [(holder, key) for holder in holders if holder for key, value in vars(holder).items() if value is own]
        for holder, key in found:
            with pytest.raises(ValueError, match=rf"^{key}: expected the \w+ that was built, got another LSTM$"):
                setattr(holder, key, LSTM(4, 8, seed=1))
        own.parameters = Parameters(own.parameters.shapes, "float32")
        with pytest.raises(ValueError, match=rf"^{part}.parameters: expected the model's own, got others$"):
            model.loss_and_gradients(*batch)
        other = Linear(3, 1).parameters
        with pytest.raises(
            ValueError, match=r"^parameters: expected \{.*\}, got \{'weight': \(1, 3\), 'bias': \(1,\)\}$"
        ):
            own.parameters = other
    with pytest.raises(
        ValueError, match=r"^parameters: expected the Parameters that was built, got another Parameters$"
    ):
        model.parameters = model.parameters.zeros_like()


MESSAGES = {
    "hidden_size: expected 18 that was built, got 7": lambda: setattr(GRU(I, H), "hidden_size", 7),
    "bidirectional: expected False that was built, got True": lambda: setattr(GRU(I, H), "bidirectional", True),
    "num_embeddings: expected 5 that was built, got 6": lambda: setattr(Embedding(5, 2), "num_embeddings", 6),
    "flat: expected shape (6,), got (3,)": lambda: setattr(Linear(3, 2, False).parameters, "flat", np.zeros(3)),
    "parameters: expected {'weight': (2, 3)}, got {'weight': (3, 2)}": lambda: setattr(
        Linear(3, 2, False), "parameters", Linear(2, 3, False).parameters
    ),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages(message):
    with pytest.raises(ValueError) as caught:
        MESSAGES[message]()
    assert str(caught.value) == message


def test_what_may_be_assigned():
    layer, other = GRU(I, H, seed=0), GRU(I, H, seed=1)
    x = normal(4, 3, I)
    expected, _ = other(x)
    layer.hidden_size, layer.num_layers = H, 1
    layer.parameters = other.parameters
    np.testing.assert_array_equal(layer(x)[0], expected)
    layer = GRU(I, H, seed=0)
    layer.parameters.flat = other.parameters.flat
    np.testing.assert_array_equal(layer(x)[0], expected)
    layer.parameters.flat *= 2
    np.testing.assert_array_equal(layer.parameters["weight_ih_l0"], 2 * other.parameters["weight_ih_l0"])
    layer.batch_first = True
    np.testing.assert_array_equal(other(x)[0].shape, (4, 3, H))
    assert layer(x.swapaxes(0, 1))[0].shape == (3, 4, H)
