"""How all figures look, and how they become files: matplotlib, imported where it is asked for."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; each line has a dash of its own for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, PALE = "#222222", "#DDDDDD"

_SETTINGS: dict[Any, Any] = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "mathtext.default": "regular",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "svg.hashsalt": "fastrnn",
}
FORMATS = (".svg", ".png")


def styled() -> AbstractContextManager[None]:
    """A context in which figures are made and saved.

    Raises ImportError: `plot: needs matplotlib: pip install 'fastrnn[plot]'`.
    """
    try:
        import matplotlib
    except ImportError:
        raise ImportError("plot: needs matplotlib: pip install 'fastrnn[plot]'") from None
    plain = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    return matplotlib.rc_context({**plain, **_SETTINGS})


def axes(
    title: str, rows: int = 1, width: float = 6.4, height: float = 3.4, *, sharex: bool = True, ratios: Any = None
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` axes, one above the other; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=10)
    return figure, list(figure.subplots(rows, 1, sharex=sharex, squeeze=False, height_ratios=ratios)[:, 0])


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write an SVG or PNG file by the path's ending: the same bytes for the same figure.

    Raises ValueError: `a.pdf: expected a name that ends in .svg, .png`.
    """
    ending = Path(path).suffix
    if ending not in FORMATS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    with styled():
        figure.savefig(path, metadata={"Date": None} if ending == ".svg" else {"Software": None})
