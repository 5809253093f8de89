"""Recurrent layers: torch.nn's constructor, names, shapes and initial values over the compiled time loop."""

from collections.abc import Callable

import numpy as np

from fastrnn import checks, functional
from fastrnn.kernels.cells.elman import ElmanRelu, ElmanTanh
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.layer import Layer
from fastrnn.parameters import Parameters

_ELMAN = {"tanh": ElmanTanh, "relu": ElmanRelu}


class RNN(Layer):
    """Stacked Elman layers: h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), each layer fed by the one below.

    Parameters
    ----------
    input_size, hidden_size : I and H
    num_layers : L
    nonlinearity : f, "tanh" or "relu"
    bias : have b_ih and b_hh
    batch_first : x and y are (B, T, ...) instead of (T, B, ...); states are not
    dropout : probability of zeroing the output of every layer but the last, in `vjp` only
    dtype : "float32" or "float64"
    seed : of the initial values, U(-1/sqrt(H), 1/sqrt(H)), and of dropout

    Parameters by name, for each layer k: weight_ih_l{k} (H, I or H), weight_hh_l{k} (H, H), bias_ih_l{k} (H,),
    bias_hh_l{k} (H,).

    Source: Elman, Cognitive Science 14 (1990); conventions of torch.nn.RNN. Reference twin:
    fastrnn.reference.sequence with the cells of fastrnn.reference.cells.elman.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        dtype: object = "float32",
        seed: object = None,
    ) -> None:
        self.input_size = checks.integer("input_size", input_size, 0)
        self.hidden_size = checks.integer("hidden_size", hidden_size, 1)
        self.num_layers = checks.integer("num_layers", num_layers, 1)
        self.nonlinearity = checks.choice("nonlinearity", nonlinearity, tuple(_ELMAN))
        self.bias, self.batch_first = bool(bias), bool(batch_first)
        H, shapes = self.hidden_size, {}
        for k in range(self.num_layers):
            shapes[f"weight_ih_l{k}"] = (H, H if k else self.input_size)
            shapes[f"weight_hh_l{k}"] = (H, H)
            if bias:
                shapes[f"bias_ih_l{k}"] = shapes[f"bias_hh_l{k}"] = (H,)
        super().__init__(shapes, dtype)
        generator = np.random.default_rng(seed)
        self.parameters.flat[:] = generator.uniform(-(H**-0.5), H**-0.5, self.parameters.flat.size)
        checks.number("dropout", dropout, 0.0, 1.0)
        self._dropout = Dropout(dropout, seed=generator.spawn(1)[0])
        self.dropout = self._dropout.p

    def _bias(self, k):
        p = self.parameters
        if not self.bias:
            return np.zeros(self.hidden_size, self.dtype)
        return p[f"bias_ih_l{k}"] + p[f"bias_hh_l{k}"]

    def run(
        self, x: np.ndarray, initial: np.ndarray, training: bool, table: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, Callable[..., tuple[np.ndarray | None, np.ndarray]]]:
        """All layers over checked arrays: x (T, B, I), or tokens (T, B) for one-hot rows or those of `table`.

        Returns y (T, B, H), h_n (L, B, H), and pullback(dy or None, dh_n, grads, d_table=None) -> dx, dh_0 that fills
        grads.
        """
        cell, p = _ELMAN[self.nonlinearity], self.parameters
        final, backward, drop = functional.empty(initial.shape, self.dtype), [], []
        y = x
        for k in range(self.num_layers):
            if k and training:
                y, undrop = self._dropout.vjp(y)
                drop.append(undrop)
            weights = p[f"weight_ih_l{k}"], p[f"weight_hh_l{k}"], self._bias(k)
            own_table = None if k else table
            y, final[k : k + 1], pull = functional.recurrent(cell, y, initial[k : k + 1], *weights, own_table)
            backward.append(pull)

        def pullback(dy, d_final, grads, d_table=None):
            d_initial = functional.empty(initial.shape, self.dtype)
            for k in reversed(range(self.num_layers)):
                d_bias = grads[f"bias_ih_l{k}"] if self.bias else functional.empty(self.hidden_size, self.dtype)
                dy, d_initial[k : k + 1] = backward[k](
                    dy, d_final[k : k + 1], grads[f"weight_ih_l{k}"], grads[f"weight_hh_l{k}"], d_bias,
                    None if k else d_table,
                )  # fmt: skip
                if self.bias:
                    grads[f"bias_hh_l{k}"] = d_bias
                if k and training:
                    dy = drop[k - 1](dy)
            return dy, d_initial

        return y, final, pullback

    def _arranged(self, x, h0):
        """x as (T, B, I) and the initial state (L, B, H), checked; whether x was unbatched."""
        letters = f"({'B, T' if self.batch_first else 'T, B'}, input_size) or (T, input_size)"
        x = checks.rank("x", x, letters, 2, 3)
        x = checks.array("x", x, self.dtype, *x.shape[:-1], self.input_size, letters=letters)
        unbatched = x.ndim == 2
        if unbatched:
            x = x[:, None]
        elif self.batch_first:
            x = np.ascontiguousarray(x.swapaxes(0, 1))
        return x, self._state("h0", h0, x.shape[1], unbatched), unbatched

    def _state(self, name, value, batch, unbatched):
        L, H = self.num_layers, self.hidden_size
        if value is None:
            return np.zeros((L, batch, H), self.dtype)
        if unbatched:
            return checks.array(name, value, self.dtype, L, H, letters="(num_layers, hidden_size)")[:, None]
        return checks.array(name, value, self.dtype, L, batch, H, letters="(num_layers, B, hidden_size)")

    def _as_given(self, y, unbatched):
        """A (T, B, ...) array in the layout of the call."""
        if unbatched:
            return y[:, 0]
        return np.ascontiguousarray(y.swapaxes(0, 1)) if self.batch_first else y

    def __call__(self, x: np.ndarray, h0: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """y and h_n, shapes as in `vjp`: inference, nothing is kept and dropout is off."""
        x, initial, unbatched = self._arranged(x, h0)
        y, final, _ = self.run(x, initial, training=False)
        return self._as_given(y, unbatched), final[:, 0] if unbatched else final

    def vjp(
        self, x: np.ndarray, h0: np.ndarray | None = None
    ) -> tuple[tuple[np.ndarray, np.ndarray], Callable[..., tuple[np.ndarray, np.ndarray, Parameters]]]:
        """(y, h_n), and pullback(dy=None, dh_n=None, grads=None) -> dx, dh0, grads.

        Parameters
        ----------
        x : (T, B, I), with batch_first (B, T, I), or unbatched (T, I); any size may be 0
        h0 : (L, B, H), or unbatched (L, H); zeros if None

        y is (T, B, H) or as x is laid out; h_n is like h0. The pullback's arguments are cotangents of y and h_n (None
        for zeros) and, optionally, the Parameters to write. It uses x, y and the weights as they then are: call it
        before they change.

        Raises ValueError: `x: expected shape (T, B, input_size) or (T, input_size) = (50, 32, 64), got (50, 32, 65)`,
        `h0: expected shape (num_layers, B, hidden_size) = (1, 32, 128), got (1, 16, 128)`;
        TypeError: `x: expected dtype float32, got float64`.
        Cost: 2*L*T*B*H*(I+H) flop, twice that backward; y is all that is kept, (T, B, H) a layer.
        """
        x, initial, unbatched = self._arranged(x, h0)
        y, final, backward = self.run(x, initial, training=True)
        output = self._as_given(y, unbatched), final[:, 0] if unbatched else final

        def pullback(dy=None, dh_n=None, grads=None):
            if dy is not None:
                dy = checks.array("dy", dy, self.dtype, *output[0].shape)
                dy = dy[:, None] if unbatched else np.ascontiguousarray(dy.swapaxes(0, 1)) if self.batch_first else dy
            d_final = self._state("dh_n", dh_n, x.shape[1], unbatched)
            grads = self.parameters.gradients(grads)
            dx, d_initial = backward(dy, d_final, grads)
            return self._as_given(dx, unbatched), d_initial[:, 0] if unbatched else d_initial, grads

        return output, pullback
