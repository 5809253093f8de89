"""What a layer or a model consists of, and which of its steps have inputs and outputs; found by its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_FLAVOURS = {
    "CharLM": ": many to many, step by step",
    "SequenceTagger": ": many to many, step by step",
    "SequenceClassifier": ": many to one",
    "SequenceRegressor": ": many to one",
    "SequenceGenerator": ": one to many",
    "Seq2Seq": ": many to many, the output after the input",
}


class Layer(NamedTuple):
    """One recurrent layer, all its directions; shapes as text."""

    name: str
    directions: int
    states: tuple[tuple[str, str], ...]  # name, and shape at a step
    input: str  # shape at a step
    input_weight: str
    weights: tuple[str, ...]  # of the loop, named
    output: str  # shape at a step, the directions side by side


class Linear(NamedTuple):
    """A map by a table or a matrix."""

    name: str
    weight: str
    output: str  # shape


class Strand(NamedTuple):
    """Recurrent layers over steps, what feeds them and what reads them."""

    title: str
    layers: tuple[Layer, ...]
    feeds: str  # "given", or "back": the output of the step before
    input: tuple[str, str]  # symbol, shape at a step
    embedding: Linear | None
    reads: str  # "every" step, "last", "mean" or "max" over the steps, "none"
    head: Linear | None


class Wiring(NamedTuple):
    """One strand, or an encoder and a decoder; a condition is a vector given once, with no steps."""

    title: str
    strands: tuple[Strand, ...]
    condition: str = ""  # shape
    mixed: bool = False  # the condition is fed to every step
    bridge: Linear | None = None  # from the condition, or from both directions of the encoder, to the initial state
    attention: Linear | None = None  # between the decoder and its head
    memory: Linear | None = None  # of all the encoder's outputs, before attention


def wiring_of(model: Any) -> Wiring:
    """The wiring of a recurrent layer or of a model.

    Raises ValueError: `plot: expected a recurrent layer or a model of recurrent layers, got Linear`.
    """
    if _recurrent(model):
        layers = _layers(model)
        strand = Strand("", layers, "given", ("x", _shape(model.input_size)), None, "every", None)
        return Wiring(_named(model), (strand,))
    kind, config = type(model).__name__, getattr(model, "config", {})
    parts: Mapping[str, Any] = getattr(model, "_parts", {})
    recurrent = [name for name, part in parts.items() if _recurrent(part)]
    if not recurrent:
        raise ValueError(f"plot: expected a recurrent layer or a model of recurrent layers, got {kind}")
    maps = {name: _linear(name, part) for name, part in parts.items() if not _recurrent(part)}
    head = maps.get("head") or maps.get("decoder")
    strands = []
    for i, name in enumerate(recurrent):
        rnn, prefix = parts[name], name.removesuffix("rnn")
        encodes, back = i + 1 < len(recurrent), kind == "SequenceGenerator" or i > 0
        reads = "none" if encodes else config.get("pooling", "every")
        embedding = maps.get(prefix + "embedding")
        tokens = embedding or "vocabulary" in config or config.get("num_tokens") or prefix
        strands.append(
            Strand(
                prefix.rstrip("."), _layers(rnn), "back" if back else "given",
                ("y" if back else "x", "(B,)" if tokens else _shape(rnn.input_size)),
                embedding, reads, None if encodes else head,
            )
        )  # fmt: skip
    condition = _shape(config["condition_size"]) if "condition_size" in config else ""
    bridge = maps.get("bridge") or maps.get("bridge.h")
    mixed = config.get("condition") in ("input", "both")
    title = kind + _FLAVOURS.get(kind, "")
    return Wiring(title, tuple(strands), condition, mixed, bridge, maps.get("attention"), maps.get("memory"))


def _linear(name, part):
    """A table or a matrix; of `encoder.embedding` the last word is its name, of `bridge.h` the first."""
    first, _, last = name.rpartition(".")
    weight = part.parameters["weight"].shape
    columns = weight[1] if last == "embedding" else weight[0]
    return Linear(last if last == "embedding" else first or last, _shape(*weight, batch=False), _shape(columns))


def _recurrent(part):
    return hasattr(part, "state_names") and hasattr(part, "num_layers")


def _named(rnn):
    cell = type(rnn).__name__
    shape = f"{cell}, input {rnn.input_size}, hidden {rnn.hidden_size}"
    return shape + f", {rnn.num_layers} layers" * (rnn.num_layers > 1) + ", both directions" * rnn.bidirectional


def _layers(rnn):
    """The layers of a stack."""
    H, D, p = rnn.hidden_size, 2 if rnn.bidirectional else 1, rnn.parameters
    P, gates = getattr(rnn, "proj_size", 0) or H, len(p["weight_hh_l0"]) // H
    rows = f"{gates}\N{MIDDLE DOT}{H}" if gates > 1 else H
    columns = f"{D}\N{MIDDLE DOT}{P}" if D > 1 else P
    layers = []
    for k in range(rnn.num_layers):
        weights = [f"W_hh {_shape(rows, P, batch=False)}"]
        if P < H:
            weights.append(f"W_hr {_shape(P, H, batch=False)}")
        if f"weight_ch_l{k}" in p:
            weights.append(f"W_ch {_shape(3, H, batch=False)}")
        states = tuple((state, _shape(P if state == "h" else H)) for state in rnn.state_names)
        inputs = columns if k else rnn.input_size
        weight = f"W_ih {_shape(rows, inputs, batch=False)}"
        name = f"{type(rnn).__name__} {k}"
        layers.append(Layer(name, D, states, _shape(inputs), weight, tuple(weights), _shape(columns)))
    return tuple(layers)


def _shape(*sizes, batch=True):
    return f"({', '.join(map(str, ('B', *sizes) if batch else sizes))})"
