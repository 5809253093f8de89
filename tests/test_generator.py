"""SequenceGenerator: losses and gradients against torch and against differences, generation, training."""

import numpy as np
import pytest
from cells import torch_layer
from numerics import assert_close, relative_error
from oracles import assert_trains_as_torch, import_torch

import fastrnn
from fastrnn import Packed, gradcheck, optim
from fastrnn.models.generator import SequenceGenerator

V, C = 6, 3
KINDS = [
    ("lstm", "state", 2),
    ("lstm", "input", 1),
    ("lstm", "both", 2),
    ("gru", "state", 1),
    ("tanh", "both", 1),
    ("relu", "input", 2),
]
kinds = pytest.mark.parametrize(("cell", "condition", "num_layers"), KINDS)


def build(cell="lstm", condition="state", num_layers=1, dtype="float64", seed=0, **options):
    options = {"hidden_size": 9, "embedding_size": 4, "num_tokens": V, "condition_size": C} | options
    return SequenceGenerator(**options, cell=cell, condition=condition, num_layers=num_layers, dtype=dtype, seed=seed)


def example(dtype="float64", seed=0, below=V, lengths=(3, 0, 6, 1, 17)):
    rng = np.random.default_rng(seed)
    conditions = rng.standard_normal((len(lengths), C)).astype(dtype)
    return conditions, [rng.integers(0, below, n) for n in lengths]


# Against torch, sequence by sequence


def torch_twin(model):
    """torch's layers by the same names, with the same weights."""
    torch, c = import_torch(), model.config
    H, L, E, cell = (c[name] for name in ("hidden_size", "num_layers", "embedding_size", "cell"))
    columns = E + (c["condition"] != "state") * C
    rnn = torch_layer(torch, cell, columns, H, L)
    parts = {"embedding": torch.nn.Embedding(V + 1, E), "rnn": rnn, "head": torch.nn.Linear(H, V + 1)}
    if c["condition"] != "input":
        parts["bridge"] = torch.nn.Linear(C, len(model.rnn.state_names) * L * H)
    twin = torch.nn.ModuleDict(parts).to(getattr(torch, c["dtype"]))
    twin.load_state_dict({name: torch.tensor(value) for name, value in model.parameters.items()})
    return twin


def torch_logits(twin, condition, tokens):
    """(T+1, V+1) of one sequence."""
    torch = import_torch()
    condition, rnn = torch.tensor(condition), twin["rnn"]
    x, state = twin["embedding"](torch.tensor([V, *tokens])), None
    if rnn.input_size > x.shape[1]:
        x = torch.cat([x, condition.expand(len(x), C)], 1)
    if "bridge" in twin:
        states = twin["bridge"](condition).view(-1, rnn.num_layers, 1, rnn.hidden_size)
        state = states[0].tanh() if len(states) == 1 else (states[0].tanh(), states[1])
    return twin["head"](rnn(x[:, None], state)[0][:, 0])


def torch_loss(twin, batch):
    torch = import_torch()
    logits = torch.cat([torch_logits(twin, *pair) for pair in zip(*batch, strict=True)])
    outputs = np.concatenate([[*tokens, V] for tokens in batch[1]])
    return torch.nn.functional.cross_entropy(logits, torch.tensor(outputs))


