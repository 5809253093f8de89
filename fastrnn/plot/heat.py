"""How units follow a text: each character on the colour of an activation, as HTML and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks, ragged

Colour = tuple[int, int, int]

LEVELS = 10  # of either sign
# Blue and orange of Okabe and Ito, paler toward 0, light enough for black text.
_BELOW, _ABOVE, _NOTHING, INK = (86, 180, 233), (230, 159, 0), (255, 255, 255), (0, 0, 0)
DEPTHS = ("24bit", "256", "none")
_ALL = range(-LEVELS, LEVELS + 1)
_SIGNS = dict(zip(_ALL, "jihgfedcba 1234567890", strict=True))
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ background: #fff; color: #111; font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
h1 {{ font-size: 1.2em }}
h2 {{ font-size: 1em; margin-bottom: 0.3em }}
pre {{ font: 15px/1.7 monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 }}
span {{ color: #000; print-color-adjust: exact }}
[class^="b"] {{ text-decoration: underline dotted }}
{rules}
</style>
</head>
<body>
<h1>{title}</h1>
<p>After each character, from &minus;{limit} (below 0 underlined) {scale} to {limit}</p>
{parts}
</body>
</html>
"""


def colour(level: int) -> Colour:
    """Of a level in -LEVELS..LEVELS."""
    end, share = _ABOVE if level > 0 else _BELOW, abs(level) / LEVELS
    red, green, blue = (round(n + share * (e - n)) for n, e in zip(_NOTHING, end, strict=True))
    return red, green, blue


class Activations(NamedTuple):
    """Activations of units after each character of a text."""

    text: str  # of n characters
    units: tuple[int, ...]  # U of them
    values: np.ndarray  # (U, n), dimensionless
    title: str

    @property
    def limit(self) -> float:
        """The largest size of a value, where colours are strongest."""
        return float(np.abs(self.values).max(initial=0)) or 1.0

    @property
    def levels(self) -> np.ndarray:
        """(U, n) integers in -LEVELS..LEVELS."""
        return np.rint(self.values * (LEVELS / self.limit)).astype(int)

    def html(self) -> str:
        """A page that needs nothing else; what is below 0 is underlined, values show where the pointer is."""
        rules = "\n".join(f".{_class(i)}{{background:{_hex(colour(i))}}}" for i in _ALL)
        scale = "".join(f'<span class="{_class(i)}">&nbsp;</span>' for i in _ALL)
        parts = [
            f"<h2>unit {unit}</h2>\n<pre>{self._spans(values, levels)}</pre>"
            for unit, values, levels in zip(self.units, self.values.tolist(), self.levels.tolist(), strict=True)
        ]
        return _PAGE.format(
            title=escape(self.title), rules=rules, scale=scale, limit=f"{self.limit:.3g}", parts="\n".join(parts)
        )

    def _spans(self, values, levels):
        """The text in spans of one colour."""
        spans = []
        for level, run in groupby(zip(levels, values, self.text, strict=True), lambda each: each[0]):
            _, found, characters = zip(*run, strict=True)
            low, high = f"{min(found):.2f}", f"{max(found):.2f}"
            shown = escape("".join(map(_visible, characters)))
            title = low if low == high else f"{low} to {high}"
            spans.append(f'<span class="{_class(level)}" title="{title}">{shown}</span>')
        return "".join(spans)

    def _repr_html_(self) -> str:
        return self.html()

    def ansi(self, depth: str = "24bit") -> str:
        """Lines for a terminal.

        depth : of its colours, "24bit" or "256"; "none": under each line of the text one of 1 to 9, 0 for the
            strongest, and below zero a to j
        """
        checks.choice("depth", depth, DEPTHS)
        lines = [self.title]
        if depth == "none":
            lines.append(f"a..j: below 0, down to -{self.limit:.3g}; 1..9, 0: above 0, up to {self.limit:.3g}")
        else:
            scale = "".join(_painted(" ", i, depth) for i in _ALL)
            lines.append(f"-{self.limit:.3g} (below 0 underlined) {scale} {self.limit:.3g}")
        for unit, levels in zip(self.units, self.levels.tolist(), strict=True):
            lines.append(f"\nunit {unit}")
            start = 0
            for line in self.text.splitlines(keepends=True) if self.text else ():
                part = levels[start : start + len(line)]
                start += len(line)
                shown = [(_visible(c).rstrip("\n"), level) for c, level in zip(line, part, strict=True)]
                if depth == "none":
                    lines += ["".join(c for c, _ in shown), "".join(_SIGNS[level] for _, level in shown).rstrip()]
                else:
                    runs = groupby(shown, lambda each: each[1])
                    lines.append("".join(_painted("".join(c for c, _ in run), level, depth) for level, run in runs))
        return "\n".join(lines) + "\n"


