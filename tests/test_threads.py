"""The number of threads: its bounds, the plans it leads to, and that no result depends on it."""

import hashlib
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from cases import DTYPES
from hypothesis import given
from hypothesis import strategies as st
from numba import config
from oracles import arrays_of, normal

import fastrnn
from fastrnn import GRU, LSTM, RNN, Embedding, Linear, Parameters, cross_entropy, optim, threads
from fastrnn.models import CharLM

T, B, I, H = 20, 32, 64, 128  # enough work for threads to be started
LENGTHS = [max(0, T - b) for b in range(B)]


def test_the_default_is_all_of_numbas_threads():
    assert fastrnn.get_num_threads() == config.NUMBA_NUM_THREADS


@pytest.mark.parametrize("wrong", [0, -1, config.NUMBA_NUM_THREADS + 1, 1.0, None, "1"])
def test_a_refused_number_changes_nothing(wrong):
    fastrnn.set_num_threads(1)
    with pytest.raises((TypeError, ValueError), match="count: expected"):
        fastrnn.set_num_threads(wrong)
    assert fastrnn.get_num_threads() == 1


@pytest.mark.parametrize("count", sorted({1, config.NUMBA_NUM_THREADS}))
def test_setting_the_number(count):
    fastrnn.set_num_threads(np.int64(count))
    assert fastrnn.get_num_threads() == count
    assert threads.for_work(1e12) == threads.for_bytes(1e12) == count
    assert threads.for_work(0) == threads.for_bytes(0) == 1


@given(
    available=st.integers(1, 64),
    T=st.integers(0, 1000),
    B=st.integers(0, 1000),
    present=st.floats(0, 1),
    weights=st.integers(1, 1 << 24),
    itemsize=st.sampled_from([4, 8]),
)
def test_plans_are_possible(available, T, B, present, weights, itemsize):
    before, threads._threads = threads._threads, available
    try:
        plan = threads.for_sequence(T, B, int(present * T * B), weights, itemsize)
    finally:
        threads._threads = before
    assert 1 <= plan.shards == plan.row_shards * plan.unit_shards <= available
    assert plan.row_shards <= max(B, 1)


def test_plans_fit_the_work(monkeypatch):
    monkeypatch.setattr(threads, "_threads", 2)
    assert threads.for_sequence(1, 1, 1, 16 * 16, 4) == (1, 1)
    assert threads.for_sequence(T, B, T * B, H * H, 4) == (2, 1)
    assert threads.for_sequence(T, 1, T, 2048 * 2048, 4) == (1, 2)
    assert threads.for_sequence(T, B, T, H * H, 4) == (1, 1)  # most sequences end early


def recurrent_results(Layer, dtype, sizes, lengths=None, **options):
    T, B, I, H = sizes
    layer = Layer(I, H, seed=0, dtype=dtype, **options)
    (y, state), pullback = layer.vjp(normal(T, B, I, dtype=dtype), lengths=lengths)
    dx, d_initial, grads = pullback(np.cos(y), state)
    return [y, *arrays_of(state), dx, *arrays_of(d_initial), grads.flat]


def linear_results(dtype):
    y, pullback = Linear(256, 300, seed=0, dtype=dtype).vjp(normal(1000, 256, dtype=dtype))
    dx, grads = pullback(np.cos(y))
    return [y, dx, grads.flat]


def embedding_results(dtype):
    tokens = np.random.default_rng(0).integers(0, 50, 4000)
    y, pullback = Embedding(50, 256, seed=0, dtype=dtype).vjp(tokens)
    return [y, pullback(np.cos(y)).flat]


def cross_entropy_results(dtype):
    loss, pullback = cross_entropy(normal(3001, 65, dtype=dtype), np.arange(3001) % 65)
    return [np.array(loss), pullback()]


def optimizer_results(dtype):
    p = Parameters({"weight": (500, 803)}, dtype)
    p.flat[:] = normal(p.flat.size, dtype=dtype)
    results = []
    for make in (optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adam, optim.AdamW):
        g = p.zeros_like()
        g.flat[:] = np.sin(p.flat)
        results.append(np.array([optim.grad_norm(g), optim.clip_grad_norm(g, 1.0)]))
        make(p, 0.1).step(g)
        results.append(p.flat.copy())
    return results


def model_results(dtype, embedding_size):
    lm = CharLM("".join(map(chr, range(65, 165))), "tanh", 128, 2, embedding_size, dtype=dtype, seed=0)
    tokens, targets = np.random.default_rng(0).integers(0, 100, (2, T, B))
    optimizer, state, results = optim.Adam(lm.parameters), None, []
    for _ in range(3):
        loss, norm, state = lm.train_step(tokens, targets, state, optimizer, clip_norm=0.1)
        results += [np.array([loss, norm]), state, lm.parameters.flat.copy()]
    return results


WORK = {
    "rnn, shared rows": lambda dtype: recurrent_results(RNN, dtype, (T, B, I, H)),
    "rnn, shared units": lambda dtype: recurrent_results(RNN, dtype, (5, 1, 300, 1031)),
    "relu rnn": lambda dtype: recurrent_results(RNN, dtype, (T, B, I, H), nonlinearity="relu"),
    "lstm of unequal lengths, both directions": lambda dtype: recurrent_results(
        LSTM, dtype, (T, B, I, H), LENGTHS, proj_size=65, peepholes=True, bidirectional=True
    ),
    "lstm, shared units": lambda dtype: recurrent_results(LSTM, dtype, (5, 1, 30, 515), proj_size=300, peepholes=True),
    "gru of unequal lengths": lambda dtype: recurrent_results(GRU, dtype, (T, B, I, H), LENGTHS),
    "gru, shared units": lambda dtype: recurrent_results(GRU, dtype, (5, 1, 30, 515), reset_after=False),
    "linear": linear_results,
    "embedding": embedding_results,
    "cross entropy": cross_entropy_results,
    "optimizers": optimizer_results,
    "one-hot model": lambda dtype: model_results(dtype, 0),
    "embedding model": lambda dtype: model_results(dtype, 48),
}


def digest(results):
    return hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()


@pytest.mark.real_memory
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_depends_on_the_number_of_threads(dtype):
    """1 to 4 threads, in a process that may start 4 whatever the machine has."""
    code = "import test_threads; test_threads.print_digests()"
    # passive: four threads that spin on two cores wait for each other's time slices
    environment = os.environ | {"NUMBA_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code, dtype], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == len(WORK)
    for name, started, *digests in lines:
        assert started == "[2, 3, 4]", f"{name}: threads that were really started: {started}"
        assert len(set(digests)) == 1, f"{name}: {digests}"
        assert digests[0] == digest(WORK[name](dtype)), f"{name}: another process computes other bits"


def print_digests():
    """For each kind of work: its name, the thread counts that kernels got, and a digest for each of the four."""
    from fastrnn.kernels.jit import Kernel

    launches = set()

    def recorded(call):
        def record(self, *prepared, **arguments):
            launches.add(arguments["threads"])
            call(self, *prepared, **arguments)

        return record

    for each in Kernel.__subclasses__():
        if "threads" in inspect.signature(each.__call__).parameters:
            each.__call__ = recorded(each.__call__)
    for name, work in WORK.items():
        launches.clear()
        digests = []
        for count in (1, 2, 3, 4):
            fastrnn.set_num_threads(count)
            digests.append(digest(work(sys.argv[1])))
        print(name, sorted(launches - {1}), *digests, sep="\t")
