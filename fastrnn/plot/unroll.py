"""A wiring as a graph: the cyclic one, and beside it its copy unrolled over the steps."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from fastrnn import checks
from fastrnn.plot.graph import BOX, Edge, Graph, Label, Node, Point, width
from fastrnn.wiring import Part, Wiring

_PASS = 0.1  # from a box to a line around it, inches
_PAD = 0.07  # between a line and its text
_LINE = 0.13  # height of a line of text
_BACK = 0.26  # more room for the line that feeds an output back

Key = tuple[str, int | None]  # of a box: its part and its step, None where one stands for all steps


def graph_of(model: Any, T: int = 4) -> Graph:
    """The cyclic graph of a layer or a model, and beside it the graph unrolled over T steps.

    Raises ValueError: `T: expected an integer in 1..64, got 0`, `plot: expected a recurrent layer or a model of
    recurrent layers, got Linear`.
    """
    T = checks.integer("T", T, 1, 64)
    if not hasattr(model, "wiring"):
        raise ValueError(f"plot: expected a recurrent layer or a model of recurrent layers, got {type(model).__name__}")
    wiring, graph = model.wiring(), Graph({}, [], [])
    _Panel(graph, wiring, wiring.title, 1, cyclic=True)
    _Panel(graph, wiring, f"unrolled over {T} step{'s' * (T > 1)}", T, cyclic=False)
    return graph


class _Panel:
    """One of the two graphs, at the right of what there is; the cyclic one has a single step."""

    def __init__(self, graph: Graph, wiring: Wiring, title: str, T: int, cyclic: bool) -> None:
        self.graph, self.T, self.cyclic = graph, T, cyclic
        self.nodes: dict[Key, Node] = {}
        lanes = [[part.of(lane.title) for part in lane.parts] for lane in wiring.lanes]
        parts = {part.name: part for lane in lanes for part in lane}
        links = [(parts[link.source], parts[link.target], link.kind) for link in wiring.links]
        self.started = {target.name for _, target, kind in links if kind == "back"}
        self.rows = _rows(lanes, links)
        self.width = max(0.55, *[width(part.label, "node") + 0.14 for part in parts.values()])
        self.row = max(0.8, 0.4 + _LINE * max(len(part.states) + len(part.loop) for part in parts.values()))
        states = [text for part in parts.values() for text in (_symbols(part, 0), *dict(part.states).values())]
        around = any(part.direction for part in parts.values())
        self.gap = max(0.64, 0.12 + max(map(width, states))) + 2 * _PASS * around
        columns, headings = [], []
        for lane, stated in zip(lanes, wiring.lanes, strict=True):
            back = _BACK * any(part.name in self.started for part in lane)
            own = self._place(lane, back)
            feeds = any(source in lane and target not in lane for source, target, _ in links)
            self._stack(lane, 1 if cyclic and not feeds else -1, back)
            headings.append((stated.title, own, -0.45))
            columns += own
        for link in links:
            self._link(*link)
        headings.append((title, columns, max(self.rows.values()) * self.row + 0.45))
        graph.headings.extend(Label(text, ((xs[0] + xs[-1]) / 2, y)) for text, xs, y in headings if text)

    def _place(self, lane: list[Part], back: float) -> list[float]:
        """Place the boxes of a lane; returns the middles of its columns."""
        texts = [0.0 if self.cyclic else width(part.shape) + _PAD for part in lane]
        first = self.graph.right + self.gap + _PASS + max(self.width / 2, *texts) if self.graph.nodes else 0.0
        steps = range(self.T if any(part.steps == "each" for part in lane) else 1)
        columns = [first + t * (self.width + self.gap + back) for t in steps]
        places = {"each": columns, "last": columns[-1:], "all": [(first + columns[-1]) / 2]}
        for i, part in enumerate(lane):
            reads_all = part.steps == "all" and i and lane[i - 1].steps == "each"
            wide = self.width + (columns[-1] - first if reads_all else 0.0)
            for t, x in enumerate(places[part.steps]):
                step, label = f"step {t}" if part.steps == "each" else "unrolled", _at(part.label, t)
                if self.cyclic:
                    step, label = "cyclic", part.label
                elif t == 0 and part.name in self.started:
                    label = "start"
                node = Node(f"{step} {part.name}", label, part.kind, (x, self.rows[part.name] * self.row), wide)
                self.nodes[_key(part, t)] = self.graph.nodes[node.name] = node
        return columns

    def _pairs(self, source: Part, target: Part, kind: str) -> list[tuple[Key, Key]]:
        """The boxes that the arrows of a link join."""
        T, way = self.T, -1 if source.direction < 0 else 1
        if kind in ("time", "back"):
            steps = [(0, 0)] if self.cyclic else [(t, t + way) for t in range(T) if 0 <= t + way < T]
        elif kind == "state" or (source.steps, target.steps) == ("each", "last"):
            steps = [(T - 1 if way > 0 else 0, 0)]
        else:
            steps = [(t, t) for t in range(T)]
        return list(dict.fromkeys((_key(source, a), _key(target, b)) for a, b in steps))

    def _edge(self, source: Node, target: Node, kind: str, points: list[Point], *labels: Label) -> None:
        labels = tuple(label for label in labels if label.text)
        self.graph.edges.append(Edge(source.name, target.name, kind, tuple(points), labels))

    def _stack(self, lane: list[Part], side: int, back: float) -> None:
        """Add the edges of a lane: the texts at a side, those of two directions at one each; see `_link` for back."""
        for i, part in enumerate(lane):
            below = lane[: i - (part.direction < 0)] if part.fed else []
            for source in below[-2:] if below and below[-1].direction < 0 else below[-1:]:
                self._up(source, part, lane, -(part.direction or source.direction) or side)
            if part.states and self.cyclic:
                self._loop(part, -part.direction or side)
            elif part.states:
                self._link(part, part, "time", back)

    def _up(self, source: Part, target: Part, lane: list[Part], side: int) -> None:
        """Add edges upward, around the parts between; the first one of the unrolled graph has its shape as a text."""
        text = source.shape if self.cyclic or side < 0 else ""
        if self.cyclic and (source.steps, target.steps) == ("each", "last"):
            text += " at the first step" if source.direction < 0 else " at the last step"
        if self.cyclic:
            text = "\n".join([text, *target.weights])
        between = lane[lane.index(source) + 1 : lane.index(target)]
        for i, (key, other) in enumerate(self._pairs(source, target, "through")):
            a, b = self.nodes[key], self.nodes[other]
            (x0, y0), (x1, y1) = (a.at[0], a.at[1] + BOX / 2), (b.at[0], b.at[1] - BOX / 2)
            if abs(x0 - x1) > (a.width + b.width) / 2:
                points = [(x0, y0), (x0, b.at[1]), (x1 - b.width / 2, b.at[1])]
            elif between:
                x, y = self.nodes[between[0].name, key[1]].at
                x += side * (self.width / 2 + _PASS)
                points = [(x0 + side * 0.15, y0), (x, y - 0.25), (x, y + 0.25), (x1 + side * 0.1, y1)]
            else:
                points = [(x1 if a.width > b.width else x0, y0), (x0 if b.width > a.width else x1, y1)]
            x = side * max(side * x for x, _ in points[:2]) + side * _PAD
            self._edge(a, b, "through", points, Label(text * (i == 0), (x, a.at[1] + self.row / 2), side))

    def _loop(self, part: Part, side: int) -> None:
        """Add the edge of the cyclic graph from a layer to itself."""
        node = self.nodes[_key(part, 0)]
        (x, y), near, far = node.at, self.width / 2, self.width / 2 + 0.28
        points = [(x + side * dx, y + dy) for dx, dy in ((near, 0.07), (far, 0.07), (far, -0.07), (near, -0.07))]
        text = "\n".join([*map(" ".join, part.states), *part.loop])
        self._edge(node, node, "time", points, Label(text, (x + side * (far + _PAD), y), side))

    def _link(self, source: Part, target: Part, kind: str, back: float = 0.0) -> None:
        """Add edges to the side; the first has the shapes of what flows. back: room at their ends that text spares."""
        way = -1 if kind == "time" and source.direction < 0 else 1
        shapes = [source.shape] if kind == "every" else list(dict.fromkeys(shape for _, shape in target.states))
        for i, (key, other) in enumerate(self._pairs(source, target, kind)):
            a, b = self.nodes[key], self.nodes[other]
            (x0, y0), (x1, y1) = (a.at[0] + way * a.width / 2, a.at[1]), (b.at[0] - way * b.width / 2, b.at[1])
            if kind == "back":
                x, x1 = (self.graph.right + 0.12, x1 + b.width) if self.cyclic else (x1 - _BACK, x1)
                points = [(x0, y0), (x, y0), (x, y1), (x1, y1)]
            elif y1 < y0 or any(node.at[1] == y0 and x0 < node.at[0] < x1 for node in self.nodes.values()):
                x, over = x1 - _PASS, y0 + self.row / 2 - 0.12
                points = [(x0 - 0.1, y0 + BOX / 2), (x0 - 0.1, over), (x, over), (x, y1), (x1, y1)]
            elif y1 > y0:
                points = [(x0, y0), (x0 + _PASS, y0), (x0 + _PASS, y1), (x1, y1)]
            else:
                points = [(x0, y0), (x1, y1)]
            x = (points[-2][0] + x1 - back) / 2
            above = Label(_symbols(target, other[1] or 0), (x, y1 + 0.1))
            below = Label("\n".join(shapes) * (i == 0), (x, y1 - 0.04 - _LINE / 2 * len(shapes)))
            self._edge(a, b, kind, points, above, below)


def _key(part, t):
    return part.name, t if part.steps == "each" else None


def _rows(lanes: list[list[Part]], links: list[tuple[Part, Part, str]]) -> dict[str, int]:
    """The row of each part: over those below it in its lane, and level with what another lane feeds."""
    rows = {part.name: 0 for lane in lanes for part in lane}
    rises = [(below.name, part.name, 1) for lane in lanes for below, part in pairwise(lane)]
    rises += [(a.name, b.name, 0) for a, b, kind in links if kind != "back" and a.direction >= 0]
    for _ in rows:
        for below, part, rise in rises:
            rows[part] = max(rows[part], rows[below] + rise)
    for part in reversed(rows):  # what feeds another lane rises as far as it may
        over = [(rise, rows[above] - rise) for below, above, rise in rises if below == part]
        if any(rise == 0 for rise, _ in over):
            rows[part] = min(row for _, row in over)
    return rows


def _symbols(part, t):
    """The states of a part that come to a step."""
    return ", ".join(_at(symbol, t) for symbol, _ in part.states)


def _at(symbol, t):
    """A symbol like h_{t-1} at a step."""
    return re.sub(r"_\{?t([+-]1)?\}?$", lambda found: f"_{t + int(found[1] or 0)}", symbol)
