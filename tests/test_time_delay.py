"""TimeDelay: its kernels against the reference, the reference against the complex step, and the layer against torch."""

import numpy as np
import pytest
from cases import DTYPES, TIME_DELAY, check, wide
from numerics import assert_close, complex_step
from oracles import assert_same, import_torch, normal

import fastrnn
from fastrnn import Packed, TimeDelay, gradcheck, threads
from fastrnn.functional import time_delay
from fastrnn.kernels.matmul import K_BLOCK
from fastrnn.kernels.time_delay import ROW_COLUMNS, SUM_COLUMNS
from fastrnn.ragged import dense
from fastrnn.reference import time_delay as reference

SIZES = [  # T, B, I, O, k
    (1, 1, 1, 1, 1),
    (5, 3, 2, 4, 3),
    (7, 2, 15, 16, 2),
    (6, 5, 16, 17, 5),
    (3, 4, 33, 1, 9),  # a kernel longer than the sequences
    (40, 3, 1, 33, 4),
    (0, 3, 5, 2, 3),
    (4, 0, 5, 2, 3),
]
LAYOUTS = {
    "causal": {"shifts": (-2, -1, 0)},
    "dilated": {"shifts": (-8, -4, 0, 4, 8)},
    "beyond every end": {"shifts": (-50, 50)},
    "before every start": {"shifts": (-12, -10)},
    "in no order": {"shifts": (2, -3, 0, 3, -1)},
    "ragged": {"lengths": (9, 9, 4, 1, 0)},
    "ragged, dilated": {"lengths": (9, 7, 7, 2, 1), "shifts": (-6, -3, 0)},
    "ragged, the longest shorter than T": {"lengths": (6, 5, 4, 4, 0), "shifts": (-1, 2)},
    "nothing": {"lengths": (0, 0, 0, 0, 0)},
}


def layer(*sizes, **options):
    return TimeDelay(*(sizes or (5, 18, 3)), **{"seed": 0} | options)


def results(layer, x, dy, **options):
    """All that vjp computes, by name, and that a plain call gives the same y."""
    y, pullback = layer.vjp(x, **options)
    plain = layer(x, **options)
    dx, grads = pullback(dy)
    found = {"y": y, "plain": plain, "dx": dx}
    found = {name: value.data if isinstance(value, Packed) else value for name, value in found.items()}
    np.testing.assert_array_equal(found.pop("plain"), found["y"])
    return found | {f"d_{name}": value.copy() for name, value in grads.items()}


def random_arguments(layer, *leading):
    x = normal(*leading, layer.in_channels, dtype=layer.dtype)
    return x, normal(*leading, layer.out_channels, seed=1, dtype=layer.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients(size, dtype):
    check(TIME_DELAY, size, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("sizes", [(3, 2), (17, 33)], ids=str)
def test_directions_and_lengths(sizes, name, dtype):
    options = LAYOUTS[name]
    check(TIME_DELAY, (9, 5, *sizes, len(options.get("shifts", range(3)))), dtype, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, (200, 150, 90, 3)], ids=["dense", "ragged"])
def test_blocks(dtype, lengths):
    """Windows are cut by columns and by rows, and the last blocks are not full."""
    T, B, I, O, k = 200, 4, 150, 18, 7
    assert ROW_COLUMNS < I * k < 2 * ROW_COLUMNS
    assert I * k % SUM_COLUMNS and T * B % K_BLOCK and T * B > K_BLOCK
    check(TIME_DELAY, (T, B, I, O, k), dtype, lengths=lengths, shifts=np.arange(k) * 5 - 20)


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_reference_is_right(options):
    """Its gradients are those of its values, by the complex step; its values are sums written out."""
    inputs = wide(TIME_DELAY.draw((9, 5, 2, 3, len(options.get("shifts", range(3)))), "float64"))
    expected = TIME_DELAY.reference(**inputs, **options)
    dy, given = inputs.pop("dy"), {name: np.array(value) for name, value in options.items()}
    lengths, shifts = given.get("lengths", np.full(5, 9)), given.get("shifts", np.arange(-1, 2))

    def objective(**inputs):
        return (dy * reference.time_delay_forward(**inputs, lengths=lengths, shifts=shifts)).sum()

    for name, gradient in complex_step(objective, inputs).items():
        assert_close({name: expected[{"x": "dx"}.get(name, f"d_{name}")]}, {name: gradient}, 1e-13)
    x, weight, bias = inputs.values()
    for t, b in np.ndindex(9, 5):
        y = bias if t < lengths[b] else np.zeros(3)
        for j, source in enumerate(t + shifts):
            if t < lengths[b] and 0 <= source < lengths[b]:
                y = y + weight[:, :, j] @ x[source, b]
        np.testing.assert_allclose(expected["y"][t, b], y, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, (60, 41, 2, 0, 57)], ids=["dense", "ragged"])
