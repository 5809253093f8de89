"""Gradient checks: right gradients pass, every planted fault is found and named."""

import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn import cli, gradcheck
from fastrnn.gradcheck.derivative import Derivatives
from fastrnn.gradcheck.function import Function

METHODS = ("complex", "central", "dot")
T, B, I, H = 4, 2, 3, 5


def lstm(x, h0, c0, W, b):
    """A small LSTM (gates i, f, g, o) that takes complex numbers: y (T, B, H) and the last c."""
    return _lstm(x, h0, c0, W, b)[0]


def _lstm(x, h0, c0, W, b):
    h, c, tape = h0, c0, []
    for x_t in x:
        u = np.concatenate([x_t, h], axis=1)
        i, f, g, o = np.split(u @ W.T + b, 4, axis=1)
        i, f, o, g = (1 + np.tanh(i / 2)) / 2, (1 + np.tanh(f / 2)) / 2, (1 + np.tanh(o / 2)) / 2, np.tanh(g)
        before, c = c, f * c + i * g
        h = o * np.tanh(c)
        tape.append((u, i, f, g, o, before, c, h))
    return {"y": np.stack([step[-1] for step in tape]), "c_n": c}, tape


def lstm_pullback(inputs, fault=None):
    """The gradients of `lstm`, with a fault if asked for."""
    W = inputs["W"]
    _, tape = _lstm(**inputs)

    def pullback(cotangent):
        dx, dW, db = np.zeros_like(inputs["x"]), np.zeros_like(W), np.zeros_like(inputs["b"])
        dh, dc = np.zeros_like(inputs["h0"]), cotangent["c_n"].copy()
        for t, (u, i, f, g, o, before, c, _) in reversed(list(enumerate(tape))):
            if fault != "no last y" or t < T - 1:
                dh = dh + cotangent["y"][t]
            s = np.tanh(c)
            dc = dc + dh * o * (1 - s * s)
            dz = np.concatenate(
                [dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * s * o * (1 - o)], axis=1
            )
            dW += dz.T @ u
            db += dz.sum(axis=0)
            dx[t], dh = np.split(dz @ W, [I], axis=1)
            dc = dc * f
        grads = {"x": dx, "h0": dh, "c0": dc, "W": dW, "b": db}
        if fault == "one weight":
            grads["W"][7, 4] *= 1 + 1e-6
        elif fault == "sign":
            grads["c0"] *= -1
        elif fault == "factor":
            grads["x"] *= 1 + 1e-6
        elif fault == "h0":
            grads["h0"][1, 2] += 1e-7
        elif fault == "first x":
            grads["x"][0, 1, 2] *= 1.001
        elif fault == "nan":
            grads["b"][9] = np.nan
        elif fault == "infinite":
            grads["W"][3, 1] = -np.inf
        return grads

    return pullback


