"""Options that benchmark programs share."""

from typing import Any

import click
from registry import CELLS, DEFAULT_CELLS, Shape


class ShapeType(click.ParamType):
    """`50,64,512,512`."""

    name = "T,B,I,H"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shape:
        if isinstance(value, Shape):
            return value
        try:
            return Shape(*map(int, value.split(",")))
        except (TypeError, ValueError):
            self.fail(f"expected {self.name}, got {value}", param, ctx)


cell_option = click.option(
    "--cell", "cells", multiple=True, type=click.Choice(list(CELLS)), default=DEFAULT_CELLS, show_default=True
)
threads_option = click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
dtype_option = click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
repeats_option = click.option("--repeats", type=click.IntRange(1), default=9, show_default=True)
