"""A drawn graph: nodes and edges with their places in inches, whatever draws it."""

from __future__ import annotations

import re
from typing import NamedTuple

Point = tuple[float, float]

# Fill of each kind of node; colour, DOT style and meaning of each kind of edge.
NODES = {
    "input": "#DCEEFA",
    "linear": "#D3EEE3",
    "recurrent": "#FBE6BF",
    "join": "#FFFFFF",
    "output": "#F5DFEA",
}
EDGES = {
    "through": ("#444444", "solid", "through the layers"),
    "time": ("#0072B2", "bold", "through time, the same weights at every step"),
    "state": ("#009E73", "dashed", "into the state, once"),
    "back": ("#D55E00", "dotted", "fed back as the next input (in training: the target)"),
    "every": ("#CC79A7", "dashdot", "to every step"),
}
BOX = 0.3  # height of a node, inches
SIZES = {"node": 8.5, "label": 7.5, "heading": 10.0}  # of text, points


class Node(NamedTuple):
    """A box around its centre."""

    name: str
    label: str
    kind: str  # of NODES
    at: Point
    width: float


class Edge(NamedTuple):
    """An arrow along points, between the borders of two boxes."""

    source: str
    target: str
    kind: str  # of EDGES
    points: tuple[Point, ...]


class Label(NamedTuple):
    """Text beside an edge, or a heading of no edge; a subscript is written h_t or h_{t-1}."""

    text: str
    at: Point
    align: str  # left, center or right
    edge: Edge | None


class Graph:
    """Nodes by name, edges, and the text beside them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.labels: list[Label] = []

    def node(self, name: str, label: str, kind: str, at: Point, width: float) -> Node:
        """Add a node."""
        self.nodes[name] = Node(name, label, kind, at, width)
        return self.nodes[name]

    def edge(self, source: Node, target: Node, kind: str, *points: Point) -> Edge:
        """Add an edge along points: the first and the last lie on the borders of the two boxes."""
        self.edges.append(Edge(source.name, target.name, kind, points))
        return self.edges[-1]

    def up(self, source: Node, target: Node) -> Edge:
        """Add an edge from the top of a box to the bottom of another."""
        (x, y), (above, top) = source.at, target.at
        start = min(max(above, x - source.width / 2), x + source.width / 2) if source.width > target.width else x
        end = min(max(x, above - target.width / 2), above + target.width / 2) if target.width > source.width else above
        return self.edge(source, target, "through", (start, y + BOX / 2), (end, top - BOX / 2))

    def label(self, text: str, at: Point, align: str = "center", edge: Edge | None = None) -> None:
        """Add text; `at` is the middle of its height."""
        self.labels.append(Label(text, at, align, edge))

    @property
    def right(self) -> float:
        """Where the graph ends, at the right."""
        nodes = [node.at[0] + node.width / 2 for node in self.nodes.values()]
        points = [x for edge in self.edges for x, _ in edge.points]
        labels = [
            label.at[0] + width(label.text) * {"left": 1, "center": 0.5, "right": 0}[label.align]
            for label in self.labels
        ]
        return max(nodes + points + labels)


def width(text: str, size: str = "label") -> float:
    """The width of text, about, in inches: nothing is drawn."""
    return max(len(re.sub(r"[_{}]", "", line)) for line in text.split("\n")) * 0.62 * SIZES[size] / 72
