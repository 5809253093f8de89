"""A cell over random binary trees: `python bench/recursive.py [--cell lstm --children 2 --hidden 128]`.

fastrnn.Recursive against torch, level by level: all products with x at once, then for each depth, the deepest first,
one product for all its nodes, whose children are all of the depth before (index_add for sums, index_copy for places).
That needs no state beyond one depth, and no copies of a growing one. Two ways are tried, and the fastest counts: the
product of a depth for all of its nodes, or for the inner ones alone.

Indices are made beforehand for both. Trees have as many leaves as are drawn, cut at random, and every node has an
input. Passes, gradients and fairness are those of peers.py; no time is printed unless the results agree. GF/s count the
products that have to be done: inputs of all nodes, children of inner ones.
"""

from functools import partial
from typing import NamedTuple

import click
import numpy as np
from machine import describe, fastest, pin
from options import dtype_option, repeats_option, threads_option
from peers import PASSES
from rates import Rates, markdown, measure, peak_note, ratio, speed
from systems import System, check, given, installed, parts

import fastrnn
from fastrnn import Recursive, Trees
from fastrnn.layers.recursive import CELLS


class Problem(NamedTuple):
    """A layer of ours, trees, and all that the passes read."""

    layer: Recursive
    trees: Trees
    x: np.ndarray
    dh: np.ndarray

    def flops(self) -> int:
        """Of the products of the forward pass."""
        H, P = self.layer.hidden_size, self.layer.parameters["weight_hh"].shape[1]
        inner, G = len(self.trees) - self.trees.leaves, len(self.layer.parameters["weight_ih"]) // H
        children = G * H * P * inner
        if len(self.layer.state_names) > 1:  # a forget gate for each child
            children += H * P * (len(self.trees) - len(self.trees.roots) - inner)
        return 2 * (len(self.trees) * G * H * self.layer.input_size + children)


def binary(leaves: int, rng: np.random.Generator) -> tuple | str:
    """A random binary tree, nested."""
    if leaves == 1:
        return ""
    left = int(rng.integers(1, leaves))
    return binary(left, rng), binary(leaves - left, rng)


def draw(count: int, least: int, most: int) -> Trees:
    """Random binary trees with least..most leaves."""
    rng = np.random.default_rng(0)
    return Trees.from_nested([binary(int(rng.integers(least, most, endpoint=True)), rng) for _ in range(count)])[0]


def problem(cell: str, children: str | int, H: int, trees: Trees, dtype: str) -> Problem:
    """Random numbers."""
    rng = np.random.default_rng(0)
    x, dh = (rng.standard_normal((len(trees), H)).astype(dtype) for _ in range(2))
    return Problem(Recursive(H, H, cell, children, dtype=dtype, seed=0), trees, x, dh)


def fastrnn_system(p: Problem, threads: int) -> System:
    """fastrnn.Recursive."""
    fastrnn.set_num_threads(threads)

    def backward():
        state, pullback = p.layer.vjp(p.x, p.trees)
        dx, grads = pullback(given([p.dh, *[None] * (len(p.layer.state_names) - 1)]))
        return parts(state)[0], dx, *grads.values()

    def forward():
        return (parts(p.layer(p.x, p.trees))[0],)

    return System({"": forward}, {"": backward})


