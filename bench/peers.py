"""One Elman layer (tanh, one direction) in fastrnn and its peers: `python bench/peers.py --shape 50,64,512,512`.

Peers run where they are installed: torch (nn.RNN), jax (lax.scan under jit), onnxruntime (the RNN operator; forward,
float32 only). All work on the same arrays and weights, and no time is printed unless their results agree.

Forward: x, h0 -> y, h_n, without keeping anything for gradients. Forward+backward: x, h0 and the cotangents of y and
h_n -> the gradients of x, h0 and every weight. GF/s count the products alone: 2*T*B*H*(I+H) flop forward, three
times that with backward.

How fairness is kept
- The process is confined to as many cores as threads before any library is loaded. torch and onnxruntime are given
  the number, numba and XLA count the cores. (macOS can't confine a process: there XLA takes all cores.)
- One process, interleaved: each repeat times every system and the FMA peak, in an order that changes with the repeat.
  Shares of the peak are taken within a repeat; medians over repeats are printed.
- Each measurement starts with a pause, in which the idle threads of the others stop spinning, and an untimed call.
- Everybody reads inputs that are in place and allocates its own results. torch uses inference_mode, and autograd.grad
  in place of accumulating into .grad. jax gets jax.vjp under one jit, which does less than value_and_grad, and the
  input product taken out of the scan; two scans are tried, plain and unrolled, and the faster counts.
"""

import importlib.util
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from machine import describe, interleave, pin, seconds
from peak import peak
from registry import SHAPES, Shape

import fastrnn

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
PASSES = {"forward": 1, "forward+backward": 3}


class Problem(NamedTuple):
    """Inputs, weights by torch's names, and cotangents."""

    x: np.ndarray  # (T, B, I)
    h0: np.ndarray  # (1, B, H)
    weights: dict[str, np.ndarray]
    dy: np.ndarray  # (T, B, H)
    dh_n: np.ndarray  # (1, B, H)


class System(NamedTuple):
    """Two calls on one problem: (y, h_n), and the gradients of x, h0 and the weights; None where there is none."""

    forward: Callable[[], Sequence[object]]
    backward: Callable[[], Sequence[object]] | None


def problem(shape: Shape, dtype: str) -> Problem:
    """Random numbers, weights as torch draws them."""
    rng = np.random.default_rng(0)
    T, B, I, H = shape

    def normal(*size):
        return rng.standard_normal(size).astype(dtype)

    weights = {
        name: rng.uniform(-(H**-0.5), H**-0.5, size).astype(dtype)
        for name, size in zip(NAMES, ((H, I), (H, H), (H,), (H,)), strict=True)
    }
    return Problem(normal(T, B, I), normal(1, B, H), weights, normal(T, B, H), normal(1, B, H))


def fastrnn_system(p: Problem, threads: int) -> System:
    fastrnn.set_num_threads(threads)
    rnn = fastrnn.RNN(p.x.shape[2], p.h0.shape[2], dtype=p.x.dtype)
    rnn.load_state_dict(p.weights)

    def backward():
        _, pullback = rnn.vjp(p.x, p.h0)
        dx, dh0, grads = pullback(p.dy, p.dh_n)
        return dx, dh0, *grads.values()

    return System(lambda: rnn(p.x, p.h0), backward)


def torch_system(p: Problem, threads: int) -> System:
    import torch

    torch.set_num_threads(threads)
    x, h0, dy, dh_n = (torch.from_numpy(array.copy()) for array in (p.x, p.h0, p.dy, p.dh_n))
    rnn = torch.nn.RNN(x.shape[2], h0.shape[2], dtype=x.dtype)
    rnn.load_state_dict({name: torch.from_numpy(value) for name, value in p.weights.items()})
    x.requires_grad_()
    h0.requires_grad_()

    def forward():
        with torch.inference_mode():
            return rnn(x, h0)

    def backward():
        return torch.autograd.grad(rnn(x, h0), (x, h0, *rnn.parameters()), (dy, dh_n))

    return System(forward, backward)


def jax_system(p: Problem, threads: int) -> System:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", p.x.dtype == np.float64)
    inputs = [jax.numpy.asarray(array) for array in (p.x, p.h0[0], *(p.weights[name] for name in NAMES))]
    cotangents = jax.numpy.asarray(p.dy), jax.numpy.asarray(p.dh_n[0])

    def variant(unroll):
        def rnn(x, h0, W_ih, W_hh, b_ih, b_hh):
            def step(h, z):
                h = jax.numpy.tanh(z + h @ W_hh.T)
                return h, h

            h_n, y = jax.lax.scan(step, h0, x @ W_ih.T + (b_ih + b_hh), unroll=unroll)
            return y, h_n

        forward = jax.jit(rnn)
        backward = jax.jit(lambda inputs, cotangents: jax.vjp(rnn, *inputs)[1](cotangents))
        return System(
            lambda: jax.block_until_ready(forward(*inputs)),
            lambda: jax.block_until_ready(backward(inputs, cotangents)),
        )

    variants = [variant(unroll) for unroll in (1, 4)]

    def fastest(run):
        runs = [getattr(system, run) for system in variants]
        return min(runs, key=lambda call: min(seconds(call) for _ in range(4)))

    return System(fastest("forward"), fastest("backward"))


