"""Hash what the kernels compute: `python tools/bits.py [--check] [WORD...]`; the hashes are the same on every machine.

A line a case: its name, and a hash of all that it gives, gradients included. --check compares them with those that
`bits.txt` beside this file keeps; `python tools/bits.py > tools/bits.txt` writes it anew. WORDs pick the cases whose
names hold all of them (`gru float64`). Every case is cut for threads in several ways, which must not change a bit.

The operations are those of `tests/cases.py`, so that a new one is hashed as soon as it stands there, and a few that are
put together here. All inputs are integers times powers of two, and what Python does with them is exact or one rounding,
so that no mathematics library, product or random generator of the machine has a say.
"""

import hashlib
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np

from fastrnn import GRU, LSTM, RNN, Parameters, Recursive, Trees, functional, optim, threads
from fastrnn.kernels.target import TARGET
from fastrnn.models import CharLM

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from cases import CASES, DTYPES, LINEAR, RECURRENT, TIME_DELAY, Case, fused

KEPT = Path(__file__).with_suffix(".txt")
PLANS = [(1, 1), (3, 1), (1, 3)]  # shards of the rows, and of the units, whether or not there are threads for them
LENGTHS = (9, 9, 9, 7, 7, 7, 6, 5, 5, 3, 2, 2, 1, 0, 0)
# No multiple of a vector; more rows than any tile has.
SIZES = {"T": 9, "B": 15, "I": 19, "H": 37, "V": 41, "N": 70, "O": 43, "D": 21, "k": 4, "n": 1003, "steps": 3}
LAYOUTS = {
    "ragged": {"lengths": LENGTHS},
    "ragged reverse": {"lengths": LENGTHS, "reverse": True},
    "clipped": {"limit": 0.125},
}

Results = dict[str, Any]  # arrays and numbers by name
Compute = Callable[[str], Results]  # of a dtype