@pytest.fixture
def inputs():
    rng = np.random.default_rng(5)
    shapes = {"x": (T, B, I), "h0": (B, H), "c0": (B, H), "W": (4 * H, I + H), "b": (4 * H,)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


STEPS = {"first step": np.s_[0], "last step": np.s_[T - 1]}
BLOCKS = {"x": STEPS, "y": STEPS}


@pytest.mark.parametrize("method", METHODS)
def test_right_gradients_pass(inputs, method):
    report = gradcheck.check(lstm, lstm_pullback(inputs), inputs, method=method, blocks=BLOCKS)
    report.raise_if_wrong()
    assert report.ok
    assert report.verdict.startswith("right: 5 gradients; worst error ")
    exact = method != "central"
    assert {row.method for row in report.rows} == {"dot, complex" if method == "dot" else method}
    for row in report.rows:
        assert row.error <= (1e-13 if exact else 1e-10), row
        assert row.tolerance <= (2e-12 if exact else 1e-8) or row.error == 0, row
        assert row.kinks == 0
    blocks = {(row.input, row.block) for row in report.rows}
    assert {("x", "first step"), ("x", "last step"), ("x", "the rest"), ("W", "")} <= blocks
    assert {row.output for row in report.rows} == {"y first step", "y last step", "y the rest", "c_n", "all"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "fault, name, place",
    [
        ("one weight", "W", (7, 4)),
        ("sign", "c0", None),
        ("factor", "x", None),
        ("no last y", None, None),
        ("h0", "h0", (1, 2)),
        ("first x", "x", (0, 1, 2)),
        ("nan", "b", (9,)),
        ("infinite", "W", (3, 1)),
    ],
)
def test_a_fault_is_found_and_named(inputs, method, fault, name, place):
    report = gradcheck.check(lstm, lstm_pullback(inputs, fault), inputs, method=method, blocks=BLOCKS)
    assert not report.ok
    with pytest.raises(AssertionError, match=r"^WRONG: "):
        report.raise_if_wrong()
    entry = report.worst.worst
    if name is None:  # the gradients of other outputs are right
        assert {row.output for row in report.rows if not row.ok} == {"y last step", "all"}
    else:
        assert {row.input for row in report.rows if not row.ok} == {name}
        assert entry.name.startswith(name + "[")
    if place is not None:
        assert entry.place == place
        assert entry.name == f"{name}[{', '.join(map(str, place))}]"
    if fault == "first x":
        assert {row.block for row in report.rows if not row.ok} == {"first step"}
    assert report.verdict.count("\n") == 0
    assert f"{entry.name}" in report.verdict
    assert str(report).endswith(report.verdict)


def test_expected_and_got_are_numbers_of_that_entry(inputs):
    got = lstm_pullback(inputs, "one weight")
    for method in METHODS:
        report = gradcheck.check(lambda **v: lstm(**v)["c_n"], lambda u: got(_only_c(u)), inputs, method=method)
        entry = report.inputs["W"].worst
        assert entry.got / entry.expected - 1 == pytest.approx(1e-6, rel=1e-3)


def _only_c(cotangent):
    return {"y": np.zeros((T, B, H)), "c_n": cotangent}


def test_cotangents_that_do_not_add_up_are_found():
    """Right for each output alone, wrong for both."""

    def gradients(cotangent):
        first, second = cotangent
        return {"x": 2 * first if first.any() else 3 * second}

    report = gradcheck.check(lambda x: (2 * x, 3 * x), gradients, {"x": np.arange(4.0)})
    assert {row.output for row in report.rows if not row.ok} == {"all"}
    assert {row.output for row in report.rows} == {"output[0]", "output[1]", "all"}


SMOOTH = {
    "sin": (np.sin, np.cos, 1.0),
    "exp": (np.exp, np.exp, 1.0),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, 1.0),
    "fast": (lambda x: np.sin(30 * x), lambda x: 30 * np.cos(30 * x), 1.0),
    "cubic": (lambda x: x**3, lambda x: 3 * x * x, 1.0),
    "large": (lambda x: np.sin(x / 1e5), lambda x: np.cos(x / 1e5) / 1e5, 1e5),
    "linear": (lambda x: 5 * x, lambda x: np.full_like(x, 5), 1.0),
}


def real(function):
    """The function of real numbers alone."""

    def refusing(x):
        if np.iscomplexobj(x):
            raise TypeError("real numbers only")
        return function(x)

    return refusing


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("method", ["central", "dot"])
def test_central_differences_are_as_exact_as_claimed(name, method):
    """Against known derivatives, element by element 1e-11 of the largest, and their own estimate of the error holds."""
    function, derivative, size = SMOOTH[name]
    x = size * np.random.default_rng(1).uniform(-2, 2, 40)
    report = gradcheck.check(real(function), lambda u: {"x": u * derivative(x)}, {"x": x}, method=method)
    assert report.ok
    assert report.worst.error <= 1e-11
    derivatives = Derivatives(
        Function(real(function), {"x": x}), np.zeros(40, int), 1, np.ones(40), np.random.default_rng(0)
    )
    for at in range(40):
        found = derivatives.difference("x", np.array([at]), np.ones(1))
        error = abs(found.value[0] - derivative(x)[at])
        assert error <= 32 * found.error[0]
        assert found.error[0] <= 1e-10 * max(np.abs(derivative(x)).max(), 1)


