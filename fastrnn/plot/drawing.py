"""A graph as a figure."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.plot.graph import BOX, EDGES, NODES, SIZES, SUBSCRIPT, Label
from fastrnn.plot.style import INK, styled
from fastrnn.plot.unroll import graph_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 0.12  # inches
_CORNER = 0.09
_KEY = 0.24  # height of a line of the key
_LINES = {"dashed": (0, (4, 1.5)), "dotted": (0, (1, 1.3)), "dashdot": (0, (5, 1.3, 1, 1.3))}


def unrolled(model: Any, T: int = 4) -> Figure:
    """The cyclic graph of a recurrent layer or a model, and beside it its copy unrolled over T steps, with a key."""
    graph = graph_of(model, T)
    with styled():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch

        figure = FigureCanvasAgg(Figure(figsize=(1, 1))).figure  # which can measure
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for heading in graph.headings:
            _text(axes, heading, "heading")
        for edge in graph.edges:
            _arrow(axes, edge.points, edge.kind)
            for label in edge.labels:
                _text(axes, label, "label")
        for node in graph.nodes.values():
            (x, y), w, h = node.at, node.width - 0.12, BOX - 0.12
            axes.add_patch(
                FancyBboxPatch(
                    (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0.06,rounding_size=0.07",
                    facecolor=NODES[node.kind], edgecolor=INK, linewidth=0.8, zorder=3, gid=node.name,
                )
            )  # fmt: skip
            _text(axes, Label(node.label, node.at), "node")
        left, bottom, *_ = _extent(axes)
        for kind in EDGES:
            if any(edge.kind == kind for edge in graph.edges):
                bottom -= _KEY
                _arrow(axes, ((left, bottom), (left + 0.45, bottom)), kind)
                _text(axes, Label(EDGES[kind][2], (left + 0.55, bottom), 1), "label")
        left, bottom, right, top = _extent(axes)
        axes.set(xlim=(left - _MARGIN, right + _MARGIN), ylim=(bottom - _MARGIN, top + _MARGIN))
        figure.set_size_inches(right - left + 2 * _MARGIN, top - bottom + 2 * _MARGIN)
        return figure


def _text(axes, label, size):
    """A label with its subscripts set."""
    text = re.sub(r"(\w)" + SUBSCRIPT, r"$\1_{\\mathrm{\2\3}}$", label.text.replace("$", r"\$"))
    text = re.sub(r"(?<=\w)([+-])(?=1\})", r"{\1}", text)
    align = ("center", "left", "right")[label.side]
    axes.text(*label.at, text, ha=align, va="center", fontsize=SIZES[size], linespacing=1.3, zorder=4)


def _arrow(axes, points, kind):
    """An arrow along points, its corners rounded."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points = np.array(points)
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        ends = [corner + (end - corner) * min(_CORNER / math.dist(end, corner), 0.5) for end in (before, after)]
        vertices += [ends[0], corner, ends[1]]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    colour, style, _ = EDGES[kind]
    axes.add_patch(
        FancyArrowPatch(
            path=Path([*vertices, points[-1]], [*codes, Path.LINETO]), arrowstyle="-|>", mutation_scale=7,
            color=colour, linestyle=_LINES.get(style, "-"), linewidth=1.6 if style == "bold" else 1.0,
            joinstyle="round", capstyle="butt", shrinkA=0, shrinkB=0, zorder=2,
        )
    )  # fmt: skip


def _extent(axes):
    """Left, bottom, right and top of all that is drawn, in inches."""
    from matplotlib.transforms import Bbox

    boxes = [artist.get_window_extent() for artist in (*axes.texts, *axes.patches)]
    return Bbox.union(boxes).transformed(axes.transData.inverted()).extents