def integers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint64 that a name stands for. Source: Steele, Lea, Flood, OOPSLA 2014: SplitMix64."""
    z = np.uint64(zlib.crc32(name.encode())) + np.arange(math.prod(shape), dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def numbers(name: str, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> np.ndarray:
    """Numbers between -2*scale and 2*scale, a power of two, with all the digits of the dtype."""
    digits = np.finfo(dtype).nmant + 1
    signed = (integers(name, shape) >> np.uint64(64 - digits)).astype(np.int64) - (1 << (digits - 1))
    return (signed * math.ldexp(scale, 2 - digits)).astype(dtype)


def weights(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers whose sums over the last axis stay near 1."""
    return numbers(name, shape, dtype, math.ldexp(1.0, -(shape[-1].bit_length() // 2)))


def draw(case: Case, sizes: dict[str, int], dtype: str) -> dict[str, np.ndarray]:
    """Inputs of a registered case."""
    inputs = {}
    for name, shape in case.shapes(*(sizes[letter] for letter in case.letters.split(", "))).items():
        if shape and isinstance(shape[0], tuple):
            inputs[name] = (integers(name, shape[0]) % np.uint64(shape[1])).astype(np.int64)
        else:
            kind = weights if name.lower().startswith(("w", "per_unit")) else numbers
            inputs[name] = kind(name, shape, dtype)
    return inputs


def registered(case: Case, sizes: dict[str, int], options: dict[str, Any], dtype: str) -> Results:
    """An operation of tests/cases.py."""
    return case.compiled(**draw(case, SIZES | sizes, dtype), **options)


def fill(parameters: Parameters) -> None:
    """Put weights in place of the initial values."""
    for name, value in parameters.items():
        value[...] = weights(name, value.shape, parameters.dtype.name)


def layers(Layer: type, options: dict[str, Any], dtype: str) -> Results:
    """Two layers in both directions over sequences in any order, with initial states, and what happens inside."""
    T, B, I, H = (SIZES[letter] for letter in "TBIH")
    layer = Layer(I, H, 2, bidirectional=True, dtype=dtype, **options)
    fill(layer.parameters)
    widths = {"h": options.get("proj_size", H), "c": H} if Layer is LSTM else {"h": H}
    given = {name: numbers(name, (4, B, width), dtype) for name, width in widths.items()}
    d_final = {name: numbers(f"d_{name}", value.shape, dtype) for name, value in given.items()}
    (y, final, cells), pullback = layer.vjp(
        numbers("x", (T, B, I), dtype), _state(given), lengths=LENGTHS[::2] + LENGTHS[1::2], return_cells=True
    )
    dx, d_initial, grads = pullback(numbers("dy", y.shape, dtype), _state(d_final))
    found = {f"final {name}": value for name, value in _named(final).items()}
    found |= {f"d_{name}": value for name, value in _named(d_initial).items()}
    found |= {f"{name} {i}": rows for i, each in enumerate(cells) for name, rows in each.items()}
    return {"y": y, "dx": dx, **found, **grads}


def _state(arrays):
    """As a layer takes it: h, or (h, c)."""
    return tuple(arrays.values()) if len(arrays) > 1 else arrays["h"]


def _named(state):
    """As a layer gives it, by name."""
    return dict(zip("hc", state if isinstance(state, tuple) else (state,), strict=False))


def recursive(cell: str, children: str | int, dtype: str) -> Results:
    """A tree of three children a node, and a chain."""
    trees = Trees(np.concatenate([(np.arange(40) - 1) // 3, [-1], 40 + np.arange(20)]))
    layer = Recursive(SIZES["I"], SIZES["H"], cell, children, dtype=dtype)
    fill(layer.parameters)
    state, pullback = layer.vjp(numbers("x", (len(trees), layer.input_size), dtype), trees)
    found = _named(state)
    dx, grads = pullback(_state({name: numbers(f"d_{name}", value.shape, dtype) for name, value in found.items()}))
    return {**found, "dx": dx, **grads}


def attention(dtype: str) -> Results:
    """Sequences around a vector's length, one without queries, one without memory."""
    queries, memory = (np.cumsum([0, *lengths]) for lengths in ([15, 16, 17, 0, 33, 1], [1, 33, 17, 4, 0, 16]))
    H = SIZES["H"]
    context, pullback = functional.attention(
        weights("queries", (82, H), dtype), numbers("memory", (71, H), dtype), queries, memory
    )
    d_queries, d_memory = pullback(numbers("d_context", (82, H), dtype))
    return {"context": context, "d_queries": d_queries, "d_memory": d_memory}


def clipping(dtype: str) -> Results:
    """Gradients, their norm, and what is left of them."""
    grads = Parameters({"weight": (301, 83)}, dtype)
    grads["weight"] = numbers("weight", (301, 83), dtype)
    return {"norm": optim.clip_grad_norm(grads, 1.0), "clipped": grads.flat}


def training(cell: str, embedding_size: int, dtype: str) -> Results:
    """Three steps of a character model."""
    V, shape, losses, state = SIZES["V"], (SIZES["T"], SIZES["B"]), [], None
    lm = CharLM("".join(map(chr, range(65, 65 + V))), cell, SIZES["H"], 2, embedding_size, dtype=dtype)
    fill(lm.parameters)
    optimizer = optim.Adam(lm.parameters, 0.01, betas=(0.75, 0.875))
    for step in range(3):
        tokens, targets = ((integers(f"{name} {step}", shape) % np.uint64(V)).astype(int) for name in ("from", "to"))
        loss, norm, state = lm.train_step(tokens, targets, state, optimizer, clip_norm=0.5)
        losses += [loss, norm]
    return {"losses": losses, **_named(state), **lm.parameters}


def operations() -> Iterator[tuple[str, Compute]]:
    """What is hashed, by name, in each dtype."""
    for name, case in CASES.items():
        yield name, partial(registered, case, {}, {})
    for name, case in RECURRENT.items():
        for layout, options in LAYOUTS.items():
            yield f"{name} {layout}", partial(registered, case, {}, options)
    yield "time_delay ragged", partial(registered, TIME_DELAY, {}, {"lengths": LENGTHS, "shifts": (-3, 0, 1, 5)})
    yield "linear in blocks", partial(registered, LINEAR, {"N": 420, "I": 600, "O": 600}, {})
    for Layer, options in ((RNN, {}), (GRU, {}), (LSTM, {"proj_size": 22, "peepholes": True})):
        yield f"layers {Layer.__name__}", partial(layers, Layer, options)
    for cell in ("tanh", "relu", "lstm"):
        for children in ("sum", 3):
            yield f"recursive {cell} {children}", partial(recursive, cell, children)
    yield "attention", attention
    yield "clipping", clipping
    yield "training lstm one-hot", partial(training, "lstm", 0)
    yield "training gru embedding", partial(training, "gru", 21)


def cases() -> dict[str, Callable[[], Results]]:
    """The operations in each dtype."""
    return {f"{name} {dtype}": partial(compute, dtype) for name, compute in operations() for dtype in DTYPES}


@contextmanager
def cut(rows: int, units: int) -> Iterator[None]:
    """Within the block every operation is cut into rows*units parts."""
    choices = {"for_sequence": threads.Plan(rows, units), "for_work": rows * units, "for_bytes": rows * units}
    with mock.patch.multiple(threads, **{name: lambda *work, plan=plan: plan for name, plan in choices.items()}):
        yield


def digest(results: Results) -> str:
    """A hash of names, types, shapes and bits."""
    whole = hashlib.sha256()
    for name, value in sorted(results.items()):
        value = np.asarray(value)
        if not np.isfinite(value).all():  # a NaN's bits are the CPU's own
            raise ValueError(f"{name}: expected finite numbers, got others")
        whole.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return whole.hexdigest()[:16]


def hashes(compute: Callable[[], Results]) -> list[str]:
    """One for each of PLANS."""
    found = []
    for plan in PLANS:
        with cut(*plan):
            found.append(digest(compute()))
    return found


def kept() -> dict[str, str]:
    """The hashes by name, as the file has them."""
    return dict(reversed(line.split(" ", 1)) for line in KEPT.read_text().splitlines())


@click.command()
@click.option("--check", is_flag=True, help="Compare with the kept hashes.")
@click.argument("words", nargs=-1)
def main(check: bool, words: tuple[str, ...]) -> None:
    """Print a hash of all that each case computes; WORDS pick those that hold all of them."""
    click.echo(f"target {TARGET.name}", err=True)
    chosen = {name: compute for name, compute in cases().items() if {*words} <= {*name.split()}}
    if not chosen:
        raise click.ClickException(f"words: expected some of a case's name, got {' '.join(words)}")
    expected, wrong = kept() if check else {}, []
    for name, compute in chosen.items():
        found = hashes(compute)
        click.echo(f"{found[0]} {name}")
        right = expected.get(name, "one that is kept") if check else found[0]
        if {*found} != {right}:
            wrong.append(f"{name}: expected {right}, got {', '.join(found)}")
    if wrong:
        reason = "" if fused() else ": this CPU rounds a multiply-add twice, and has bits of its own"
        raise click.ClickException("\n".join([f"{len(wrong)} of {len(chosen)} cases differ{reason}", *wrong]))


if __name__ == "__main__":
    main()
