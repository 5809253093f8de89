"""`fastrnn charlm`: train a character model, and write text with it."""

from __future__ import annotations

import json
import math
import signal
import tempfile
import time
from pathlib import Path

import click

import fastrnn
from fastrnn import checkpoint, kinds
from fastrnn.checkpoint import LIMITS
from fastrnn.cli.program import CHECKPOINT, Bar, Number, checkpoint_file, help_without_command
from fastrnn.training import loop
from fastrnn.training.text import (
    MOST_BYTES,
    Batches,
    read_text,
    source_name,
    split,
    standard_library,
    vocabulary_of,
)

# Class in fastrnn.optim, default learning rate, further arguments.
_OPTIMIZERS = {
    "sgd": ("SGD", 0.5, {}),
    "momentum": ("SGD", 0.05, {"momentum": 0.9}),
    "adagrad": ("Adagrad", 0.005, {}),
    "rmsprop": ("RMSprop", 1e-3, {}),
    "adam": ("Adam", 2e-3, {}),
    "adamw": ("AdamW", 2e-3, {}),
}
_CLIP_NORM = 5.0
_RUN_SECONDS = 60.0  # where neither steps nor epochs are given
_SAVE_SECONDS = 10.0  # without evaluations, each of which saves
_SAMPLE_LENGTH = 300


class _Signals:
    """Within it, the first SIGINT or SIGTERM is only noted in `received`; a second one acts as it did before."""

    def __enter__(self):
        self.received = 0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, frame):
        self.received = number
        self.__exit__()

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)


@click.group(invoke_without_command=True)
@click.pass_context
def charlm(context):
    """Train a recurrent network to predict the next character of a text, and let it write."""
    help_without_command(context)


