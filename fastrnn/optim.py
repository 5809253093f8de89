"""Optimisers over the flat parameter buffer, and gradient clipping; formulas and names of torch.optim.

Reference twin: fastrnn.reference.update.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fastrnn import checks, threads
from fastrnn.kernels import update
from fastrnn.kernels.target import lanes_of
from fastrnn.kernels.workspace import room_size
from fastrnn.memory import scratch
from fastrnn.parameters import Parameters


def clip_grad_norm(grads: Parameters, max_norm: float) -> float:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)); returns the 2-norm before.

    The norm is one number over the whole buffer; a norm that is not finite leaves the gradients as they are.
    Source: Pascanu, Mikolov, Bengio, ICML 2013, as torch.nn.utils.clip_grad_norm_. Cost: one pass, or two.
    """
    max_norm = checks.number("max_norm", max_norm)
    norm = grad_norm(grads)
    if np.isfinite(norm) and (scale := max_norm / (norm + 1e-6)) < 1:
        np.multiply(grads.flat, grads.dtype.type(scale), out=grads.flat)
    return norm


def clip_grad_value(grads: Parameters, clip_value: float) -> None:
    """Clamp every element of the gradients to -clip_value..clip_value."""
    g = _checked(grads).flat
    clip_value = g.dtype.type(checks.number("clip_value", clip_value))
    np.clip(g, -clip_value, clip_value, out=g)


