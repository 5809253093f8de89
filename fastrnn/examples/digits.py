"""Many to one: handwritten digits, read row by row.

A bidirectional GRU reads scikit-learn's images of 8x8 pixels as sequences of 8 rows, and says which digit they show.
"""

import numpy as np

from fastrnn.examples.shared import Result, Run, picked
from fastrnn.models import SequenceClassifier

HELD_OUT = 5  # every fifth image, of 1797
SHADES = " .:-=+*#%@"


def data(count: int, held_out: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(images, classes) to learn from, and to test on: (B, 8 rows, 8 pixels) float32 in 0..1, and (B,) integers."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("example digits: needs scikit-learn: pip install scikit-learn") from None
    digits = load_digits()
    images, places = (digits.images / 16).astype("float32"), np.arange(len(digits.images))
    learned, tested = places[places % HELD_OUT > 0][:count], places[places % HELD_OUT == 0][:held_out]
    return (images[learned], digits.target[learned]), (images[tested], digits.target[tested])


def run(run: Run) -> Result:
    """Train on four fifths of scikit-learn's digits, and read the others."""
    (images, classes), (held_out, expected) = data(run.samples(1437), run.samples(360))

    model = SequenceClassifier(10, input_size=8, cell="gru", hidden_size=64, bidirectional=True, seed=run.seed)
    run.fit(model, images, classes, epochs=30, batch_size=32, lr=5e-3)

    got = model.predict(held_out)
    shown = [drawn(held_out[i], f"is {expected[i]}, got {got[i]}") for i in picked(got == expected, 6)]
    lines = ["  ".join(parts).rstrip() for parts in zip(*shown, strict=True)]
    return Result("\n".join(lines), float(np.mean(got == expected)), 0.97, f"{len(got)} images that it had not seen")


def drawn(image: np.ndarray, caption: str) -> list[str]:
    """An image (8, 8) and a caption in lines of equal length, two characters a pixel."""
    rows = ["".join(2 * SHADES[int(9 * pixel)] for pixel in row) for row in image]
    return [*rows, caption.ljust(2 * image.shape[1])]
