"""What reaches a kernel: every array of every operation, compared at its entrance with all that imply its size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from cases import DTYPES, SOURCES
from cells import CELLS

from fastrnn import Trees, functional, ragged
from fastrnn.functional import Weights
from fastrnn.kernels.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.kernels.cells.gru import GRU
from fastrnn.kernels.cells.lstm import LSTM

T, B, I, H, V = 4, 3, 5, 18, 7  # more units than a vector of any target has lanes, and no multiple of them
LENGTHS = np.array([4, 3, 1])
PARENTS = [2, 2, 6, 5, 5, 6, -1, 8, -1]


class Operation(NamedTuple):
    """One entrance: the arrays that it is given by name, those that it writes, and a call with its pullback."""

    read: dict[str, Any]  # shapes; of integers ready arrays
    written: dict[str, tuple[int, ...]]
    run: Callable[..., Any]  # the arrays by name -> what is returned
    free: tuple[tuple[str, int], ...] = ()  # arrays and axes that nothing else implies

    def draw(self, dtype: str) -> dict[str, np.ndarray]:
        """All arrays, what is written to full of NaN."""
        rng = np.random.default_rng(0)
        read = {
            name: of.copy() if isinstance(of, np.ndarray) else rng.standard_normal(of).astype(dtype)
            for name, of in self.read.items()
        }
        return read | {name: np.full(shape, np.nan, dtype) for name, shape in self.written.items()}


def linear(x, weight, bias, dy, d_weight, d_bias):
    y, pullback = functional.linear(x, weight, bias)
    return y, pullback(dy, d_weight, d_bias)


def embedding(tokens, weight, dy, d_weight):
    y, pullback = functional.embedding(tokens, weight)
    return y, pullback(dy, d_weight)


def cross_entropy(logits, targets):
    loss, pullback = functional.cross_entropy(logits, targets)
    return loss, pullback(1.0)


def linear_cross_entropy(x, weight, bias, targets, d_weight, d_bias):
    return functional.linear_cross_entropy(x, weight, bias, targets, (d_weight, d_bias))


def attention(queries, memory, query_offsets, memory_offsets, d_context):
    context, pullback = functional.attention(queries, memory, query_offsets, memory_offsets)
    return context, pullback(d_context)


def time_delay(x, weight, bias, shifts, dy, d_weight, d_bias):
    y, pullback = functional.time_delay(x, weight, bias, ragged.ragged(LENGTHS), shifts)
    return y, pullback(dy, d_weight, d_bias)


def recurrent(cell, directions, lengths, x, dy, table=None, d_table=None, **arrays):
    """All directions with the same weights; the gradients of the first go to the arrays given."""
    steps = [ragged.ragged(lengths, d == 1) for d in range(directions)]
    initial, d_final, d_hs = [
        [arrays.pop(n) for n in ns] for ns in (cell.kind.states, [f"d_{state}" for state in cell.kind.states], ["d_hs"])
    ]
    grads = Weights(**{n.removeprefix("d_"): arrays.pop(n) for n in list(arrays) if n.startswith("d_")})
    weights = Weights(**arrays)
    y, final, pullback, kept = functional.recurrent_layer(
        cell.tag, x, [tuple(initial)] * directions, [weights] * directions, steps, True, table
    )
    others = Weights(*[None if g is None else np.empty(w.shape, y.dtype) for g, w in zip(grads, weights, strict=True)])
    hs = [*d_hs, np.empty_like(d_hs[0])]
    dx, d_initial = pullback(dy, [tuple(d_final)] * directions, [grads, others][:directions], d_table, d_hs=hs)
    return y, final, dx, d_initial, kept()


def into_a_buffer(x, h, W_ih, W_hh, buffer):
    steps = ragged.ragged(LENGTHS)
    return functional.recurrent(ElmanTanh, x, (h,), Weights(W_ih, W_hh), steps, buffer, 2, keep=False)[0]


def recursive(cell, K, x, W_ih, W_hh, b_ih, b_hh, d_h, d_W_ih, d_W_hh, d_b_ih, d_b_hh, d_c=None):
    state, pullback = functional.recursive(cell, x, Trees(PARENTS), Weights(W_ih, W_hh, b_ih, b_hh), K)
    d_state = (d_h,) if d_c is None else (d_h, d_c)
    return state, pullback(d_state, Weights(d_W_ih, d_W_hh, d_b_ih, d_b_hh))


def _recurrent(name, source, directions, lengths):
    cell, N = CELLS[name], int(lengths.sum())
    P, rng = cell.outputs(H), np.random.default_rng(1)
    states, weights = cell.states(B, H), cell.weights(I, H)
    below = {"x": 0, "tokens": I, "table": V}[source]
    read = {"x": rng.integers(below, size=N) if below else (N, I)} | states | weights | {"dy": (N, directions * P)}
    read |= {"table": (V, I)} if source == "table" else {}
    read |= {f"d_{state}": shape for state, shape in states.items()}
    written = {f"d_{weight}": shape for weight, shape in weights.items()} | {"d_hs": (N, P)}
    written |= {"d_table": (V, I)} if source == "table" else {}

    def run(**arrays):
        return recurrent(cell, directions, lengths, **arrays)

    return Operation(read, written, run, (("table", 0),))


def _recursive(cell, K):
    N, G, forgets = len(PARENTS), 4 if cell is LSTM else 1, max(K, 1) if cell is LSTM else 0
    weights = {"W_ih": (G * H, I), "W_hh": ((max(G - 1, 1) + forgets) * H, max(K, 1) * H)}
    weights |= {"b_ih": (G * H,), "b_hh": (G * H,)}
    read = {"x": (N, I)} | weights | {"d_h": (N, H)} | ({"d_c": (N, H)} if cell is LSTM else {})
    written = {f"d_{name}": shape for name, shape in weights.items()}
    return Operation(read, written, lambda **arrays: recursive(cell, K, **arrays))


N = int(LENGTHS.sum())
TOKENS = np.array([2, 0, 6, 6, 1])
OFFSETS = {"query_offsets": np.array([0, 2, 2, 5]), "memory_offsets": np.array([0, 1, 4, 9])}
EQUAL = np.array([T] * B)
OPERATIONS = {
    "linear": Operation(
        {"x": (6, I), "weight": (H, I), "bias": (H,), "dy": (6, H)}, {"d_weight": (H, I), "d_bias": (H,)}, linear
    ),
    "product": Operation(
        {"a": (6, I), "b": (I, H), "c0": (H,)}, {"c": (6, H)}, lambda **own: functional.product(**own)
    ),
    "product, transposed": Operation(
        {"a": (I, 6), "b": (H, I)},
        {"c": (6, H)},
        lambda **own: functional.product(**own, a_transposed=True, b_transposed=True),
    ),
    "gather": Operation(
        {"source": (V, H), "index": np.array([3, -1, 6, 0])},
        {"out": (4, 2 * H)},
        lambda **own: functional.gather(**own, column=1, width=H - 1, out_column=3),
        (("source", 0), ("source", 1), ("out", 1)),
    ),
    "embedding": Operation({"tokens": TOKENS, "weight": (V, H), "dy": (5, H)}, {"d_weight": (V, H)}, embedding),
    "cross_entropy": Operation({"logits": (5, V), "targets": TOKENS}, {}, cross_entropy, (("logits", 1),)),
    "linear_cross_entropy": Operation(
        {"x": (5, H), "weight": (V, H), "bias": (V,), "targets": TOKENS},
        {"d_weight": (V, H), "d_bias": (V,)},
        linear_cross_entropy,
    ),
    "attention": Operation({"queries": (5, H), "memory": (9, H), **OFFSETS, "d_context": (5, H)}, {}, attention),
    "time_delay": Operation(
        {"x": (N, I), "weight": (H, I, 3), "bias": (H,), "shifts": np.array([-1, 0, 2]), "dy": (N, H)},
        {"d_weight": (H, I, 3), "d_bias": (H,)},
        time_delay,
    ),
    "recurrent into a buffer": Operation(
        {"x": (N, I), "h": (B, H), "W_ih": (H, I), "W_hh": (H, H)},
        {"buffer": (N + 2 * B, H + 5)},
        into_a_buffer,
        (("buffer", 1),),
    ),
    **{f"recurrent {cell} x": _recurrent(cell, "x", 1, LENGTHS) for cell in SOURCES["x"]},
    **{f"recurrent {cell} tokens": _recurrent(cell, "tokens", 1, LENGTHS) for cell in SOURCES["tokens"]},
    **{f"recurrent {cell} table": _recurrent(cell, "table", 1, EQUAL) for cell in SOURCES["table"]},
    "recurrent lstm_all, both ways": _recurrent("lstm_all", "x", 2, LENGTHS),
    "recurrent gru_reset_before, both ways": _recurrent("gru_reset_before", "x", 2, EQUAL),
    **{
        f"recursive {cell.__name__} {K}": _recursive(cell, K)
        for cell, K in ((ElmanTanh, 0), (ElmanRelu, 2), (LSTM, 0), (LSTM, 2))
    },
}
by_operation = pytest.mark.parametrize("name", OPERATIONS)


def leaves(value):
    """The arrays and numbers in nested results."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [] if value is None else [np.asarray(value)]


