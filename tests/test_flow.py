"""Gradients through time, as a caller sees them: which step, which layer, and limits that end with their block."""

import threading

import numpy as np
import pytest

import fastrnn

T, B, I, H = 6, 3, 4, 5


def layer_of(kind=fastrnn.LSTM, **options):
    return kind(I, H, dtype="float64", seed=0, **options)


def flow_of(layer, x, dy, lengths=None):
    """The flows and the results of one backward pass, and those without keeping any."""
    (_, _), pullback = layer.vjp(x, lengths=lengths)
    with fastrnn.gradient_flow() as flow:
        kept = pullback(dy)
    return flow, kept, pullback(dy)


def drawn(layer, rng_seed=1):
    rng = np.random.default_rng(rng_seed)
    columns = H * (2 if layer.bidirectional else 1)
    return rng.standard_normal((T, B, I)), rng.standard_normal((T, B, columns))


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
def test_the_gradient_of_each_step_is_that_of_a_sum(kind):
    """dL/dh_t: what the loss gains if h_t, as later steps and y_t see it, is moved."""
    layer = layer_of(kind)
    x, dy = drawn(layer)
    flow, _, _ = flow_of(layer, x, dy)
    for t in range(T):
        _, state = layer(x[: t + 1])
        h = state[0] if isinstance(state, tuple) else state
        _, pullback = layer.vjp(x[t + 1 :], state)
        _, d_state, _ = pullback(dy[t + 1 :]) if t + 1 < T else (None, np.zeros_like(h), None)
        expected = dy[t] + (d_state[0] if isinstance(d_state, tuple) else d_state)[0]
        np.testing.assert_allclose(flow[0].d_h[flow[0].t == t], expected, rtol=1e-12)
        np.testing.assert_allclose(flow[0].norms[t], np.linalg.norm(expected), rtol=1e-12)


@pytest.mark.parametrize("lengths", [None, [2, 6, 4]], ids=["dense", "ragged"])
def test_every_layer_and_direction_has_its_flow(lengths):
    layer = layer_of(num_layers=2, bidirectional=True)
    x, dy = drawn(layer)
    flow, kept, plain = flow_of(layer, x, dy, lengths)
    assert [(one.index, one.reverse) for one in flow] == [(1, False), (1, True), (0, False), (0, True)]
    assert [str(one) for one in flow[:2]] == ["layer 1", "layer 1, reverse"]
    sequences = np.full(B, T) if lengths is None else np.array(lengths)
    for one in flow:
        assert one.layer is layer
        np.testing.assert_array_equal(np.bincount(one.t), [(sequences > t).sum() for t in range(T)])
        assert one.norms.shape == (T,)
        assert (one.norms > 0).all()
    np.testing.assert_array_equal(kept[0], plain[0])
    np.testing.assert_array_equal(kept[2].flat, plain[2].flat)


def test_norms_of_large_gradients_do_not_overflow():
    layer = fastrnn.RNN(I, H, seed=0)
    _, pullback = layer.vjp(np.ones((2, 1, I), np.float32))
    with fastrnn.gradient_flow() as flow:
        pullback(np.full((2, 1, H), 1e30, np.float32))
    assert flow[0].norms[1] == pytest.approx(1e30 * H**0.5, rel=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_first_bad_step(bidirectional):
    """On the way back NaN spreads to earlier steps, in the reverse direction to later ones."""
    layer = layer_of(bidirectional=bidirectional)
    x, dy = drawn(layer)
    dy[3, 1] = np.nan
    flow, _, _ = flow_of(layer, x, dy)
    assert [one.first_bad for one in flow] == [3] * len(flow)
    dy[3, 1] = 0
    flow, _, _ = flow_of(layer, x, dy)
    assert [one.first_bad for one in flow] == [None] * len(flow)


def test_a_limit_holds_within_its_block():
    layer = layer_of()
    x, dy = drawn(layer)
    _, pullback = layer.vjp(x)
    free = pullback(dy)
    with fastrnn.clip_steps(0.25), fastrnn.gradient_flow() as flow:
        limited = pullback(dy)
        with fastrnn.clip_steps(None):
            inner = pullback(dy)
    assert np.abs(flow[0].d_h).max() == 0.25
    assert np.abs(flow[1].d_h).max() > 0.25
    assert np.abs(limited[0] - free[0]).max() > 1e-3
    np.testing.assert_array_equal(inner[0], free[0])
    np.testing.assert_array_equal(pullback(dy)[0], free[0])


def test_a_block_is_of_its_own_thread():
    layer = layer_of()
    x, dy = drawn(layer)
    _, pullback = layer.vjp(x)
    found = []
    with fastrnn.clip_steps(0.25), fastrnn.gradient_flow() as flow:
        thread = threading.Thread(target=lambda: found.append(pullback(dy)[0]))
        thread.start()
        thread.join()
    assert flow == []
    np.testing.assert_array_equal(found[0], pullback(dy)[0])


def test_bad_limits():
    with pytest.raises(ValueError, match=r"^clip_step: expected a number >= 0, got -1$"), fastrnn.clip_steps(-1):
        pass
    with pytest.raises(TypeError, match=r"^clip_step: expected a number, got 'much'$"), fastrnn.clip_steps("much"):
        pass


def test_the_first_bad_step_in_words():
    layer = layer_of(num_layers=2)
    x, dy = drawn(layer)
    dy[4, 0] = np.inf
    _, pullback = layer.vjp(x)
    assert fastrnn.flow.first_bad(lambda: pullback(dy)) == "first at step 4 of layer 1 of LSTM"
    assert fastrnn.flow.first_bad(lambda: pullback(np.ones_like(dy))) == ""
