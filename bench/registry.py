"""What benchmarks run: cells that torch has too, and shapes: the goals', those that others published, odd ones."""

from typing import Any, NamedTuple

from fastrnn.kinds import KINDS

CELLS = {kind.name: kind for kind in KINDS.values() if kind.torch}  # with which there is something to compare
DEFAULT_CELLS = ("tanh", "gru", "lstm")


def built(module: Any, cell: str, *sizes: int, step: bool = False, **options: Any) -> Any:
    """A layer of fastrnn, fastrnn.torch or torch.nn, which call them the same; with `step` a single step."""
    own = CELLS[cell].torch
    return getattr(module, own.name + "Cell" * step)(*sizes, **own.attributes, **options)


class Shape(NamedTuple):
    """Steps, batch, input and hidden size of one layer."""

    T: int
    B: int
    I: int
    H: int

    def __str__(self) -> str:
        return ",".join(map(str, self))

    def flops(self, cell: str, steps: int | None = None) -> int:
        """Of the products of the forward pass; forward and backward take three times as many.

        steps : of all sequences together, T*B if None
        """
        return 2 * (self.T * self.B if steps is None else steps) * len(CELLS[cell].gates) * self.H * (self.I + self.H)


SHAPES = {
    "min-char-rnn": Shape(25, 1, 65, 100),
    "batch of one": Shape(100, 1, 64, 128),
    "small": Shape(50, 32, 128, 128),
    "medium": Shape(50, 64, 256, 256),
    "char-rnn": Shape(50, 64, 512, 512),
    "medium PTB": Shape(35, 20, 650, 650),
    "large": Shape(50, 128, 1024, 1024),
    "DeepBench RNN": Shape(50, 16, 1760, 1760),
    "DeepBench small batch": Shape(150, 4, 256, 256),
    "MXNet": Shape(300, 20, 800, 800),
    "odd": Shape(20, 7, 33, 77),
    "odd wide": Shape(64, 48, 300, 450),
    "short, wide batch": Shape(10, 256, 64, 64),
}

FLOAT64 = ("min-char-rnn", "small", "medium", "odd")

CASES = [(name, "float32") for name in SHAPES] + [(name, "float64") for name in FLOAT64]
