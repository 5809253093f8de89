"""The reference against the complex step, torch in float64, and faults planted in it."""

import numpy as np
import pytest
from numerics import assert_close, complex_step, relative_error

from fastrnn.reference import embedding, loss, matmul, sequence, update, vmath
from fastrnn.reference.cells import cell_backward, cell_forward
from fastrnn.reference.cells.elman import ElmanRelu, ElmanTanh

CELLS = [ElmanTanh, ElmanRelu]
SIZES = [(4, 3, 5, 6), (7, 2, 1, 3), (2, 5, 3, 1), (1, 1, 1, 1), (17, 1, 2, 2), (0, 2, 3, 4), (3, 0, 2, 4)]
LENGTHS = [(4, 4, 4), (1, 4, 2), (0, 3, 0), (2, 0, 4), (0, 0, 0)]
TOLERANCE = 1e-12


def import_torch():
    return pytest.importorskip("torch", reason="torch is the independent implementation that this test compares with")


def random_inputs(Cell, T, B, I, H, seed=0):
    """x (T, B, I), initial (S, B, H) and the cell's weights."""
    rng = np.random.default_rng(seed)
    G = Cell.gates
    shapes = {"x": (T, B, I), "initial": (Cell.states, B, H)}
    shapes |= {"W_ih": (G * H, I), "W_hh": (G * H, H), "b_ih": (G * H,), "b_hh": (G * H,)}
    scales = {"x": 1.0, "initial": 1.0}
    return {name: scales.get(name, 1 / np.sqrt(H)) * rng.standard_normal(shape) for name, shape in shapes.items()}


def random_cotangents(inputs, seed=1):
    """dy (T, B, H) and d_final (S, B, H)."""
    rng = np.random.default_rng(seed)
    T, (S, B, H) = len(inputs["x"]), inputs["initial"].shape
    return rng.standard_normal((T, B, H)), rng.standard_normal((S, B, H))


def forward(Cell, lengths, x, initial, **weights):
    return sequence.sequence_forward(Cell(**weights), x, tuple(initial), lengths)


def objective(Cell, cotangents, lengths=None):
    """The scalar <dy, y> + <d_final, final> as a function of the inputs."""

    def function(**inputs):
        y, final, _ = forward(Cell, lengths, **inputs)
        dy, d_final = cotangents
        return (dy * y).sum() + (d_final * np.stack(final)).sum()

    return function


def gradients(Cell, cotangents, inputs, lengths=None):
    """The gradients of `objective` by sequence_backward."""
    _, _, steps = forward(Cell, lengths, **inputs)
    dy, d_final = cotangents
    cell = Cell(**{name: inputs[name] for name in Cell._fields})
    dx, d_initial, d_cell = sequence.sequence_backward(cell, inputs["x"], steps, dy, tuple(d_final))
    return {"x": dx, "initial": np.stack(d_initial), **d_cell._asdict()}


def check_sequence(Cell, inputs, lengths=None):
    """The gradients of a sequence against the complex step: what the planted faults must not pass."""
    cotangents = random_cotangents(inputs)
    expected = complex_step(objective(Cell, cotangents, lengths), inputs)
    assert_close(gradients(Cell, cotangents, inputs, lengths), expected, TOLERANCE)


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (vmath.exp, np.exp),
        (vmath.log, lambda x: 1 / x),
        (vmath.tanh, lambda x: 1 / np.cosh(x) ** 2),
        (vmath.sigmoid, lambda x: 1 / (2 + 2 * np.cosh(x))),
    ],
)
def test_vmath_derivatives(function, derivative):
    x = np.linspace(0.1, 5, 50)
    got = complex_step(lambda x: function(x).sum(), {"x": x})
    assert_close(got, {"x": derivative(x)}, 1e-14)


