"""A drawn graph: nodes and edges with their places in inches, whatever draws it."""

from __future__ import annotations

import re
from typing import NamedTuple

Point = tuple[float, float]

# Fill of each kind of node; colour, DOT style and meaning of each kind of edge.
NODES = {"input": "#DCEEFA", "linear": "#D3EEE3", "recurrent": "#FBE6BF", "join": "#FFFFFF", "output": "#F5DFEA"}
EDGES = {
    "through": ("#444444", "solid", "through the layers"),
    "time": ("#0072B2", "bold", "through time, the same weights at every step"),
    "state": ("#009E73", "dashed", "into the state, once"),
    "back": ("#D55E00", "dotted", "fed back as the next input (in training: the target)"),
    "every": ("#CC79A7", "dashdot", "to every step"),
}
BOX = 0.3  # height of a node, inches
SIZES = {"node": 8.5, "label": 7.5, "heading": 10.0}  # of text, points
SUBSCRIPT = r"_(?:\{(.*?)\}|(-?\w+))"  # of a symbol in a text, as in h_t, h_{t-1} or h_-1


class Node(NamedTuple):
    """A box around its centre."""

    name: str
    label: str
    kind: str  # of NODES
    at: Point
    width: float


class Label(NamedTuple):
    """Text at the left (-1) or right (1) of a point, or around it (0); a subscript is written h_t or h_{t-1}."""

    text: str
    at: Point  # the middle of its height
    side: int = 0


class Edge(NamedTuple):
    """An arrow along points, between the borders of two boxes, and the text beside it."""

    source: str
    target: str
    kind: str  # of EDGES
    points: tuple[Point, ...]
    labels: tuple[Label, ...]


class Graph(NamedTuple):
    """Nodes by name, edges and headings."""

    nodes: dict[str, Node]
    edges: list[Edge]
    headings: list[Label]

    @property
    def right(self) -> float:
        """Where the graph ends, at the right; 0 of nothing."""
        labels = [*self.headings, *(label for edge in self.edges for label in edge.labels)]
        ends = [label.at[0] + (1 + label.side) / 2 * width(label.text) for label in labels]
        ends += [x for edge in self.edges for x, _ in edge.points]
        return max(ends + [node.at[0] + node.width / 2 for node in self.nodes.values()], default=0.0)


def width(text: str, size: str = "label") -> float:
    """The width of text, about, in inches: nothing is drawn."""
    return max(len(re.sub(r"[_{}]", "", line)) for line in text.split("\n")) * 0.62 * SIZES[size] / 72