def results(operation, given):
    """All that is returned and written."""
    return [*leaves(operation.run(**given)), *[given[name] for name in operation.written]]


def refusal(operation, given):
    """The one line that a call is refused with, "" where it isn't; nothing has been written then."""
    before = {name: given[name].copy() for name in operation.written if isinstance(given[name], np.ndarray)}
    try:
        operation.run(**given)
    except (TypeError, ValueError) as error:
        for name, value in before.items():
            np.testing.assert_array_equal(given[name], value, err_msg=f"{name} was written to")
        return f"{type(error).__name__} {error}"
    return ""


def assert_one_line(message, given):
    """An argument's name, what was expected, and what came."""
    kind, _, text = message.partition(" ")
    name, _, rest = text.partition(": expected ")
    assert kind in ("TypeError", "ValueError")
    assert rest, message
    assert name in [*given, "tokens", "gradients", "dh", "dc"], message
    assert ", got " in rest, message
    assert "\n" not in message


def resized(array, axis, change):
    """One more or one fewer along an axis."""
    if change < 0:
        return array.take(range(array.shape[axis] - 1), axis)
    return np.concatenate([array, array.take([-1], axis)], axis)


@by_operation
def test_sizes_and_ranks(name):
    """Every axis of every array one longer and one shorter, no axis, one more: refused, by the name of an argument."""
    operation = OPERATIONS[name]
    drawn = operation.draw("float32")
    for argument, array in drawn.items():
        changed = [array[None], array[..., None], array.reshape(-1) if array.ndim > 1 else array[0]]
        changed += [
            resized(array, axis, change)
            for axis in range(array.ndim)
            for change in (-1, 1)
            if (argument, axis) not in operation.free
        ]
        for value in changed:
            given = operation.draw("float32") | {argument: np.ascontiguousarray(value)}
            message = refusal(operation, given)
            assert message, f"{argument} {value.shape} in place of {array.shape} was taken"
            assert_one_line(message, given)