@kinds
@pytest.mark.parametrize("lengths", [(3, 0, 6, 1, 17), (2,)], ids=["many rows", "fewer rows than tokens"])
def test_loss_and_gradients_equal_torchs(cell, condition, num_layers, lengths):
    model, batch = build(cell, condition, num_layers), example(lengths=lengths)
    twin = torch_twin(model)
    expected = torch_loss(twin, batch)
    expected.backward()
    loss, grads = model.loss_and_gradients(batch)
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    assert model.loss(batch) == loss
    assert_close(grads, {name: p.grad.numpy() for name, p in twin.named_parameters()}, 1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("condition", ["state", "input", "both"])
def test_a_training_goes_as_torchs(condition, dtype, tolerance):
    model = build("gru", condition, dtype=dtype)
    batches = [example(dtype, seed=step % 5) for step in range(50)]
    loss = assert_trains_as_torch(model, torch_twin(model), torch_loss, batches, tolerance)
    assert loss < 1.9, "guessing: log(7) = 1.95"


# Gradients


@kinds
def test_gradients_are_derivatives(cell, condition, num_layers):
    model, batch = build(cell, condition, num_layers, hidden_size=2, embedding_size=2), example()

    def loss(**parameters):
        model.parameters.update(parameters)
        return np.float64(model.loss(batch))

    _, grads = model.loss_and_gradients(batch)
    report = gradcheck.check(loss, dict(grads), dict(model.parameters), method="dot")
    assert report.ok, report


def test_scale_is_a_factor_of_the_gradients():
    model, batch = build(condition="both"), example()
    loss, grads = model.loss_and_gradients(batch)
    again, scaled = model.loss_and_gradients(batch, 8.0)
    assert loss == again
    assert relative_error(scaled.flat, 8 * grads.flat) < 1e-14


# Batches


@kinds
def test_a_sequence_does_not_depend_on_those_beside_it(cell, condition, num_layers):
    """To the bit, also where a batch has fewer rows than there are tokens."""
    model = build(cell, condition, num_layers, "float32", hidden_size=33, num_tokens=20)
    conditions, sequences = example("float32", below=20)
    order = [3, 0, 4, 2, 1]
    for method in ("greedy", "beam"):
        found = model.generate(conditions, 8, method)
        again = model.generate(conditions[order], 8, method)
        for i, b in enumerate(order):
            np.testing.assert_array_equal(again[i], found[b], strict=True)
            np.testing.assert_array_equal(model.generate(conditions[b : b + 1], 8, method)[0], found[b], strict=True)
    sampled = model.generate(conditions, 8, "sample", seed=3)
    for a, b in zip(sampled, model.generate(conditions[:3], 8, "sample", seed=3), strict=False):
        np.testing.assert_array_equal(a, b, strict=True)
    pairs = [([condition], [tokens]) for condition, tokens in zip(conditions, sequences, strict=True)]
    total = sum(model.loss((np.array(c), t)) * (len(t[0]) + 1) for c, t in pairs)
    rows = sum(len(tokens) + 1 for tokens in sequences)
    assert total / rows == pytest.approx(model.loss((conditions, sequences)), rel=1e-13)


def test_all_forms_of_a_batch_are_one():
    model, (conditions, _) = build(condition="both"), example()
    tokens = np.arange(20).reshape(5, 4) % V
    expected = model.loss((conditions, tokens))
    for same in (list(tokens), [list(own) for own in tokens], Packed(tokens.reshape(-1), np.arange(6) * 4)):
        assert model.loss((conditions, same)) == expected


def test_dropout_is_for_training_alone():
    model, plain, batch = build(dropout=0.5), build(), example()
    assert model.loss(batch) == plain.loss(batch)
    assert len({model.loss_and_gradients(batch)[0] for _ in range(3)}) == 3


# Generation


def likelihood(twin, condition, tokens):
    """The log-probability of a sequence with its end."""
    log_p = torch_logits(twin, condition, tokens).detach().log_softmax(1)
    return sum(float(log_p[t, token]) for t, token in enumerate([*tokens, V]))


@kinds
def test_greedy_takes_the_likeliest_token(cell, condition, num_layers):
    model, (conditions, _) = build(cell, condition, num_layers), example()
    model.parameters.flat[:] *= 4
    twin = torch_twin(model)
    for own, found in zip(conditions, model.generate(conditions, 7), strict=True):
        expected = []
        while len(expected) < 7 and (token := int(torch_logits(twin, own, expected)[-1].argmax())) != V:
            expected.append(token)
        np.testing.assert_array_equal(found, np.array(expected, np.int64), strict=True)


@pytest.mark.parametrize("condition", ["state", "both"])
def test_a_beam_finds_likelier_sequences(condition):
    model, (conditions, _) = build("gru", condition), example(lengths=(1,) * 12)
    model.parameters.flat[:] *= 4
    twin = torch_twin(model)
    likelihoods = {
        width: [
            likelihood(twin, own, found)
            for own, found in zip(conditions, model.generate(conditions, 4, "beam", beam_width=width), strict=True)
        ]
        for width in (1, 500)
    }
    assert all(wide >= narrow - 1e-12 for narrow, wide in zip(likelihoods[1], likelihoods[500], strict=True))
    assert sum(likelihoods[500]) > sum(likelihoods[1]) + 0.1
    for a, b in zip(model.generate(conditions, 4, "beam", beam_width=1), model.generate(conditions, 4), strict=True):
        np.testing.assert_array_equal(a, b)


def test_options_of_samples():
    model, (conditions, _) = build(), example(lengths=(1,) * 40)
    first, again, other = (model.generate(conditions, 9, "sample", seed=seed) for seed in (0, 0, 1))
    assert [list(t) for t in first] == [list(t) for t in again] != [list(t) for t in other]
    greedy = [list(t) for t in model.generate(conditions, 9)]
    assert [list(t) for t in model.generate(conditions, 9, "sample", top_k=1, seed=0)] == greedy
    assert [list(t) for t in model.generate(conditions, 9, "sample", temperature=0)] == greedy


def test_no_conditions_and_no_length():
    model = build()
    for method in ("greedy", "sample", "beam"):
        assert model.generate(np.empty((0, C)), 5, method) == []
        assert [len(tokens) for tokens in model.generate(np.ones((2, C)), 0, method)] == [0, 0]


# Training and files


NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.parametrize("condition", ["state", "input", "both"])
def test_names_of_digits_are_learnt(condition):
    fastrnn.set_num_threads(1)
    letters = "".join(sorted(set("".join(NAMES))))
    conditions = np.eye(10, dtype=np.float32)
    names = [[letters.index(c) for c in name] for name in NAMES]
    model = SequenceGenerator(len(letters), 10, condition=condition, hidden_size=48, embedding_size=8, seed=0)
    optimizer = optim.Adam(model.parameters, 1e-2)
    model.fit(conditions, names, epochs=150, batch_size=10, optimizer=optimizer)
    for method in ("greedy", "beam"):
        written = ["".join(letters[i] for i in tokens) for tokens in model.generate(conditions, 8, method)]
        assert written == NAMES


@kinds
def test_config_builds_the_model_again(cell, condition, num_layers, tmp_path):
    model, batch = build(cell, condition, num_layers, "float32", dropout=0.25), example("float32")
    assert SequenceGenerator(**model.config).config == model.config
    model.save(tmp_path / "model.safetensors")
    assert SequenceGenerator.load(tmp_path / "model.safetensors").loss(batch) == model.loss(batch)


def test_names_of_parameters():
    shapes = build("lstm", "both", 2).parameters.shapes
    assert shapes["embedding.weight"] == (V + 1, 4)
    assert shapes["rnn.weight_ih_l0"] == (36, 4 + C)
    assert shapes["bridge.weight"] == (2 * 2 * 9, C)
    assert shapes["head.bias"] == (V + 1,)
    assert "bridge.weight" not in build(condition="input").parameters


def test_seeds():
    flat = [build(condition="both", seed=seed).parameters.flat for seed in (0, 0, 1)]
    np.testing.assert_array_equal(flat[0], flat[1])
    assert (flat[0] != flat[2]).all()


# Bad input


ONE = np.ones((2, C))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.loss((ONE, [[1], [6]])), "sequences: expected 0 <= token < 6, got 6"),
        (lambda m: m.loss((ONE, [[1], [-1]])), "sequences: expected 0 <= token < 6, got -1"),
        (lambda m: m.loss((ONE, [])), "sequences: expected at least one sequence, got none"),
        (lambda m: m.loss((ONE, [[1]])), "conditions: expected shape (B, condition_size) = (1, 3), got (2, 3)"),
        (
            lambda m: m.loss((np.ones((1, 4)), [[1]])),
            "conditions: expected shape (B, condition_size) = (1, 3), got (1, 4)",
        ),
        (lambda m: m.loss(ONE), "batch: expected (conditions, sequences), got ndarray"),
        (
            lambda m: m.generate(np.ones((2, 4)), 5),
            "conditions: expected shape (B, condition_size) = (any, 3), got (2, 4)",
        ),
        (lambda m: m.generate(ONE, 5, "best"), "method: expected one of greedy, sample, beam, got 'best'"),
        (lambda m: m.generate(ONE, 5, "beam", beam_width=0), "beam_width: expected an integer >= 1, got 0"),
        (lambda m: m.generate(ONE, 5, "sample", temperature=-1.0), "temperature: expected a number >= 0, got -1"),
        (lambda m: m.generate(ONE, -5), "max_length: expected an integer >= 0, got -5"),
        (lambda _: build(condition="output"), "condition: expected one of state, input, both, got 'output'"),
        (lambda _: build(cell="elman"), "cell: expected one of tanh, relu, gru, lstm, got 'elman'"),
        (lambda _: build(num_tokens=0), "num_tokens: expected an integer >= 1, got 0"),
        (lambda _: build(condition_size=0), "condition_size: expected an integer >= 1, got 0"),
        (lambda _: build(embedding_size=0), "embedding_size: expected an integer >= 1, got 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call(build())
    assert str(error.value) == message


def test_conditions_of_another_dtype():
    with pytest.raises(TypeError, match="conditions: expected dtype float64, got float32"):
        build().loss((ONE.astype(np.float32), [[1], [2]]))
