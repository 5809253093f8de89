"""Every error a user can cause: its type, its literal message, and that nothing has changed when it is raised."""

import numpy as np
import pytest
from oracles import import_torch

import fastrnn
from fastrnn import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    GRUCell,
    Linear,
    LSTMCell,
    Packed,
    Parameters,
    Recursive,
    RNNCell,
    TimeDelay,
    Trees,
    checks,
    cross_entropy,
    optim,
)
from fastrnn.models import CharLM, Seq2Seq

MOST = 2**63 - 1
MORE_THREADS = fastrnn.get_num_threads() + 1


def f32(*shape):
    return np.zeros(shape, np.float32)


def ints(*shape):
    return np.zeros(shape, np.int64)


def rnn(**options):
    return RNN(5, 18, 2, **options)


def rnn_pullback(*cotangents):
    return rnn().vjp(f32(4, 3, 5))[1](*cotangents)


def lstm(**options):
    return LSTM(5, 18, 2, **options)


def lstm_pullback(*cotangents, **options):
    return lstm(**options).vjp(f32(4, 3, 5))[1](*cotangents)


def packed(width=5):
    return Packed(f32(7, width), [0, 4, 4, 7])


def packed_pullback(dy):
    return rnn().vjp(packed())[1](dy)


def model(cell="tanh"):
    return CharLM("abc", cell, hidden_size=4)


def parameters():
    return RNN(2, 3).parameters  # 21 elements


def put(name, value):
    parameters()[name] = value


def refused(call):
    """An error without the reason that NumPy gives."""
    try:
        call()
    except TypeError as error:
        message = str(error)
        raise TypeError(message[: message.index(" (setting an array element with a sequence.")]) from None


def step_by_itself(p):
    optim.SGD(p).step(p)


def load(changes, without=()):
    layer = RNN(2, 3)
    layer.load_state_dict({k: v for k, v in layer.state_dict().items() if k not in without} | changes)


def load_optimizer(changes, without=()):
    optimizer = optim.Adam(parameters())
    optimizer.load_state_dict({k: v for k, v in optimizer.state_dict().items() if k not in without} | changes)


RNN_NAMES = "weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0"
SHAPE = "(T, B, input_size) or (T, input_size)"
BATCH_FIRST = "(B, T, input_size) or (T, input_size)"

