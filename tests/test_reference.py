"""The reference against the complex step, torch in float64, formulas by hand, and faults planted in it."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from cells import CELLS, PARAMETERS, torch_layer
from numerics import assert_close, complex_step, relative_error
from oracles import arrays_of, import_torch, rnn_cells, rnn_results, rnn_vjp, state_of

from fastrnn.reference import embedding, loss, matmul, sequence, update, vmath
from fastrnn.reference.cells import cell_backward, cell_forward, gru, lstm

SIZES = [(4, 3, 5, 6), (7, 2, 1, 3), (2, 5, 3, 1), (1, 1, 1, 1), (17, 1, 2, 2), (0, 2, 3, 4), (3, 0, 2, 4)]
LENGTHS = [(4, 4, 4), (1, 4, 2), (0, 3, 0), (2, 0, 4), (0, 0, 0)]
TOLERANCE = 1e-12


class Form(NamedTuple):
    """A cell, by its name in CELLS."""

    cell: str

    @property
    def Cell(self) -> Any:
        return CELLS[self.cell].reference

    @property
    def projection(self) -> bool:
        return CELLS[self.cell].projected

    @property
    def peepholes(self) -> bool:
        return CELLS[self.cell].peepholes

    def __str__(self) -> str:
        return self.cell

    def P(self, H: int) -> int:
        """The width of h."""
        return max(1, H // 2) if self.projection else H

    def weights(self, I: int, H: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random weights by field, all of them different, so that no two gates can be taken for each other."""
        G, P = self.Cell.gates, self.P(H)
        shapes = {"W_ih": (G * H, I), "W_hh": (G * H, P), "b_ih": (G * H,), "b_hh": (G * H,)}
        shapes |= {"W_hr": (P, H)} if self.projection else {}
        shapes |= {"per_unit": (3, H)} if self.peepholes else {}
        return {name: rng.standard_normal(shape) / np.sqrt(H) for name, shape in shapes.items()}

    def state(self, rows: tuple[int, ...], H: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Random h (*rows, P) and others (*rows, H)."""
        return tuple(rng.standard_normal((*rows, self.P(H) if s == 0 else H)) for s in range(self.Cell.states))


FORMS = [Form(name) for name in CELLS]
TORCH_HAS = [form for form in FORMS if CELLS[form.cell].kind.torch and not form.peepholes]
every_form = pytest.mark.parametrize("form", FORMS, ids=str)
every_length = pytest.mark.parametrize("lengths", LENGTHS, ids=str)
both_directions = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])


def random_inputs(form, T, B, I, H, seed=0):
    """x (T, B, I), the initial state h0 and perhaps c0, and the cell's weights."""
    rng = np.random.default_rng(seed)
    states = zip(("h0", "c0"), form.state((B,), H, rng), strict=False)
    return {"x": rng.standard_normal((T, B, I)), **dict(states), **form.weights(I, H, rng)}


def random_cotangents(inputs, seed=1):
    """dy (T, B, P) and d_final, a tuple as the state."""
    rng = np.random.default_rng(seed)
    d_final = tuple(rng.standard_normal(s.shape) for s in initial_of(inputs))
    return rng.standard_normal((len(inputs["x"]), *d_final[0].shape)), d_final


def initial_of(inputs):
    return tuple(inputs[name] for name in ("h0", "c0") if name in inputs)


def cell_of(form, inputs):
    return form.Cell(**{name: inputs[name] for name in form.Cell._fields if name in inputs})


def forward(form, inputs, lengths=None, reverse=False):
    return sequence.sequence_forward(cell_of(form, inputs), inputs["x"], initial_of(inputs), lengths, reverse)


def inner(cotangents, y, final):
    """The scalar <dy, y> + <d_final, final>."""
    dy, d_final = cotangents
    return (dy * y).sum() + sum((d * s).sum() for d, s in zip(d_final, final, strict=True))


def gradients(form, cotangents, inputs, lengths=None, reverse=False):
    """The gradients of `inner` of a sequence, by sequence_backward; None is no gradient."""
    _, _, steps = forward(form, inputs, lengths, reverse)
    dx, d_initial, d_cell = sequence.sequence_backward(cell_of(form, inputs), inputs["x"], steps, *cotangents)
    d_weights = {name: d for name, d in d_cell._asdict().items() if d is not None}
    return {"x": dx, **dict(zip(("h0", "c0"), d_initial, strict=False)), **d_weights}


def check_sequence(form, inputs, lengths=None, reverse=False):
    """The gradients of a sequence against the complex step: what the planted faults must not pass."""
    cotangents = random_cotangents(inputs)
    expected = complex_step(lambda **z: inner(cotangents, *forward(form, z, lengths, reverse)[:2]), inputs)
    assert_close(gradients(form, cotangents, inputs, lengths, reverse), expected, TOLERANCE)


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


@every_form
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sequence_gradients(form, size):
    check_sequence(form, random_inputs(form, *size))


@every_form
@every_length
@both_directions
def test_ragged_gradients(form, lengths, reverse):
    check_sequence(form, random_inputs(form, 4, 3, 2, 5), np.array(lengths), reverse)


@every_form
@every_length
@both_directions
def test_ragged_rows_are_their_own_sequences(form, lengths, reverse):
    inputs = random_inputs(form, 4, 3, 2, 5)
    y, final, _ = forward(form, inputs, lengths, reverse)
    order = slice(None, None, -1 if reverse else 1)
    for b, length in enumerate(lengths):
        alone = inputs | {name: inputs[name][b : b + 1] for name in ("h0", "c0") if name in inputs}
        alone["x"] = inputs["x"][:length, b : b + 1][order]
        y_alone, final_alone, _ = forward(form, alone)
        assert relative_error(y[:length, b : b + 1], y_alone[order]) < 1e-14
        for s, s_alone, s_initial in zip(final, final_alone, initial_of(inputs), strict=True):
            assert relative_error(s[b : b + 1], s_alone) < 1e-14
            if length == 0:
                np.testing.assert_array_equal(s[b], s_initial[b])


@every_form
@every_length
@both_directions
def test_padding_is_never_read(form, lengths, reverse):
    inputs = random_inputs(form, 4, 3, 2, 5)
    cotangents = random_cotangents(inputs)
    padding = np.arange(4)[:, None] >= np.array(lengths)
    y, final, _ = forward(form, inputs, lengths, reverse)
    clean = gradients(form, cotangents, inputs, lengths, reverse)

    poisoned = inputs | {"x": inputs["x"].copy()}
    poisoned["x"][padding] = cotangents[0][padding] = np.nan
    y_poisoned, final_poisoned, _ = forward(form, poisoned, lengths, reverse)

    for a, b in zip((y_poisoned, *final_poisoned), (y, *final), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, gradient in gradients(form, cotangents, poisoned, lengths, reverse).items():
        np.testing.assert_array_equal(gradient, clean[name], err_msg=name)
    assert not y[padding].any()
    assert not clean["x"][padding].any()


@every_form
def test_nan_stays_in_its_row(form):
    inputs = random_inputs(form, 4, 3, 2, 5)
    y, _, _ = forward(form, inputs)
    inputs["x"][2, 1, 0] = np.nan
    y_nan, _, _ = forward(form, inputs)
    y[2:, 1] = np.nan
    np.testing.assert_array_equal(y_nan, y)


@every_form
def test_a_sequence_in_two_parts(form):
    inputs = random_inputs(form, 7, 3, 2, 5)
    y, final, _ = forward(form, inputs)
    y_first, state, _ = forward(form, inputs | {"x": inputs["x"][:4]})
    y_second, state, _ = forward(form, inputs | {"x": inputs["x"][4:]} | dict(zip(("h0", "c0"), state, strict=False)))
    np.testing.assert_array_equal(np.concatenate([y_first, y_second]), y)
    for a, b in zip(state, final, strict=True):
        np.testing.assert_array_equal(a, b)


@every_form
def test_inputs_are_left_alone(form):
    inputs = random_inputs(form, 4, 3, 2, 5)
    cotangents = random_cotangents(inputs)
    arrays = [*inputs.values(), cotangents[0], *cotangents[1]]
    before = [a.copy() for a in arrays]
    gradients(form, cotangents, inputs, (1, 4, 2))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@every_form
def test_results_have_the_inputs_dtype(form):
    inputs = {name: a.astype(np.float32) for name, a in random_inputs(form, 4, 3, 2, 5).items()}
    dy, d_final = random_cotangents(inputs)
    cotangents = dy.astype(np.float32), tuple(d.astype(np.float32) for d in d_final)
    y, final, _ = forward(form, inputs)
    results = [y, *final, *gradients(form, cotangents, inputs).values()]
    assert {a.dtype for a in results} == {np.dtype(np.float32)}


def sigma(z):
    return 1 / (1 + np.exp(-z))


def lstm_by_hand(w, x, h, c):
    """One step of one sequence: columns, gate by gate."""
    H = len(c)
    z = [
        w["W_ih"][k : k + H] @ x + w["W_hh"][k : k + H] @ h + (w["b_ih"] + w["b_hh"])[k : k + H]
        for k in range(0, 4 * H, H)
    ]
    p = w.get("per_unit", np.zeros((3, H)))
    c_new = sigma(z[1] + p[1] * c) * c + sigma(z[0] + p[0] * c) * np.tanh(z[2])
    return w.get("W_hr", np.eye(H)) @ (sigma(z[3] + p[2] * c_new) * np.tanh(c_new)), c_new


def gru_by_hand(w, x, h, reset_after):
    """One step of one sequence: columns, gate by gate."""
    H = len(h)
    a = [w["W_ih"][k : k + H] @ x + w["b_ih"][k : k + H] for k in range(0, 3 * H, H)]
    U = [w["W_hh"][k : k + H] for k in range(0, 3 * H, H)]
    b = [w["b_hh"][k : k + H] for k in range(0, 3 * H, H)]
    r, z = sigma(a[0] + U[0] @ h + b[0]), sigma(a[1] + U[1] @ h + b[1])
    q = r * (U[2] @ h + b[2]) if reset_after else U[2] @ (r * h) + b[2]
    return (z * h + (1 - z) * np.tanh(a[2] + q),)


BY_HAND = {
    lstm.LSTM: lstm_by_hand,
    gru.GRU: lambda w, x, h: gru_by_hand(w, x, h, reset_after=True),
    gru.GRUResetBefore: lambda w, x, h: gru_by_hand(w, x, h, reset_after=False),
}


@pytest.mark.parametrize("form", [form for form in FORMS if form.Cell in BY_HAND], ids=str)
def test_sequence_matches_formulas_by_hand(form):
    inputs = random_inputs(form, 5, 3, 4, 6)
    y, final, _ = forward(form, inputs)
    for b in range(3):
        state = tuple(s[b] for s in initial_of(inputs))
        for t in range(5):
            state = BY_HAND[form.Cell](inputs, inputs["x"][t, b], *state)
            assert relative_error(y[t, b], state[0]) < TOLERANCE
        for s, s_by_hand in zip(final, state, strict=True):
            assert relative_error(s[b], s_by_hand) < TOLERANCE


def shuffled_recurrence(cell, *step):
    return cell_backward(cell._replace(W_hh=cell.W_hh[::-1]), *step)


def dropped_carry(*step):
    dx, d_state_prev, d_cell = cell_backward(*step)
    return dx, tuple(np.zeros_like(d) for d in d_state_prev), d_cell


def missing_slopes(cell, x_t, state_prev, state, saved, d_state):
    tiny = [tuple(np.full_like(a, 1e-6) for a in arrays) for arrays in (state, saved)]
    return cell_backward(cell, x_t, state_prev, *tiny, d_state)


def state_of_the_wrong_step(cell, x_t, state_prev, state, saved, d_state):
    return cell_backward(cell, x_t, state, state, saved, d_state)


def swapped_rows(*step):
    dx, d_state_prev, d_cell = cell_backward(*step)
    return dx[::-1], d_state_prev, d_cell


def swapped_gates(cell, x_t, state_prev, state, saved, d_state):
    return cell_backward(cell, x_t, state_prev, state, (saved[1], saved[0], *saved[2:]), d_state)


def forgotten(field):
    """A step that gives no gradient to the weight called `field`."""

    def fault(*step):
        dx, d_state_prev, d_cell = cell_backward(*step)
        return dx, d_state_prev, d_cell._replace(**{field: np.zeros_like(getattr(d_cell, field))})

    return fault


def without_peephole(k):
    """A backward step that knows nothing of the k-th peephole."""

    def fault(cell, *step):
        per_unit = cell.per_unit * (np.arange(3) != k)[:, None]
        return cell_backward(cell._replace(per_unit=per_unit), *step)

    return fault


def faults(form):
    """Every fault that a form can have."""
    yield from (shuffled_recurrence, dropped_carry, missing_slopes, state_of_the_wrong_step, swapped_rows)
    if form.Cell.gates > 1:
        yield swapped_gates
    if form.peepholes:
        yield from (without_peephole(k) for k in range(3))
    yield from (forgotten(field) for field in form.weights(1, 1, np.random.default_rng()))


@every_form
def test_faults_in_a_step_are_caught(form, monkeypatch):
    inputs = random_inputs(form, 3, 2, 2, 4)
    check_sequence(form, inputs)
    for fault in faults(form):
        monkeypatch.setattr(sequence, "cell_backward", fault)
        with pytest.raises(AssertionError, match="relative error"):
            check_sequence(form, inputs)


@every_form
@both_directions
def test_a_length_off_by_one_is_caught(form, reverse):
    inputs, lengths = random_inputs(form, 4, 3, 2, 5), np.array([1, 3, 0])
    cotangents = random_cotangents(inputs)
    right, wrong = (gradients(form, cotangents, inputs, lengths + more, reverse) for more in (0, 1))
    expected = complex_step(lambda **z: inner(cotangents, *forward(form, z, lengths, reverse)[:2]), inputs)
    assert_close(right, expected, TOLERANCE)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(wrong, expected, TOLERANCE)


class Stack(NamedTuple):
    """Layers of one form, their inputs, and the cotangents of their results."""

    form: Form
    p: dict[str, np.ndarray]
    given: dict[str, np.ndarray]
    masks: tuple[np.ndarray, ...]

    def results(self, lengths, **changed):
        """Everything that rnn_results gives, `given` and p with some of their arrays changed."""
        p = {name: changed.get(name, value) for name, value in self.p.items()}
        given = {name: changed.get(name, value) for name, value in self.given.items()}
        return rnn_results(lambda x, initial: rnn_vjp(p, x, initial, self.form.cell, self.masks, lengths), **given)


def random_stack(form, L, D, dropout=False, T=4, B=3, I=3, H=4, seed=0):
    rng = np.random.default_rng(seed)
    P = form.P(H)
    p = {}
    for k in range(L):
        for suffix in ("", "_reverse")[:D]:
            weights = form.weights(D * P if k else I, H, rng)
            p |= {f"{PARAMETERS[field]}_l{k}{suffix}": value for field, value in weights.items()}
    given = {"x": rng.standard_normal((T, B, I)), "dy": rng.standard_normal((T, B, D * P))}
    for names in (("h0", "c0"), ("dh_n", "dc_n")):
        given |= zip(names, form.state((L * D, B), H, rng), strict=False)
    masks = tuple(2.0 * rng.integers(0, 2, (T, B, D * P)) for _ in range(L - 1)) if dropout else ()
    return Stack(form, p, given, masks)


@every_form
@pytest.mark.parametrize(("L", "D", "lengths"), [(1, 2, None), (2, 2, (2, 0, 4)), (3, 1, (1, 4, 3))], ids=str)
def test_stack_gradients(form, L, D, lengths):
    """Of the inputs, all states and all weights, with dropout between the layers."""
    stack = random_stack(form, L, D, dropout=True, I=2, H=2)
    given = stack.given
    inputs = {name: given[name] for name in ("x", "h0", "c0") if name in given} | stack.p

    def objective(**z):
        r = stack.results(lengths, **z)
        pairs = (("dy", "y"), ("dh_n", "h_n"), ("dc_n", "c_n"))
        return sum((given[d] * r[name]).sum() for d, name in pairs if name in r)

    results = stack.results(lengths)
    got = {name: results[f"d{name}" if name in given else name] for name in inputs}
    assert_close(got, complex_step(objective, inputs), TOLERANCE)


@every_form
def test_a_stack_is_its_layers_one_after_another(form):
    """The second direction runs over time turned around; the next layer reads both, through its mask."""
    stack = random_stack(form, 2, 2, dropout=True)
    results, x = stack.results(None), stack.given["x"]
    for k in range(2):
        outputs = []
        for d, (suffix, order) in enumerate([("", slice(None)), ("_reverse", slice(None, None, -1))]):
            fields = {field: f"{name}_l{k}{suffix}" for field, name in PARAMETERS.items()}
            cell = form.Cell(**{field: stack.p[name] for field, name in fields.items() if name in stack.p})
            initial = tuple(s[2 * k + d] for s in initial_of(stack.given))
            y, final, _ = sequence.sequence_forward(cell, x[order], initial)
            outputs.append(y[order])
            for name, s in zip(("h_n", "c_n"), final, strict=False):
                assert relative_error(results[name][2 * k + d], s) < 1e-15
        x = np.concatenate(outputs, axis=2) * (stack.masks[0] if k == 0 else 1)
    assert relative_error(results["y"], x) < 1e-15


def torch_module(torch, form, L, D, I, H):
    options = {"num_layers": L, "bidirectional": D == 2, "dtype": torch.float64}
    if form.projection:
        options["proj_size"] = form.P(H)
    return torch_layer(torch, form.cell, I, H, **options)


def torch_results(torch, form, L, D, stack, lengths):
    """What Stack.results gives, by torch's layers and autograd; ragged ones are packed."""
    module = torch_module(torch, form, L, D, 3, 4)
    module.load_state_dict({name: torch.tensor(value) for name, value in stack.p.items()})
    given = {name: torch.tensor(value, requires_grad=not name.startswith("d")) for name, value in stack.given.items()}
    x, initial = given["x"], initial_of(given)
    if lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, state = module(x, state_of(initial))
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(given["x"]))
    state = arrays_of(state)
    cotangents = [given[name] for name in ("dy", "dh_n", "dc_n") if name in given]
    torch.autograd.backward([y, *state], cotangents)
    results = {"y": y.detach(), "dx": given["x"].grad} | dict(zip(("h_n", "c_n"), state, strict=False))
    results |= dict(zip(("dh0", "dc0"), (s.grad for s in initial), strict=False))
    results |= {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: value.detach().numpy() for name, value in results.items()}


@pytest.mark.parametrize("form", TORCH_HAS, ids=str)
@pytest.mark.parametrize(("L", "D"), [(1, 1), (1, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("lengths", [None, (2, 4, 1)], ids=str)
def test_stacks_match_torch(form, L, D, lengths):
    stack = random_stack(form, L, D)
    expected = torch_results(import_torch(), form, L, D, stack, lengths)
    assert_close(stack.results(lengths), expected, TOLERANCE)


@pytest.mark.parametrize("form", [form for form in TORCH_HAS if form.Cell.gates > 1], ids=str)
def test_swapped_gates_differ_from_torch(form):
    stack = random_stack(form, 1, 2)
    expected = torch_results(import_torch(), form, 1, 2, stack, None)
    for name in (name for name in stack.p if "weight_hr" not in name):
        with pytest.raises(AssertionError, match="relative error"):
            assert_close(stack.results(None, **{name: np.roll(stack.p[name], 4, axis=0)}), expected, 0.01)


@every_form
@pytest.mark.parametrize("lengths", [None, (2, 0, 4)], ids=str)
def test_cells_are_what_the_gates_were(form, lengths):
    """rnn_cells: its h are the outputs, and follow from the gates of their step."""
    stack = random_stack(form, 2, 2)
    args = stack.p, stack.given["x"], state_of(initial_of(stack.given)), form.cell, (), lengths
    (y, _), _ = rnn_vjp(*args)
    cells = rnn_cells(*args)
    padding = np.arange(4)[:, None] >= np.array(lengths or (4, 4, 4))
    np.testing.assert_array_equal(np.concatenate([kept["h"] for kept in cells[2:]], axis=2), y)
    for kept, place, h0 in zip(cells, ("l0", "l0_reverse", "l1", "l1_reverse"), stack.given["h0"], strict=True):
        assert not any(array[padding].any() for array in kept.values())
        if form.Cell is lstm.LSTM:
            m = kept["o"] * np.tanh(kept["c"])
            assert relative_error(kept["h"], m @ stack.p.get(f"weight_hr_{place}", np.eye(4)).T) < 1e-15
        if form.Cell.gates == 3 and "reverse" not in place:
            before = np.concatenate([h0[None], kept["h"][:-1]])
            h = (1 - kept["z"]) * kept["n"] + kept["z"] * before
            assert relative_error(kept["h"][~padding], h[~padding]) < 1e-15


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


@every_form
@pytest.mark.parametrize("lengths", [None, (2, 0, 4)], ids=str)
def test_gradients_of_a_whole_model(form, lengths):
    """Embedding, recurrent net, linear layer, cross-entropy."""
    T, B, V, E, H = 4, 3, 6, 2, 5
    P = form.P(H)
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, V, (2, T, B))
    inputs = random_inputs(form, T, B, E, H)
    del inputs["x"]
    inputs |= {"table": rng.standard_normal((V, E)), "weight": rng.standard_normal((V, P)), "bias": np.zeros(V)}

    def model(table, weight, bias, **recurrent_inputs):
        x = embedding.gather(table, tokens)
        y, _, steps = forward(form, {"x": x, **recurrent_inputs}, lengths)
        value, d_linear = loss.linear_cross_entropy(y.reshape(-1, P), weight, bias, targets.ravel())
        return value, d_linear, x, steps

    _, (dy, d_weight, d_bias), x, steps = model(**inputs)
    no_cotangent = tuple(np.zeros_like(s) for s in initial_of(inputs))
    dx, d_initial, d_cell = sequence.sequence_backward(
        cell_of(form, inputs), x, steps, dy.reshape(T, B, P), no_cotangent
    )
    got = {"table": embedding.scatter_add(tokens, dx, V), "weight": d_weight, "bias": d_bias}
    got |= dict(zip(("h0", "c0"), d_initial, strict=False))
    got |= {name: d for name, d in d_cell._asdict().items() if d is not None}
    assert_close(got, complex_step(lambda **z: model(**z)[0], inputs), TOLERANCE)


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