def test_the_step_is_that_of_the_error_model():
    """h = (11 e/M5)^(1/5), within a factor of 4; a noise a million times larger moves it by 16."""
    steps, noises = [], []
    for noise in (0, 2.0**-32):
        function = real(lambda x, noise=noise: np.sin(x) if noise == 0 else np.round(np.sin(x) / noise) * noise)
        derivatives = Derivatives(
            Function(function, {"x": np.array([0.7])}), np.zeros(1, int), 1, np.ones(1), np.random.default_rng(0)
        )
        steps.append(derivatives.difference("x", np.array([0]), np.ones(1)).step[0])
        noises.append(derivatives.noise[0])
    assert 2e-17 <= noises[0] <= 2e-16
    assert 0.5 <= noises[1] / (2.0**-32 / math.sqrt(12)) <= 2  # of uniform roundings
    for step, noise in zip(steps, noises, strict=True):
        best = (11 * noise / math.cos(0.7)) ** 0.2
        assert best / 4 <= step <= best * 4


def test_a_noisy_function_is_judged_by_its_noise():
    """Rounded to float32: derivatives are good to 1e-5 or so; a gradient wrong by 1 % is found."""
    x = np.random.default_rng(2).uniform(-1, 1, 10)

    def rounded(x):
        return np.exp(x).astype(np.float32).astype(np.float64)

    right = gradcheck.check(real(rounded), lambda u: {"x": u * np.exp(x)}, {"x": x})
    assert right.ok
    assert 1e-9 < right.worst.error < 1e-4
    assert not gradcheck.check(real(rounded), lambda u: {"x": 1.01 * u * np.exp(x)}, {"x": x}).ok


@pytest.mark.parametrize("method", ["central", "dot"])
def test_wide_steps_that_agree_by_accident_are_not_believed(method):
    """A slope of 1e7 that turns within 1e-7: wide steps all see about 1."""
    x = np.random.default_rng(6).uniform(0.3, 0.5, 20)
    wave = real(lambda x: np.sin(1e7 * x))
    for factor in (1, 1.01):
        report = gradcheck.check(
            wave, lambda u, f=factor: {"x": f * u * 1e7 * np.cos(1e7 * x)}, {"x": x}, method=method
        )
        assert report.ok == (factor == 1), report.verdict
        assert report.worst.tolerance < 1e-3


def test_a_function_defined_nearby_only():
    x = np.array([1e-6, 1e-3, 1.0])
    for log in (real(np.log), lambda x: np.array([math.log(one) for one in x])):
        report = gradcheck.check(log, lambda u: {"x": u / x}, {"x": x})
        report.raise_if_wrong()
        assert report.rows[0].method == "central"
        wrong = gradcheck.check(log, lambda u: {"x": u / x * [1, 1.001, 1]}, {"x": x}, blocks={"x": {"b": np.s_[1:2]}})
        assert wrong.worst.worst.place == (1,)


def relu(x):
    return np.maximum(x, 0) * np.arange(1.0, len(x) + 1)


def relu_gradients(x, at_kink=0.0, factor=1.0):
    slope = np.where(x == 0, at_kink, x > 0)
    return lambda u: {"x": factor * u * slope * np.arange(1.0, len(x) + 1)}


@pytest.mark.parametrize("method", ["auto", "central", "dot"])
@pytest.mark.parametrize("at_kink", [0.0, 0.5, 1.0])
def test_kinks_are_no_faults(method, at_kink):
    x = np.array([0.0, 1.5, -2.0, 3e-7, 0.0, -4e-3, 1.0, 0.3])
    report = gradcheck.check(relu, relu_gradients(x, at_kink), {"x": x}, method=method)
    report.raise_if_wrong()
    seen = at_kink != 0.5  # the derivative that differences find there
    assert report.rows[0].kinks == (2 if seen else 0)
    assert (" 2k" in str(report)) == seen