def test_sigmoid_is_finite_everywhere():
    x = np.array([-np.inf, -1e4, -1.0, 0.0, 1.0, 1e4, np.inf])
    expected = np.array([0, 0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1, 1])
    assert relative_error(vmath.sigmoid(x), expected) < 1e-15


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 1), (0, 3, 2), (2, 0, 3)])
def test_matmul(shape):
    M, N, K = shape
    rng = np.random.default_rng(0)
    a, b, c0 = rng.standard_normal((M, K)), rng.standard_normal((K, N)), rng.standard_normal(N)
    by_hand = np.array([[sum(a[i, k] * b[k, j] for k in range(K)) for j in range(N)] for i in range(M)]).reshape(M, N)
    assert relative_error(matmul.product(a, b), by_hand) < 1e-14
    assert relative_error(matmul.product(a, b, c0), by_hand + c0) < 1e-14
    assert relative_error(matmul.column_sums(by_hand), np.ones(M) @ by_hand) < 1e-14


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sequence_gradients(Cell, size):
    check_sequence(Cell, random_inputs(Cell, *size))


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_ragged_gradients(Cell, lengths):
    check_sequence(Cell, random_inputs(Cell, 4, 3, 2, 5), np.array(lengths))


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_ragged_rows_are_their_own_sequences(Cell, lengths):
    inputs = random_inputs(Cell, 4, 3, 2, 5)
    y, final, _ = forward(Cell, lengths, **inputs)
    for b, length in enumerate(lengths):
        alone = inputs | {"x": inputs["x"][:length, b : b + 1], "initial": inputs["initial"][:, b : b + 1]}
        y_alone, final_alone, _ = forward(Cell, None, **alone)
        assert relative_error(y[:length, b : b + 1], y_alone) < 1e-14
        assert relative_error(np.stack(final)[:, b : b + 1], np.stack(final_alone)) < 1e-14
        if length == 0:
            np.testing.assert_array_equal(np.stack(final)[:, b], inputs["initial"][:, b])


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_padding_is_never_read(Cell, lengths):
    inputs = random_inputs(Cell, 4, 3, 2, 5)
    cotangents = random_cotangents(inputs)
    padding = np.arange(4)[:, None] >= np.array(lengths)
    y, final, _ = forward(Cell, lengths, **inputs)
    clean = gradients(Cell, cotangents, inputs, lengths)

    poisoned = inputs | {"x": inputs["x"].copy()}
    poisoned["x"][padding] = cotangents[0][padding] = np.nan
    y_poisoned, final_poisoned, _ = forward(Cell, lengths, **poisoned)

    np.testing.assert_array_equal(y_poisoned, y)
    np.testing.assert_array_equal(final_poisoned, final)
    for name, gradient in gradients(Cell, cotangents, poisoned, lengths).items():
        np.testing.assert_array_equal(gradient, clean[name], err_msg=name)
    assert not y[padding].any()
    assert not clean["x"][padding].any()


@pytest.mark.parametrize("Cell", CELLS)
def test_nan_stays_in_its_row(Cell):
    inputs = random_inputs(Cell, 4, 3, 2, 5)
    y, _, _ = forward(Cell, None, **inputs)
    inputs["x"][2, 1, 0] = np.nan
    y_nan, _, _ = forward(Cell, None, **inputs)
    y[2:, 1] = np.nan
    np.testing.assert_array_equal(y_nan, y)


@pytest.mark.parametrize("Cell", CELLS)
def test_a_sequence_in_two_parts(Cell):
    inputs = random_inputs(Cell, 7, 3, 2, 5)
    y, final, _ = forward(Cell, None, **inputs)
    y_first, state, _ = forward(Cell, None, **inputs | {"x": inputs["x"][:4]})
    y_second, state, _ = forward(Cell, None, **inputs | {"x": inputs["x"][4:], "initial": state})
    np.testing.assert_array_equal(np.concatenate([y_first, y_second]), y)
    np.testing.assert_array_equal(state, final)


@pytest.mark.parametrize("Cell", CELLS)
def test_inputs_are_left_alone(Cell):
    inputs = random_inputs(Cell, 4, 3, 2, 5)
    cotangents = random_cotangents(inputs)
    arrays = [*inputs.values(), *cotangents]
    before = [a.copy() for a in arrays]
    gradients(Cell, cotangents, inputs, (1, 4, 2))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("Cell", CELLS)
def test_results_have_the_inputs_dtype(Cell):
    inputs = {name: a.astype(np.float32) for name, a in random_inputs(Cell, 4, 3, 2, 5).items()}
    cotangents = [a.astype(np.float32) for a in random_cotangents(inputs)]
    y, final, _ = forward(Cell, None, **inputs)
    results = [y, *final, *gradients(Cell, cotangents, inputs).values()]
    assert {a.dtype for a in results} == {np.dtype(np.float32)}