def test_bits_do_not_depend_on_threads(dtype, lengths, monkeypatch):
    own, found = layer(33, 70, 5, dilation=2, dtype=dtype), []
    x, dy = random_arguments(own, 60, 5)
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(threads, "for_work", lambda flops, count=count: count)
        found.append(results(own, x, dy, lengths=lengths))
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.parametrize("value", [0.5, np.inf])
@pytest.mark.parametrize("causal", [False, True])
def test_bits_do_not_depend_on_neighbours(causal, value):
    """A sequence's outputs and its inputs' gradients are those of a batch of its own; of a weight inf, too."""
    own, lengths = layer(17, 33, 5, dilation=3, causal=causal), [40, 0, 13, 200, 1]
    own.parameters["weight"][3, 2] = value
    x, dy = random_arguments(own, 200, 5)
    found = results(own, x, dy, lengths=lengths)
    for b, length in enumerate(lengths):
        alone = results(own, x[:length, b], dy[:length, b])
        for name in ("y", "dx"):
            np.testing.assert_array_equal(found[name][:length, b], alone[name])
            assert not found[name][length:, b].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_are_the_same_computation(dtype):
    own, first = (layer(5, 18, 4, dilation=2, dtype=dtype, batch_first=b) for b in (False, True))
    lengths, (x, dy) = [3, 9, 0, 7], random_arguments(own, 9, 4)
    present = np.arange(9)[:, None] < lengths
    expected = results(own, x, dy, lengths=lengths)
    x, dy = (np.where(present[:, :, None], rows, np.nan) for rows in (x, dy))  # padding is not read
    assert_same(results(own, x, dy, lengths=lengths), expected)

    swapped = results(first, x.swapaxes(0, 1), dy.swapaxes(0, 1), lengths=lengths)
    assert_same(swapped | {name: swapped[name].swapaxes(0, 1) for name in ("y", "dx")}, expected)

    x, dy = (Packed.from_padded(rows, lengths) for rows in (x, dy))
    packed = {name: Packed.from_padded(expected[name], lengths).data for name in ("y", "dx")}
    assert_same(results(own, x, dy), expected | packed)
    assert isinstance(own(x), Packed)

    x, dy = random_arguments(own, 9)
    batched = results(own, x[:, None], dy[:, None])
    assert_same(results(own, x, dy), batched | {name: batched[name][:, 0] for name in ("y", "dx")})


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (4, 1), (5, 4), (2, 3), (9, 7)])
def test_torch_agrees(kernel_size, dilation, causal, bias):
    """With the weights and the initial values' bound of torch.nn.Conv1d; causal: zeros before the first step."""
    torch = import_torch()
    own = layer(5, 7, kernel_size, dilation, causal, bias, True, dtype="float64")
    theirs = torch.nn.Conv1d(5, 7, kernel_size, padding=0 if causal else "same", dilation=dilation, bias=bias).double()
    bound = max(float(value.detach().abs().max()) for value in theirs.parameters())
    ours = max(abs(value).max() for value in own.parameters.values())
    assert 0.7 < ours / bound < 1.4
    own.load_state_dict(theirs.state_dict())
    x, dy = random_arguments(own, 3, 20)
    inputs = torch.from_numpy(x).requires_grad_()
    rows = inputs.transpose(1, 2)
    rows = torch.nn.functional.pad(rows, ((kernel_size - 1) * dilation, 0)) if causal else rows
    y = theirs(rows).transpose(1, 2)
    gradients = torch.autograd.grad(y, (inputs, *theirs.parameters()), torch.from_numpy(dy))
    expected = dict(zip(("y", "dx", "d_weight", "d_bias"), (y.detach(), *gradients), strict=False))
    assert_close(results(own, x, dy), {name: value.numpy() for name, value in expected.items()}, 1e-13)


@pytest.mark.parametrize("lengths", [None, [6, 0, 2]], ids=["dense", "ragged"])
def test_gradcheck(lengths):
    own = layer(3, 4, 3, 2)
    gradcheck.check_layer(own, normal(6, 3, 3), lengths=lengths).raise_if_wrong()
    gradcheck.check_layer(layer(3, 4, 3, batch_first=True), lengths=lengths).raise_if_wrong()
    gradcheck.check_layer(layer(3, 2, 2, causal=True), normal(6, 3), method="dot").raise_if_wrong()


def test_stacks_see_as_far_as_their_windows_together():
    """Causal layers of dilations 1, 2, 4: step t sees the 8 steps up to itself."""
    layers = [layer(2, 2, 2, dilation, True, dtype="float64", seed=dilation) for dilation in (1, 2, 4)]
    x, d = normal(20, 2), np.zeros((20, 2))
    d[13] = 1
    pullbacks = []
    for each in layers:
        x, pullback = each.vjp(x)
        pullbacks.append(pullback)
    for pullback in reversed(pullbacks):
        d, _ = pullback(d)
    assert np.flatnonzero(d.any(axis=1)).tolist() == list(range(6, 14))


