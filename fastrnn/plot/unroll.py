"""A layer or a model as a graph: the cyclic one, and beside it its copy unrolled over the steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fastrnn import checks
from fastrnn.plot.graph import BOX, Graph, Node, Point, width
from fastrnn.plot.sketch import ABOVE, BACK, PAD, PASS, SHIFT, Column, Sketch
from fastrnn.plot.wiring import Layer, Strand, wiring_of

_BETWEEN = 0.4  # the two graphs, inches
_OPENING = 0.75  # before a decoder, inches


def graph_of(model: Any, T: int = 4) -> Graph:
    """The cyclic graph of a layer or a model, and beside it the graph unrolled over T steps.

    Raises ValueError: `T: expected an integer in 1..64, got 0`, and what `wiring_of` raises.
    """
    T = checks.integer("T", T, 1, 64)
    wiring = wiring_of(model)
    graph = Graph()
    _draw(Sketch(graph, wiring, cyclic=True, T=1), 0.0, wiring.title)
    unrolled = Sketch(graph, wiring, cyclic=False, T=T)
    shapes = [shape for strand in wiring.strands for layer in strand.layers for shape in (layer.input, layer.output)]
    room = SHIFT * unrolled.both + max(unrolled.width / 2, PAD + max(map(width, shapes)))
    if wiring.condition:
        room += unrolled.pitch(wiring.strands[-1])
    _draw(unrolled, graph.right + _BETWEEN + room, f"unrolled over {T} step{'s' * (T > 1)}")
    return graph


def _draw(sketch: Sketch, x: float, title: str) -> None:
    """All strands from x to the right, under a title."""
    strands, drawn = sketch.wiring.strands, []
    for strand in strands:
        pitch = sketch.pitch(strand)
        columns = [sketch.column(strand, t, x + t * pitch) for t in range(sketch.T)]
        if sketch.cyclic:
            sketch.loops(strand, columns[0])
        else:
            sketch.time(strand, columns)
        drawn.append(columns)
        if sketch.cyclic:
            x = sketch.graph.right + _OPENING + sketch.width / 2
        else:
            x += sketch.T * pitch
        if len(strands) > 1 and sketch.wiring.bridge:
            x += sketch.width + 0.4
    if len(strands) > 1:
        _hand_over(sketch, *drawn)
    if sketch.wiring.attention:
        _attend(sketch, *drawn)
    for strand, columns in zip(strands, drawn, strict=True):
        _read(sketch, strand, columns)
        if strand.feeds == "back":
            _feed_back(sketch, columns)
        if strand.title:
            sketch.graph.label(strand.title, ((columns[0].x + columns[-1].x) / 2, -0.45))
    if sketch.wiring.condition:
        _condition(sketch, strands[-1], drawn[-1])
    sketch.graph.label(title, ((drawn[0][0].x + drawn[-1][-1].x) / 2, sketch.top + 0.45))


def _read(sketch: Sketch, strand: Strand, columns: list[Column]) -> None:
    """What reads the highest layer: every step, the last one, or all steps together."""
    last, layer = columns[-1], strand.layers[-1]
    if strand.reads == "every":
        for t, column in enumerate(columns):
            _out(sketch, strand, column, column.top, t, f"_{'t' if sketch.cyclic else t}")
    elif strand.reads == "last":
        source = last.top
        if layer.directions > 1:
            source = _last_states(sketch, strand, columns)
        _out(sketch, strand, last, source, None, "")
    elif strand.reads != "none":
        middle, label = (columns[0].x + last.x) / 2, f"{strand.reads} over t"
        wide = max(last.x - columns[0].x + sketch.width, width(label, "node") + PAD)
        pool = sketch.node(strand, "pool", label, "join", middle, sketch.read_y, None, wide)
        for t, column in enumerate(columns):
            sketch.up(column.top, pool, t, (layer.output,), sketch.side(strand))
        _out(sketch, strand, Column(middle, last.input), pool, None, "")


def _out(sketch: Sketch, strand: Strand, column: Column, source: Node, t: int | None, step: str) -> None:
    """The head and the output above a box; without a step, the only ones."""
    shape, side = strand.layers[-1].output, sketch.side(strand)
    first = t or 0
    note = ("the last step only",) if sketch.cyclic and strand.reads == "last" else ()
    if strand.head:
        head = sketch.node(strand, strand.head.name, strand.head.name, "linear", column.x, sketch.head_y, t)
        sketch.up(source, head, first, (*note, shape, f"weight {strand.head.weight}"), side)
        source, shape, note = head, strand.head.output, ()
    column.output = sketch.node(strand, "output", f"y{step}", "output", column.x, sketch.top, t)
    sketch.up(source, column.output, first, (*note, shape), side)


def _last_states(sketch: Sketch, strand: Strand, columns: list[Column]) -> Node:
    """Side by side, the last states of both directions: the reverse one ends at the first step."""
    layer, ahead, behind = strand.layers[-1], columns[-1].layers[-1][0], columns[0].layers[-1][1]
    if len(columns) == 1:
        return sketch.join(strand, layer, columns[0], 0, ahead, behind)
    column, graph = columns[-1], sketch.graph
    over = columns[-1].layers[-1][1]
    y = over.at[1] + sketch.row
    node = sketch.node(strand, f"{layer.name} concat", "concat", "join", column.x, y, len(columns) - 1)
    sketch.around(ahead, node, over, -1)
    graph.edge(
        behind, node, "through",
        (behind.at[0], behind.at[1] + BOX / 2), (behind.at[0], y), (node.at[0] - sketch.width / 2, y),
    )  # fmt: skip
    return node


def _feed_back(sketch: Sketch, columns: list[Column]) -> None:
    """Edges from an output to the next input."""
    half, graph = sketch.width / 2, sketch.graph
    pairs = [(columns[0], columns[0])] if sketch.cyclic else pairwise(columns)
    for before, after in pairs:
        (x0, y0), (x1, y1) = before.output.at, after.input.at
        if sketch.cyclic:
            x, end = graph.right + 0.12, x1 + half
        else:
            x, end = x1 - half - BACK, x1 - half
        graph.edge(before.output, after.input, "back", (x0 + half, y0), (x, y0), (x, y1), (end, y1))


def _condition(sketch: Sketch, strand: Strand, columns: list[Column]) -> None:
    """The vector that is given once: into the initial states by a map, beside the input of every step, or both."""
    graph, wiring, half, first = sketch.graph, sketch.wiring, sketch.width / 2, columns[0]
    x = first.x - sketch.pitch(strand) - 0.15
    y, wide = -sketch.row if wiring.mixed else 0.0, width("condition", "node") + PAD
    given = sketch.node(strand, "condition", "condition", "input", x, y, None, wide)
    if wiring.bridge:
        bridge = sketch.node(strand, "bridge", wiring.bridge.name, "linear", x, sketch.layers_y[0], None)
        edge = graph.up(given, bridge)
        text = f"{wiring.condition}\nweight {wiring.bridge.weight}" if sketch.cyclic else wiring.condition
        sketch.beside(edge, -1, text, x, (given.at[1] + bridge.at[1]) / 2)
        for k, (layer, nodes) in enumerate(zip(strand.layers, first.layers, strict=True)):
            bend, (_, above) = x + half + PASS, nodes[0].at
            via = [(bend, bridge.at[1]), (bend, above)] if k else []
            _enter(sketch, bridge, nodes[0], layer, k, *via)
    if wiring.mixed:
        start = x + given.width / 2
        for t, column in enumerate(columns):
            end, left = column.mix.at[1], column.x - half - PASS
            edge = graph.edge(given, column.mix, "every", (start, y), (left, y), (left, end), (column.x - half, end))
            if t == 0:
                graph.label(wiring.condition, ((start + left) / 2, y - ABOVE), "center", edge)


def _enter(sketch: Sketch, source: Node, target: Node, layer: Layer, k: int, *via: Point) -> None:
    """An edge from the right of a box into the initial state of layer k."""
    graph, half = sketch.graph, sketch.width / 2
    start, (end, y) = source.at[0] + half, (target.at[0] - half, target.at[1])
    edge = graph.edge(source, target, "state", (start, source.at[1]), *via, (end, y))
    middle = (edge.points[-2][0] + end) / 2
    graph.label(", ".join(f"{name}_{{-1}}" for name, _ in layer.states), (middle, y + ABOVE), "center", edge)
    if k == 0:
        graph.label(layer.states[0][1], (middle, y - ABOVE), "center", edge)


def _hand_over(sketch: Sketch, source: list[Column], target: list[Column]) -> None:
    """The last states of an encoder into the initial states of a decoder, those of both directions by a map."""
    graph, half, bridge = sketch.graph, sketch.width / 2, sketch.wiring.bridge
    for k, layer in enumerate(sketch.wiring.strands[1].layers):
        (after,), node = target[0].layers[k], source[-1].layers[k][0]
        x, y = after.at
        if bridge:
            at = (x - sketch.width - _OPENING, y)
            both = sketch.node(sketch.wiring.strands[1], f"bridge {k}", bridge.name, "linear", *at, None)
            graph.edge(node, both, "state", (node.at[0] + half, y), (at[0] - half, y))
            behind = source[0].layers[k][1]
            start, over = behind.at[0] + half - 0.1, behind.at[1] + BOX / 2
            graph.edge(
                behind, both, "state", (start, over), (start, over + 0.13), (at[0], over + 0.13), (at[0], y + BOX / 2)
            )
            node = both
        _enter(sketch, node, after, layer, k)


def _attend(sketch: Sketch, source: list[Column], target: list[Column]) -> None:
    """All outputs of an encoder to every step of a decoder, below its head."""
    graph, (encoder, decoder), y, half = sketch.graph, sketch.wiring.strands, sketch.read_y, sketch.width / 2
    attention, memory = sketch.wiring.attention, sketch.wiring.memory
    left, right = source[0].x, source[-1].x
    label, kind = (memory.name, "linear") if memory else ("all outputs", "join")
    wide = max(right - left + sketch.width, width(label, "node") + PAD)
    kept = sketch.node(encoder, "memory", label, kind, (left + right) / 2, y, None, wide)
    for t, column in enumerate(source):
        sketch.up(column.top, kept, t, (encoder.layers[-1].output,), sketch.side(encoder))
    for t, column in enumerate(target):
        box = sketch.node(decoder, attention.name, attention.name, "linear", column.x, y, t)
        text = (decoder.layers[-1].output, f"weight {attention.weight}")
        sketch.up(column.top, box, t, text, sketch.side(decoder))
        column.top = box
        start, end = kept.at[0] + kept.width / 2, column.x - half
        bus, out, down = y + BOX / 2 + 0.13, start + PASS, end - PASS
        points = [(out, y), (out, bus), (down, bus), (down, y)] if t else []
        graph.edge(kept, box, "every", (start, y), *points, (end, y))
