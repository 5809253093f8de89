"""The recipe of the minimal character model, for the compiled model. Reference twin: fastrnn.reference.min_char_rnn.

One tanh layer of 100 units, one window of 25 one-hot characters an update, the hidden state carried along, weights
0.01 N(0, 1) and biases 0, Adagrad at a constant rate of 0.1 with 1e-8 under the root, and the gradients of the loss
summed over the window clipped at 5 each.

Source: Karpathy, The unreasonable effectiveness of recurrent neural networks (2015).
"""

import numpy as np

from fastrnn.models import CharLM
from fastrnn.optim import Adagrad
from fastrnn.parameters import Parameters
from fastrnn.training.text import Batches

HIDDEN_SIZE, SEQ_LENGTH, LR, CLIP_VALUE = 100, 25, 0.1, 5.0
SETTINGS = {"clip_value": CLIP_VALUE, "scale": float(SEQ_LENGTH), "decay": False, "smoothing": 0.001}  # of `loop.train`


class _Adagrad(Adagrad):
    """Adagrad for the recipe's single bias: the recurrent one, of two with the same gradient, stays 0."""

    def step(self, grads: Parameters) -> None:  # type: ignore[override] # the recipe's loop always has them
        grads["rnn.bias_hh_l0"] = np.zeros(HIDDEN_SIZE)
        super().step(grads)


def build(vocabulary: str, dtype: str = "float64", seed: int = 0) -> tuple[CharLM, Adagrad]:
    """The model and its optimiser; the weights are those of the reference's `init(V, 100, default_rng(seed))`."""
    model = CharLM(vocabulary, "tanh", HIDDEN_SIZE, dtype=dtype)
    p, rng = model.parameters, np.random.default_rng(seed)
    p.flat.fill(0)
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "decoder.weight"):
        p[name] = 0.01 * rng.standard_normal(p.shapes[name])
    return model, _Adagrad(p, LR, eps=1e-8, eps_inside=True)


def windows(tokens: np.ndarray) -> Batches:
    """The recipe's windows: the text starts again with 26 characters left, which would still make a window."""
    return Batches(tokens[:-1] if len(tokens) > SEQ_LENGTH + 1 else tokens, 1, SEQ_LENGTH)
