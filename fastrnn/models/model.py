"""What all models share: parts over one flat buffer, files, the loss and its gradients, training."""

import math
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from fastrnn import checkpoint, checks, flow, optim
from fastrnn.models.batches import batches, count, not_finite, terms
from fastrnn.parameters import Parameters

Groups = Mapping[str, Parameters]  # the gradients of each part


class Step(NamedTuple):
    """What is known after a step of `fit`."""

    step: int  # steps done
    steps: int  # of the whole run
    loss: float  # of this step's batch
    grad_norm: float  # Euclidean norm of all gradients, before clipping


class Epoch(NamedTuple):
    """What is known after a pass over the training data; losses in the units of the model's loss."""

    epoch: int  # passes done
    loss: float  # mean over the pass, dropout active, as the weights went
    validation_loss: float | None  # after the pass
    grad_norm: float  # mean over the steps of the norm before clipping
    seconds: float  # of the pass, with validation


class Network:
    """Named parts that hold parameters, over one flat buffer; what can be saved and loaded.

    Parameters
    ----------
    parts : layers by name, None for one that this model does without; a parameter's name is `part.name`
    config : the arguments that build the model again, plain values
    """

    def __init__(self, parts: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._parts: dict[str, Any] = {name: part for name, part in parts.items() if part is not None}
        self.parameters = Parameters.joined({name: part.parameters for name, part in self._parts.items()})
        self.config = dict(config)

    def __setattr__(self, name: str, value: object) -> None:
        """Parts stay: the optimiser trains the buffer that they were given."""
        built = self.__dict__.get(name)
        if name == "parameters" or any(built is part for part in self.__dict__.get("_parts", {}).values()):
            checks.unchanged(name, value, value if built is None else built)
        super().__setattr__(name, value)

    def _groups(self, grads: Parameters) -> dict[str, Parameters]:
        """The place of each part's gradients, once it is known that the part reads the parameters that are trained.

        Raises ValueError: `decoder.parameters: expected the model's own, got others`.
        """
        for name, part in self._parts.items():
            if not part.parameters.is_group_of(self.parameters):
                raise ValueError(f"{name}.parameters: expected the model's own, got others")
        return {name: grads.group(name) for name in self._parts}

    def __repr__(self) -> str:
        lines = [f"({name}): {part!r}".replace("\n", "\n  ") for name, part in self._parts.items()]
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"

    @classmethod
    def least_elements(cls, config: Mapping[str, Any]) -> int:
        """Parameters that a model of this config has at least, known before anything is built.

        Here: num_layers squares of hidden_size, and the matrix of the largest other size (`num_...`, `..._size`) with
        hidden_size, or with embedding_size if that is less and the size may be one of tokens.
        """
        H, E = config["hidden_size"], config.get("embedding_size")
        matrices = [
            n * (H if name.endswith(("_size", "_classes", "_outputs")) else min(H, E or H))
            for name, n in config.items()
            if name not in ("hidden_size", "num_layers", "embedding_size")
            if isinstance(n, int) and (name.startswith("num_") or name.endswith("_size"))
        ]
        return config["num_layers"] * H * H + max(matrices, default=0)

    def save(
        self,
        path: str | os.PathLike[str],
        optimizer: optim.Optimizer | None = None,
        step: int = 0,
        extra: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """Write a checkpoint; see fastrnn.checkpoint.save."""
        checkpoint.save(path, self, optimizer, step, extra)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The model in a checkpoint.

        Raises CheckpointError: `model.safetensors: expected a SequenceTagger, got a CharLM`, and what
        fastrnn.checkpoint.load raises.
        """
        model, _ = checkpoint.load(path)
        if not isinstance(model, cls):
            raise checkpoint.CheckpointError(f"{path}: expected a {cls.__name__}, got a {type(model).__name__}")
        return model


def clipped(grads: Parameters, clip_norm: float | None, clip_value: float | None) -> float:
    """The norm of gradients before they are clipped, where asked for, in place."""
    norm = optim.grad_norm(grads) if clip_norm is None else optim.clip_grad_norm(grads, clip_norm)
    if clip_value is not None:
        optim.clip_grad_value(grads, clip_value)
    return norm


def check_optimizer(optimizer: optim.Optimizer, parameters: Parameters) -> None:
    """An optimiser that trains these parameters, and not a copy of them."""
    checks.instance("optimizer", optimizer, optim.Optimizer)
    if optimizer.parameters.flat is not parameters.flat:
        raise ValueError("optimizer: expected one of this model's parameters, got one of others")


class Model(Network, ABC):
    """A model that learns from batches (inputs, targets), which may have names of their own."""

    batch_names = ("inputs", "targets")

    @abstractmethod
    def _objective(self, batch: Any, groups: Groups | None, scale: float) -> float:
        """The mean loss of a checked or unchecked batch; with groups, in training mode, they receive scale times the
        gradients."""

    def _checked(self, batch: tuple[Any, Any]) -> tuple[Any, Any]:
        """A batch, checked, in a form that is quick to take parts of."""
        return batch

    def _both(self, batch):
        """The inputs and the targets of a batch."""
        return checks.parts("batch", batch, self.batch_names)

    def loss(self, batch: tuple[Any, Any]) -> float:
        """The mean loss of a batch (inputs, targets); dropout is off."""
        return self._objective(batch, None, 1.0)

    def loss_and_gradients(
        self, batch: tuple[Any, Any], scale: float = 1.0, grads: Parameters | None = None
    ) -> tuple[float, Parameters]:
        """The mean loss, dropout active, and scale times its gradients, in `grads` if given, else in new memory."""
        grads, scale = self.parameters.gradients(grads), checks.number("scale", scale, -np.inf)
        return self._objective(batch, self._groups(grads), scale), grads

    def train_step(
        self,
        batch: tuple[Any, Any],
        optimizer: optim.Optimizer,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        clip_step: float | None = None,
    ) -> tuple[float, float]:
        """One step of training on a batch: the loss, and the norm of its gradient before clipping.

        clip_norm, clip_value : see fastrnn.optim, None for no clipping
        clip_step : see fastrnn.clip_steps

        With a gradient that is not finite nothing is updated, and a RuntimeWarning says so and where it comes from:
        `train_step: expected a finite gradient, got norm nan, targets hold nan; nothing is updated`, or of a
        parameter `head.weight holds inf`, or `first at step 17 of layer 0 of LSTM`.

        Raises ValueError: `optimizer: expected one of this model's parameters, got one of others`; TypeError:
        `optimizer: expected Optimizer, got NoneType`.
        """
        check_optimizer(optimizer, self.parameters)
        with flow.clip_steps(clip_step):
            loss, grads = self.loss_and_gradients(batch, 1.0, optimizer.grads)
            norm = clipped(grads, clip_norm, clip_value)
            finite = math.isfinite(norm)
            place = "" if finite else self._first_bad(batch)
        if finite:
            optimizer.step(grads)
        else:
            place = place and f", {place}"
            message = f"train_step: expected a finite gradient, got norm {norm}{place}; nothing is updated"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return loss, norm

    def _first_bad(self, batch):
        """What is not finite where a gradient isn't, in words: the batch's, else a parameter, else a step back."""
        for name, values in zip(self.batch_names, self._checked(batch), strict=True):
            if found := not_finite(values):
                return f"{name} hold {found}"
        for name, value in self.parameters.items():
            if found := not_finite(value):
                return f"{name} holds {found}"
        return flow.first_bad(lambda: self.loss_and_gradients(batch))

    def fit(
        self,
        inputs: Any,
        targets: Any,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        optimizer: optim.Optimizer | None = None,
        clip_norm: float | None = 5.0,
        clip_value: float | None = None,
        clip_step: float | None = None,
        decay: bool = True,
        validation: tuple[Any, Any] | None = None,
        seed: Any = 0,
        on_step: Callable[[Step], None] | None = None,
    ) -> list[Epoch]:
        """Train on batches of the data, drawn without replacement, and return what is known of every epoch.

        Parameters
        ----------
        inputs, targets : as in a batch: Packed, lists, or arrays whose first axis counts
        epochs, batch_size : passes over the data, and sequences in a batch; the last batch of a pass may be smaller
        optimizer : of these parameters; Adam with lr 1e-3 if None
        clip_norm, clip_value, clip_step : as in `train_step`
        decay : let the learning rate fall linearly from `optimizer.lr` to 0 over the run; it is given back at the end
        validation : further (inputs, targets), whose loss is taken after every pass
        seed : of the order of the data
        on_step : called after every step

        All but the seconds is the same in every run. Raises ValueError: `targets: expected 1000, one for each of the
        inputs, got 999`, `inputs: expected at least one sequence, got none`, and what `loss` and `train_step` raise.
        """
        epochs, batch_size = checks.integer("epochs", epochs, 0), checks.integer("batch_size", batch_size, 1)
        data = self._data("", inputs, targets)
        decay, held_out = checks.flag("decay", decay), None
        if on_step is not None:
            checks.function("on_step", on_step)
        if validation is not None:
            held_out = self._data("validation ", *checks.parts("validation", validation, self.batch_names))
        optimizer = optim.Adam(self.parameters) if optimizer is None else optimizer
        check_optimizer(optimizer, self.parameters)
        generator, lr, done, found = checks.generator(seed), optimizer.lr, 0, []
        total = count(data[0])
        steps = epochs * -(-total // batch_size)
        try:
            for epoch in range(epochs):
                start, losses, norms = time.perf_counter(), _Mean(), _Mean()
                for batch in batches(data, batch_size, generator.permutation(total)):
                    optimizer.lr = lr * (1 - done / steps) if decay else lr
                    loss, norm = self.train_step(batch, optimizer, clip_norm, clip_value, clip_step)
                    losses.add(loss, terms(batch[1]))
                    norms.add(norm, 1)
                    done += 1
                    if on_step is not None:
                        on_step(Step(done, steps, loss, norm))
                left_out = None if held_out is None else self._mean_loss(held_out, batch_size)
                found.append(Epoch(epoch + 1, losses.value, left_out, norms.value, time.perf_counter() - start))
        finally:
            optimizer.lr = lr
        return found

    def _data(self, name, inputs, targets):
        """Inputs and targets, checked."""
        wanted, got = count(inputs, f"{name}inputs"), count(targets, f"{name}targets")
        if wanted != got:
            raise ValueError(f"{name}targets: expected {wanted}, one for each of the inputs, got {got}")
        if not wanted:
            raise ValueError(f"{name}inputs: expected at least one sequence, got none")
        return self._checked((inputs, targets))

    def _mean_loss(self, data, batch_size):
        mean = _Mean()
        for batch in batches(data, batch_size):
            mean.add(self.loss(batch), terms(batch[1]))
        return mean.value


class _Mean:
    """A weighted mean of what is added; 0 of nothing."""

    def __init__(self):
        self._total, self._weight = 0.0, 0

    def add(self, value, weight):
        self._total += weight * value
        self._weight += weight

    @property
    def value(self):
        return self._total / max(self._weight, 1)