@by_operation
def test_dtypes(name):
    """Another width, integers, complex numbers, objects, None for a number: refused."""
    operation = OPERATIONS[name]
    for argument, array in operation.draw("float32").items():
        others = ("float64", "float16", "int64", "complex64", "bool", object)
        if array.dtype.kind != "f":
            others = ("float32", "float64", "complex64", "bool")
        elif name == "cross_entropy":  # whose logits alone say what the dtype is
            others = others[1:]
        for other in others:
            given = operation.draw("float32")
            given[argument] = np.nan_to_num(given[argument]).astype(other)
            message = refusal(operation, given)
            assert message.startswith("TypeError"), f"{argument} of {other}: {message or 'taken'}"
            assert_one_line(message, given)


@by_operation
@pytest.mark.parametrize("dtype", ["float16", "longdouble", "complex64"])
def test_dtypes_that_no_kernel_has(name, dtype):
    """Refused, though all arrays agree."""
    operation = OPERATIONS[name]
    message = refusal(operation, operation.draw(dtype))
    assert message.startswith("TypeError"), message or "taken"
    assert_one_line(message, operation.draw(dtype))


@by_operation
def test_layouts(name):
    """What is read may lie anyhow, and be read-only or swapped; what is written lies in one piece, and can be."""
    operation = OPERATIONS[name]
    expected = results(operation, operation.draw("float32"))
    for argument, array in operation.draw("float32").items():
        spread = np.repeat(array[..., None], 2, axis=-1)[..., 0]
        frozen = array.copy()
        frozen.flags.writeable = False
        for value in (spread, np.asfortranarray(spread), frozen, array.astype(array.dtype.newbyteorder())):
            given = operation.draw("float32") | {argument: value}
            if argument not in operation.written:
                for got, wanted in zip(results(operation, given), expected, strict=True):
                    np.testing.assert_array_equal(got, wanted)
            elif not (value.flags.carray and value.dtype.isnative):
                message = refusal(operation, given)
                assert message, f"{argument} was taken"
                assert_one_line(message, given)


