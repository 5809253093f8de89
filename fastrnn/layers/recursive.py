"""A cell applied over trees, from the leaves to the roots."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import checks, functional
from fastrnn.functional import Weights
from fastrnn.functional.recursive import CELLS as TAGS
from fastrnn.kinds import KINDS
from fastrnn.layers.layer import Layer
from fastrnn.parameters import Parameters
from fastrnn.trees import Trees

State = Any  # h (N, H); for cell="lstm" (h, c)

CELLS = {KINDS[tag].name: KINDS[tag] for tag in TAGS}


class Recursive(Layer):
    """A recursive network: each node's state from its input and its children's states, leaves first.

    A leaf's children are 0. On a chain it is a recurrent network of one layer (`Trees.chains`): with summed children,
    and with one, it has the values and the gradients of fastrnn.RNN and fastrnn.LSTM with the same parameters.

    With children="sum", h~ = sum_k h_k:

        Elman   h = f(W_ih x + b_ih + W_hh h~ + b_hh)
        LSTM    i, o = sigmoid(z), g = tanh(z), z = W_ih x + b_ih + W_hh h~ + b_hh
                f_k = sigmoid(W_if x + b_if + W_hf h_k + b_hf) for each child k
                c = i g + sum_k f_k c_k, h = o tanh(c)

    With children=K a child has weights of its own, by its position: h~ = [h_1; ...; h_K], 0 where there is none, and
    f_k takes W_hf,k h~.

    Parameters
    ----------
    input_size, hidden_size : I and H
    cell : "tanh" or "relu" for Elman's, "lstm"
    children : "sum", for any number of them in any order; or K >= 1, the most that a node has
    bias : have b_ih and b_hh
    dtype : "float32" or "float64"
    seed : of the initial values, U(-1/sqrt(H), 1/sqrt(H))

    Parameters by name, G*H rows for the G gates one after another (1, or i, f, g, o): weight_ih (G*H, I), weight_hh
    (G*H, H), bias_ih (G*H,), bias_hh (G*H,). With K children weight_hh is (H, K*H); for LSTM it has the rows of
    i, f_1, ..., f_K, g, o: ((3+K)*H, K*H).

    Raises ValueError: `children: expected "sum" or an integer >= 1, got 'mean'`.
    Source: Tai, Socher & Manning, ACL 2015: LSTM with "sum" is eq. 2-8 (Child-Sum), with K eq. 9-14 (N-ary), u being g;
    Elman's with K = 2: Socher et al., ICML 2011; names as torch.nn.RNN and LSTM. Reference twin:
    fastrnn.reference.recursive.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: str = "tanh",
        children: str | int = "sum",
        bias: bool = True,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self.input_size = checks.integer("input_size", input_size, 0)
        self.hidden_size = H = checks.integer("hidden_size", hidden_size, 1)
        self.cell = checks.choice("cell", cell, tuple(CELLS))
        self.children = checks.children("children", children)
        self.bias = checks.flag("bias", bias)
        self._K = 0 if self.children == "sum" else int(self.children)
        kind = CELLS[cell]
        K = max(self._K, 1)
        self.state_names = kind.states
        G = len(kind.gates)
        forgets = (K - 1) * (len(self.state_names) - 1)  # more than one
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (G * H, self.input_size)}
        shapes |= {"weight_hh": ((G + forgets) * H, K * H)}
        shapes |= {"bias_ih": (G * H,), "bias_hh": (G * H,)} if bias else {}
        super().__init__(shapes, dtype)
        self.parameters.flat[:] = checks.generator(seed).uniform(-(H**-0.5), H**-0.5, self.parameters.flat.size)

    def _weights(self, parameters):
        views = parameters.views()
        return Weights(*[views.get(name) for name in CELLS[self.cell].parameters])

    def _run(self, x, trees, keep):
        checks.instance("trees", trees, Trees)
        x = checks.array("x", x, self.dtype, len(trees), self.input_size, letters="(N, input_size)")
        return functional.recursive(CELLS[self.cell].tag, x, trees, self._weights(self.parameters), self._K, keep)

    def _given(self, state):
        """The state as the caller has it."""
        return state[0] if len(state) == 1 else state

    def __call__(self, x: np.ndarray, trees: Trees) -> State:
        """The state of every node, as `vjp` describes it: inference, nothing is kept."""
        return self._given(self._run(x, trees, keep=False)[0])

    def vjp(self, x: np.ndarray, trees: Trees) -> tuple[State, Callable[..., tuple[np.ndarray, Parameters]]]:
        """The state of every node, and pullback(d_state, grads=None) -> dx, grads.

        Parameters
        ----------
        x : (N, I), a row a node; zeros for nodes without an input
        trees : the N nodes' Trees

        The state is h (N, H), for cell="lstm" (h, c), each (N, H), as x in the order of the nodes; those of whole trees
        are h[trees.roots]. The pullback's arguments are its cotangent (for "lstm" a pair, either may be None for zeros)
        and, optionally, the Parameters to write. It uses x, the state and the weights as they then are: call it before
        they change.

        Raises ValueError: `x: expected shape (N, input_size) = (7, 64), got (7, 65)`, `dh: expected shape (N,
        hidden_size) = (7, 128), got (7, 64)`, `d_state: expected (dh, dc), got ndarray`, `positions: expected 0 <=
        position < 2, the layer's children, got 2`; TypeError: `x: expected dtype float32, got float64`, `trees:
        expected Trees, got list`.
        Cost: 2*N*G*H*I flop, and for each inner node twice the size of weight_hh, with summed children of an LSTM
        2*H*H*(3 + their number); twice all that backward. Reference twin: fastrnn.reference.recursive.
        """
        state, backward = self._run(x, trees, keep=True)
        shape = state[0].shape

        def pullback(d_state, grads=None):
            names = [f"d{name}" for name in self.state_names]
            cotangents = (d_state,) if len(names) == 1 else checks.parts("d_state", d_state, names)
            found = [
                None if d is None else checks.array(name, d, self.dtype, *shape, letters="(N, hidden_size)")
                for name, d in zip(names, cotangents, strict=True)
            ]
            grads = self.parameters.gradients(grads)
            return backward(found, self._weights(grads)), grads

        return self._given(state), pullback
