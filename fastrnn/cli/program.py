"""What all commands share: errors of one line, numbers, help, and where a checkpoint lies."""

import math
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, Self

import click
from tqdm import tqdm

CHECKPOINT = "model.safetensors"
_BAR = "{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"


class Program(click.Group):
    """A group of commands whose every failure is one line: `fastrnn: error: ...`."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        try:
            sys.exit(super().main(*args, **{**extra, "standalone_mode": False}) or 0)
        except click.Abort:
            sys.exit(128 + signal.SIGINT)
        except click.ClickException as error:
            message, status = error.format_message(), error.exit_code
        except OSError as error:
            message, status = f"{error.filename}: {error.strerror}" if error.filename else str(error), 1
        except (ValueError, FloatingPointError, MemoryError) as error:
            message, status = str(error) or "out of memory", 1
        click.echo(f"fastrnn: error: {' '.join(message.split())}", err=True)
        sys.exit(status)


class Bar:
    """The progress of a training, on a terminal, once a step is done.

    The first one may compile kernels, of which a line of its own tells; its time says nothing about the others'.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, share: float, text: str) -> None:
        """The share of the run that is done, 0..1, and what is known."""
        if self._bar is None:
            self._bar = tqdm(total=1.0, initial=share, postfix=text, bar_format=_BAR, disable=self._quiet or None)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(share - self._bar.n)

    @property
    def hidden(self) -> bool:
        """Whether nobody sees it: it was asked to be quiet, or there is no terminal."""
        return self._bar is None or self._bar.disable


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not finite.", param, ctx)
        return number


def help_without_command(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def checkpoint_file(path: Path) -> Path:
    """The checkpoint that a folder stands for, or the file itself."""
    return path / CHECKPOINT if path.is_dir() else path