INDICES = {
    ("embedding", "tokens"): (-1, V, 2**62),
    ("gather", "index"): (V, 2**62),
    ("cross_entropy", "targets"): (-1, V, -(2**63)),
    ("linear_cross_entropy", "targets"): (-1, V),
    ("attention", "query_offsets"): (-1, 6, 2**62),
    ("attention", "memory_offsets"): (-1, 10, -(2**63)),
    ("recurrent gru tokens", "x"): (-1, I, 2**62),
    ("recurrent gru table", "x"): (-1, V, 2**62),
}


@pytest.mark.parametrize(("name", "argument"), INDICES)
def test_indices(name, argument):
    """Too small, too large, anywhere."""
    operation = OPERATIONS[name]
    for place in (0, 1, -1):
        for value in INDICES[name, argument]:
            given = operation.draw("float32")
            given[argument][place] = value
            message = refusal(operation, given)
            shown = "tokens" if argument == "x" else argument
            assert message.startswith(f"ValueError {shown}: expected"), message or "taken"
            assert_one_line(message, given)


def test_as_many_gradients_as_parameters():
    given = OPERATIONS["linear_cross_entropy"].draw("float32")
    d_weight = given.pop("d_weight")
    given.pop("d_bias")
    with pytest.raises(ValueError, match=r"^gradients: expected \(d_weight, d_bias\), got tuple of 1$"):
        functional.linear_cross_entropy(**given, gradients=(d_weight,))


def test_what_was_not_kept_cannot_be_pulled_back():
    given = OPERATIONS["recurrent into a buffer"].draw("float32")
    weights, initial = Weights(given["W_ih"], given["W_hh"]), (given["h"],)
    steps = ragged.ragged(LENGTHS)
    _, _, pullback, kept = functional.recurrent_layer(ElmanTanh, given["x"], [initial], [weights], [steps], False)
    for call in (lambda: pullback(None, [initial], [Weights(None, None)]), kept):
        with pytest.raises(ValueError, match=r"^keep: expected True, got False$"):
            call()


