"""Cells that prove the contract: each needs something of it that no cell of the package does.

    sLSTM          four states
    IndRNN         a diagonal recurrence: no gate is fed by h_{t-1}, whose part is a per-unit weight's
    minGRU         no recurrence at all: gates that the inputs alone feed
    LayerNormLSTM  sums over a row's units between the products and the arithmetic

They are layers as RNN, GRU and LSTM are, made of a row in the table of kinds and a constructor. `REFERENCE` has one
step of each in NumPy, of any dtype, complex ones included.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from fastrnn import kinds
from fastrnn.kernels.cells import (
    TRAITS,
    X_H,
    Traits,
    X,
    cell_backward,
    cell_forward,
    sum_terms,
    sum_terms_backward,
    weights_backward,
)
from fastrnn.kernels.jit import device
from fastrnn.kernels.pointers import load_first, pointer
from fastrnn.kernels.simd import fma, select, sqrt, zeros
from fastrnn.kernels.vmath import exp, sigmoid, tanh
from fastrnn.layers.sequence import Recurrent

Arrays = tuple[np.ndarray, ...]
EPSILON = 1e-5  # torch.nn.LayerNorm's


class SLSTM(NamedTuple):
    """c_t = f c_{t-1} + i z, n_t = f n_{t-1} + i, h_t = o c_t / n_t, with exponential gates that m_t keeps finite.

    Source: Beck et al., xLSTM, NeurIPS 2024, equations 8 to 17.
    """


class IndRNN(NamedTuple):
    """h_t = tanh(W x_t + b + u h_{t-1}). Source: Li et al., Independently recurrent neural network, CVPR 2018."""

    weights: tuple[Any]  # u


class MinGRU(NamedTuple):
    """h_t = (1 - z) h_{t-1} + z n. Source: Feng et al., Were RNNs all we needed?, 2024, section 3.1."""


class LayerNormLSTM(NamedTuple):
    """An LSTM whose gates are normalised over the units: gain (z - mean) / deviation + shift.

    Source: Ba et al., Layer normalization, 2016, equation 4 of each gate's whole pre-activation.
    """

    weights: tuple[Any, ...]  # gains and shifts of i, f, g, o


TRAITS[SLSTM] = Traits(
    gates={"i": X_H, "f": X_H, "z": X_H, "o": X_H}, states=("h", "c", "n", "m"), saved=("i", "f", "z", "o")
)
TRAITS[IndRNN] = Traits(gates={"h": X}, states=("h",), reads=("h", "h_prev"), weights=("u",))
TRAITS[MinGRU] = Traits(gates={"z": X, "n": X}, states=("h",), saved=("z", "n"), reads=("h_prev",))
TRAITS[LayerNormLSTM] = Traits(
    gates={"i": X_H, "f": X_H, "g": X_H, "o": X_H},
    states=("h", "c"),
    saved=("i", "f", "g", "o", "tanh(c)", *[f"{gate} normalised" for gate in "ifgo"]),
    weights=tuple([f"{kind}_{gate}" for kind in ("gain", "shift") for gate in "ifgo"]),
    sums=tuple([f"sum {power}_{gate}" for power in ("z", "z^2") for gate in "ifgo"]),
    noted=tuple([f"d_{kind}_{gate}" for kind in ("gain", "shift") for gate in "ifgo"]),
)


@overload(cell_forward)
def _slstm(cell, unit, z, state):
    if cell.instance_class is SLSTM:

        def forward(cell, unit, z, state):
            (z_i, z_f, z_z, z_o), (_, c_prev, n_prev, m_prev) = z, state
            log_f = z_f + m_prev
            m = select(log_f > z_i, log_f, z_i)
            i, f, z, o = exp(z_i - m), exp(log_f - m), tanh(z_z), sigmoid(z_o)
            c, n = fma(f, c_prev, i * z), fma(f, n_prev, i)
            return (o * c / n, c, n, m), (i, f, z, o)

        return forward


@overload(cell_backward)
def _slstm_backward(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is SLSTM:

        def backward(cell, unit, d_state, state, state_prev, saved):
            (dh, dc, dn, dm), (_, c, n, _), (_, c_prev, n_prev, _), (i, f, z, o) = d_state, state, state_prev, saved
            ratio = c / n
            dc = dc + dh * o / n
            dn = dn - dh * o * ratio / n
            d_i, d_f = (dc * z + dn) * i, (dc * c_prev + dn * n_prev) * f  # of the logarithms
            dm = dm - d_i - d_f
            dz_i, dz_f = d_i + select(i < 1.0, 0.0, dm), d_f + select(i < 1.0, dm, 0.0)
            dz = dz_i, dz_f, dc * i * fma(-z, z, 1.0), dh * ratio * (o * (1.0 - o))
            return dz, (zeros(dh), dc * f, dn * f, dz_f)

        return backward


@overload(cell_forward)
def _indrnn(cell, unit, z, state):
    if cell.instance_class is IndRNN:

        def forward(cell, unit, z, state):
            u = cell.weights[0]
            return (tanh(fma(load_first(pointer(u) + unit, u.size - unit), state[0], z[0])),), ()

        return forward


@overload(cell_backward)
def _indrnn_backward(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is IndRNN:

        def backward(cell, unit, d_state, state, state_prev, saved):
            (dh,), (h,), u = d_state, state, cell.weights[0]
            dz = dh * fma(-h, h, 1.0)
            return (dz,), (dz * load_first(pointer(u) + unit, u.size - unit),)

        return backward


@overload(weights_backward)
def _indrnn_weights(cell, sums, dz, state, state_prev, noted):
    if cell.instance_class is IndRNN:
        return lambda cell, sums, dz, state, state_prev, noted: (fma(dz[0], state_prev[0], sums[0]),)


@overload(cell_forward)
def _mingru(cell, unit, z, state):
    if cell.instance_class is MinGRU:

        def forward(cell, unit, z, state):
            z, n, h_prev = sigmoid(z[0]), z[1], state[0]
            return (fma(z, n - h_prev, h_prev),), (z, n)

        return forward


@overload(cell_backward)
def _mingru_backward(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is MinGRU:

        def backward(cell, unit, d_state, state, state_prev, saved):
            (dh,), (h_prev,), (z, n) = d_state, state_prev, saved
            return (dh * (n - h_prev) * (z * (1.0 - z)), dh * z), (dh * (1.0 - z),)

        return backward


@device
def _vector(cell, weight, unit):
    """The unit's part of a per-unit weight."""
    w = cell.weights[weight]
    return load_first(pointer(w) + unit, w.size - unit)


