"""Rows of a table by token."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import checks, functional
from fastrnn.layers.layer import Layer
from fastrnn.parameters import Parameters


class Embedding(Layer):
    """A table of vectors, one a token.

    Parameters
    ----------
    num_embeddings, embedding_dim : V and D
    dtype : "float32" or "float64"
    seed : of the initial values, N(0, 1) as torch.nn.Embedding

    Parameters by name: weight (V, D).
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: Any = "float32", seed: Any = None) -> None:
        self.num_embeddings = checks.integer("num_embeddings", num_embeddings, 1)
        self.embedding_dim = checks.integer("embedding_dim", embedding_dim, 1)
        super().__init__({"weight": (self.num_embeddings, self.embedding_dim)}, dtype)
        self.parameters.flat[:] = checks.generator(seed).standard_normal(self.parameters.flat.size)

    def _run(self, tokens):
        shape = checks.rank("tokens", tokens, "(...)", 0).shape
        tokens = checks.integers("tokens", tokens, *shape)  # the operation looks at their values
        y, pullback = functional.embedding(tokens.reshape(-1), self.parameters.views()["weight"])
        return y.reshape(*tokens.shape, self.embedding_dim), pullback

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """(..., D) of integer tokens (...)."""
        return self._run(tokens)[0]

    def vjp(self, tokens: np.ndarray) -> tuple[np.ndarray, Callable[..., Parameters]]:
        """y (..., D), and pullback(dy, grads=None) -> grads.

        Raises ValueError: `tokens: expected 0 <= token < 65, got 70`; TypeError: `tokens: expected integers, got dtype
        float32`. Reference twin: fastrnn.reference.embedding.
        """
        y, backward = self._run(tokens)
        shape = y.shape

        def pullback(dy, grads=None):
            dy = checks.array("dy", dy, self.dtype, *shape)
            grads = self.parameters.gradients(grads)
            backward(dy.reshape(-1, self.embedding_dim), grads.views()["weight"])
            return grads

        return y, pullback