def layer_of(cell=ElmanTanh, steps=None, initial=None, table=None, **others):
    """A layer's forward pass, with something else in place of one argument."""
    drawn = OPERATIONS["recurrent into a buffer"].draw("float32")
    G = 3 if cell is GRU else 1
    weights = Weights(np.ones((G * H, I), "f"), np.ones((G * H, H), "f"), **others)
    steps = [ragged.ragged(LENGTHS)] if steps is None else steps
    initial = [(drawn["h"],)] if initial is None else initial
    return functional.recurrent_layer(cell, drawn["x"], initial, [weights], steps, False, table)


MISUSES = {
    "steps: expected Steps, got tuple": lambda: layer_of(steps=[tuple(LENGTHS)]),
    "steps: expected 1, 2 arrays, got 0": lambda: layer_of(steps=[], initial=[]),
    "initial: expected 1, one for each of the steps, got 2": lambda: layer_of(initial=[(), ()]),
    "initial: expected 1, one for each of the states, got 0": lambda: layer_of(initial=[()]),
    "W_hr: expected None for GRU, got (4, 18)": lambda: layer_of(GRU, W_hr=np.ones((4, H), "f")),
    "per_unit: expected None for ElmanTanh, got (3, 18)": lambda: layer_of(per_unit=np.ones((3, H), "f")),
    "table: expected None without tokens, got (7, 5)": lambda: layer_of(table=np.ones((V, I), "f")),
    "lengths: expected lengths in 0..3, the longest first, got [3, 4]": lambda: ragged.ragged(np.array([3, 4])),
    "lengths: expected lengths in 0..3, the longest first, got [3, 1, 3]": lambda: ragged.ragged(np.array([3, 1, 3])),
    "lengths: expected lengths in 0..3, the longest first, got [ 3, -1]": lambda: ragged.ragged(np.array([3, -1])),
    "trees: expected Trees, got list": lambda: functional.recursive(ElmanTanh, None, PARENTS, None),
    "cell: expected one of ElmanTanh, ElmanRelu, LSTM, got GRU": lambda: functional.recursive(
        GRU, None, Trees(PARENTS), None
    ),
    "steps: expected steps that go forwards, got reverse ones": lambda: functional.time_delay(
        np.ones((N, I), "f"), np.ones((H, I, 1), "f"), None, ragged.ragged(LENGTHS, True), np.zeros(1, int)
    ),
    "column: expected an integer in 0..5, got 6": lambda: functional.recurrent(
        ElmanTanh, np.ones((N, I), "f"), (np.ones((B, H), "f"),), Weights(np.ones((H, I), "f"), np.ones((H, H), "f")),
        ragged.ragged(LENGTHS), np.ones((N + 2 * B, H + 5), "f"), 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", MISUSES)
def test_misuses(message):
    with pytest.raises((TypeError, ValueError)) as caught:
        MISUSES[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize("shift", [-(2**63), -(2**62), -T, T, 2**62, 2**63 - 1])
def test_shifts_beyond_every_sequence_see_nothing(shift):
    operation = OPERATIONS["time_delay"]
    given, expected = operation.draw("float32"), operation.draw("float32")
    given["shifts"][2] = shift
    expected["weight"] = np.ascontiguousarray(expected["weight"][..., :2])
    expected["shifts"], expected["d_weight"] = expected["shifts"][:2], np.empty((H, I, 2), np.float32)
    y, dx = operation.run(**given)
    y_wanted, dx_wanted = operation.run(**expected)
    np.testing.assert_array_equal(y, y_wanted)
    np.testing.assert_array_equal(dx, dx_wanted)
    np.testing.assert_array_equal(given["d_weight"][..., :2], expected["d_weight"])
    assert not given["d_weight"][..., 2].any()


@by_operation
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_beyond_the_arrays_is_not_touched(name, dtype, at_end, fenced):
    operation = OPERATIONS[name]
    expected, given = results(operation, operation.draw(dtype)), {}
    for argument, array in operation.draw(dtype).items():
        given[argument] = fenced(array.size, array.dtype, at_end).reshape(array.shape)
        given[argument][...] = array
    for got, wanted in zip(results(operation, given), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