def test_gradients_go_where_they_are_wanted():
    own = layer()
    (x, dy), grads = random_arguments(own, 4, 3), own.parameters.empty_like()
    _, pullback = own.vjp(x)
    assert pullback(dy, grads)[1] is grads
    assert_same(dict(grads), dict(pullback(dy)[1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_beyond_the_rows_is_not_touched(dtype, fenced):
    for I, O, at_end in ((1, 15, True), (17, 1, True), (15, 17, False)):
        inputs = TIME_DELAY.draw((5, 1, I, O, 3), dtype)
        expected = TIME_DELAY.compiled(**inputs)
        x, weight, bias, dy, d_weight, d_bias = (
            fenced(inputs[name].size, dtype, at_end) for name in (*inputs, "weight", "bias")
        )
        for name, array in zip(inputs, (x, weight, bias, dy), strict=True):
            array[:] = inputs[name].ravel()
        y, pullback = time_delay(x.reshape(5, I), weight.reshape(O, I, 3), bias, dense(5, 1), np.arange(-1, 2))
        dx = pullback(dy.reshape(5, O), d_weight.reshape(O, I, 3), d_bias)
        found = {"y": y, "dx": dx, "d_weight": d_weight, "d_bias": d_bias}
        assert_same({name: value.reshape(expected[name].shape) for name, value in found.items()}, expected)


def f32(*shape):
    return np.zeros(shape, np.float32)


X = "(T, B, in_channels) or (T, in_channels)"
ERRORS = {
    "in_channels: expected an integer >= 1, got 0": lambda: TimeDelay(0, 3, 3),
    "out_channels: expected an integer >= 1, got -1": lambda: TimeDelay(3, -1, 3),
    "kernel_size: expected an integer >= 1, got 0": lambda: TimeDelay(2, 3, 0),
    "dilation: expected an integer >= 1, got 0": lambda: TimeDelay(2, 3, 3, 0),
    f"x: expected shape {X}, got (5,)": lambda: layer()(f32(5)),
    f"x: expected shape {X}, got (2, 4, 3, 5)": lambda: layer().vjp(f32(2, 4, 3, 5)),
    f"x: expected shape {X} = (4, 3, 5), got (4, 3, 6)": lambda: layer()(f32(4, 3, 6)),
    "x: expected shape (B, T, in_channels) or (T, in_channels) = (4, 3, 5), got (4, 3, 6)": lambda: layer(
        batch_first=True
    )(f32(4, 3, 6)),
    "x.data: expected shape (N, in_channels) = (7, 5), got (7, 6)": lambda: layer()(Packed(f32(7, 6), [0, 7])),
    "lengths: expected None with a Packed x, got [7]": lambda: layer()(Packed(f32(7, 5), [0, 7]), lengths=[7]),
    "lengths: expected 0 <= length <= 4, got 5": lambda: layer()(f32(4, 3, 5), lengths=[1, 5, 2]),
    "lengths: expected shape (B,) = (3,), got (2,)": lambda: layer()(f32(4, 3, 5), lengths=[1, 2]),
    "dy: expected shape (4, 3, 18), got (4, 3, 5)": lambda: layer().vjp(f32(4, 3, 5))[1](f32(4, 3, 5)),
    "dy.offsets: expected [0, 7], got [0, 3, 7]": lambda: layer().vjp(Packed(f32(7, 5), [0, 7]))[1](
        Packed(f32(7, 18), [0, 3, 7])
    ),
    "weight: expected shape (18, 5, 3), got (18, 3, 5)": lambda: layer().load_state_dict(
        {"weight": f32(18, 3, 5), "bias": f32(18)}
    ),
}
TYPES = {
    "kernel_size: expected an integer, got 3.0": lambda: TimeDelay(2, 3, 3.0),
    "dtype: expected float32 or float64, got float16": lambda: TimeDelay(2, 3, 3, dtype="float16"),
    "x: expected dtype float32, got float64": lambda: layer()(np.zeros((4, 3, 5))),
    "lengths: expected integers, got dtype float64": lambda: layer()(f32(4, 2, 5), lengths=[1.0, 2.0]),
    "dy: expected dtype float32, got float64": lambda: layer().vjp(f32(4, 5))[1](np.zeros((4, 18))),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_shapes_and_values(message):
    with pytest.raises(ValueError) as raised:
        ERRORS[message]()
    assert str(raised.value) == message


@pytest.mark.parametrize("message", TYPES)
def test_wrong_types(message):
    with pytest.raises(TypeError) as raised:
        TYPES[message]()
    assert str(raised.value) == message


def test_it_is_exported():
    assert fastrnn.TimeDelay is TimeDelay
