"""What ONNX's operators RNN, GRU and LSTM differ in from fastrnn's layers of these names.

Gates and peepholes have orders of their own, which fastrnn.kinds says. A first axis of W (D, G*H, I), R (D, G*H, H),
B (D, 2*G*H) and P (D, 3*H) counts the directions, and B is b_ih, then b_hh.

Source: the operator specification, https://onnx.ai/onnx/operators, of versions 7 to 22, which agree in all this.
"""

import math

import numpy as np

from fastrnn.kinds import KINDS, Kind

# The kinds that each operator computes; the first one's activations are the operator's if none are said.
_OURS = [(kind.onnx.name, kind) for kind in KINDS.values() if kind.onnx]
OPERATORS: dict[str, list[Kind]] = {name: [kind for own, kind in _OURS if own == name] for name, _ in _OURS}


def saturation(activation: str, dtype: np.dtype) -> float:
    """From where on to both infinities an activation changes by no more than half an ulp below 1, 2^-25 or 2^-54.

    9.02 and 19.1 for tanh, whose result is rounded to 1 there; 17.4 and 37.5 for sigmoid, 1 there or as little above 0;
    relu has no such bound but the largest number.
    """
    half = float(np.finfo(dtype).eps) / 4
    bounds = {"tanh": math.log(2 / half) / 2, "sigmoid": -math.log(half), "relu": float(np.finfo(dtype).max)}
    return bounds[activation]