@pytest.mark.parametrize("Cell", CELLS)
def test_sequence_matches_torch(Cell):
    torch = import_torch()
    inputs = random_inputs(Cell, 5, 3, 4, 6)
    cotangents = random_cotangents(inputs)
    y, final, _ = forward(Cell, None, **inputs)
    got = {"y": y, "final": np.stack(final), **gradients(Cell, cotangents, inputs)}

    rnn = torch.nn.RNN(4, 6, nonlinearity="tanh" if Cell is ElmanTanh else "relu", dtype=torch.float64)
    parameters = dict(zip(Cell._fields, rnn.parameters(), strict=True))
    for name, parameter in parameters.items():
        parameter.data = torch.from_numpy(inputs[name])
    x, h_0 = (torch.tensor(inputs[name], requires_grad=True) for name in ("x", "initial"))
    out, h_n = rnn(x, h_0)
    torch.autograd.backward((out, h_n), [torch.from_numpy(d) for d in cotangents])
    expected = {"y": out.detach(), "final": h_n.detach(), "x": x.grad, "initial": h_0.grad}
    expected |= {name: parameter.grad for name, parameter in parameters.items()}
    assert_close(got, {name: a.numpy() for name, a in expected.items()}, 1e-13)


def transposed_recurrence(cell, *step):
    return cell_backward(cell._replace(W_hh=cell.W_hh.T), *step)


def dropped_carry(*step):
    dx, d_state_prev, d_cell = cell_backward(*step)
    return dx, tuple(np.zeros_like(d) for d in d_state_prev), d_cell


def missing_slope(cell, x_t, state_prev, state, saved, d_state):
    return cell_backward(cell, x_t, state_prev, tuple(np.full_like(s, 1e-6) for s in state), saved, d_state)


def state_of_the_wrong_step(cell, x_t, state_prev, state, saved, d_state):
    return cell_backward(cell, x_t, state, state, saved, d_state)


def forgotten_bias(*step):
    dx, d_state_prev, d_cell = cell_backward(*step)
    return dx, d_state_prev, d_cell._replace(b_hh=np.zeros_like(d_cell.b_hh))


def swapped_rows(*step):
    dx, d_state_prev, d_cell = cell_backward(*step)
    return dx[::-1], d_state_prev, d_cell


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize(
    "fault",
    [transposed_recurrence, dropped_carry, missing_slope, state_of_the_wrong_step, forgotten_bias, swapped_rows],
)
def test_faults_in_a_step_are_caught(Cell, fault, monkeypatch):
    inputs = random_inputs(Cell, 4, 3, 2, 5)
    check_sequence(Cell, inputs)
    monkeypatch.setattr(sequence, "cell_backward", fault)
    with pytest.raises(AssertionError, match="relative error"):
        check_sequence(Cell, inputs)


@pytest.mark.parametrize("Cell", CELLS)
def test_a_length_off_by_one_is_caught(Cell):
    inputs, lengths = random_inputs(Cell, 4, 3, 2, 5), np.array([1, 3, 0])
    cotangents = random_cotangents(inputs)
    expected = complex_step(objective(Cell, cotangents, lengths), inputs)
    assert_close(gradients(Cell, cotangents, inputs, lengths), expected, TOLERANCE)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(gradients(Cell, cotangents, inputs, lengths + 1), expected, TOLERANCE)


@pytest.mark.parametrize("step", [cell_forward, cell_backward])
def test_an_unknown_cell_is_named(step):
    with pytest.raises(NotImplementedError, match="no reference for the cell tuple"):
        step((), *[None] * (2 if step is cell_forward else 5))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (0,), (0, 2), (1, 1)])
def test_embedding_gradient(shape):
    rng = np.random.default_rng(0)
    tokens, weight = rng.integers(0, 4, shape), rng.standard_normal((5, 3))
    d_rows = rng.standard_normal((*shape, 3))
    expected = complex_step(lambda weight: (d_rows * embedding.gather(weight, tokens)).sum(), {"weight": weight})
    assert_close({"weight": embedding.scatter_add(tokens, d_rows, 5)}, expected, TOLERANCE)


def test_repeated_tokens_are_summed():
    rows = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    np.testing.assert_array_equal(embedding.scatter_add(np.array([2, 0, 2]), rows, 3), [[10, 20], [0, 0], [101, 202]])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 2), (6, 65)])
