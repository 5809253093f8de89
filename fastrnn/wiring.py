"""What layers and models are made of, as they state it themselves: parts in lanes, and links between them."""

from __future__ import annotations

from typing import Any, NamedTuple


class Part(NamedTuple):
    """A part of a lane, fed by the one below; the two directions of a layer share what feeds and what reads them."""

    name: str
    kind: str  # "input", "linear", "recurrent", "join" or "output"
    shape: str = ""  # of what it gives, at a step
    weights: tuple[str, ...] = ()  # that act on what feeds it
    label: str = ""  # if it isn't the name; the step is written as in x_t or y_{t-1}
    steps: str = "each"  # there is one at "each" step, or only one, which reads "all" steps or the "last"
    direction: int = 0  # of two: 1 from the first step to the last, -1 back
    states: tuple[tuple[str, str], ...] = ()  # what it hands to its next step, as h_{t-1}, and the shapes
    loop: tuple[str, ...] = ()  # weights that act on the states
    fed: bool = True  # by the part below

    def of(self, lane: str) -> Part:
        """The part of a lane with a title, by its whole name."""
        return self._replace(name=f"{lane} {self.name}".strip(), label=self.label or self.name)


class Link(NamedTuple):
    """What flows from one part to another, but for the one above it; parts are named with their lane's title."""

    source: str
    target: str
    kind: str  # "state": what is last becomes the first state; "every": to each step; "back": to the next step


class Lane(NamedTuple):
    """Parts from the bottom to the top, over the same steps."""

    title: str
    parts: list[Part]


class Wiring(NamedTuple):
    """Lanes from left to right, and the links between their parts."""

    title: str
    lanes: tuple[Lane, ...]
    links: tuple[Link, ...] = ()


def shape(*sizes: int | str) -> str:
    """Sizes as text."""
    return f"({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})"


def vectors(columns: int) -> Part:
    """An input of vectors."""
    return Part("input", "input", shape("B", columns), label="x_t")


def tokens(embedding: Any, label: str = "x_t") -> list[Part]:
    """An input of tokens, and their embedding if there is one."""
    given = Part("input", "input", shape("B"), label=label)
    return [given, linear("embedding", embedding, embedding.embedding_dim)] if embedding else [given]


def linear(name: str, layer: Any, columns: int, steps: str = "each") -> Part:
    """A Linear or an Embedding that gives so many columns."""
    return Part(name, "linear", shape("B", columns), (f"weight {shape(*layer.parameters['weight'].shape)}",), "", steps)


def recurrent(rnn: Any, read: str = "each") -> list[Part]:
    """The layers of a stack; read: the steps, if any, at which something reads the last of them."""
    parts, H, P = [], rnn.hidden_size, rnn.proj_size or rnn.hidden_size
    both = ((" forward", " \N{RIGHTWARDS ARROW}", 1), (" reverse", " \N{LEFTWARDS ARROW}", -1))
    for k in range(rnn.num_layers):
        layer, (into, *loop) = f"{type(rnn).__name__} {k}", _weights(rnn, k)
        for word, arrow, way in both if rnn.bidirectional else (("", "", 0),):
            before = "{t+1}" if way < 0 else "{t-1}"
            states = tuple([(f"{s}_{before}", shape("B", H if i else P)) for i, s in enumerate(rnn.state_names)])
            part = Part(layer + word, "recurrent", states[0][1], (into,), label=layer + arrow, direction=way)
            parts.append(part._replace(states=states, loop=tuple(loop)))
        steps = "each" if k + 1 < rnn.num_layers else read
        if rnn.bidirectional and steps:
            parts.append(Part(f"{layer} concat", "join", shape("B", _product(2 * P, P)), label="concat", steps=steps))
    return parts


def output(steps: str = "each") -> Part:
    """What a model gives."""
    return Part("output", "output", label="y_t" if steps == "each" else "y", steps=steps)


def _weights(rnn, k):
    """The weights of layer k in one direction with their shapes, as torch orders them: that of the input first."""
    for name, weight in rnn.parameters.items():
        stem, _, layer = name.rpartition("_l")
        if layer == str(k) and stem.startswith("weight"):
            rows, *columns = weight.shape
            yield f"W{stem.removeprefix('weight')} {shape(_product(rows, rnn.hidden_size), *columns)}"


def _product(n, size):
    """A multiple of a size, written as such."""
    return f"{n // size}\N{MIDDLE DOT}{size}" if n > size and n % size == 0 else n