SHAPES_AND_VALUES = {
    "input_size: expected an integer >= 0, got -1": lambda: RNN(-1, 3),
    "hidden_size: expected an integer >= 1, got 0": lambda: RNN(2, 0),
    "num_layers: expected an integer >= 1, got 0": lambda: RNN(2, 3, 0),
    "nonlinearity: expected one of tanh, relu, got 'sigmoid'": lambda: RNN(2, 3, nonlinearity="sigmoid"),
    "nonlinearity: expected one of tanh, relu, got 'sine'": lambda: RNNCell(2, 3, nonlinearity="sine"),
    "hidden_size: expected an integer >= 1, got -3": lambda: LSTM(2, -3),
    "dropout: expected a number in 0..1, got 2": lambda: GRU(2, 3, dropout=2),
    "nonlinearity: expected one of tanh, relu, got None": lambda: RNN(2, 3, nonlinearity=None),
    "p: expected a number in 0..1, got 1.5": lambda: Dropout(1.5),
    "p: expected a number in 0..1, got -0.1": lambda: Dropout(-0.1),
    "p: expected a number in 0..1, got nan": lambda: Dropout(float("nan")),
    "dropout: expected a number in 0..1, got 1.5": lambda: RNN(2, 3, dropout=1.5),
    "dropout: expected a number in 0..1, got -1": lambda: CharLM("ab", dropout=-1),
    "in_features: expected an integer >= 0, got -1": lambda: Linear(-1, 3),
    "out_features: expected an integer >= 0, got -2": lambda: Linear(3, -2),
    "num_embeddings: expected an integer >= 1, got 0": lambda: Embedding(0, 3),
    "embedding_dim: expected an integer >= 1, got 0": lambda: Embedding(3, 0),
    f"x: expected shape {SHAPE}, got ()": lambda: rnn()(np.float32(1)),
    f"x: expected shape {SHAPE}, got (5,)": lambda: rnn()(f32(5)),
    f"x: expected shape {SHAPE}, got (1, 4, 3, 5)": lambda: rnn()(f32(1, 4, 3, 5)),
    f"x: expected shape {SHAPE} = (4, 3, 5), got (4, 3, 6)": lambda: rnn()(f32(4, 3, 6)),
    f"x: expected shape {SHAPE} = (4, 5), got (4, 1)": lambda: rnn().vjp(f32(4, 1)),
    f"x: expected shape {BATCH_FIRST} = (3, 4, 5), got (3, 4, 6)": lambda: rnn(batch_first=True)(f32(3, 4, 6)),
    "h0: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (1, 3, 18)": lambda: rnn()(
        f32(4, 3, 5), f32(1, 3, 18)
    ),
    "h0: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (2, 1, 18)": lambda: rnn()(
        f32(4, 3, 5), f32(2, 1, 18)
    ),
    "h0: expected shape (num_layers, B, hidden_size) = (2, 4, 18), got (2, 3, 18)": lambda: rnn(batch_first=True)(
        f32(4, 3, 5), f32(2, 3, 18)
    ),
    "h0: expected shape (num_layers, hidden_size) = (2, 18), got (2, 1, 18)": lambda: rnn()(f32(4, 5), f32(2, 1, 18)),
    "dy: expected shape (4, 3, 18), got (4, 3, 1)": lambda: rnn_pullback(f32(4, 3, 1)),
    "dy: expected shape (4, 3, 18), got ()": lambda: rnn_pullback(np.float32(1)),
    "dh_n: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (3, 18)": lambda: rnn_pullback(
        None, f32(3, 18)
    ),
    "h0: expected shape (2*num_layers, B, hidden_size) = (4, 3, 18), got (2, 3, 18)": lambda: GRU(
        5, 18, 2, bidirectional=True
    )(f32(4, 3, 5), f32(2, 3, 18)),
    "h0: expected shape (num_layers, B, proj_size) = (2, 3, 7), got (2, 3, 18)": lambda: lstm(proj_size=7)(
        f32(4, 3, 5), (f32(2, 3, 18), None)
    ),
    "c0: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (2, 3, 7)": lambda: lstm(proj_size=7)(
        f32(4, 3, 5), (None, f32(2, 3, 7))
    ),
    "c0: expected shape (num_layers, hidden_size) = (2, 18), got (2, 1, 18)": lambda: lstm()(
        f32(4, 5), (f32(2, 18), f32(2, 1, 18))
    ),
    "initial: expected (h0, c0), got ndarray": lambda: lstm()(f32(4, 3, 5), f32(2, 3, 18)),
    "initial: expected (h0, c0), got tuple of 1": lambda: lstm()(f32(4, 3, 5), (f32(2, 3, 18),)),
    "initial: expected (h0, c0), got list of 3": lambda: lstm()(f32(4, 3, 5), [None] * 3),
    "h0: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (2, 2, 3, 18)": lambda: rnn()(
        f32(4, 3, 5), (f32(2, 3, 18), f32(2, 3, 18))
    ),
    "d_state: expected (dh_n, dc_n), got ndarray": lambda: lstm_pullback(None, f32(2, 3, 18)),
    "dc_n: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (2, 3)": lambda: lstm_pullback(
        None, (None, f32(2, 3))
    ),
    "dy: expected shape (4, 3, 7), got (4, 3, 18)": lambda: lstm_pullback(f32(4, 3, 18), proj_size=7),
    "proj_size: expected an integer in 0..17, got 18": lambda: lstm(proj_size=18),
    "proj_size: expected an integer in 0..17, got -1": lambda: lstm(proj_size=-1),
    "forget_bias: expected None without bias, got 1.0": lambda: lstm(bias=False, forget_bias=1.0),
    "lengths: expected shape (B,) = (3,), got (2,)": lambda: rnn()(f32(4, 3, 5), lengths=[4, 4]),
    "lengths: expected shape (B,) = (3,), got ()": lambda: rnn()(f32(4, 3, 5), lengths=4),
    "lengths: expected shape (B,) = (3,), got (1, 3)": lambda: rnn().vjp(f32(4, 3, 5), lengths=[[4, 4, 4]]),
    "lengths: expected shape (B,) = (4,), got (3,)": lambda: rnn(batch_first=True)(f32(4, 3, 5), lengths=[3, 3, 3]),
    "lengths: expected shape (B,) = (1,), got (2,)": lambda: rnn()(f32(4, 5), lengths=[4, 4]),
    "lengths: expected 0 <= length <= 4, got 5": lambda: rnn()(f32(4, 3, 5), lengths=[4, 5, 9]),
    "lengths: expected 0 <= length <= 4, got -1": lambda: rnn()(f32(4, 3, 5), lengths=[0, -1, 2]),
    "lengths: expected 0 <= length <= 3, got 4": lambda: rnn(batch_first=True)(f32(4, 3, 5), lengths=[4] * 4),
    "lengths: expected None with a Packed x, got [4, 0, 3]": lambda: rnn()(packed(), lengths=[4, 0, 3]),
    "x.data: expected shape (N, input_size) = (7, 5), got (7, 6)": lambda: rnn()(packed(6)),
    "x.data: expected shape (N, input_size) = (7, 5), got (7,)": lambda: rnn()(Packed(f32(7), [0, 4, 4, 7])),
    "h0: expected shape (num_layers, B, hidden_size) = (2, 3, 18), got (2, 7, 18)": lambda: rnn()(
        packed(), f32(2, 7, 18)
    ),
    "dy: expected shape (7, 18), got (4, 3, 18)": lambda: packed_pullback(f32(4, 3, 18)),
    "dy: expected shape (7, 18), got (7, 5)": lambda: packed_pullback(packed()),
    "dy.offsets: expected [0, 4, 4, 7], got [0, 4, 7]": lambda: packed_pullback(Packed(f32(7, 18), [0, 4, 7])),
    "x: expected shape (B, input_size) or (input_size,), got (1, 3, 5)": lambda: GRUCell(5, 18)(f32(1, 3, 5)),
    "x: expected shape (B, input_size) or (input_size,), got ()": lambda: RNNCell(5, 18)(np.float32(1)),
    "x: expected shape (B, input_size) or (input_size,) = (3, 5), got (3, 6)": lambda: LSTMCell(5, 18)(f32(3, 6)),
    "x: expected shape (B, input_size) or (input_size,) = (5,), got (6,)": lambda: LSTMCell(5, 18)(f32(6)),
    "h: expected shape (B, hidden_size) = (3, 18), got (1, 18)": lambda: GRUCell(5, 18)(f32(3, 5), f32(1, 18)),
    "h: expected shape (hidden_size,) = (18,), got (1, 18)": lambda: RNNCell(5, 18)(f32(5), f32(1, 18)),
    "c: expected shape (B, hidden_size) = (3, 18), got (3, 17)": lambda: LSTMCell(5, 18)(f32(3, 5), (None, f32(3, 17))),
    "state: expected (h, c), got ndarray": lambda: LSTMCell(5, 18)(f32(3, 5), f32(3, 18)),
    "d_state: expected (dh, dc), got ndarray": lambda: LSTMCell(5, 18).vjp(f32(3, 5))[1](f32(3, 18)),
    "dh: expected shape (B, hidden_size) = (3, 18), got (3, 5)": lambda: GRUCell(5, 18).vjp(f32(3, 5))[1](f32(3, 5)),
    "state: expected (h, c), got list of 0": lambda: model("lstm").loss(ints(4, 3), ints(4, 3), []),
    "x: expected shape (..., in_features) = (4, 3), got (4, 5)": lambda: Linear(3, 2)(f32(4, 5)),
    "x: expected shape (..., in_features) = (3,), got ()": lambda: Linear(3, 2)(np.float32(1)),
    "dy: expected shape (4, 2), got (4, 3)": lambda: Linear(3, 2).vjp(f32(4, 3))[1](f32(4, 3)),
    "tokens: expected 0 <= token < 5, got 5": lambda: Embedding(5, 2)([0, 5, 7]),
    "tokens: expected 0 <= token < 5, got -1": lambda: Embedding(5, 2)([[0], [-1]]),
    "dy: expected shape (3, 2), got (2, 3)": lambda: Embedding(5, 2).vjp(ints(3))[1](f32(2, 3)),
    "logits: expected shape (..., classes) with at least one class, got ()": lambda: cross_entropy(np.float32(1), 0),
    "logits: expected shape (..., classes) with at least one class, got (2, 0)": lambda: cross_entropy(
        f32(2, 0), ints(2)
    ),
    "targets: expected 0 <= token < 3, got 3": lambda: cross_entropy(f32(2, 3), [0, 3]),
    "targets: expected 0 <= token < 3, got -100": lambda: cross_entropy(f32(2, 3), [0, -100]),
    "targets: expected shape (2,), got (3,)": lambda: cross_entropy(f32(2, 3), ints(3)),
    "targets: expected shape (2, 3), got (6,)": lambda: cross_entropy(f32(2, 3, 4), ints(6)),
    "targets: expected shape (2,), got (2, 1)": lambda: cross_entropy(f32(2, 3), ints(2, 1)),
    "weight_hh_l0: expected shape (3, 3), got (3, 2)": lambda: put("weight_hh_l0", f32(3, 2)),
    "weight_hh_l0: expected shape (3, 3), got ()": lambda: put("weight_hh_l0", 0.0),
    "bias_ih_l0: expected shape (3,), got (4,)": lambda: load({"bias_ih_l0": f32(4)}),
    f"state_dict: expected {RNN_NAMES}; missing bias_ih_l0, bias_hh_l0": lambda: load({}, {"bias_ih_l0", "bias_hh_l0"}),
    f"state_dict: expected {RNN_NAMES}; unexpected bias": lambda: load({"bias": f32(3)}),
    f"state_dict: expected {RNN_NAMES}; missing bias_ih_l0; unexpected bias": lambda: load(
        {"bias": f32(3)}, {"bias_ih_l0"}
    ),
    "count: expected an integer >= 1, got 0": lambda: fastrnn.set_num_threads(0),
    f"count: expected 1..{MORE_THREADS - 1} threads, got {MORE_THREADS}": lambda: fastrnn.set_num_threads(MORE_THREADS),
    "lr: expected a number >= 0, got -1": lambda: optim.SGD(parameters(), -1),
    "lr: expected a number >= 0, got nan": lambda: optim.Adam(parameters(), float("nan")),
    "momentum: expected a number >= 0, got -0.1": lambda: optim.SGD(parameters(), 0.1, momentum=-0.1),
    "nesterov: expected momentum > 0 with it, got 0.0": lambda: optim.SGD(parameters(), 0.1, nesterov=True),
    "weight_decay: expected a number >= 0, got -1": lambda: optim.SGD(parameters(), 0.1, weight_decay=-1),
    "eps: expected a number >= 0, got -1": lambda: optim.Adagrad(parameters(), eps=-1),
    "alpha: expected a number >= 0, got -1": lambda: optim.RMSprop(parameters(), alpha=-1),
    "grads: expected 21 elements of float32, got 32 of float32": lambda: optim.SGD(parameters()).step(
        RNN(2, 4).parameters
    ),
    "grads: expected 21 elements of float32, got 21 of float64": lambda: optim.SGD(parameters()).step(
        RNN(2, 3, dtype="float64").parameters
    ),
    "state_dict: expected step, lr, exp_avg, exp_avg_sq; missing exp_avg": lambda: load_optimizer({}, {"exp_avg"}),
    "state_dict: expected step, lr, exp_avg, exp_avg_sq; unexpected sum": lambda: load_optimizer({"sum": f32(21)}),
    "exp_avg_sq: expected shape (21,), got (20,)": lambda: load_optimizer({"exp_avg_sq": f32(20)}),
    "step: expected an integer >= 0, got -1": lambda: load_optimizer({"step": -1}),
    "max_norm: expected a number >= 0, got -1": lambda: optim.clip_grad_norm(parameters(), -1),
    "clip_value: expected a number >= 0, got -1": lambda: optim.clip_grad_value(parameters(), -1),
    "vocabulary: expected characters, each once, got ''": lambda: CharLM(""),
    "vocabulary: expected characters, each once, got 'aab'": lambda: CharLM("aab"),
    "cell: expected one of tanh, relu, gru, lstm, got 'LSTM'": lambda: CharLM("ab", "LSTM"),
    "c: expected shape (num_layers, B, hidden_size) = (1, 3, 4), got (1, 3, 5)": lambda: model("lstm")(
        ints(2, 3), (None, f32(1, 3, 5))
    ),
    "embedding_size: expected an integer >= 0, got -1": lambda: CharLM("ab", embedding_size=-1),
    "tokens: expected shape (T, B) = (any, any), got (3,)": lambda: model()(ints(3)),
    "tokens: expected 0 <= token < 3, got 3": lambda: model()([[3]]),
    "targets: expected 0 <= token < 3, got 4": lambda: model().loss([[0]], [[4]]),
    "targets: expected shape (T, B) = (2, 3), got (3, 2)": lambda: model().loss(ints(2, 3), ints(3, 2)),
    "state: expected shape (num_layers, B, hidden_size) = (1, 3, 4), got (1, 2, 4)": lambda: model()(
        ints(2, 3), f32(1, 2, 4)
    ),
    "text: character 'x' (U+0078) at 2 is not in the vocabulary": lambda: model().encode("abxay"),
    "text: character '\\n' (U+000A) at 0 is not in the vocabulary": lambda: model().sample(3, prime="\n"),
    "text: character '😀' (U+1F600) at 1 is not in the vocabulary": lambda: model().encode("a😀"),
    "length: expected an integer >= 0, got -1": lambda: model().sample(-1),
    "temperature: expected a number >= 0, got -1": lambda: model().sample(1, temperature=-1),
    "top_k: expected an integer >= 1, got 0": lambda: model().sample(1, top_k=0),
    "grads: expected gradients, got the parameters themselves": lambda: step_by_itself(parameters()),
    f"state_dict: expected {RNN_NAMES}; unexpected 0": lambda: load({0: f32(3)}),
    f"lr: expected a number >= 0, got 1{56 * '0'}...": lambda: optim.SGD(parameters(), 10**400),
    "num_layers: expected an integer in 1..65536, got 1000000000000": lambda: GRU(2, 3, 10**12),
    f"weight_ih_l0: expected at most {MOST} bytes, got {16 * 10**18}": lambda: LSTM(10**9, 10**9),
    f"weight_hh_l0: expected at most {MOST} bytes, got {4 * 10**20}": lambda: RNN(1, 10**10),
    f"weight_ih: expected at most {MOST} bytes, got {12 * 2**80}": lambda: GRUCell(2**80, 1),
    f"weight: expected at most {MOST} bytes, got {8 * 10**20}": lambda: Linear(10**10, 10**10, dtype="float64"),
    f"weight: expected at most {MOST} bytes, got {2**72}": lambda: Linear(2**70, 0),
    f"weight: expected at most {MOST} bytes, got {4 * 10**24}": lambda: Embedding(10**12, 10**12),
    f"weight: expected at most {MOST} bytes, got {24 * 10**30}": lambda: TimeDelay(2, 3, 10**30),
    f"weight_hh: expected at most {MOST} bytes, got {36 * 10**30}": lambda: Recursive(2, 3, children=10**30),
    f"batch: expected at most {MOST} bytes, got {2**74}": lambda: model().initial_state(2**70),
    f"batch_size: expected at most {MOST} bytes, got {9 * 2**74}": lambda: rnn().stream(2**70),
    f"total_length: expected at most {MOST} bytes, got {15 * 2**62}": lambda: packed().to_padded(total_length=2**60),
    f"lengths: expected at most {MOST} bytes, got {3 * 2**65}": lambda: Trees.chains([2**62] * 3),
    "dilation: expected an integer in 1..1537228672809129301, got 4611686018427387904": lambda: TimeDelay(
        2, 3, 3, 2**62
    ),
}