@device
def _mean(cell, total):
    """Of a sum over a row's units."""
    return total / cell.weights[0].size


@device
def _scale(cell, total, squares):
    """One over the deviation."""
    mean = _mean(cell, total)
    return 1.0 / sqrt(fma(-mean, mean, _mean(cell, squares)) + EPSILON)


@overload(sum_terms)
def _norm_terms(cell, unit, z, state):
    if cell.instance_class is LayerNormLSTM:

        def terms(cell, unit, z, state):
            i, f, g, o = z
            return i, f, g, o, i * i, f * f, g * g, o * o

        return terms


@overload(cell_forward)
def _norm(cell, unit, z, state):
    if cell.instance_class is LayerNormLSTM:

        def forward(cell, unit, z, state):
            n_i = (z[0] - _mean(cell, z[4])) * _scale(cell, z[4], z[8])
            n_f = (z[1] - _mean(cell, z[5])) * _scale(cell, z[5], z[9])
            n_g = (z[2] - _mean(cell, z[6])) * _scale(cell, z[6], z[10])
            n_o = (z[3] - _mean(cell, z[7])) * _scale(cell, z[7], z[11])
            i = sigmoid(fma(n_i, _vector(cell, 0, unit), _vector(cell, 4, unit)))
            f = sigmoid(fma(n_f, _vector(cell, 1, unit), _vector(cell, 5, unit)))
            g = tanh(fma(n_g, _vector(cell, 2, unit), _vector(cell, 6, unit)))
            o = sigmoid(fma(n_o, _vector(cell, 3, unit), _vector(cell, 7, unit)))
            c = fma(f, state[1], i * g)
            tanh_c = tanh(c)
            return (o * tanh_c, c), (i, f, g, o, tanh_c, n_i, n_f, n_g, n_o)

        return forward


