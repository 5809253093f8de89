"""Lines over time: gradients on their way back, losses on their way down."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import flow
from fastrnn.models import CharLM
from fastrnn.plot.style import COLOURS, DASHES, MARKERS, axes, styled
from fastrnn.training.text import read_text, source_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_flow(model: Any, batch: Any, clip_step: float | None = None) -> Figure:
    """The 2-norm of dL/dh_t over the steps t, for every layer and direction, on a logarithmic axis.

    Parameters
    ----------
    model : of fastrnn.models, left as it is
    batch : what its loss_and_gradients takes; of a CharLM (tokens (T, B), targets (T, B))
    clip_step : overlay the same with every element of dL/dh_t held in -clip_step..clip_step, see fastrnn.clip_steps

    A line that falls to the left vanishes, one that rises to the left explodes; where it ends, values are 0 or not
    finite. The stacks of an encoder and a decoder have axes of their own.

    Raises ImportError: `plot: needs matplotlib: pip install 'fastrnn[plot]'`. Cost: one or two passes of training.
    """
    with styled():
        stacks = _flows(model, batch, None)
        clipped = {} if clip_step is None else _flows(model, batch, clip_step)
        figure, rows = axes("gradient flow", len(stacks), 6.4, 0.9 + 2.5 * len(stacks), sharex=False)
        for row, (name, lines) in zip(rows, stacks.items(), strict=True):
            for i, line in enumerate(lines):
                _line(row, line.norms, i, str(line) + _bad(line), "-")
            for i, line in enumerate(clipped.get(name, ())):
                _line(row, line.norms, i, f"{line}, clipped at {clip_step:g}{_bad(line)}", DASHES[1])
            row.set(xlabel="step $t$", ylabel=r"$\|\partial L/\partial h_t\|_2$")
            row.set_title(name if len(stacks) > 1 else "", loc="left")
            row.locator_params("x", integer=True)
            _decades(row)
            row.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
        return figure


def _flows(model, batch, clip_step):
    """Flows of each stack, the lowest layer first; by the stack's name in the model."""
    twin = copy.deepcopy(model)  # so that both passes drop the same units, and the model's own draws stay
    with flow.clip_steps(clip_step), flow.gradient_flow() as flows:
        twin.loss_and_gradients(*batch) if isinstance(twin, CharLM) else twin.loss_and_gradients(batch)
    stacks: dict[str, list[flow.Flow]] = {}
    for name, part in twin._parts.items():
        own = sorted((f for f in flows if f.layer is part), key=lambda f: (f.index, f.reverse))
        stacks |= {name.partition(".")[0]: own} if own else {}
    return stacks


def _decades(row):
    """A logarithmic axis of whole decades."""
    values = np.concatenate([line.get_ydata() for line in row.lines])
    powers = np.log10(values[np.isfinite(values)])
    if len(powers):
        low = np.floor(powers.min())
        row.set(yscale="log", ylim=(10**low, 10 ** max(np.ceil(powers.max()), low + 1)))


def _bad(line):
    return "" if line.first_bad is None else f" (not finite at {line.first_bad})"


def _line(row, values, i, label, dash):
    """A line told from its neighbours by colour and marker, with gaps for what a logarithmic axis lacks."""
    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    row.plot(
        shown, color=COLOURS[i % len(COLOURS)], marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
        markevery=max(1, len(values) // 8), linestyle=dash, label=label,
        markerfacecolor=None if dash == "-" else "white",
    )  # fmt: skip


def curves(metrics: str | os.PathLike[str] | Iterable[Any], speed: bool = False) -> Figure:
    """Training and validation loss over the steps or epochs.

    metrics : the JSON-lines file of `fastrnn charlm train --metrics`, "-" for standard input; or records, each a
        mapping or an object, with step or epoch, train_loss or loss, and if they are known val_loss or
        validation_loss, chars_per_second
    speed : characters a second too, below

    Raises ValueError: `run.jsonl: line 3: expected a JSON object`, `metrics: expected records of step and loss, got
    none`, `metrics: expected chars_per_second, got none`; ImportError: see `gradient_flow`.
    """
    if isinstance(metrics, (str, os.PathLike)):
        name, records = source_name(metrics), _read(metrics)
    else:
        name, records = "metrics", [_mapping(record) for record in metrics]
    time = "epoch" if records and "epoch" in records[0] else "step"
    wanted = ("train_loss", "loss"), ("val_loss", "validation_loss"), ("chars_per_second",)
    train, validation, rate = (_points(records, time, names) for names in wanted)
    if not train and not validation:
        raise ValueError(f"{name}: expected records of {time} and loss, got none")
    if speed and not rate:
        raise ValueError(f"{name}: expected chars_per_second, got none")
    with styled():
        figure, rows = axes("training", 1 + speed, height=3.4 + 1.6 * speed, ratios=(3, 1.4) if speed else None)
        for i, (points, label) in enumerate(((train, "training"), (validation, "validation"))):
            if points:
                many = 1 if len(points) < 12 else len(points) // 10
                rows[0].plot(
                    *zip(*points, strict=True), color=COLOURS[i], linestyle=DASHES[i], marker=MARKERS[i],
                    markevery=many, label=label,
                )  # fmt: skip
        rows[0].set_ylabel("loss, nats per character" if rate else "loss")
        rows[0].legend()
        if speed:
            rows[1].plot(*zip(*rate, strict=True), color=COLOURS[2], linestyle=DASHES[2])
            rows[1].set(ylabel="characters/s", ylim=(0, None))
            rows[1].yaxis.set_major_formatter("{x:,.0f}")
            figure.align_ylabels()
        rows[-1].set_xlabel(time)
        rows[-1].locator_params("x", integer=True)
        return figure


def _read(path):
    """The records of a JSON-lines file."""
    records = []
    for number, line in enumerate(io.StringIO(read_text(path)), 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"{source_name(path)}: line {number}: expected a JSON object")
        records.append(record)
    return records


def _mapping(record):
    if isinstance(record, dict):
        return record
    return record._asdict() if hasattr(record, "_asdict") else vars(record)


def _points(records: Sequence[dict[str, Any]], time: str, names: Sequence[str]) -> list[tuple[float, float]]:
    """(time, value) wherever both are known, of the first name that a record has."""
    points = []
    for record in records:
        value = next((record[name] for name in names if name in record), None)
        if isinstance(record.get(time), (int, float)) and isinstance(value, (int, float)):
            points.append((record[time], value))
    return points
