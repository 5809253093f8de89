"""Operations on arrays: check, allocate, launch. Each returns its result and a pullback.

`out, pullback = operation(...)`; `pullback(d_out, ...)` gives the gradients of sum(d_out * out). Parameters' gradients
go into arrays that the caller provides, so that a model's land in one flat buffer. A pullback uses the operation's
inputs and output as they are when it is called: call it before they change.
"""

from fastrnn.functional.attention import attention, attention_weights
from fastrnn.functional.losses import cross_entropy, linear_cross_entropy
from fastrnn.functional.products import linear, product
from fastrnn.functional.recurrence import Weights, recurrent, recurrent_layer, stepper
from fastrnn.functional.recursive import recursive
from fastrnn.functional.rows import embedding, gather
from fastrnn.functional.time_delay import time_delay

__all__ = [
    "Weights",
    "attention",
    "attention_weights",
    "cross_entropy",
    "embedding",
    "gather",
    "linear",
    "linear_cross_entropy",
    "product",
    "recurrent",
    "recurrent_layer",
    "recursive",
    "stepper",
    "time_delay",
]