@device
def _direct(cell, d, normalised, total, squares):
    """Of one gate, from the gradient of what is normalised: dz, and the terms of the gradients of its two sums."""
    mean, scale = _mean(cell, total), _scale(cell, total, squares)
    d_scale = d * normalised * scale * scale / cell.weights[0].size  # times the deviation's derivatives
    return d * scale, fma(d_scale, mean, -d * scale / cell.weights[0].size), d_scale * -0.5


@overload(cell_backward)
def _norm_backward(cell, unit, d_state, state, state_prev, saved):
    if cell.instance_class is LayerNormLSTM:

        def backward(cell, unit, d_state, state, state_prev, saved):
            (dh, dc), (_, c_prev) = d_state, state_prev
            i, f, g, o, tanh_c, n_i, n_f, n_g, n_o = saved[:9]
            d_o = dh * tanh_c * (o * (1.0 - o))
            dc = fma(dh * o, fma(-tanh_c, tanh_c, 1.0), dc)
            d_i, d_f, d_g = dc * g * (i * (1.0 - i)), dc * c_prev * (f * (1.0 - f)), dc * i * fma(-g, g, 1.0)
            z_i, s_i, q_i = _direct(cell, d_i * _vector(cell, 0, unit), n_i, saved[9], saved[13])
            z_f, s_f, q_f = _direct(cell, d_f * _vector(cell, 1, unit), n_f, saved[10], saved[14])
            z_g, s_g, q_g = _direct(cell, d_g * _vector(cell, 2, unit), n_g, saved[11], saved[15])
            z_o, s_o, q_o = _direct(cell, d_o * _vector(cell, 3, unit), n_o, saved[12], saved[16])
            dz, d_sums = (z_i, z_f, z_g, z_o), (s_i, s_f, s_g, s_o, q_i, q_f, q_g, q_o)
            return dz + d_sums + (d_i * n_i, d_f * n_f, d_g * n_g, d_o * n_o, d_i, d_f, d_g, d_o), (zeros(dh), dc * f)

        return backward


@device
def _completed(cell, dz, normalised, total, squares, d_total, d_squares):
    """Of one gate, dz with what comes through its two sums."""
    z = normalised / _scale(cell, total, squares) + _mean(cell, total)
    return dz + d_total + d_squares * z * 2.0


@overload(sum_terms_backward)
def _norm_terms_backward(cell, unit, dz, d_sums, saved):
    if cell.instance_class is LayerNormLSTM:

        def backward(cell, unit, dz, d_sums, saved):
            return (
                _completed(cell, dz[0], saved[5], saved[9], saved[13], d_sums[0], d_sums[4]),
                _completed(cell, dz[1], saved[6], saved[10], saved[14], d_sums[1], d_sums[5]),
                _completed(cell, dz[2], saved[7], saved[11], saved[15], d_sums[2], d_sums[6]),
                _completed(cell, dz[3], saved[8], saved[12], saved[16], d_sums[3], d_sums[7]),
            )

        return backward


@overload(weights_backward)
def _norm_weights(cell, sums, dz, state, state_prev, noted):
    if cell.instance_class is LayerNormLSTM:

        def backward(cell, sums, dz, state, state_prev, noted):
            a, b, c, d, e, f, g, h = sums
            i, j, k, l, m, n, o, p = noted
            return a + i, b + j, c + k, d + l, e + m, f + n, g + o, h + p

        return backward