def torch_system(p: Problem, threads: int) -> System:
    """torch, depth by depth."""
    import torch

    torch.set_num_threads(threads)
    layer, parents, H = p.layer, p.trees.parents, p.layer.hidden_size
    K = 0 if layer.children == "sum" else int(layer.children)
    depth = np.zeros(len(parents), int)
    for node in p.trees.order[::-1]:
        depth[node] = depth[parents[node]] + 1 if parents[node] >= 0 else 0
    leaf = np.bincount(parents[parents >= 0], minlength=len(parents)) == 0
    order = np.lexsort((leaf, -depth))  # the deepest first, in each depth the inner nodes first
    place = np.argsort(order)
    sizes = np.bincount(depth)[::-1]
    starts = np.cumsum(sizes) - sizes
    levels = []  # inner nodes, and for each node of the depth before its parent's row or its place
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        below = order[starts[i - 1] : start] if i else order[:0]
        rows = place[parents[below]] - start
        levels.append(
            (
                (~leaf[order[start : start + size]]).sum(),
                torch.tensor(rows * K + p.trees.positions[below] if K else rows),
            )
        )
    at, back = torch.tensor(order), torch.tensor(place)
    weights = [torch.tensor(w, requires_grad=True) for w in layer.parameters.values()]
    x, dh = torch.tensor(p.x, requires_grad=True), torch.tensor(p.dh)

    def fed(values, rows, count):
        if K == 0:
            return values.new_zeros(count, H).index_add(0, rows, values)
        return values.new_zeros(count * K, H).index_copy(0, rows, values)

    def added(z, h, W):
        """z, with the first rows' children added."""
        top = torch.addmm(z[: len(h)], h, W.t())
        return top if len(h) == len(z) else torch.cat([top, z[len(h) :]])

    def inputs(gates):
        """The inputs' part of the gates' pre-activations, by level."""
        W_ih, _, b_ih, b_hh = ([*w.split(H)] for w in weights)
        W, b = (
            torch.cat([part[g] for g in gates]) for part in (W_ih, [p + q for p, q in zip(b_ih, b_hh, strict=True)])
        )
        return torch.nn.functional.linear(x.index_select(0, at), W, b).split(sizes.tolist())

    def elman(inner_only):
        f, found = torch.tanh if layer.cell == "tanh" else torch.relu, []
        for z, (inner, rows) in zip(inputs([0]), levels, strict=True):
            if inner:
                h = fed(found[-1], rows, inner if inner_only else len(z)).view(-1, weights[1].shape[1])
                z = added(z, h, weights[1])
            found.append(f(z))
        return torch.cat(found).index_select(0, back)

    def lstm(inner_only):
        W_i, W_f, W_go = weights[1].split([H, len(weights[1]) - 3 * H, 2 * H])
        W_own, found, c = torch.cat([W_i, W_go]), [], None
        for z, z_f, (inner, rows) in zip(inputs([0, 2, 3]), inputs([1]), levels, strict=True):
            kept = None
            if inner:
                count = inner if inner_only else len(z)
                h = fed(found[-1], rows, count).view(count, -1)
                z = added(z, h, W_own)
                hidden = (h @ W_f.t()).view(-1, H).index_select(0, rows) if K else found[-1] @ W_f.t()
                parent = rows // K if K else rows
                f = torch.sigmoid(z_f.index_select(0, parent) + hidden)
                kept = torch.zeros(len(z), H, dtype=z.dtype).index_add(0, parent, f * c)
            i, g, o = z.chunk(3, 1)
            c = torch.sigmoid(i) * torch.tanh(g)
            c = c if kept is None else c + kept
            found.append(torch.sigmoid(o) * torch.tanh(c))
        return torch.cat(found).index_select(0, back)

    run = lstm if layer.cell == "lstm" else elman

    def backward(inner_only):
        h = run(inner_only)
        return h.detach(), *torch.autograd.grad(h, [x, *weights], dh)

    ways = {"all": False, "inner": True}
    return System(
        {name: partial(lambda inner_only: (run(inner_only),), way) for name, way in ways.items()},
        {name: partial(backward, way) for name, way in ways.items()},
    )


def compare(p: Problem, dtype: str, threads: int, repeats: int) -> list[tuple[str, Rates]]:
    """The measurements of both passes."""
    systems = {"fastrnn": fastrnn_system(p, threads)}
    if "torch" in installed():
        systems["torch"] = torch_system(p, threads)
    rows = []
    for i, (name, (factor, context)) in enumerate(PASSES.items()):
        with context():
            calls = {system: fastest(ways[i])[1] for system, ways in systems.items()}
            check({system: call() for system, call in calls.items()}, dtype)
            runs = {system: (call, factor * p.flops()) for system, call in calls.items()}
            rows.append((name, measure(runs, dtype, threads, repeats)))
    return rows


@click.command()
@click.option("--cell", "cells", multiple=True, type=click.Choice(list(CELLS)), default=["tanh", "lstm"])
@click.option("--children", "modes", multiple=True, type=click.Choice(["sum", "2"]), default=["sum", "2"])
@click.option("--hidden", multiple=True, type=click.IntRange(1), default=[128, 256], show_default=True)
@click.option("--trees", "count", type=click.IntRange(1), default=64, show_default=True)
@click.option("--leaves", type=(int, int), default=(15, 30), show_default=True, help="Least and most of a tree.")
@threads_option
@dtype_option
@repeats_option
def main(
    cells: tuple[str, ...], modes: tuple[str, ...], hidden: tuple[int, ...], count: int, leaves: tuple[int, int],
    threads: int, dtype: str, repeats: int,
) -> None:  # fmt: skip
    """Print a table of useful GF/s and ratios."""
    pin(threads)
    trees = draw(count, *leaves)
    systems = ["fastrnn", *(["torch"] if "torch" in installed() else [])]
    rows, measured = [], []
    for cell in cells:
        for mode in modes:
            for H in hidden:
                p = problem(cell, mode if mode == "sum" else int(mode), H, trees, dtype)
                for name, rates in compare(p, dtype, threads, repeats):
                    ratios = [f"{ratio(rates, 'fastrnn', [other]):.2f}" for other in systems[1:]]
                    speeds = [speed(rates, system) for system in (*systems, "peak")]
                    rows.append([cell, mode, str(H), name, *speeds, *ratios])
                    measured.append(rates)
    click.echo(f"Useful GF/s (share of the FMA peak), {dtype}, medians of {repeats} interleaved repeats")
    click.echo(f"{trees}, I = H\n")
    columns = [*systems, "peak", *(f"/ {other}" for other in systems[1:])]
    click.echo(markdown(["cell", "children", "H", "pass"], columns, rows))
    click.echo(f"\n{describe(threads, 'torch')}")
    click.echo(peak_note(measured), nl=False)


if __name__ == "__main__":
    main()