@pytest.mark.parametrize("method", ["auto", "central", "dot"])
def test_kinks_hide_no_fault(method):
    x = np.array([0.0, 1.5, -2.0, 3e-7, 0.0, -4e-3, 1.0, 0.3])
    report = gradcheck.check(relu, relu_gradients(x, factor=1.01), {"x": x}, method=method)
    assert report.verdict.startswith("WRONG: x[")
    near = relu_gradients(x)

    def wrong_near_a_kink(u):
        return {"x": near(u)["x"] * (np.arange(8) != 3)}

    assert gradcheck.check(relu, wrong_near_a_kink, {"x": x}, method=method).worst.worst.place == (3,)


@pytest.mark.parametrize("method", ["auto", "central", "dot"])
def test_where_most_entries_are_kinks_nothing_is_said_to_be_right(method):
    x = np.array([0.0, 0.0, 0.0, 1.0])
    report = gradcheck.check(relu, relu_gradients(x), {"x": x}, method=method)
    assert not report.ok
    expected = "UNDECIDED: x to output: [34] of 4 entries are at kinks: check at another point"
    with pytest.raises(AssertionError, match=expected):
        report.raise_if_wrong()


def test_a_gradient_of_noise_is_not_right():
    """A function without a derivative: a staircase."""
    x = np.array([0.3, 0.4])
    report = gradcheck.check(real(lambda x: np.floor(1e7 * x)), lambda u: {"x": 1e7 * u}, {"x": x})
    assert not report.ok


@pytest.mark.parametrize(
    "function, why",
    [
        (lambda x: np.abs(x), "real"),
        (lambda x: np.abs(x) * x + 0j * x if np.iscomplexobj(x) else np.abs(x) * x, "other derivative"),
        (lambda x: x.astype(np.float64) ** 2 * np.sign(x.real), "cast"),
        (real(lambda x: x * np.abs(x)), "raises"),
        (lambda x: np.conj(x) * np.abs(x.real), "conjugate"),
        (lambda x: x * np.abs(x.real) + (1 if np.iscomplexobj(x) else 0), "other value"),
    ],
)
def test_what_takes_no_complex_step_falls_back(function, why):
    x = np.array([0.5, -1.25, 2.0])
    slope = np.sign(x) if why == "real" else 2 * np.abs(x)
    report = gradcheck.check(function, lambda u: {"x": u * slope}, {"x": x})
    report.raise_if_wrong()
    assert {row.method for row in report.rows} == {"central"}
    with pytest.raises(ValueError, match=r"^method: expected a function of complex numbers for complex, got "):
        gradcheck.check(function, lambda u: {"x": u * slope}, {"x": x}, method="complex")


def test_complex_steps_are_taken_where_they_can_be():
    x = np.random.default_rng(3).standard_normal(6)
    report = gradcheck.check(lambda x: np.where(x.real > 0, x, 0) ** 2, lambda u: {"x": 2 * u * x * (x > 0)}, {"x": x})
    assert report.ok
    assert {row.method for row in report.rows} == {"complex"}
    assert report.worst.error < 1e-15


@pytest.mark.parametrize("allowed", [True, False])
def test_large_inputs_take_the_dot_product_test_and_name_the_entry(allowed):
    rng = np.random.default_rng(4)
    W, x = rng.standard_normal((120, 150)), rng.standard_normal(150)

    def layer(W, x):
        if np.iscomplexobj(W) and not allowed:
            raise TypeError("real numbers only")
        return np.tanh(W @ x / 10)

    def gradients(u, W_factor=1.0):
        d = u * (1 - layer(W, x) ** 2) / 10
        dW = np.outer(d, x)
        dW[77, 123] *= W_factor
        return {"W": dW, "x": W.T @ d}

    way = "complex" if allowed else "central"
    report = gradcheck.check(layer, gradients, {"W": W, "x": x})
    report.raise_if_wrong()
    assert {row.input: row.method for row in report.rows} == {"W": f"dot, {way}", "x": way}
    wrong = gradcheck.check(layer, lambda u: gradients(u, 1 + 1e-4), {"W": W, "x": x})
    assert wrong.verdict.startswith("WRONG: W[77, 123] to output: expected ")
    entry = wrong.worst.worst
    assert entry.got / entry.expected - 1 == pytest.approx(1e-4, rel=1e-2)