@charlm.command(context_settings={"show_default": True})
@click.argument("text", required=False)
@click.option("--cell", type=click.Choice(kinds.names()), default="tanh", help="Recurrent cell.")
@click.option("--hidden", type=click.IntRange(*LIMITS["hidden_size"]), default=512, help="Units of a layer.")
@click.option("--layers", type=click.IntRange(*LIMITS["num_layers"]), default=1, help="Recurrent layers.")
@click.option(
    "--embedding",
    type=click.IntRange(*LIMITS["embedding_size"]),
    default=0,
    help="Size of a character's learned vector; 0: one-hot.",
)
@click.option("--seq-length", type=click.IntRange(1), default=50, help="Characters of a window.")
@click.option("--batch", type=click.IntRange(1), default=32, help="Windows in one update.")
@click.option("--steps", type=click.IntRange(1), help="Updates of the run.  [default: a minute's]")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the text, instead of --steps.")
@click.option("--optimizer", type=click.Choice(list(_OPTIMIZERS)), default="adam", help="How weights are updated.")
@click.option(
    "--lr",
    type=Number(0, min_open=True),
    help="Learning rate of the first update, falling linearly to 0.  [default: "
    + ", ".join(f"{name} {lr:g}" for name, (_, lr, _) in _OPTIMIZERS.items())
    + "]",
)
@click.option("--clip-norm", type=Number(0), help=f"Largest norm of the gradient; 0: any.  [default: {_CLIP_NORM:g}]")
@click.option("--clip-value", type=Number(0, min_open=True), help="Largest element of the gradient, instead.")
@click.option("--clip-step", type=Number(0, min_open=True), help="Largest element of dL/dh_t, at every step back.")
@click.option("--dropout", type=Number(0, 1, max_open=True), default=0.0, help="Share of outputs set to 0.")
@click.option("--val-fraction", type=Number(0, 1, max_open=True), default=0.02, help="End of the text to validate on.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of weights, dropout and sample.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), help="Of weights.  [default: float32; float64 for the recipe]"
)
@click.option("--threads", type=click.IntRange(1), help="At most so many.  [default: all cores]")
@click.option("--out", type=click.Path(path_type=Path), default="charlm", help="Folder to keep the model in.")
@click.option("--max-bytes", type=click.IntRange(1), default=MOST_BYTES, help="Refuse a longer TEXT.")
@click.option("--metrics", type=click.Path(), help="File for losses and speed, one JSON object a line.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--recipe", type=click.Choice(["min-char-rnn"]), help="Fixed settings, described above.")
@click.pass_context
def train(context, text, steps, epochs, seed, dtype, threads, out, max_bytes, metrics, quiet, recipe, **options):
    """Train a model on TEXT.

    TEXT is a UTF-8 file, gzip or not, or - for standard input; without it, the model learns the source code of
    Python's standard library.

    The model is kept in the folder --out, in place of an earlier one: every ten seconds or so, and at the end. Ctrl-C
    ends the run after the update at hand and keeps the model too.

    --recipe min-char-rnn is the minimal character model: one tanh layer of 100, one window of 25 one-hot characters
    an update, weights 0.01 N(0,1), Adagrad at a constant 0.1, each element of the gradient of the loss summed over
    the window clipped at 5, no validation. It shows the smooth loss of a window.
    """
    if steps and epochs:
        raise click.UsageError("--steps and --epochs exclude each other")
    if recipe:
        _fix(context, options)
    elif options["clip_norm"] is not None and options["clip_value"] is not None:
        raise click.UsageError("--clip-norm and --clip-value exclude each other")
    if threads:
        _set_threads(threads)
    characters = read_text(text, max_bytes) if text else standard_library()
    learned, validated = split(characters, options["val_fraction"], options["batch"], options["seq_length"])
    _check_folder(out)
    log = context.with_resource(click.open_file(metrics, "w", encoding="utf-8")) if metrics else None

    vocabulary = vocabulary_of(characters)
    if not quiet:
        source = source_name(text) if text else "the source code of Python's standard library"
        click.echo(f"text: {source}, {len(characters):,} characters, {len(vocabulary)} different", err=True)
    build = _build_recipe if recipe else _build
    model, optimizer, batches, settings = build(vocabulary, learned, seed, dtype, options)
    validation = Batches(model.encode(validated), batches.batch, batches.seq_length) if validated else None
    steps = epochs * len(batches) if epochs else steps
    run = loop.train(
        model, optimizer, batches, validation, steps=steps, seconds=None if steps else _RUN_SECONDS, **settings
    )

    path, scale = out / CHECKPOINT, settings.get("scale", 1.0)
    extra = {name: value for name, value in {**options, "recipe": recipe, "seed": seed}.items() if value is not None}
    with _Signals() as signals, Bar(quiet) as bar:
        for m in run:
            bar.show(m.progress, f"loss {scale * m.smooth_loss:.3f}, {m.chars_per_second:,.0f} characters/s")
            if log and m.train_loss is not None:
                _log(log, m)
            if m.step == 1:  # which may have compiled kernels
                saved = time.monotonic()
            overdue = time.monotonic() - saved >= _SAVE_SECONDS
            if overdue or m.val_loss is not None or m.progress == 1 or signals.received:
                checkpoint.save(path, model, optimizer, m.step, extra)
                saved = time.monotonic()
                if bar.hidden and not quiet:
                    click.echo(_summary(m, scale), err=True)
            if signals.received:
                break
    if signals.received:
        if not quiet:
            click.echo(f"stopped after step {m.step}; model: {path}", err=True)
        context.exit(128 + signals.received)
    if not quiet:
        name, loss = ("training", m.smooth_loss) if m.val_loss is None else ("validation", m.val_loss)
        click.echo(f"{name} loss: {loss:.4f} nats, {loss / math.log(2):.4f} bits a character\n")
        click.echo(f"{model.sample(_SAMPLE_LENGTH, seed=seed)}\n\nmodel: {path}")


