"""`fastrnn plot`: pictures of a model, of its gradients, its training and its units."""

import os
import sys
from pathlib import Path

import click

from fastrnn import checkpoint
from fastrnn import plot as pictures
from fastrnn.cli.program import Number, checkpoint_file, help_without_command
from fastrnn.models import CharLM
from fastrnn.plot.heat import DEPTHS
from fastrnn.plot.style import FORMATS
from fastrnn.training.text import Batches, read_text

_WRITTEN = 300  # characters, where no text is given


@click.group(invoke_without_command=True)
@click.pass_context
def plot(context):
    """Draw a model, its gradients, its training or its units.

    Files .svg and .png need matplotlib, the extra `plot`; .dot, .html and the terminal need nothing.
    """
    help_without_command(context)


def _out(default, *endings):
    """The option --out, whose ending is one of a few."""

    def check(context, parameter, path):
        if path is not None and path.suffix not in endings:
            raise click.UsageError(f"--out {path}: expected a name that ends in {', '.join(endings)}")
        return path

    kinds = "File to write, by its ending " + ", ".join(endings) + "."
    more = "" if default else "  [default: the terminal]"
    return click.option("--out", type=click.Path(path_type=Path), default=default, callback=check, help=kinds + more)


_checkpoint = click.argument("path", metavar="CHECKPOINT", type=click.Path(path_type=Path))


def _load(path):
    return checkpoint.load(checkpoint_file(path))[0]


def _character_model(path, instead):
    """The CharLM of a checkpoint."""
    model = _load(path)
    if not isinstance(model, CharLM):
        raise click.UsageError(f"{path}: expected a CharLM, got {type(model).__name__}{instead}")
    return model


def _save(draw, out, *arguments):
    """Make a figure and write it."""
    try:
        figure = draw(*arguments)
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    pictures.save(figure, out)
    click.echo(f"picture: {out}")


@plot.command(context_settings={"show_default": True})
@_checkpoint
@click.option("--steps", type=click.IntRange(1, 64), default=4, help="Steps to unroll over.")
@_out("unrolled.svg", *FORMATS, ".dot")
def unrolled(path, steps, out):
    """Draw the cyclic graph of a model beside its copy unrolled over a few steps.

    CHECKPOINT is a file, or the folder that `fastrnn charlm train` kept its model in.
    """
    model = _load(path)
    if out.suffix != ".dot":
        _save(pictures.unrolled, out, model, steps)
        return
    out.write_text(pictures.unrolled_dot(model, steps), encoding="utf-8")
    click.echo(f"picture: {out}")


@plot.command(context_settings={"show_default": True})
@_checkpoint
@click.argument("text", required=False)
@click.option("--seq-length", type=click.IntRange(1), default=50, help="Steps that the gradient flows back over.")
@click.option("--batch", type=click.IntRange(1), default=8, help="Windows of the text.")
@click.option("--clip-step", type=Number(0), help="Show too what is left with every element of dL/dh_t held within.")
@_out("flow.svg", *FORMATS)
def flow(path, text, seq_length, batch, clip_step, out):
    """Draw the norm of dL/dh_t over the steps, for every layer of a character model.

    The windows are the first of the file TEXT, - for standard input; without it, the model writes them.
    """
    model = _character_model(path, "; fastrnn.plot.gradient_flow takes its batches")
    needed = batch * seq_length + 1
    windows = Batches(model.encode(read_text(text) if text else model.sample(needed, seed=0)), batch, seq_length)
    _save(pictures.gradient_flow, out, model, windows[0], clip_step)


@plot.command(context_settings={"show_default": True})
@click.argument("metrics", type=click.Path())
@click.option("--speed", is_flag=True, help="Characters a second, too.")
@_out("curves.svg", *FORMATS)
def curves(metrics, speed, out):
    """Draw the losses of a run from METRICS, the file of `fastrnn charlm train --metrics`, or - for standard input."""
    _save(pictures.curves, out, metrics, speed)


@plot.command(context_settings={"show_default": True})
@_checkpoint
@click.argument("text", required=False)
@click.option("--unit", "units", type=click.IntRange(0), multiple=True, default=(0,), help="May be given repeatedly.")
@click.option("--layer", type=int, default=-1, help="From the first, 0, or from the last, -1.")
@click.option("--value", default="h", help="Or lstm's c, i, f, g, o; gru's r, z, n.")
@click.option("--read", help="Text to read, instead of a file's.")
@click.option("--length", type=click.IntRange(1), default=2000, help="Read at most so many characters.")
@click.option("--colours", type=click.Choice([*DEPTHS, "auto"]), default="auto", help="Of the terminal.")
@_out(None, ".html")
def activations(path, text, units, layer, value, read, length, colours, out):
    """Show units of a character model while it reads the file TEXT, - for standard input; without it, its own text."""
    if text and read is not None:
        raise click.UsageError("TEXT and --read exclude each other")
    model = _character_model(path, "")
    if text:
        read = read_text(text)
    elif read is None:
        read = model.sample(_WRITTEN, seed=0)
    found = pictures.activations(model, read[:length], units, layer, value)
    if out is None:
        click.echo(found.ansi(_depth() if colours == "auto" else colours), nl=False, color=True)
        return
    out.write_text(found.html(), encoding="utf-8")
    click.echo(f"picture: {out}")


def _depth():
    """The colours that the terminal has, as far as it says so."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return "none"
    return "24bit" if os.environ.get("COLORTERM") in ("truecolor", "24bit") else "256"
