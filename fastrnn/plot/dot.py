"""A graph in Graphviz's language."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from fastrnn.plot.graph import BOX, EDGES, NODES, SIZES, Edge, Graph
from fastrnn.plot.unroll import graph_of


def unrolled_dot(model: Any, T: int = 4) -> str:
    """What `unrolled` draws, as DOT text; needs no matplotlib: `dot -Tsvg` keeps the places."""
    return dot(graph_of(model, T))


def dot(graph: Graph) -> str:
    """The graph as DOT text, every node where the picture has it."""
    lines = [
        "digraph fastrnn {",
        "  graph [layout=neato, splines=true, outputorder=edgesfirst];",
        f'  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize={SIZES["node"]:g}, '
        f"height={BOX:g}, fixedsize=true];",
        f'  edge [fontname="Helvetica", fontsize={SIZES["label"]:g}, arrowsize=0.6];',
    ]
    for node in graph.nodes.values():
        lines.append(
            f'  "{node.name}" [label={_html(node.label)}, pos="{_inches(node.at)}!", width={node.width:.2f}, '
            f'fillcolor="{NODES[node.kind]}"];'
        )
    for i, label in enumerate(label for label in graph.labels if label.edge is None):
        lines.append(
            f'  "heading {i}" [label={_html(label.text)}, pos="{_inches(label.at)}!", shape=plaintext, style="", '
            f"fixedsize=false, fontsize={SIZES['heading']:g}];"
        )
    texts: dict[Edge, list[str]] = {}
    for label in graph.labels:
        if label.edge is not None:
            texts.setdefault(label.edge, []).append(label.text)
    for edge in graph.edges:
        colour, style, _ = EDGES[edge.kind]
        style = "dashed" if style == "dashdot" else style
        text = f"label={_html(chr(10).join(texts[edge]))}, " if edge in texts else ""
        lines.append(f'  "{edge.source}" -> "{edge.target}" [{text}color="{colour}", style={style}];')
    return "\n".join([*lines, "}", ""])


def _inches(at):
    return f"{at[0]:.3f},{at[1]:.3f}"


def _html(text):
    """A label with its subscripts set."""
    lines = [re.sub(r"_(?:\{(.*?)\}|(\w+))", r"<sub>\1\2</sub>", escape(line)) for line in text.split("\n")]
    return f"<{'<br/>'.join(lines)}>"