class Layer(Recurrent):
    """A layer of one of these cells."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bidirectional: bool = False, **options: Any
    ) -> None:
        super().__init__(
            kinds.chosen(type(self).__name__), input_size, hidden_size, num_layers, False, bidirectional, **options
        )


LAYERS = {tag: type(f"{tag.__name__}Layer", (Layer,), {}) for tag in (SLSTM, IndRNN, MinGRU, LayerNormLSTM)}


def kind_of(tag: type) -> kinds.Kind:
    """The row of the table."""
    return kinds.Kind(tag, layer=f"proofs:{tag.__name__}Layer", per_unit="weight_unit")


globals().update({layer.__name__: layer for layer in LAYERS.values()})  # where `layer_class` looks


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _slstm_step(z, state, per_unit):
    (z_i, z_f, z_z, z_o), (_, c, n, m) = z, state
    log_f = z_f + m
    m = np.where(log_f.real > z_i.real, log_f, z_i)
    i, f = np.exp(z_i - m), np.exp(log_f - m)
    c, n = f * c + i * np.tanh(z_z), f * n + i
    return _sigmoid(z_o) * c / n, c, n, m


def _indrnn_step(z, state, per_unit):
    return (np.tanh(z[0] + per_unit[0] * state[0]),)


def _mingru_step(z, state, per_unit):
    gate = _sigmoid(z[0])
    return ((1 - gate) * state[0] + gate * z[1],)


def _norm_step(z, state, per_unit):
    centred = [each - each.mean(axis=1, keepdims=True) for each in z]
    normalised = [each / np.sqrt((each * each).mean(axis=1, keepdims=True) + EPSILON) for each in centred]
    i, f, g, o = (n * gain + shift for n, gain, shift in zip(normalised, per_unit[:4], per_unit[4:], strict=True))
    c = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


# One step: the new states from the pre-activations of each gate, the previous states and the per-unit weights.
REFERENCE: dict[type, Callable[[list[np.ndarray], Arrays, np.ndarray | None], Arrays]] = {
    SLSTM: _slstm_step,
    IndRNN: _indrnn_step,
    MinGRU: _mingru_step,
    LayerNormLSTM: _norm_step,
}


def reference(layer: Recurrent, x: np.ndarray, initial: Arrays, parameters: dict, lengths: np.ndarray) -> list:
    """y and the last states of a layer with these parameters, as it documents them."""
    traits, step, D, y = TRAITS[layer.kind.tag], REFERENCE[layer.kind.tag], 1 + layer.bidirectional, x
    final = []
    for k in range(layer.num_layers):
        outputs = []
        for d in range(D):
            suffix = f"_l{k}" + "_reverse" * d
            own = {name.removesuffix(suffix): w for name, w in parameters.items() if name.endswith(suffix)}
            state = [s[k * D + d].astype(np.result_type(y, *own.values(), *initial)) for s in initial]
            out = np.zeros((*y.shape[:2], layer.hidden_size), state[0].dtype)
            for s in range(len(y)):
                rows = np.flatnonzero(s < lengths)
                t = lengths[rows] - 1 - s if d else np.full_like(rows, s)
                z = y[t, rows] @ own["weight_ih"].T + own["bias_ih"]
                if traits.recurrent:
                    z = z + state[0][rows] @ own["weight_hh"].T + own["bias_hh"]
                gates, prev = np.split(z, len(traits.gates), axis=1), tuple(s[rows] for s in state)
                new = step(gates, prev, own.get("weight_unit"))
                for each, value in zip(state, new, strict=True):
                    each[rows] = value
                out[t, rows] = new[0]
            outputs.append(out)
            final.append(state)
        y = np.concatenate(outputs, axis=2)
    return [y, *[np.stack(s) for s in zip(*final, strict=True)]]
