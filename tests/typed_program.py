"""A user's program, whose types mypy is to know: what layers, models and optimisers give."""

from typing import assert_type

import numpy as np

import fastrnn
from fastrnn import LSTM, Linear, Packed, TimeDelay, functional, gradcheck, models, optim
from fastrnn.parameters import Parameters

rng = np.random.default_rng(0)
x: np.ndarray = rng.standard_normal((5, 3, 4)).astype("float32")
packed = Packed(x[0], np.array([0, 1, 3]))

lstm, linear = LSTM(4, 8, num_layers=2, bidirectional=True, seed=0), Linear(16, 2, seed=0)
y, (h, c) = lstm(x)
assert_type(y, np.ndarray)
assert_type(lstm(packed, lengths=None)[0], Packed)
assert_type(lstm.parameters, Parameters)
assert_type(lstm.parameters["weight_ih_l0"], np.ndarray)
assert_type(lstm.hidden_size, int)
assert_type(lstm.state_dict(), dict[str, np.ndarray])

(y, state), pullback = lstm.vjp(x, lengths=[5, 2, 0])
logits, unlinear = linear.vjp(y)
assert_type(logits, np.ndarray)
loss, unloss = fastrnn.cross_entropy(logits.reshape(-1, 2), rng.integers(2, size=15))
assert_type(loss, float)
dy, d_linear = unlinear(unloss(1.0).reshape(logits.shape))
assert_type(dy, np.ndarray)
dx, d_initial, grads = pullback(dy)
assert_type(dx, np.ndarray)
assert_type(grads, Parameters)

optimizer = optim.Adam(Parameters.joined({"rnn": lstm.parameters, "head": linear.parameters}), lr=1e-3)
assert_type(optimizer.lr, float)
assert_type(optim.clip_grad_norm(grads, 5.0), float)

z, unconvolve = TimeDelay(4, 2, kernel_size=3, seed=0).vjp(packed)
assert_type(z, Packed)
assert_type(unconvolve(z)[0], Packed)

product, unproduct = functional.linear(x[0], rng.standard_normal((2, 4)).astype("float32"), None)
assert_type(product, np.ndarray)

stream = LSTM(4, 8, seed=0).stream(batch_size=3)
assert_type(stream(x[0]), np.ndarray)

model = models.SequenceClassifier(num_classes=2, input_size=4, hidden_size=8, seed=0)
assert_type(model.predict([x[:, 0], x[:, 1]]), np.ndarray)
assert_type(
    gradcheck.check_layer(LSTM(2, 3, dtype="float64", seed=0), rng.standard_normal((2, 1, 2))), gradcheck.Report
)