GRADS = "grads: expected Parameters, got {}; write the grads that a pullback or loss_and_gradients returns"
PARAMETERS = "parameters: expected Parameters, got {}; write layer.parameters"

TYPES = {
    PARAMETERS.format("RNN"): lambda: optim.Adam(rnn()),
    PARAMETERS.format("CharLM"): lambda: optim.SGD(model()),
    PARAMETERS.format("list"): lambda: optim.AdamW([parameters(), parameters()]),
    PARAMETERS.format("generator"): lambda: optim.RMSprop(p for p in parameters().values()),
    PARAMETERS.format("dict"): lambda: optim.Adagrad(rnn().state_dict()),
    PARAMETERS.format("NoneType"): lambda: optim.Adam(None),
    "parameters: expected no call, got layer.parameters(); write layer.parameters": lambda: optim.Adam(
        rnn().parameters()
    ),
    GRADS.format("NoneType"): lambda: optim.Adam(parameters()).step(),
    GRADS.format("dict"): lambda: optim.Adam(parameters()).step({}),
    GRADS.format("ndarray"): lambda: optim.Adam(parameters()).step(parameters().flat),
    GRADS.format("list"): lambda: optim.clip_grad_norm([f32(3), f32(2)], 5),
    GRADS.format("tuple"): lambda: optim.clip_grad_value((f32(3),), 5),
    GRADS.format("RNN"): lambda: optim.grad_norm(rnn()),
    "grads: expected Parameters, got dict": lambda: rnn_pullback(None, None, {"weight": f32(10_000)}),
    "state_dict: expected a mapping with step, lr, exp_avg, exp_avg_sq, got NoneType": lambda: optim.Adam(
        parameters()
    ).load_state_dict(None),
    f"state_dict: expected a mapping with {RNN_NAMES}, got RNN": lambda: RNN(2, 3).load_state_dict(RNN(2, 3)),
    f"state_dict: expected a mapping with {RNN_NAMES}, got str": lambda: RNN(2, 3).load_state_dict("weights.pt"),
    "lr: expected a number, got array([[0., 0.], [0., 0.]])": lambda: optim.SGD(parameters(), np.zeros((2, 2))),
    "lr: expected a number, got np.complex128(1j)": lambda: optim.SGD(parameters(), np.complex128(1j)),
    "seed: expected None, an integer >= 0 or a Generator, got 'a'": lambda: RNN(2, 3, seed="a"),
    "seed: expected None, an integer >= 0 or a Generator, got -1": lambda: Embedding(2, 3, seed=-1),
    "seed: expected None, an integer >= 0 or a Generator, got 1.5": lambda: model().sample(3, seed=1.5),
    "text: expected str, got NoneType": lambda: model().encode(None),
    "text: expected str, got list": lambda: model().encode(["ab"]),
    "prime: expected str, got NoneType": lambda: model().sample(3, None),
    "targets: expected integers, got dtype object": lambda: model().loss(ints(2, 3), None),
    "scale: expected a number, got None": lambda: model().loss_and_gradients(ints(2, 3), ints(2, 3), None, None),
    "bias: expected True or False, got 0.5": lambda: LSTM(2, 3, 2, 0.5),
    "bias: expected True or False, got 'no'": lambda: Linear(2, 3, "no"),
    "bidirectional: expected True or False, got None": lambda: GRU(2, 3, bidirectional=None),
    "batch_first: expected True or False, got array([1, 1])": lambda: RNN(2, 3, batch_first=np.array([1, 1])),
    "reset_after: expected True or False, got 2": lambda: GRUCell(2, 3, reset_after=2),
    "peepholes: expected True or False, got 'False'": lambda: LSTMCell(2, 3, peepholes="False"),
    "causal: expected True or False, got 1.0": lambda: TimeDelay(2, 3, 3, causal=1.0),
    "nesterov: expected True or False, got []": lambda: optim.SGD(parameters(), 0.1, 0.9, []),
    "attention: expected True or False, got 'luong'": lambda: Seq2Seq(2, 3, attention="luong"),
    "trees: expected a list, got int": lambda: Trees.from_nested(3),
    "children: expected an integer, got 'sum'": lambda: Trees([-1]).slots("sum"),
    "x: expected shape (...), got list": lambda: refused(lambda: Dropout().vjp([[1.0], [1.0, 2.0]])),
    "logits: expected shape (..., classes), got list": lambda: refused(lambda: cross_entropy([[1.0], [1.0, 2.0]], [0])),
    "tokens: expected shape (...), got list": lambda: refused(lambda: Embedding(3, 2)([[1], [1, 2]])),
    "x: expected shape (..., in_features), got list": lambda: refused(lambda: Linear(3, 2)([[1.0], [1.0, 2.0]])),
    "hidden_size: expected an integer, got 3.0": lambda: RNN(2, 3.0),
    "hidden_size: expected an integer, got True": lambda: RNN(2, True),
    "input_size: expected an integer, got '3'": lambda: RNN("3", 3),
    "input_size: expected an integer, got None": lambda: RNN(None, 3),
    "dtype: expected float32 or float64, got float16": lambda: RNN(2, 3, dtype="float16"),
    "dtype: expected float32 or float64, got single!": lambda: Linear(2, 3, dtype="single!"),
    "p: expected a number, got '0.5'": lambda: Dropout("0.5"),
    "p: expected a number, got True": lambda: Dropout(True),
    "x: expected dtype float32, got float64": lambda: rnn()(np.zeros((4, 3, 5))),
    "x: expected dtype float32, got int64": lambda: rnn()(ints(4, 3, 5)),
    "x: expected dtype float32, got complex64": lambda: rnn()(np.zeros((4, 3, 5), np.complex64)),
    "x: expected dtype float32, got float16": lambda: rnn()(np.zeros((4, 3, 5), np.float16)),
    "x: expected dtype float32, got bool": lambda: rnn()(np.zeros((4, 3, 5), bool)),
    "x: expected dtype float32, got object": lambda: rnn()(f32(4, 3, 5).astype(object)),
    "x: expected dtype float64, got float32": lambda: rnn(dtype="float64")(f32(4, 3, 5)),
    "h0: expected dtype float32, got float64": lambda: rnn()(f32(4, 3, 5), np.zeros((2, 3, 18))),
    "dy: expected dtype float32, got float64": lambda: rnn_pullback(np.zeros((4, 3, 18))),
    "dh_n: expected dtype float32, got float64": lambda: rnn_pullback(None, np.zeros((2, 3, 18))),
    "h0: expected dtype float32, got int64": lambda: rnn()(f32(4, 3, 5), ints(2, 3, 18)),
    "c0: expected dtype float32, got float64": lambda: lstm()(f32(4, 3, 5), (None, np.zeros((2, 3, 18)))),
    "x.data: expected dtype float64, got float32": lambda: rnn(dtype="float64")(packed()),
    "dy: expected dtype float32, got object": lambda: rnn_pullback(packed()),
    "lengths: expected integers, got dtype float64": lambda: rnn()(f32(4, 3, 5), lengths=[1.0, 2.0, 3.0]),
    "lengths: expected integers, got dtype bool": lambda: rnn()(f32(4, 3, 5), lengths=[True] * 3),
    "lengths: expected integers, got dtype complex128": lambda: rnn()(f32(4, 3, 5), lengths=[1j] * 3),
    "lengths: expected integers, got dtype object": lambda: rnn()(f32(4, 3, 5), lengths=[None, 1, 2]),
    "proj_size: expected an integer, got True": lambda: lstm(proj_size=True),
    "forget_bias: expected a number, got '1'": lambda: lstm(forget_bias="1"),
    "hidden_size: expected an integer, got 2.5": lambda: GRUCell(5, 2.5),
    "x: expected dtype float32, got uint8": lambda: LSTMCell(5, 18)(np.zeros((3, 5), np.uint8)),
    "tokens: expected integers, got dtype float64": lambda: Embedding(5, 2)([1.0]),
    "tokens: expected integers, got dtype bool": lambda: Embedding(5, 2)([True]),
    "tokens: expected integers, got dtype float32": lambda: model()(f32(2, 3)),
    "targets: expected integers, got dtype float32": lambda: cross_entropy(f32(2, 3), f32(2)),
    "count: expected an integer, got 1.5": lambda: fastrnn.set_num_threads(1.5),
    "count: expected an integer, got True": lambda: fastrnn.set_num_threads(True),
    "lr: expected a number, got '0.1'": lambda: optim.SGD(parameters(), "0.1"),
    "lr: expected a number, got None": lambda: optim.SGD(parameters(), None),
    "exp_avg: expected dtype float32, got float64": lambda: load_optimizer({"exp_avg": np.zeros(21)}),
    "step: expected an integer, got 1.0": lambda: load_optimizer({"step": 1.0}),
    "max_norm: expected a number, got None": lambda: optim.clip_grad_norm(parameters(), None),
    "state: expected dtype float32, got float64": lambda: model()(ints(2, 3), np.zeros((1, 3, 4))),
    "embedding_size: expected an integer, got 2.0": lambda: CharLM("ab", embedding_size=2.0),
    "length: expected an integer, got 1.5": lambda: model().sample(1.5),
}