def _fix(context, options):
    """Set the options that the recipe fixes; to give one another value is an error."""
    from fastrnn.training import min_char_rnn

    fixed = {
        "cell": "tanh",
        "hidden": min_char_rnn.HIDDEN_SIZE,
        "layers": 1,
        "embedding": 0,
        "seq_length": min_char_rnn.SEQ_LENGTH,
        "batch": 1,
        "optimizer": "adagrad",
        "lr": min_char_rnn.LR,
        "clip_norm": None,
        "clip_value": min_char_rnn.CLIP_VALUE,
        "clip_step": None,
        "dropout": 0.0,
        "val_fraction": 0.0,
    }
    for name, value in fixed.items():
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and options[name] != value:
            flag, has = "--" + name.replace("_", "-"), "none" if value is None else value
            raise click.UsageError(f"{flag} {options[name]} contradicts --recipe min-char-rnn, which has {has}")
    options.update(fixed)


def _set_threads(threads):
    try:
        fastrnn.set_num_threads(threads)
    except ValueError as error:
        raise click.UsageError(f"--threads: {str(error).partition(': ')[2]}") from None


def _check_folder(out):
    """Create the folder and try to write, so that an unwritable one is found before training, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise click.ClickException(f"--out {out}: {error.strerror}") from None


def _build(vocabulary, text, seed, dtype, options):
    """Model, optimiser, batches, and settings of the loop."""
    from fastrnn import models, optim

    model = models.CharLM(
        vocabulary,
        options["cell"],
        options["hidden"],
        options["layers"],
        options["embedding"],
        options["dropout"],
        dtype=dtype or "float32",
        seed=seed,
    )
    kind, lr, arguments = _OPTIMIZERS[options["optimizer"]]
    optimizer = getattr(optim, kind)(model.parameters, options["lr"] or lr, **arguments)
    clip_value = options["clip_value"]
    clip_norm = _CLIP_NORM if options["clip_norm"] is None and clip_value is None else options["clip_norm"] or None
    batches = Batches(model.encode(text), options["batch"], options["seq_length"])
    return (
        model,
        optimizer,
        batches,
        {"clip_norm": clip_norm, "clip_value": clip_value, "clip_step": options["clip_step"]},
    )


def _build_recipe(vocabulary, text, seed, dtype, options):
    """The same for the minimal character model."""
    from fastrnn.training import min_char_rnn

    model, optimizer = min_char_rnn.build(vocabulary, dtype or "float64", seed)
    return model, optimizer, min_char_rnn.windows(model.encode(text)), min_char_rnn.SETTINGS


def _log(log, m):
    """One line of JSON, on the disk at once."""
    names = ("step", "train_loss", "val_loss", "chars_per_second", "grad_norm")
    log.write(json.dumps({name: getattr(m, name) for name in names}, allow_nan=False) + "\n")
    log.flush()


def _summary(m, scale):
    validation = "" if m.val_loss is None else f", validation {m.val_loss:.3f}"
    loss = f"loss {scale * m.smooth_loss:.3f}{validation}"
    return f"step {m.step} ({m.progress:.0%}): {loss}, {m.chars_per_second:,.0f} characters/s"


@charlm.command(context_settings={"show_default": True})
@click.argument("path", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.option("--length", type=click.IntRange(0), default=500, help="Characters to write.")
@click.option("--temperature", type=Number(0), default=1.0, help="Divides the logits; 0: the likeliest character.")
@click.option("--top-k", type=click.IntRange(1), help="Draw among the k likeliest characters.  [default: all]")
@click.option("--prime", default="", help="Text to continue; printed first.")
@click.option("--seed", type=click.IntRange(0), help="Of the draws.  [default: a new one each time]")
def sample(path, length, temperature, top_k, prime, seed):
    """Write text with the model in CHECKPOINT.

    CHECKPOINT is a file, or the folder that `fastrnn charlm train` kept its model in.
    """
    model, _ = checkpoint.load(checkpoint_file(path))
    click.echo(prime + model.sample(length, prime, temperature, top_k, seed))
