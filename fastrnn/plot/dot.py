"""A graph in Graphviz's language."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from fastrnn.plot.graph import BOX, EDGES, NODES, SIZES, SUBSCRIPT
from fastrnn.plot.unroll import graph_of


def unrolled_dot(model: Any, T: int = 4) -> str:
    """What `unrolled` draws, as DOT text; needs no matplotlib: `dot -Tsvg` keeps the places."""
    graph = graph_of(model, T)
    lines = [
        "digraph fastrnn {",
        "  graph [layout=neato, splines=true, outputorder=edgesfirst];",
        f'  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize={SIZES["node"]:g}, '
        f"height={BOX:g}, fixedsize=true];",
        f'  edge [fontname="Helvetica", fontsize={SIZES["label"]:g}, arrowsize=0.6];',
    ]
    for name, label, kind, (x, y), width in graph.nodes.values():
        look = f'width={width:.2f}, fillcolor="{NODES[kind]}"'
        lines.append(f'  "{name}" [label={_html(label)}, pos="{x:.3f},{y:.3f}!", {look}];')
    look = f'shape=plaintext, style="", fixedsize=false, fontsize={SIZES["heading"]:g}'
    for i, (text, (x, y), _) in enumerate(graph.headings):
        lines.append(f'  "heading {i}" [label={_html(text)}, pos="{x:.3f},{y:.3f}!", {look}];')
    for edge in graph.edges:
        colour, style, _ = EDGES[edge.kind]
        text = "\n".join(label.text for label in edge.labels)
        label = f"label={_html(text)}, " if text else ""
        look = f'color="{colour}", style={style.replace("dashdot", "dashed")}'
        lines.append(f'  "{edge.source}" -> "{edge.target}" [{label}{look}];')
    return "\n".join([*lines, "}", ""])


def _html(text):
    """A label with its subscripts set."""
    text = re.sub(SUBSCRIPT, r"<sub>\1\2</sub>", escape(text))
    return f"<{text.replace(chr(10), '<br/>')}>"