# Only the beginning of these messages is fixed.
REJECTED = {
    "dtype of nothing": ("dtype: expected float32 or float64", lambda: RNN(2, 3, dtype=None)),
    "integer logits": ("logits: expected", lambda: cross_entropy(ints(2, 3), ints(2))),
    "gradients of a smaller layer": ("grads: expected", lambda: rnn_pullback(None, None, RNN(5, 17, 2).parameters)),
    "gradients of a larger layer": ("grads: expected", lambda: rnn_pullback(None, None, RNN(5, 19, 2).parameters)),
    "gradients of another dtype": (
        "grads: expected",
        lambda: rnn_pullback(None, None, rnn(dtype="float64").parameters),
    ),
    "gradients of fewer layers": ("grads: expected", lambda: rnn_pullback(None, None, RNN(5, 18).parameters)),
    "gradients of another shape": (
        "grads: expected",
        lambda: Linear(3, 2, bias=False).vjp(f32(4, 3))[1](f32(4, 2), Linear(2, 3, bias=False).parameters),
    ),
    "gradients in a dict": ("grads: expected", lambda: rnn_pullback(None, None, {})),
    "gradients of a linear layer": (
        "grads: expected",
        lambda: Linear(3, 2).vjp(f32(4, 3))[1](f32(4, 2), Linear(3, 1, bias=False).parameters),
    ),
    "gradients of an embedding": (
        "grads: expected",
        lambda: Embedding(3, 2).vjp(ints(4))[1](f32(4, 2), Embedding(2, 2).parameters),
    ),
    "a step with gradients of as many elements": (
        "grads: expected",
        lambda: optim.SGD(parameters()).step(Parameters({"a": (21,)}, "float32").zeros_like()),
    ),
    "a beta of 1": ("betas: expected", lambda: optim.Adam(parameters(), betas=(1.0, 0.999))),
    "another beta of 1": ("betas: expected", lambda: optim.AdamW(parameters(), betas=(0.9, 1.0))),
    "three betas": ("betas: expected", lambda: optim.Adam(parameters(), betas=(0.9, 0.99, 0.999))),
    "one beta": ("betas: expected", lambda: optim.Adam(parameters(), betas=0.9)),
    "complex parameters": ("bias_ih_l0: expected", lambda: put("bias_ih_l0", 1j * np.ones(3))),
    "parameters from text": ("bias_ih_l0: expected", lambda: put("bias_ih_l0", np.array(["1", "2", "3"]))),
    "a complex state dict": ("bias_ih_l0: expected", lambda: load({"bias_ih_l0": 1j * np.ones(3)})),
    "a token beyond int64": ("tokens: expected 0 <= token < 5", lambda: Embedding(5, 2)(np.uint64([2**64 - 1]))),
    "integers to drop": ("x: expected", lambda: Dropout(0.5).vjp(ints(2, 3))),
    "another cotangent of dropout": ("dy: expected shape", lambda: Dropout(0.5).vjp(f32(2, 3))[1](f32(3))),
    "no vocabulary": ("vocabulary: expected", lambda: CharLM(None)),
    "a vocabulary of words": ("vocabulary: expected", lambda: CharLM(["ab", "c"])),
    "a negative batch": ("batch: expected an integer >= 0, got -1", lambda: model().initial_state(-1)),
    "half a batch": ("batch: expected an integer, got 1.5", lambda: model().initial_state(1.5)),
}


