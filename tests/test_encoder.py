"""Encoders: how sequences become rows, and what comes back in which order."""

import re

import numpy as np
import pytest
from oracles import assert_same

from fastrnn import Packed, kinds
from fastrnn.models.encoder import Encoder, packed

LENGTHS = (3, 0, 5, 2)


def build(**options):
    seeds = np.random.default_rng(0).spawn(2)
    return Encoder(**{"hidden_size": 4, "dtype": "float64", "seeds": seeds, **options})


def sequences_of(encoder, seed=0):
    rng = np.random.default_rng(seed)
    if encoder.num_tokens:
        return [rng.integers(encoder.num_tokens, size=n) for n in LENGTHS]
    return [rng.standard_normal((n, encoder.input_size)) for n in LENGTHS]


@pytest.mark.parametrize("cell", kinds.names())
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "source",
    [{"input_size": 3}, {"num_tokens": 7}, {"num_tokens": 99}, {"num_tokens": 7, "embedding_size": 0}],
    ids=str,
)
def test_an_encoder_is_its_layer(cell, bidirectional, source):
    """On rows of the embedding, sequence by sequence; states and their gradients in the caller's order."""
    encoder = build(cell=cell, bidirectional=bidirectional, num_layers=2, **source)
    sequences, rng = sequences_of(encoder), np.random.default_rng(1)
    D, names = 1 + bidirectional, encoder.rnn.state_names
    initial = [rng.standard_normal((2 * D, 4, 4)) for _ in names]
    encoded = encoder.run(encoder.packed("x", sequences), initial, keep=True)
    groups = {"rnn": encoder.rnn.parameters.zeros_like()}
    groups |= {"embedding": encoder.embedding.parameters.zeros_like()} if encoder.embedding else {}
    dy = rng.standard_normal(encoded.y.shape)
    d_final = [rng.standard_normal(s.shape) for s in encoded.final]
    d_initial = encoded.backward(dy, d_final, groups)
    order = encoded.batch.order
    got = {name: np.zeros_like(value) for name, value in groups["rnn"].items()}
    d_table = np.zeros((encoder.num_tokens or 0, encoder.rnn.input_size))
    table = encoder.embedding.parameters["weight"] if encoder.embedding else np.eye(encoder.num_tokens or 0)
    for j, i in enumerate(order):
        x = sequences[i] if encoder.input_size else table[sequences[i]]
        rows = encoded.batch.forward.first[: len(x)] + j
        state = encoder.rnn.state_of([s[:, i] for s in initial])
        (y, final), pullback = encoder.rnn.vjp(x, state)
        np.testing.assert_allclose(encoded.y[rows], y, rtol=1e-12)
        final, own = (s if isinstance(s, tuple) else (s,) for s in (final, encoder.rnn.state_of(tuple(d_final))))
        for a, b in zip(encoded.final, final, strict=True):
            np.testing.assert_allclose(a[:, j], b, rtol=1e-12)
        dx, dh, grads = pullback(dy[rows], encoder.rnn.state_of([s[:, j] for s in own]))
        for a, b in zip(d_initial, dh if isinstance(dh, tuple) else (dh,), strict=True):
            np.testing.assert_allclose(a[:, i], b, rtol=1e-11, atol=1e-13)
        for name, value in grads.items():
            got[name] += value
        if encoder.num_tokens:
            np.add.at(d_table, sequences[i], dx)
    for name, value in groups["rnn"].items():
        np.testing.assert_allclose(value, got[name], rtol=1e-11, atol=1e-12, err_msg=name)
    if encoder.embedding:
        np.testing.assert_allclose(groups["embedding"]["weight"], d_table, rtol=1e-11, atol=1e-12)


def test_no_state_is_zeros():
    encoder = build(input_size=3, cell="lstm")
    x = encoder.packed("x", sequences_of(encoder))
    zeros = [np.zeros((1, 4, 4))] * 2
    assert_same(dict(enumerate(encoder.run(x).final)), dict(enumerate(encoder.run(x, zeros).final)))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_width(bidirectional):
    encoder = build(input_size=3, bidirectional=bidirectional)
    encoded = encoder.run(encoder.packed("x", sequences_of(encoder)))
    assert encoded.y.shape == (10, encoder.width) == (10, 8 if bidirectional else 4)


@pytest.mark.parametrize(("width", "below"), [(None, 9), (2, None)])
def test_all_forms_of_sequences_are_one(width, below):
    tail = () if width is None else (width,)
    data = np.arange(8 * (width or 1)).reshape(8, *tail) % 9
    data = data.astype(np.int64 if below else np.float32)
    for form in (data.reshape(2, 4, *tail), list(data.reshape(2, 4, *tail)), Packed(data, [0, 4, 8])):
        found = packed("x", form, np.dtype("float32"), width, below)
        np.testing.assert_array_equal(found.data, data, strict=True)
        np.testing.assert_array_equal(found.offsets, [0, 4, 8])


def test_ragged_lists_of_numbers():
    found = packed("x", [[1, 2], [], [3]], np.dtype("float32"), None, 9)
    np.testing.assert_array_equal(found.data, [1, 2, 3])
    np.testing.assert_array_equal(found.offsets, [0, 2, 2, 3])
    assert found.data.dtype == np.int64
    assert packed("x", [[]], np.dtype("float32"), None, 9).data.shape == (0,)


def test_a_checked_batch_is_not_copied():
    x = Packed(np.zeros((5, 2), np.float32), [0, 5])
    assert packed("x", x, np.dtype("float32"), 2, None) is x


@pytest.mark.parametrize(
    ("value", "width", "below", "message"),
    [
        ([], None, 9, "x: expected at least one sequence, got none"),
        (np.zeros((0, 4), int), None, 9, "x: expected at least one sequence, got none"),
        ([[1], [9]], None, 9, "x: expected 0 <= token < 9, got 9"),
        ([[1], [[1]]], None, 9, "x[1]: expected shape (T,), got (1, 1)"),
        (np.arange(3), None, 9, "x[0]: expected shape (T,), got ()"),
        (np.zeros((3, 2), np.float32), 2, None, "x[0]: expected shape (T, 2), got (2,)"),
        ([np.zeros((3, 1), np.float32)], 2, None, "x[0]: expected shape (T, 2), got (3, 1)"),
        (Packed(np.zeros(3, int), [0, 3]), 2, None, "x: expected dtype float32, got int64"),
    ],
)
def test_bad_sequences(value, width, below, message):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        packed("x", value, np.dtype("float32"), width, below)