def test_a_scalar_function_and_a_mapping():
    x, w, rows = np.array([1.0, 2.0]), np.array(0.5), np.array([1, 0])
    for gradients in ({"x": w * x[[0, 1]], "w": np.array(2.5)}, {"x": w * x, "w": 2.5, "rows": None}):
        report = gradcheck.check(
            lambda x, w, rows: w * (x[rows] ** 2).sum() / 2, gradients, {"x": x, "w": w, "rows": rows}
        )
        report.raise_if_wrong()
    assert list(report.inputs) == ["x", "w"]
    report = gradcheck.check(lambda w: w * w, {"w": 0.9}, {"w": w})
    assert report.verdict == "WRONG: w to output: expected 1, got 0.9, error 1.0e-01"


def test_nothing_to_compare_is_right():
    report = gradcheck.check(lambda x: 2 * x, lambda u: {"x": 2 * u}, {"x": np.empty((3, 0))})
    assert report.ok
    assert report.verdict == "right: nothing to compare"
    assert str(report)


def test_a_vanishing_gradient_is_marked():
    x = np.array([1.0, 2.0])
    report = gradcheck.check(
        real(lambda x: np.cos(x) + 1e-16 * x), lambda u: {"x": -u * np.sin(x) + 2e-16 * u}, {"x": x}
    )
    assert report.ok
    assert not any(row.blind for row in report.rows)

    def faint(x, y):
        return 1.0 + np.sin(x).sum() + 1e-13 * np.sin(y).sum()

    faint_report = gradcheck.check(
        lambda x, y: faint(x.real, y.real), {"x": np.cos(x), "y": 1.1e-13 * np.cos(x)}, {"x": x, "y": x}
    )
    assert faint_report.ok
    assert faint_report.inputs["y"].blind
    assert "\n~ too small to be told from rounding\n" in str(faint_report)


def test_the_report_reads_well():
    x, w = np.array([1.0, 2.0]), np.array([[3.0, 0.5]])

    def product(x, w):
        return {"y": w @ x, "z": x}

    def gradients(u, wrong=0.0):
        return {"x": w.T @ u["y"] + u["z"] + [0.0, wrong], "w": np.outer(u["y"], x)}

    report = gradcheck.check(product, lambda u: gradients(u, 1.0), {"x": x, "w": w}, blocks={"x": {"head": np.s_[:1]}})
    lines = str(report).splitlines()
    assert lines[0] == "product(x, w)"
    assert lines[2].split() == ["error", "of", "the", "gradient", "of", "entries", "method", "y", "z", "all"]
    assert [line.split()[:2] for line in lines[3:6]] == [["x", "head"], ["x", "the"], ["w", "2"]]
    assert lines[4].count("!") == 3
    assert lines[3].count("!") == lines[5].count("!") == 0
    assert lines[-1].startswith("WRONG: x[1], the rest to ")
    assert lines[-1].endswith("; 2 more of 9 blocks are")
    assert gradcheck.check(product, gradients, {"x": x, "w": w}, title="mine").title == "mine"