@pytest.mark.parametrize("message", SHAPES_AND_VALUES)
def test_wrong_shapes_and_values(message):
    with pytest.raises(ValueError) as caught:
        SHAPES_AND_VALUES[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize("message", TYPES)
def test_wrong_types(message):
    with pytest.raises(TypeError) as caught:
        TYPES[message]()
    assert str(caught.value) == message


@pytest.mark.parametrize("mistake", REJECTED)
def test_rejected(mistake):
    start, call = REJECTED[mistake]
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(start)
    assert "\n" not in message
    expected, got = message.split(": expected ")[1].rsplit(", got ", 1)
    assert expected != got


@pytest.mark.parametrize("value", [True, 1, np.True_, np.int64(1)], ids=repr)
def test_true_by_other_names(value):
    layer = RNN(2, 3, bidirectional=value)
    assert layer.bidirectional is True
    assert "weight_ih_l0_reverse" in layer.parameters


def test_a_tensor_with_a_gradient_is_no_silent_input():
    torch = import_torch()
    x = torch.zeros(4, 3, 5, requires_grad=True)
    for value, reason in ((x, "Can't call numpy() on Tensor that requires grad."), (x.detach().bfloat16(), "Got unsu")):
        with pytest.raises(TypeError) as caught:
            rnn()(value)
        assert str(caught.value).startswith(f"x: expected shape {SHAPE}, got Tensor ({reason}")
    np.testing.assert_array_equal(rnn(seed=0)(x.detach())[0], rnn(seed=0)(f32(4, 3, 5))[0])


@pytest.mark.parametrize("name", ["bias", "weight_hh_l1", 0])
def test_unknown_parameters(name):
    with pytest.raises(KeyError, match=str(name)):
        parameters()[name]
    with pytest.raises(KeyError, match=str(name)):
        put(name, f32(3))


def test_nothing_is_loaded_when_anything_is_wrong():
    layer, other = RNN(2, 3, seed=0), RNN(2, 3, seed=1)
    before = layer.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"bias_hh_l0: expected shape \(3,\), got \(4,\)"):
        layer.load_state_dict(other.state_dict() | {"bias_hh_l0": f32(4)})
    np.testing.assert_array_equal(layer.parameters.flat, before)

    optimizer = optim.Adam(layer.parameters)
    optimizer.step(other.parameters)
    before = optimizer.state_dict()
    wrong = {name: np.ones_like(value) for name, value in before.items()}
    for change in ({"exp_avg_sq": f32(20)}, {"lr": -1.0}, {"step": -1}):
        with pytest.raises(ValueError, match="expected"):
            optimizer.load_state_dict(wrong | {"step": 7, "lr": 7.0} | change)
        for name, value in optimizer.state_dict().items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_a_refused_step_changes_nothing():
    p = parameters()
    optimizer = optim.SGD(p, 0.1)
    before = p.flat.copy()
    with pytest.raises(ValueError, match="grads: expected"):
        optimizer.step(RNN(2, 4).parameters)
    np.testing.assert_array_equal(p.flat, before)
    assert optimizer.state_dict()["step"] == 0