def activations(model: Any, text: str, unit: int | Sequence[int], layer: int = -1, value: str = "h") -> Activations:
    """Activations of one or more units of a CharLM after each character of a text, from a state of zeros.

    Parameters
    ----------
    unit : index in the layer, or several
    layer : index from the first, or negative from the last
    value : "h", or what `return_cells` of the layer names: "c", "i", "f", "g", "o" of LSTM; "r", "z", "n" of GRU

    Raises ValueError: `unit: expected an integer in 0..127, got 128`, `layer: expected an integer in -2..1, got 2`,
    `value: expected one of h, i, f, g, o, c, got 'z'`, `text: character 'x' (U+0078) at 12 is not in the vocabulary`,
    `model: expected a CharLM, got SequenceTagger`. Cost: one pass of inference, all activations of all layers kept.
    """
    if not hasattr(model, "encode"):
        raise ValueError(f"model: expected a CharLM, got {type(model).__name__}")
    rnn = model.rnn
    layer = checks.integer("layer", layer, -rnn.num_layers, rnn.num_layers - 1)
    units = tuple(unit) if isinstance(unit, Sequence) else (unit,)
    tokens = model.encode(text)
    table = model.embedding.parameters["weight"] if model.embedding else None
    states = rnn.arrays_of("state", rnn.state_names, None, (rnn.num_layers, 1), [""] * len(rnn.state_names))
    kept = rnn.run(tokens, states, [ragged.dense(len(tokens), 1)], training=False, keep=True, table=table)[3]()[layer]
    found = kept[checks.choice("value", value, tuple(kept))]
    units = tuple([checks.integer("unit", u, 0, found.shape[1] - 1) for u in units])
    title = f"{value} of {type(rnn).__name__} layer {layer % rnn.num_layers}, {rnn.hidden_size} units"
    return Activations(text, units, found.T[list(units)].astype(np.float64), title)


def _class(level):
    """Of CSS: a0, a1 ... above 0 and b1 ... below."""
    return f"{'a' if level >= 0 else 'b'}{abs(level)}"


def _hex(colour):
    return "#" + "".join(f"{n:02x}" for n in colour)


def _visible(c):
    """A character that can be seen and that commands no terminal; line ends show and stay."""
    if c == "\n":
        return "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n"
    if ord(c) < 32:
        return chr(0x2400 + ord(c))
    return "\N{REPLACEMENT CHARACTER}" if 127 <= ord(c) < 160 else c


def _painted(text, level, depth):
    """Text on the colour of a level."""
    if depth == "24bit":
        back, fore = (f"2;{';'.join(map(str, c))}" for c in (colour(level), INK))
    else:
        back, fore = (f"5;{16 + 36 * r + 6 * g + b}" for r, g, b in (_sixths(c) for c in (colour(level), INK)))
    return f"\x1b[{'4;' * (level < 0)}48;{back};38;{fore}m{text}\x1b[0m"


def _sixths(colour):
    """The nearest of the six steps of each channel that terminals of 256 colours have."""
    return [min(range(6), key=lambda i: abs((0, 95, 135, 175, 215, 255)[i] - n)) for n in colour]
