"""A graph as a figure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastrnn.plot.graph import BOX, EDGES, NODES, SIZES, Graph
from fastrnn.plot.style import INK, styled
from fastrnn.plot.unroll import graph_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 0.12  # inches
_CORNER = 0.09
_KEY = 0.24  # height of a line of the key
_LINES = {"solid": "-", "bold": "-", "dashed": (0, (4, 1.5)), "dotted": (0, (1, 1.3)), "dashdot": (0, (5, 1.3, 1, 1.3))}


def unrolled(model: Any, T: int = 4) -> Figure:
    """The cyclic graph of a recurrent layer or a model, and beside it its copy unrolled over T steps."""
    return draw(graph_of(model, T))


def draw(graph: Graph) -> Figure:
    """A figure of the graph at its own size, with a key of the kinds of edges."""
    with styled():
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch

        figure = Figure(figsize=(4, 4))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, 4), ylim=(0, 4))
        for edge in graph.edges:
            _arrow(axes, edge.points, edge.kind)
        for node in graph.nodes.values():
            (x, y), w = node.at, node.width - 0.12
            axes.add_patch(
                FancyBboxPatch(
                    (x - w / 2, y - BOX / 2 + 0.06), w, BOX - 0.12, boxstyle="round,pad=0.06,rounding_size=0.07",
                    facecolor=NODES[node.kind], edgecolor=INK, linewidth=0.8, zorder=3, gid=node.name,
                )
            )  # fmt: skip
            _text(axes, node.at, node.label, "node", zorder=4)
        for label in graph.labels:
            _text(axes, label.at, label.text, "heading" if label.edge is None else "label", ha=label.align)
        left, bottom, right, top = _extent(figure, axes, graph)
        kinds = [kind for kind in EDGES if any(edge.kind == kind for edge in graph.edges)]
        for i, kind in enumerate(kinds):
            y = bottom - 0.1 - _KEY * (i + 0.5)
            _arrow(axes, ((left, y), (left + 0.45, y)), kind)
            _text(axes, (left + 0.55, y), EDGES[kind][2], "label", ha="left")
        left, bottom, right, top = _extent(figure, axes, graph)
        axes.set(xlim=(left - _MARGIN, right + _MARGIN), ylim=(bottom - _MARGIN, top + _MARGIN))
        figure.set_size_inches(right - left + 2 * _MARGIN, top - bottom + 2 * _MARGIN)
        return figure


def _text(axes, at, text, size, **options):
    """Text with its subscripts set."""
    text = re.sub(r"(\w)_(?:\{(.*?)\}|(\w+))", r"$\1_{\\mathrm{\2\3}}$", text.replace("$", r"\$"))
    text = re.sub(r"(?<=\w)([+-])(?=1\})", r"{\1}", text)
    axes.text(*at, text, **{"ha": "center", "va": "center", "fontsize": SIZES[size], "linespacing": 1.3, **options})


def _arrow(axes, points, kind):
    """An arrow along points, its corners rounded."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_toward(corner, before), corner, _toward(corner, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    colour, style, _ = EDGES[kind]
    axes.add_patch(
        FancyArrowPatch(
            path=Path([*vertices, points[-1]], [*codes, Path.LINETO]), arrowstyle="-|>", mutation_scale=7,
            color=colour, linestyle=_LINES[style], linewidth=1.6 if style == "bold" else 1.0, joinstyle="round",
            capstyle="butt", shrinkA=0, shrinkB=0, zorder=2,
        )
    )  # fmt: skip


def _toward(corner, other):
    """A point a little way, at most half of it, from a corner to the next point."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(_CORNER / length, 0.5)
    return corner[0] + share * dx, corner[1] + share * dy


def _extent(figure, axes, graph):
    """Left, bottom, right and top of all that is drawn, in inches; text is measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer).transformed(axes.transData.inverted()) for text in axes.texts]
    points = [point for edge in graph.edges for point in edge.points]
    for (x, y), half in ((node.at, node.width / 2) for node in graph.nodes.values()):
        points += [(x - half, y - BOX / 2), (x + half, y + BOX / 2)]
    points += [(box.x0, box.y0) for box in boxes] + [(box.x1, box.y1) for box in boxes]
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
