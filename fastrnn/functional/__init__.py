"""Operations on arrays: compare, allocate, launch. Each returns its result and a pullback.

`out, pullback = operation(...)`; `pullback(d_out, ...)` gives the gradients of sum(d_out * out). Parameters' gradients
go into arrays that the caller provides, so that a model's land in one flat buffer. A pullback uses the operation's
inputs and output as they are when it is called: call it before they change.

For everybody: kernels read and write where the sizes say, so every array is compared with all that imply its shape,
dtype and layout, at the call and at the pullback, before anything is allocated. What is read may be of any layout; what
is written is C-contiguous. Indices are looked at one by one, and copied where a pullback goes by them again. Only
`run_layer` and the step that `stepper` gives look at nothing: they are for callers that have.
"""

from fastrnn.functional.attention import attention, attention_weights
from fastrnn.functional.losses import cross_entropy, linear_cross_entropy
from fastrnn.functional.products import linear, product
from fastrnn.functional.recurrence import recurrent, recurrent_layer, run_layer, stepper
from fastrnn.functional.recursive import recursive
from fastrnn.functional.rows import embedding, gather
from fastrnn.functional.time_delay import time_delay
from fastrnn.functional.weights import Bound, Weights, bound

__all__ = [
    "Bound",
    "Weights",
    "attention",
    "attention_weights",
    "bound",
    "cross_entropy",
    "embedding",
    "gather",
    "linear",
    "linear_cross_entropy",
    "product",
    "recurrent",
    "recurrent_layer",
    "recursive",
    "run_layer",
    "stepper",
    "time_delay",
]