def grad_norm(grads: Parameters) -> float:
    """The 2-norm of all gradients together; the same bits for any number of threads."""
    g = _checked(grads).flat
    count = threads.for_bytes(g.nbytes)
    blocks = np.empty(-(-g.size // update.NORM_BLOCK), g.dtype)
    work = scratch(_norm_size(lanes_of(g.itemsize), count), g.dtype)
    update.sum_of_squares(g=g, blocks=blocks, work=work, threads=count)
    return float(np.sqrt(blocks.sum(dtype=np.float64)))


@lru_cache
def _norm_size(lanes, count):
    """Of the workspace of `count` threads."""
    return room_size(update.norm_room(lanes, count), lanes)


def _checked(grads: Any) -> Parameters:
    checks.instance("grads", grads, Parameters, "write the grads that a pullback or loss_and_gradients returns")
    return grads


class Optimizer(ABC):
    """Keeps one flat buffer for each of its moments; `step(grads)` updates the parameters in place.

    lr may be changed between steps (`optimizer.lr = ...`). For several layers, `Parameters.joined`. Raises TypeError:
    `parameters: expected Parameters, got LSTM; write layer.parameters`.
    """

    moments: tuple[str, ...] = ()

    def __init__(self, parameters: Parameters, lr: float, **options: float) -> None:
        checks.instance("parameters", parameters, Parameters, "write layer.parameters")
        self._parameters = parameters
        self.lr = lr
        for name, value in options.items():
            setattr(self, name, checks.number(name, value))
        self.steps = 0
        self.grads = parameters.empty_like()  # a place for gradients that is used again at every step
        self._moments = {name: np.zeros_like(parameters.flat) for name in self.moments}

    def __repr__(self) -> str:
        names = [name for name in inspect.signature(type(self)).parameters if name != "parameters"]
        options = ", ".join(f"{name}={getattr(self, name)}" for name in names if hasattr(self, name))
        return f"{type(self).__name__}({self.parameters.flat.size} x {self.parameters.dtype.name}, {options})"

    @property
    def parameters(self) -> Parameters:
        """What is updated, for good: the moments are of their size."""
        return self._parameters

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = checks.number("lr", value)

    def step(self, grads: Parameters | None = None) -> None:
        """Update the parameters from their gradients, which torch's users leave out.

        Raises TypeError: `grads: expected Parameters, got NoneType; write the grads that a pullback or
        loss_and_gradients returns`; ValueError: `grads: expected 1000 elements of float32, got 999 of float32`, `grads:
        expected gradients, got the parameters themselves`. Cost: one pass over parameters, gradients and moments.
        """
        grads = _checked(grads)
        p, g = self.parameters.flat, grads.flat
        if g.size != p.size or g.dtype != p.dtype:
            raise ValueError(f"grads: expected {p.size} elements of {p.dtype}, got {g.size} of {g.dtype}")
        self.parameters.gradients(grads)
        if g is p:
            raise ValueError("grads: expected gradients, got the parameters themselves")
        self.steps += 1
        count = threads.for_bytes((3 + 2 * len(self.moments)) * p.nbytes)
        self._update(count, p, g, *self._moments.values())

    @abstractmethod
    def _update(self, count, p, g, *moments):
        """Update the parameters p from their gradients g on `count` threads."""

    def state_dict(self) -> dict[str, int | float | np.ndarray]:
        """The step count, the learning rate, and copies of the moments."""
        return {"step": self.steps, "lr": self.lr, **{name: m.copy() for name, m in self._moments.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over what `state_dict` gave."""
        checks.same_names("state_dict", state, {"step": 0, "lr": 0, **self._moments})
        arrays = {name: checks.array(name, state[name], m.dtype, m.size) for name, m in self._moments.items()}
        self.steps, self.lr = checks.integer("step", state["step"], 0), checks.number("lr", state["lr"])
        for name, value in arrays.items():
            self._moments[name][:] = value


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's too; torch.optim.SGD with dampening 0."""

    moments = ("momentum_buffer",)
    momentum: float
    weight_decay: float

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.nesterov = checks.flag("nesterov", nesterov)
        if nesterov and not momentum:
            raise ValueError(f"nesterov: expected momentum > 0 with it, got {momentum}")
        super().__init__(parameters, lr, momentum=momentum, weight_decay=weight_decay)

    def _update(self, count, p, g, velocity):
        first = self.steps == 1
        update.sgd(
            p=p, g=g, velocity=velocity, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=self.weight_decay, first=first, threads=count,
        )  # fmt: skip


class Adagrad(Optimizer):
    """Duchi, Hazan, Singer, JMLR 12 (2011), as torch.optim.Adagrad; eps_inside puts eps under the root."""

    moments = ("sum",)
    eps: float
    weight_decay: float

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        *,
        eps_inside: bool = False,
    ) -> None:
        super().__init__(parameters, lr, eps=eps, weight_decay=weight_decay)
        self.eps_inside = checks.flag("eps_inside", eps_inside)

    def _update(self, count, p, g, total):
        update.adagrad(
            p=p, g=g, total=total, lr=self.lr, eps=self.eps, eps_inside=self.eps_inside,
            weight_decay=self.weight_decay, threads=count,
        )  # fmt: skip


class RMSprop(Optimizer):
    """Tieleman and Hinton, Coursera lecture 6.5 (2012), as torch.optim.RMSprop without centring and momentum."""

    moments = ("square_avg",)
    alpha: float
    eps: float
    weight_decay: float

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, alpha=alpha, eps=eps, weight_decay=weight_decay)

    def _update(self, count, p, g, square_avg):
        update.rmsprop(
            p=p, g=g, square_avg=square_avg, lr=self.lr, alpha=self.alpha, eps=self.eps,
            weight_decay=self.weight_decay, threads=count,
        )  # fmt: skip


class Adam(Optimizer):
    """Kingma and Ba, ICLR 2015, as torch.optim.Adam; weight_decay adds to the gradient."""

    moments = ("exp_avg", "exp_avg_sq")
    eps: float
    weight_decay: float

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, eps=eps, weight_decay=weight_decay)
        self.betas = checks.betas(betas)

    def _decay(self):
        """What weight decay adds to the gradient, and the factor it shrinks the parameters by."""
        return self.weight_decay, 1.0

    def _update(self, count, p, g, exp_avg, exp_avg_sq):
        beta1, beta2 = self.betas
        weight_decay, shrink = self._decay()
        update.adam(
            p=p, g=g, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, step_size=self.lr / (1 - beta1**self.steps), beta1=beta1,
            beta2=beta2, eps=self.eps, correction=1 / math.sqrt(1 - beta2**self.steps), weight_decay=weight_decay,
            shrink=shrink, threads=count,
        )  # fmt: skip


class AdamW(Adam):
    """Loshchilov and Hutter, ICLR 2019, as torch.optim.AdamW: decay apart from the gradient."""

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def _decay(self):
        return 0.0, 1.0 - self.lr * self.weight_decay