def test_checks_repeat_themselves(inputs):
    first, again, other = (
        gradcheck.check(lstm, lstm_pullback(inputs), inputs, method="dot", seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


X = np.ones(3)
COARSE = r'\(too coarse to difference: build the function with dtype="float64"\)'
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "error, message, call",
    [
        (
            TypeError,
            rf"x: expected dtype float64, got float32 {COARSE}",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X.astype(np.float32)}),
        ),
        (
            TypeError,
            rf"y: expected dtype float64, got float32 {COARSE}",
            lambda: gradcheck.check(lambda x: {"y": x.astype(np.float32)}, lambda u: {"x": u["y"]}, {"x": X}),
        ),
        (
            TypeError,
            "x: expected dtype float64, got complex128",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X + 0j}),
        ),
        (
            ValueError,
            "x: expected finite numbers, got nan",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X * np.nan}),
        ),
        (
            ValueError,
            r"function: expected finite outputs, got inf in output\[1\]",
            lambda: gradcheck.check(lambda x: (x, x * np.inf), lambda u: {"x": u[0]}, {"x": X}),
        ),
        (
            ValueError,
            r"function: expected the same output twice, got a difference of \d.\de[-+]\d\d \(dropout\?\)",
            lambda: gradcheck.check(lambda x: x * RNG.random(3), lambda u: {"x": u}, {"x": X}),
        ),
        (
            ValueError,
            "gradients: expected x, w; missing w",
            lambda: gradcheck.check(lambda x, w: x * w, lambda u: {"x": u}, {"x": X, "w": X}),
        ),
        (
            ValueError,
            "gradients: expected x; unexpected w",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u, "w": u}, {"x": X}),
        ),
        (
            TypeError,
            "gradients: expected a mapping of names to arrays, got ndarray",
            lambda: gradcheck.check(lambda x: x, lambda u: u, {"x": X}),
        ),
        (
            ValueError,
            r"gradient of x: expected shape \(3,\), got \(2,\)",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u[:2]}, {"x": X}),
        ),
        (
            TypeError,
            "gradient of x: expected real numbers, got dtype object",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": None}, {"x": X}),
        ),
        (
            ValueError,
            r"gradients: expected pullback\(d_output\) for outputs of shape \(3,\), got a mapping",
            lambda: gradcheck.check(lambda x: x, {"x": X}, {"x": X}),
        ),
        (
            ValueError,
            "method: expected one of auto, complex, central, dot, got 'exact'",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X}, method="exact"),
        ),
        (
            ValueError,
            "tolerance: expected a number >= 0, got -1",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X}, tolerance=-1),
        ),
        (
            ValueError,
            "blocks: expected names among x, output, got h",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X}, blocks={"h": {"all": np.s_[:]}}),
        ),
        (
            ValueError,
            r"blocks: expected an index of x \(3,\) for 'last', got 3",
            lambda: gradcheck.check(lambda x: x, lambda u: {"x": u}, {"x": X}, blocks={"x": {"last": 3}}),
        ),
        (
            TypeError,
            "layer: expected a method vjp, got int",
            lambda: gradcheck.check_layer(3),
        ),
        (
            ValueError,
            r"layer: expected dropout 0, got 0.5 \(its masks change from call to call\)",
            lambda: gradcheck.check_layer(fastrnn.RNN(2, 3, 2, dropout=0.5)),
        ),
        (
            ValueError,
            r"layer: expected dropout 0, got 0.25 \(its masks change from call to call\)",
            lambda: gradcheck.check_layer(fastrnn.Dropout(0.25), X),
        ),
        (
            ValueError,
            "method: expected one of auto, central, dot, got 'complex'",
            lambda: gradcheck.check_layer(fastrnn.Linear(2, 3), method="complex"),
        ),
        (
            ValueError,
            "x: expected an array for a layer like Dropout, got None",
            lambda: gradcheck.check_layer(fastrnn.Dropout(0)),
        ),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=f"^{message}$"):
        call()


def test_a_tolerance_of_ones_own():
    x = np.array([1.0, 2.0])
    for tolerance, ok in ((1e-3, True), (1e-5, False)):
        report = gradcheck.check(
            lambda x: np.sin(x), lambda u: {"x": 1.0001 * u * np.cos(x)}, {"x": x}, tolerance=tolerance
        )
        assert report.ok == ok