def test_cross_entropy(shape):
    torch = import_torch()
    rng = np.random.default_rng(0)
    logits, targets = 3 * rng.standard_normal(shape), rng.integers(0, shape[1], shape[0])
    value, dlogits = loss.softmax_cross_entropy(logits, targets)
    expected = complex_step(lambda logits: loss.softmax_cross_entropy(logits, targets)[0], {"logits": logits})
    assert_close({"logits": dlogits}, expected, TOLERANCE)

    x = torch.tensor(logits, requires_grad=True)
    torch_loss = torch.nn.functional.cross_entropy(x, torch.from_numpy(targets))
    torch_loss.backward()
    assert relative_error(value, torch_loss.detach().numpy()) < TOLERANCE
    assert relative_error(dlogits, x.grad.numpy()) < TOLERANCE


def test_cross_entropy_of_huge_logits():
    value, dlogits = loss.softmax_cross_entropy(np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([0, 1]))
    assert value == 1e4
    np.testing.assert_array_equal(dlogits, [[0, 0], [0.5, -0.5]])


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 3, 7)], ids=str)
def test_linear_cross_entropy_gradients(size):
    N, H, C = size
    rng = np.random.default_rng(0)
    shapes = {"x": (N, H), "weight": (C, H), "bias": (C,)}
    inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    targets = rng.integers(0, C, N)
    _, got = loss.linear_cross_entropy(**inputs, targets=targets)
    expected = complex_step(lambda **inputs: loss.linear_cross_entropy(**inputs, targets=targets)[0], inputs)
    assert_close(dict(zip(inputs, got, strict=True)), expected, TOLERANCE)


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize("lengths", [None, (2, 0, 4)], ids=str)
def test_gradients_of_a_whole_model(Cell, lengths):
    """Embedding, recurrent net, linear layer, cross-entropy."""
    T, B, V, E, H = 4, 3, 6, 2, 5
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, V, (2, T, B))
    inputs = random_inputs(Cell, T, B, E, H)
    del inputs["x"]
    inputs |= {"table": rng.standard_normal((V, E)), "weight": rng.standard_normal((V, H)), "bias": np.zeros(V)}

    def model(table, weight, bias, initial, **weights):
        x = embedding.gather(table, tokens)
        y, _, steps = forward(Cell, lengths, x, initial, **weights)
        value, d_linear = loss.linear_cross_entropy(y.reshape(-1, H), weight, bias, targets.ravel())
        return value, d_linear, x, steps

    _, (dy, d_weight, d_bias), x, steps = model(**inputs)
    cell = Cell(**{name: inputs[name] for name in Cell._fields})
    no_cotangent = tuple(np.zeros_like(inputs["initial"]))
    dx, d_initial, d_cell = sequence.sequence_backward(cell, x, steps, dy.reshape(T, B, H), no_cotangent)
    got = {"table": embedding.scatter_add(tokens, dx, V), "initial": np.stack(d_initial), **d_cell._asdict()}
    got |= {"weight": d_weight, "bias": d_bias}
    assert_close(got, complex_step(lambda **inputs: model(**inputs)[0], inputs), TOLERANCE)


UPDATES = [
    ("SGD", update.sgd, 1, {"lr": 0.1}),
    ("SGD", update.sgd, 1, {"lr": 0.1, "momentum": 0.9}),
    ("SGD", update.sgd, 1, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
    ("SGD", update.sgd, 1, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.2}),
    ("Adagrad", update.adagrad, 1, {}),
    ("Adagrad", update.adagrad, 1, {"lr": 0.1, "eps": 0.01}),
    ("RMSprop", update.rmsprop, 1, {}),
    ("RMSprop", update.rmsprop, 1, {"lr": 0.1, "alpha": 0.9, "eps": 0.01}),
    ("Adam", update.adam, 2, {}),
    ("Adam", update.adam, 2, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.2}),
    ("AdamW", update.adamw, 2, {}),
    ("AdamW", update.adamw, 2, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.2}),
]
UPDATE_IDS = [f"{name}-{'-'.join(options)}" for name, _, _, options in UPDATES]


def apply(function, parameters, grads, state, step, options):
    """One update: (parameters, state). Only Adam's kin want to know the step."""
    steps = (step,) if len(state) == 2 else ()
    parameters, *state = function(parameters, grads, *state, *steps, **options)
    return parameters, state


@pytest.mark.parametrize(("name", "function", "states", "options"), UPDATES, ids=UPDATE_IDS)
def test_updates_match_torch(name, function, states, options):
    torch = import_torch()
    rng = np.random.default_rng(0)
    parameters, state = rng.standard_normal(9), [np.zeros(9)] * states
    theirs = torch.nn.Parameter(torch.tensor(parameters))
    optimizer = getattr(torch.optim, name)([theirs], **options)
    for step in range(1, 21):
        grads = rng.standard_normal(9)
        theirs.grad = torch.from_numpy(grads)
        optimizer.step()
        parameters, state = apply(function, parameters, grads, state, step, options)
        assert relative_error(parameters, theirs.detach().numpy()) < 1e-13