def onnxruntime_system(p: Problem, threads: int) -> System | None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    if p.x.dtype != np.float32:
        return None
    W_ih, W_hh, b_ih, b_hh = (p.weights[name] for name in NAMES)
    constants = {"W": W_ih[None], "R": W_hh[None], "B": np.concatenate([b_ih, b_hh])[None]}
    node = helper.make_node("RNN", ["x", "W", "R", "B", "", "h0"], ["y", "h_n"], hidden_size=len(W_hh))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "h0", "y", "h_n")]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "rnn", values[:2], values[2:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": p.x, "h0": p.h0}
    return System(lambda: session.run(None, feeds), None)


SYSTEMS = {
    "fastrnn": fastrnn_system,
    "torch": torch_system,
    "jax": jax_system,
    "onnxruntime": onnxruntime_system,
}


def check(results: dict[str, Sequence[object]], dtype: str) -> None:
    """Raise unless every system's arrays are fastrnn's, up to rounding."""
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    ours = results["fastrnn"]
    for name, theirs in results.items():
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a, b = np.ravel(np.asarray(a)), np.ravel(np.asarray(b))
            difference = np.linalg.norm(a - b) / np.linalg.norm(a)
            if not difference <= tolerance:
                raise click.ClickException(f"{name}: result {i} differs from fastrnn's by {difference:.1e} of its norm")


def compare(shape: Shape, dtype: str, threads: int, repeats: int) -> list[dict]:
    """The measurements of both passes: per system, GF/s and share of the peak in every repeat."""
    p = problem(shape, dtype)
    systems = {}
    for name, build in SYSTEMS.items():
        if name == "fastrnn" or importlib.util.find_spec(name):
            systems[name] = build(p, threads)
    tiles, tile_flops = peak(dtype, threads)
    rows = []
    for name, factor in PASSES.items():
        which = "forward" if factor == 1 else "backward"
        runs = {system: getattr(calls, which) for system, calls in systems.items() if calls and getattr(calls, which)}
        check({system: run() for system, run in runs.items()}, dtype)
        times = interleave({**runs, "peak": tiles}, repeats)
        limit = [tile_flops / t / 1e9 for t in times.pop("peak")]
        rates = {system: [factor * shape.flops / t / 1e9 for t in ts] for system, ts in times.items()}
        shares = {system: [r / top for r, top in zip(rate, limit, strict=True)] for system, rate in rates.items()}
        rows.append({"shape": shape, "dtype": dtype, "pass": name, "peak": limit, "rates": rates, "shares": shares})
    return rows


def ratio(row: dict) -> float:
    """fastrnn's speed over that of the best peer: the median over repeats."""
    peers = [rates for system, rates in row["rates"].items() if system != "fastrnn"]
    return statistics.median(ours / max(theirs) for ours, *theirs in zip(row["rates"]["fastrnn"], *peers, strict=True))


def table(rows: list[dict]) -> str:
    """Markdown: GF/s (share of the peak) of every system, and fastrnn over the best peer."""
    systems = [name for name in SYSTEMS if any(name in row["rates"] for row in rows)]
    lines = [
        f"| T,B,I,H | pass | {' | '.join(systems)} | peak | fastrnn / best peer |",
        f"|---|---|{'---:|' * (len(systems) + 2)}",
    ]
    for row in rows:
        cells = []
        for name in systems:
            if name not in row["rates"]:
                cells.append("")
                continue
            rate, share = statistics.median(row["rates"][name]), statistics.median(row["shares"][name])
            cells.append(f"{rate:.{0 if rate >= 20 else 1}f} ({share:.0%})")
        best = f"{ratio(row):.2f}" if len(row["rates"]) > 1 else ""
        lines.append(
            f"| {row['shape']} | {row['pass']} | {' | '.join(cells)} | {statistics.median(row['peak']):.0f} | {best} |"
        )
    return "\n".join(lines)


def shapes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Shape]:
    """The shapes named on the command line; all of the registry for none."""
    try:
        return [Shape(*map(int, value.split(","))) for value in values] or list(SHAPES.values())
    except (TypeError, ValueError):
        raise click.BadParameter(f"expected T,B,I,H, got {', '.join(values)}") from None


@click.command()
@click.option("--shape", "chosen", multiple=True, callback=shapes, metavar="T,B,I,H", help="Default: the registry.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=9, show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write every repeat there, too.")
def main(chosen: list[Shape], threads: int, dtype: str, repeats: int, path: Path | None) -> None:
    """Print a table of GF/s and shares of the FMA peak."""
    pin(threads)
    rows = [row for shape in chosen for row in compare(shape, dtype, threads, repeats)]
    line = describe(threads, "torch", "jax", "onnxruntime")
    click.echo(f"GF/s (share of the FMA peak), {dtype}, medians of {repeats} interleaved repeats\n")
    click.echo(f"{table(rows)}\n\n{line}")
    peaks = [rate for row in rows for rate in row["peak"]]
    if max(peaks) > 1.1 * min(peaks):
        click.echo(f"The FMA peak varied from {min(peaks):.0f} to {max(peaks):.0f} GF/s: the cores are not ours alone.")
    if path:
        path.write_text(json.dumps({"machine": line, "threads": threads, "rows": rows}))


if __name__ == "__main__":
    main()
