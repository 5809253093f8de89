"""What benchmarks run: the cells, and the shapes: the goals' sizes, sizes that others published, and odd ones."""

from typing import Any, NamedTuple


class Cell(NamedTuple):
    """A recurrent cell and how its layers are called."""

    layer: str  # in fastrnn, torch.nn and ONNX; with "Cell" behind it a single step in the first two
    gates: int
    states: int
    options: dict[str, Any]  # of the constructors in fastrnn and torch.nn


CELLS = {
    "tanh": Cell("RNN", 1, 1, {"nonlinearity": "tanh"}),
    "relu": Cell("RNN", 1, 1, {"nonlinearity": "relu"}),
    "gru": Cell("GRU", 3, 1, {}),
    "lstm": Cell("LSTM", 4, 2, {}),
}

DEFAULT_CELLS = ("tanh", "gru", "lstm")


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
        return 2 * (self.T * self.B if steps is None else steps) * CELLS[cell].gates * self.H * (self.I + self.H)


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