LAYERS = {
    "tanh": (lambda: fastrnn.RNN(3, 4, seed=0, dtype="float64"), {}),
    "relu": (lambda: fastrnn.RNN(3, 4, 2, nonlinearity="relu", bidirectional=True, seed=0, dtype="float64"), {}),
    "float32": (lambda: fastrnn.RNN(3, 4, batch_first=True, seed=0), {"steps": 4, "batch": 2}),
    "gru": (lambda: fastrnn.GRU(3, 4, bidirectional=True, seed=0, dtype="float64"), {"lengths": [2, 0, 4]}),
    "gru before": (lambda: fastrnn.GRU(3, 4, reset_after=False, seed=0, dtype="float64"), {"method": "dot"}),
    "lstm": (lambda: fastrnn.LSTM(3, 5, 2, proj_size=2, seed=0, dtype="float64"), {"lengths": [1, 3], "steps": 4}),
    "unbatched": (lambda: fastrnn.LSTM(3, 4, seed=0, dtype="float64"), {"x": np.ones((3, 3))}),
    "unbatched lengths": (lambda: fastrnn.GRU(3, 4, seed=0, dtype="float64"), {"x": np.ones((3, 3)), "lengths": [2]}),
    "ragged first": (
        lambda: fastrnn.GRU(3, 4, batch_first=True, seed=0, dtype="float64"),
        {"x": np.ones((2, 3, 3)), "lengths": [1, 3]},
    ),
    "state": (
        lambda: fastrnn.LSTM(3, 4, seed=0),
        {"x": np.ones((2, 2, 3), np.float32), "initial": (None, np.ones((1, 2, 4), np.float32))},
    ),
    "cell": (lambda: fastrnn.RNNCell(3, 4, seed=0, dtype="float64"), {}),
    "gru cell": (lambda: fastrnn.GRUCell(3, 4, seed=0, dtype="float64"), {"batch": 2}),
    "lstm cell": (lambda: fastrnn.LSTMCell(3, 4, seed=0, dtype="float64"), {}),
    "linear": (lambda: fastrnn.Linear(3, 4, seed=0, dtype="float64"), {}),
    "embedding": (lambda: fastrnn.Embedding(6, 4, seed=0, dtype="float64"), {}),
    "dropout": (lambda: fastrnn.Dropout(0), {"x": np.ones(3)}),
    "empty": (lambda: fastrnn.RNN(3, 4, seed=0, dtype="float64"), {"steps": 0}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_right(name):
    build, arguments = LAYERS[name]
    layer = build()
    before = layer.state_dict() if hasattr(layer, "state_dict") else {}
    report = gradcheck.check_layer(layer, **arguments)
    report.raise_if_wrong()
    assert set(before) <= set(report.inputs)
    for parameter, value in before.items():  # a copy is checked
        np.testing.assert_array_equal(layer.parameters[parameter], value)
        assert layer.parameters[parameter].dtype == value.dtype


def test_the_blocks_of_a_layer():
    report = gradcheck.check_layer(fastrnn.LSTM(3, 4, seed=0, dtype="float64"), lengths=[5, 0, 3])
    blocks = {}
    for row in report.rows:
        blocks.setdefault(row.input, {})[row.block] = row.entries
    assert blocks["x"] == {"first step": 2 * 3, "middle": (3 + 1) * 3, "last step": 2 * 3, "padding": (5 + 2) * 3}
    assert blocks["weight_hh_l0"] == {f"gate {gate}": 4 * 4 for gate in "ifgo"}
    assert blocks["c0"] == {"": 3 * 4}
    outputs = ["y first step", "y middle", "y last step", "y padding", "h_n", "c_n", "all"]
    assert list(dict.fromkeys(row.output for row in report.rows)) == outputs
    for row in report.rows:
        if row.output == "y padding" or (row.block, row.output) == ("middle", "y first step"):
            assert row.error == 0


class Faulty(fastrnn.LSTM):
    """A layer whose pullback is wrong in one way."""

    fault = ""

    def vjp(self, *arguments, **options):
        output, right = super().vjp(*arguments, **options)

        def pullback(dy=None, d_state=None, grads=None):
            dx, (dh0, dc0), grads = right(dy, d_state, grads)
            if self.fault == "padding":
                dx[3, 2, 1] = 1e-9
            elif self.fault == "gate":
                grads["weight_hh_l0"][9, 3] *= 1.0001
            elif self.fault == "c_n ignored":
                dx, (dh0, dc0), grads = right(dy, (d_state[0], None))
            return dx, (dh0, dc0), grads

        return output, pullback


@pytest.mark.parametrize(
    "fault, verdict",
    [
        ("padding", r"WRONG: x\[3, 2, 1\], padding to .*: expected 0, got 1e-09, error 1.0e\+00; \d+ more of .*"),
        ("gate", r"WRONG: weight_hh_l0\[9, 3\], gate g to .*"),
        ("c_n ignored", r"WRONG: .* to (c_n|all): .*"),
        ("", "right: 7 gradients; .*"),
    ],
)
@pytest.mark.parametrize("method", ["central", "dot"])
def test_faults_of_a_layer_are_named(fault, verdict, method):
    layer = Faulty(3, 4, seed=0, dtype="float64")
    layer.fault = fault
    report = gradcheck.check_layer(layer, lengths=[5, 4, 3], method=method)
    assert report.ok == (not fault)
    assert re.fullmatch(verdict, report.verdict), report.verdict


class Scale:
    """A layer that isn't fastrnn's: y = a x + b, of float32 or float64."""

    def __init__(self, wrong=1.0):
        self.parameters, self.wrong = fastrnn.Parameters({"a": (), "b": (3,)}, "float32"), wrong
        self.parameters.flat[:] = 1.5

    def __call__(self, x):
        return self.parameters["a"] * x + self.parameters["b"]

    def vjp(self, x):
        def pullback(dy):
            grads = self.parameters.zeros_like()
            grads["a"], grads["b"] = self.wrong * (dy * x).sum(), dy.sum(axis=0)
            return self.parameters["a"] * dy, grads

        return self(x), pullback


def test_layers_of_others():
    x = np.random.default_rng(0).standard_normal((4, 3))
    gradcheck.check_layer(Scale(), x).raise_if_wrong()
    assert gradcheck.check_layer(Scale(1.001), x).verdict.startswith("WRONG: a to y: ")


def command(*arguments):
    return CliRunner().invoke(cli.main, ["gradcheck", *map(str, arguments)])


SMALL = ("--hidden", 4, "--input", 3, "--steps", 3, "--batch", 2)


@pytest.mark.parametrize(
    "arguments, title",
    [
        (("--cell", "tanh"), "RNN of x (3, 2, 3), h0 (1, 2, 4)"),
        (("--cell", "relu", "--layers", 2), "RNN of x (3, 2, 3), h0 (2, 2, 4)"),
        (("--cell", "gru", "--reset-before", "--seed", 4), "GRU of x (3, 2, 3), h0 (1, 2, 4)"),
        (
            ("--cell", "lstm", "--bidirectional", "--proj", 2, "--lengths", "0, 3", "--method", "dot"),
            "LSTM of x (3, 2, 3), h0 (2, 2, 2), c0 (2, 2, 4)",
        ),
    ],
)
def test_the_command_prints_the_report(arguments, title):
    result = command(*SMALL, *arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == title
    assert lines[-1].startswith("right: ")
    assert ("dot, central" in result.stdout) == ("dot" in arguments)


def test_the_command_fails_for_a_wrong_gradient(monkeypatch):
    monkeypatch.setattr(fastrnn.layers, "LSTM", Faulty)
    monkeypatch.setattr(Faulty, "fault", "gate")
    result = command(*SMALL)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("WRONG: weight_hh_l0[9, 3], gate g to ")
    assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--cell", "gru", "--proj", 2), "--proj and --peepholes are lstm's, the cell is gru"),
        (("--cell", "tanh", "--peepholes"), "--proj and --peepholes are lstm's, the cell is tanh"),
        (("--cell", "lstm", "--reset-before"), "--reset-before is gru's, the cell is lstm"),
        (("--lengths", "3,x"), "--lengths: expected integers, as 5,0,3, got 3,x"),
        (("--lengths", "4,0"), "lengths: expected 0 <= length <= 3, got 4"),
        (("--lengths", "3,0,1"), "lengths: expected shape (B,) = (2,), got (3,)"),
        (("--proj", 4), "proj_size: expected an integer in 0..3, got 4"),
        (("--method", "complex"), "Invalid value for '--method': 'complex' is not one of 'auto', 'central', 'dot'."),
        (("--hidden", 0), "Invalid value for '--hidden': 0 is not in the range x>=1."),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message):
    result = command(*SMALL, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"fastrnn: error: {message}\n"