@pytest.mark.parametrize(("name", "function", "states", "options"), UPDATES, ids=UPDATE_IDS)
def test_updates_differentiate(name, function, states, options):
    """The complex step through two updates agrees with the central difference."""
    rng = np.random.default_rng(0)
    direction, first = rng.standard_normal((2, 4))

    def objective(parameters, grads):
        state = [np.zeros_like(parameters)] * states
        parameters, state = apply(function, parameters, first, state, 1, options)
        parameters, _ = apply(function, parameters, grads, state, 2, options)
        return (direction * parameters).sum()

    inputs = {"parameters": rng.standard_normal(4), "grads": rng.standard_normal(4)}
    got = complex_step(objective, inputs)
    for key, value in inputs.items():
        for i, h in enumerate(1e-5 * np.eye(4)):
            difference = objective(**inputs | {key: value + h}) - objective(**inputs | {key: value - h})
            assert got[key][i] == pytest.approx(difference / 2e-5, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("limit", [0.5, 1e3, np.inf])
def test_clipping_matches_torch(limit):
    torch = import_torch()
    grads = 2 * np.random.default_rng(0).standard_normal(50)
    by_norm, by_value = (torch.nn.Parameter(torch.zeros(50, dtype=torch.float64)) for _ in range(2))
    by_norm.grad, by_value.grad = torch.tensor(grads), torch.tensor(grads)
    norm = torch.nn.utils.clip_grad_norm_([by_norm], limit)
    torch.nn.utils.clip_grad_value_([by_value], limit)
    clipped, norm_before = update.clip_by_norm(grads, limit)
    assert relative_error(norm_before, norm.numpy()) < 1e-15
    assert relative_error(clipped, by_norm.grad.numpy()) < 1e-15
    np.testing.assert_array_equal(update.clip_by_value(grads, limit), by_value.grad.numpy())


def test_clipping_differentiates():
    """g c / |g| has the Jacobian (1 - g g^T / |g|^2) c / |g|, up to torch's 1e-6; a clipped value has slope 0."""
    grads, direction = 3 * np.random.default_rng(0).standard_normal((2, 6))
    got = complex_step(lambda g: (direction * update.clip_by_norm(g, 0.5)[0]).sum(), {"g": grads})["g"]
    norm = update.global_norm(grads)
    assert relative_error(got, 0.5 * (direction - grads * (grads @ direction) / norm**2) / norm) < 1e-5
    got = complex_step(lambda g: (direction * update.clip_by_value(g, 0.5)).sum(), {"g": grads})["g"]
    assert relative_error(got, np.where((grads > -0.5) & (grads < 0.5), direction, 0)) < 1e-15


def test_a_gradient_that_is_not_finite_is_not_hidden():
    grads = np.array([1.0, np.nan, -9.0])
    clipped, norm = update.clip_by_norm(grads, 1.0)
    assert np.isnan(norm)
    assert np.isnan(clipped).all()
    np.testing.assert_array_equal(update.clip_by_value(grads, 5.0), [1.0, np.nan, -5.0])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([], [], 0.0),
        ([0.0], [0.0], 0.0),
        ([1e-300], [0.0], np.inf),
        ([3.0], [-3.0], 2.0),
    ],
)
def test_relative_error(a, b, expected):
    assert relative_error(np.array(a), np.array(b)) == pytest.approx(expected, rel=1e-15)


def test_assert_close_rejects():
    good = {"a": np.ones(3), "b": np.full(3, 1e-9)}
    assert_close(good, {name: a * (1 + 1e-13) for name, a in good.items()}, TOLERANCE)
    for wrong in (np.full(3, 1.1e-9), np.array([1e-9, 1e-9, -1e-9]), np.full(3, np.nan), np.zeros(3)):
        with pytest.raises(AssertionError, match="relative error"):
            assert_close(good | {"b": wrong}, good, TOLERANCE)
    with pytest.raises(AssertionError):
        assert_close({"a": good["a"]}, good, TOLERANCE)
    with pytest.raises(ValueError, match=r"expected shape \(3,\), got \(2,\)"):
        assert_close(good | {"a": np.ones(2)}, good, TOLERANCE)