@pytest.mark.parametrize("name", ["float32", np.float32, np.dtype("float32"), "f4", "<f4", ">f4"])
def test_names_of_a_dtype(name):
    found = checks.dtype(name)
    assert found == np.float32
    assert found.isnative
    assert RNN(2, 3, dtype=name)(f32(4, 2))[0].dtype == np.float32


def test_arrays_that_fit_are_not_copied():
    a = f32(4, 3)
    assert checks.array("a", a, a.dtype, 4, None) is a
    tokens = ints(4)
    assert checks.tokens("tokens", tokens, 1, 4) is tokens


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "uint64", "int64", ">i4", ">u8"])
def test_tokens_of_any_integer_type(dtype):
    table = Embedding(5, 3, seed=0)
    tokens = np.array([[0, 4], [2, 2]])
    np.testing.assert_array_equal(table(tokens.astype(dtype)), table.parameters["weight"][tokens])


@pytest.mark.parametrize("number", [np.int8(3), np.int64(3), np.uint8(3)])
def test_sizes_may_be_numpy_integers(number):
    layer = RNN(number, number, number)
    assert [type(size) for size in (layer.input_size, layer.hidden_size, layer.num_layers)] == [int] * 3


@pytest.mark.parametrize("number", [1, np.float32(1), np.float64(1), np.int64(1)])
def test_rates_may_be_any_real_number(number):
    assert type(optim.SGD(parameters(), number).lr) is float
    assert type(Dropout(number).p) is float


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_any_byte_order(dtype, byte_order):
    logits = np.random.default_rng(0).standard_normal((4, 3)).astype(dtype)
    loss, pullback = cross_entropy(logits, [0, 1, 2, 0])
    other_loss, other_pullback = cross_entropy(logits.astype(logits.dtype.newbyteorder(byte_order)), [0, 1, 2, 0])
    assert other_loss == loss
    np.testing.assert_array_equal(other_pullback(), pullback(), strict=True)
