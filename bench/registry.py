"""The shapes that benchmarks run: the goals' sizes, sizes that others published, and odd ones that nobody tuned for."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Steps, batch, input and hidden size of one Elman layer."""

    T: int
    B: int
    I: int
    H: int

    def __str__(self) -> str:
        return ",".join(map(str, self))

    @property
    def flops(self) -> int:
        """Of the products of the forward pass; forward and backward take three times as many."""
        return 2 * self.T * self.B * self.H * (self.I + self.H)


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
