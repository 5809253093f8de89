"""The command `fastrnn`: train a character model, and write text with it."""

from __future__ import annotations

import json
import math
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

import fastrnn
from fastrnn.training.checkpoint import LIMITS

if TYPE_CHECKING:
    from fastrnn.models import CharLM
    from fastrnn.optim import Optimizer
    from fastrnn.training.loop import Metrics

# Class in fastrnn.optim, default learning rate, further arguments.
_OPTIMIZERS = {
    "sgd": ("SGD", 1.0, {}),
    "momentum": ("SGD", 0.1, {"momentum": 0.9}),
    "adagrad": ("Adagrad", 0.02, {}),
    "rmsprop": ("RMSprop", 1e-3, {}),
    "adam": ("Adam", 2e-3, {}),
    "adamw": ("AdamW", 2e-3, {}),
}
_SECONDS = 60.0  # of a run whose length is not given
_SAVE_SECONDS = 10.0
_SAMPLE_LENGTH = 300
_FILE = "model.safetensors"


class _Program(click.Group):
    """A group of commands whose every failure is one line: `fastrnn: error: ...`."""

    def main(self, *args: object, **extra: object) -> None:
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
        click.echo(f"fastrnn: error: {' '.join(message.splitlines())}", err=True)
        sys.exit(status)


class _Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


@click.group(cls=_Program, invoke_without_command=True)
@click.version_option(fastrnn.__version__, prog_name="fastrnn", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Recurrent networks on CPUs."""
    _help_without_command(context)


@main.group(invoke_without_command=True)
@click.pass_context
def charlm(context: click.Context) -> None:
    """Character language models: a recurrent network that predicts the next character of a text."""
    _help_without_command(context)


def _help_without_command(context):
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@charlm.command()
@click.argument("text", required=False)
@click.option("--recipe", type=click.Choice(["min-char-rnn"]), help="A fixed model and training, see above.")
@click.option("--cell", type=click.Choice(["tanh", "relu"]), default="tanh", show_default=True, help="Nonlinearity.")
@click.option("--hidden", type=click.IntRange(*LIMITS["hidden_size"]), default=512, show_default=True, help="Units of a layer.")
@click.option("--layers", type=click.IntRange(*LIMITS["num_layers"]), default=1, show_default=True, help="Layers.")
@click.option(
    "--embedding",
    type=click.IntRange(*LIMITS["embedding_size"]),
    default=0,
    show_default=True,
    help="Size of a character's embedding; 0: one-hot input.",
)
@click.option("--seq-length", type=click.IntRange(1), default=50, show_default=True, help="Characters of a window.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Windows trained on at once.")
@click.option("--steps", type=click.IntRange(1), help="Length of the run in updates; default: one minute.")
@click.option("--epochs", type=click.IntRange(1), help="Length of the run in passes over the text.")
@click.option("--optimizer", type=click.Choice(list(_OPTIMIZERS)), default="adam", show_default=True)
@click.option(
    "--lr",
    type=_Number(0, min_open=True),
    help="Learning rate at the start; it falls linearly to 0.  [default: "
    + ", ".join(f"{name} {lr:g}" for name, (_, lr, _) in _OPTIMIZERS.items())
    + "]",
)
@click.option("--clip-norm", type=_Number(0), help="Largest norm of the gradients; 0: none.  [default: 5]")
@click.option("--clip-value", type=_Number(0, min_open=True), help="Largest size of each gradient.")
@click.option("--dropout", type=_Number(0, 1, max_open=True), default=0.0, show_default=True, help="Probability.")
@click.option(
    "--val-fraction",
    type=_Number(0, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of the text, at its end, that validates.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, dropout and sample.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="[default: float32; float64 with --recipe]")
@click.option("--threads", type=click.IntRange(1), help="[default: all cores]")
@click.option("--out", type=click.Path(path_type=Path), default="charlm", show_default=True, help="Folder of the checkpoint.")
@click.option("--metrics", type=click.Path(), help="File for one JSON object a line: loss, speed, gradient.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def train(context, text, recipe, steps, epochs, seed, threads, out, metrics, quiet, **options):
    """Train on TEXT, a UTF-8 file (gzip or not), or without TEXT on the source code of Python's standard library.

    The model is written to the folder --out during and after training, in place of an earlier one. Ctrl-C ends the
    run at the next step and keeps the model.

    --recipe min-char-rnn is the minimal character model: one tanh layer of 100 units, one window of 25 characters an
    update, one-hot input, weights 0.01 N(0, 1), Adagrad at a constant rate of 0.1, gradients of the loss summed over
    the window clipped at 5 each, no validation; its progress shows the smoothed loss of a window.
    """
    if steps and epochs:
        raise click.UsageError("--steps and --epochs exclude each other")
    if recipe:
        _fix_options(context, options)
    elif options["clip_norm"] is not None and options["clip_value"] is not None:
        raise click.UsageError("--clip-norm and --clip-value exclude each other")
    say = (lambda message: None) if quiet else (lambda message: click.echo(message, err=True))
    if threads:
        _set_threads(threads)

    source = text or "the source code of Python's standard library"
    characters = read_text(text) if text else standard_library()
    batch, seq_length = options["batch"], options["seq_length"]
    training, validation = split(characters, options["val_fraction"], batch, seq_length)
    _check_folder(out)
    log = open(metrics, "w", encoding="utf-8") if metrics else None

    vocabulary = vocabulary_of(characters)
    say(f"training on {source}: {len(characters):,} characters, {len(vocabulary)} different")
