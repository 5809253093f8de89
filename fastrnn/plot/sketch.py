"""Recurrent layers as columns of boxes, a column a step; and the edges within and between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from fastrnn.plot.graph import BOX, Edge, Graph, Node, width
from fastrnn.plot.wiring import Layer, Strand, Wiring

SHIFT = 0.17  # of the two directions to the sides
PASS = 0.1  # from a box to a line around it
PAD = 0.07  # between a line and its text
ABOVE = 0.1  # of text over a line
BACK = 0.26  # more gap for the line that feeds an output back
_BEND = 0.25  # around a box


@dataclass
class Column:
    """The boxes of a strand at one step."""

    x: float
    input: Node
    mix: Node | None = None
    layers: list[list[Node]] = field(default_factory=list)  # one or two directions
    top: Node | None = None
    output: Node | None = None


class Sketch:
    """One of the two graphs; the cyclic one has a single column, step t."""

    def __init__(self, graph: Graph, wiring: Wiring, cyclic: bool, T: int) -> None:
        self.graph, self.wiring, self.cyclic, self.T = graph, wiring, cyclic, T
        strands = wiring.strands
        self.both = any(layer.directions > 1 for strand in strands for layer in strand.layers)
        linears = [
            linear for s in strands for linear in (s.embedding, s.head, wiring.bridge, wiring.attention) if linear
        ]
        names = [linear.name for linear in linears]
        names += [layer.name + " \N{RIGHTWARDS ARROW}" * self.both for s in strands for layer in s.layers]
        self.width = max(0.55, *[width(name, "node") + 0.14 for name in names])
        loops = [len(layer.states) + len(layer.weights) for strand in strands for layer in strand.layers]
        self.row = 0.61 + 0.09 * max(loops)  # from row to row: a loop's text and an edge's
        self._place_rows()

    def _place_rows(self):
        """The height of each kind of box, the same in all strands."""
        strands, y = self.wiring.strands, 0.0

        def row(present=True):
            nonlocal y
            y += self.row * bool(present)
            return y

        self.embedding_y = row(any(strand.embedding for strand in strands))
        self.mix_y = row(self.wiring.mixed)
        self.layers_y = []
        for k in range(max(len(strand.layers) for strand in strands)):
            self.layers_y.append(row())
            if any(layer.directions > 1 for strand in strands for layer in strand.layers[k : k + 1]):
                y += 2 * self.row
        self.read_y = row(any(strand.reads in ("mean", "max") for strand in strands) or self.wiring.attention)
        self.head_y = row(any(strand.head for strand in strands))
        self.top = row()

    def pitch(self, strand: Strand) -> float:
        """From a step to the next."""
        both = any(layer.directions > 1 for layer in strand.layers)
        shapes = [width(shape) for layer in strand.layers for _, shape in layer.states]
        return self.width + 2 * SHIFT * both + max(0.64, max(shapes) + 0.12) + BACK * (strand.feeds == "back")

    def node(
        self, strand: Strand, what: str, label: str, kind: str, x: float, y: float, t: int | None, wide: float = 0.0
    ) -> Node:
        """Add a box of a step, or with None of all of them."""
        step = "cyclic" if self.cyclic else "unrolled" if t is None else f"step {t}"
        name = " ".join(filter(None, (step, strand.title, what)))
        return self.graph.node(name, label, kind, (x, y), max(wide, self.width))

    def beside(self, edge: Edge, side: int, text: str, x: float, y: float) -> None:
        """Text at the left (-1) or right (1) of a line."""
        self.graph.label(text, (x + side * PAD, y), "left" if side > 0 else "right", edge)

    def side(self, strand: Strand) -> int:
        """Where an upward edge has its text: away from what comes in or goes on."""
        return 1 if self.wiring.mixed or (self.cyclic and strand.title != "encoder") else -1

    def up(self, source: Node, target: Node, t: int, texts: tuple[str, ...], side: int) -> Edge:
        """An edge upward; the cyclic graph has all its texts, the first column of the unrolled one the first text."""
        edge = self.graph.up(source, target)
        text = "\n".join(filter(None, texts if self.cyclic else texts[:1]))
        if text and (self.cyclic or t == 0):
            (x0, y0), (x1, y1) = edge.points
            self.beside(edge, side, text, (x0 + x1) / 2, (y0 + y1) / 2)
        return edge

    def column(self, strand: Strand, t: int, x: float) -> Column:
        """The boxes of a step from the input to the highest layer."""
        (symbol, shape), back = strand.input, strand.feeds == "back"
        step = ("{t-1}" if back else "t") if self.cyclic else t - back
        label = "start" if step == -1 else f"{symbol}_{step}"
        column = Column(x, self.node(strand, "input", label, "input", x, 0.0, t))
        below, side, embedding = column.input, self.side(strand), strand.embedding
        if embedding:
            below = self.node(strand, embedding.name, embedding.name, "linear", x, self.embedding_y, t)
            self.up(column.input, below, t, (shape, f"weight {embedding.weight}"), side)
            shape = embedding.output
        if self.wiring.mixed:
            column.mix = self.node(strand, "concat", "concat", "join", x, self.mix_y, t)
            self.up(below, column.mix, t, (shape,), side)
            below, shape = column.mix, strand.layers[0].input
        for k, layer in enumerate(strand.layers):
            joined = k + 1 < len(strand.layers) or strand.reads != "last"
            below = self._layer(strand, layer, column, t, below, shape, self.layers_y[k], joined)
            shape = layer.output
        column.top = below
        return column

    def _layer(self, strand, layer, column, t, below, shape, y, joined):
        """A layer at a step, in one or two directions; returns what the next one is fed by."""
        x, texts = column.x, (shape, layer.input_weight)
        if layer.directions == 1:
            node = self.node(strand, layer.name, layer.name, "recurrent", x, y, t)
            column.layers.append([node])
            self.up(below, node, t, texts, self.side(strand))
            return node
        ahead, behind = (
            self.node(strand, f"{layer.name} {name}", f"{layer.name} {arrow}", "recurrent", x + shift, at, t)
            for name, arrow, shift, at in (
                ("forward", "\N{RIGHTWARDS ARROW}", -SHIFT, y),
                ("reverse", "\N{LEFTWARDS ARROW}", SHIFT, y + self.row),
            )
        )
        column.layers.append([ahead, behind])
        self.up(below, ahead, t, texts, -1)
        around, at = self.around(below, behind, ahead, 1)
        if self.cyclic:
            self.beside(around, 1, layer.input_weight, at, y - 0.33)
        return self.join(strand, layer, column, t, ahead, behind) if joined else behind

    def around(self, source: Node, target: Node, passed: Node, side: int) -> tuple[Edge, float]:
        """An edge upward around the box between, and where it passes it."""
        (x0, y0), (x1, y1), y = source.at, target.at, passed.at[1]
        x = passed.at[0] + side * (self.width / 2 + PASS)
        bends = (x, y - _BEND), (x, y + _BEND)
        edge = self.graph.edge(
            source, target, "through", (x0 + side * 0.15, y0 + BOX / 2), *bends, (x1 + side * 0.1, y1 - BOX / 2)
        )
        return edge, x

    def join(self, strand: Strand, layer: Layer, column: Column, t: int | None, ahead: Node, behind: Node) -> Node:
        """Both directions of a step side by side."""
        y = behind.at[1]
        node = self.node(strand, f"{layer.name} concat", "concat", "join", column.x, y + self.row, t)
        edge, at = self.around(ahead, node, behind, -1)
        other = self.graph.up(behind, node)
        h = layer.states[0][1]
        if self.cyclic or t == 0:
            self.beside(edge, -1, f"h_t {h}" if self.cyclic else h, at, y)
        if self.cyclic:
            self.beside(other, 1, f"h_t {h}", column.x + SHIFT, y + self.row / 2)
        return node

    def loops(self, strand: Strand, column: Column) -> None:
        """The edges of the cyclic graph from a layer to itself."""
        for layer, nodes in zip(strand.layers, column.layers, strict=True):
            for i, node in enumerate(nodes):
                side = self.side(strand) if len(nodes) == 1 else (-1, 1)[i]
                (x, y), near, far = node.at, self.width / 2, self.width / 2 + 0.28
                points = [
                    (x + side * dx, y + dy) for dx, dy in ((near, 0.07), (far, 0.07), (far, -0.07), (near, -0.07))
                ]
                before = ("t-1", "t+1")[i]
                states = [f"{name}_{{{before}}} {shape}" for name, shape in layer.states]
                edge = self.graph.edge(node, node, "time", *points)
                self.beside(edge, side, "\n".join([*states, *layer.weights]), x + side * far, y)

    def time(self, strand: Strand, columns: list[Column]) -> None:
        """The edges of the unrolled graph from step to step."""
        for k, layer in enumerate(strand.layers):
            for i in range(layer.directions):
                for t, pair in enumerate(pairwise(columns)):
                    a, b = (column.layers[k][i] for column in (reversed(pair) if i else pair))
                    half, y = (-self.width if i else self.width) / 2, a.at[1]
                    edge = self.graph.edge(a, b, "time", (a.at[0] + half, y), (b.at[0] - half, y))
                    middle = (pair[0].x + pair[1].x - BACK * (strand.feeds == "back")) / 2
                    names = ", ".join(f"{name}_{t + i}" for name, _ in layer.states)
                    self.graph.label(names, (middle, y + ABOVE), "center", edge)
                    if t == 0:
                        shapes = list(dict.fromkeys(shape for _, shape in layer.states))
                        self.graph.label(
                            "\n".join(shapes), (middle, y + 0.03 - (ABOVE + 0.03) * len(shapes)), "center", edge
                        )
