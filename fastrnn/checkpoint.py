"""Checkpoints of models: one safetensors file that is either whole or refused.

Tensors: every parameter by its name, and every array of the optimiser's state as `optimizer.<name>`. Metadata:
`fastrnn`, a JSON object of format version, the model's class (CharLM where it is not named) and config, step, optimiser
and extra values; and `sha256`, over name, dtype, shape and bytes of the tensors in the order of their names, then that
JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from fastrnn import checks
from fastrnn.parameters import at_most

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from fastrnn.optim import Optimizer

FORMAT = 1
MODELS: dict[str, Any] = {}  # classes by name, entered by fastrnn.models
LIMITS = {"hidden_size": (1, 1 << 16), "num_layers": (1, 256), "embedding_size": (0, 1 << 16)}  # both included
_LARGEST = 1 << 24  # of all other integers in a config
_MAX_BYTES = 1 << 34
_SMALL = 1 << 16  # elements
_OPTIMIZER = "optimizer."
_TEMPORARY = re.compile(r"\.fastrnn-[0-9a-f]{16}")


class CheckpointError(ValueError):
    """A checkpoint that can't be read or written: one line that begins with its path."""


class Info(NamedTuple):
    """What a checkpoint holds beside the model."""

    step: int
    optimizer: dict[str, object] | None  # for the load_state_dict of an optimiser of the same class
    extra: dict[str, str | int | float]


def save(
    path: str | os.PathLike[str],
    model: Any,
    optimizer: Optimizer | None = None,
    step: int = 0,
    extra: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write a model's parameters and config so that `path` always holds either the earlier file or the new one, whole.

    The file's mode follows the umask; symbolic links are followed. What a killed process was writing, a hidden file
    `.fastrnn-...`, is removed by the next save into its folder. Raises CheckpointError, also for what `load` would
    refuse: `model.safetensors: not written: No space left on device`, `model.safetensors: not written: decoder.bias is
    not finite`, `model.safetensors: not written: step: expected an integer >= 0, got -1`.
    """
    checks.path(path)
    try:
        data = _serialized(model, optimizer, step, extra)
    except (ValueError, TypeError) as error:  # also JSON's, of extra values
        raise CheckpointError(f"{path}: not written: {error}") from error
    try:
        _write(Path(os.path.realpath(path)), data)
    except OSError as error:
        raise CheckpointError(f"{path}: not written: {error.strerror}") from error


def _serialized(model, optimizer, step, extra):
    """The bytes of a checkpoint that can be read again."""
    kind = MODELS[checks.choice("model", type(model).__name__, tuple(MODELS))]
    if optimizer is not None and not hasattr(optimizer, "state_dict"):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
    if not isinstance(extra, (Mapping, type(None))):
        raise TypeError(f"extra: expected a mapping, got {type(extra).__name__}")
    tensors = {name: np.ascontiguousarray(value) for name, value in model.parameters.items()}
    state = optimizer.state_dict() if optimizer else {}
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    elements = sum(value.size for value in tensors.values())
    _checked_config(kind, model.config, elements)
    for name, value in arrays.items():
        tensors[_OPTIMIZER + name] = checks.array(_OPTIMIZER + name, value, value.dtype, elements)
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
    description = json.dumps(
        {
            "format": FORMAT,
            "model": type(model).__name__,
            "config": model.config,
            "step": checks.integer("step", step, 0),
            "optimizer": {name: value for name, value in state.items() if name not in arrays},
            "extra": dict(extra or {}),
        },
        allow_nan=False,
    )
    data = safetensors.numpy.save(tensors, {"fastrnn": description, "sha256": _checksum(tensors, description)})
    _check_size(len(data))
    return data


def load(path: str | os.PathLike[str]) -> tuple[Any, Info]:
    """Read a checkpoint, check it against its own config and checksum, and build the model: one of MODELS.

    Raises CheckpointError, among others: `model.safetensors: No such file or directory`,
    `model.safetensors: not a safetensors file: ...`, `model.safetensors: not a checkpoint of fastrnn`,
    `model.safetensors: format 2, expected 1`, `model.safetensors: damaged: checksum mismatch`.
    """
    checks.path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(size)
            data = file.read(size)
        return _parse(data)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:  # the last two: absurd numbers and depth
        raise CheckpointError(f"{path}: {error}") from error


def _check_size(size):
    if size > _MAX_BYTES:
        raise ValueError(f"expected at most {_MAX_BYTES} bytes, got {size}")


def _write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably: the file reaches the disk before its name does."""
    _remove_dead(path.parent)
    with _locked(path.parent) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # Windows renames no open file
                file.close()
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # what is left to write
                file.close()
            temporary.unlink(missing_ok=True)
            raise
    if os.name == "posix":  # elsewhere a directory can't be opened
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _locked(folder: Path) -> IO[bytes]:
    """A new file, locked as long as its writer has it open: what nobody locks is a dead process's."""
    while True:
        file = open(folder / f".fastrnn-{secrets.token_hex(8)}", "xb")  # noqa: SIM115
        if fcntl is not None:
            with suppress(OSError):  # of a file system without locks, where no file is removed either
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # else another save came between, and has removed it
            return file
        file.close()


def _remove_dead(folder: Path) -> None:
    """Remove what killed processes were writing into a folder."""
    if fcntl is None:
        return
    with suppress(OSError):
        found = [entry for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)]
        for entry in found:
            with suppress(OSError), open(os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error while its writer lives
                os.unlink(entry.path)


def _checksum(tensors: Mapping[str, np.ndarray], description: str) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype.name} {value.shape}\n".encode())
        digest.update(value.astype(value.dtype.newbyteorder("<"), copy=False).data)
    digest.update(description.encode())
    return digest.hexdigest()


def _parse(data: bytes) -> tuple[Any, Info]:
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy lacks
        raise ValueError(f"not a safetensors file: {error}") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    if not {"fastrnn", "sha256"} <= set(metadata):
        raise ValueError("not a checkpoint of fastrnn")
    description = json.loads(metadata["fastrnn"])
    if not isinstance(description, dict) or "format" not in description:
        raise ValueError("not a checkpoint of fastrnn")
    if description["format"] != FORMAT:
        raise ValueError(f"format {description['format']}, expected {FORMAT}")
    if _checksum(tensors, metadata["fastrnn"]) != metadata["sha256"]:
        raise ValueError("damaged: checksum mismatch")

    description.setdefault("model", "CharLM")
    names = ("format", "model", "config", "step", "optimizer", "extra")
    checks.same_names("description", description, dict.fromkeys(names))
    kind = MODELS[checks.choice("model", description["model"], tuple(MODELS))]
    arrays = {name.removeprefix(_OPTIMIZER): tensors.pop(name) for name in list(tensors) if name.startswith(_OPTIMIZER)}
    elements = sum(value.size for value in tensors.values())
    config = _checked_config(kind, description["config"], elements)
    with at_most(2 * elements + _SMALL):  # a little too large is built, so that the error can name the parameter
        model = kind(**config)
    parameters = model.parameters
    checks.same_names("parameters", tensors, parameters)
    for name, shape in parameters.shapes.items():
        _check_array(name, tensors[name], parameters.dtype, shape)
    for name, value in arrays.items():
        _check_array(_OPTIMIZER + name, value, parameters.dtype, parameters.flat.shape)
    parameters.update(tensors)
    optimizer = {**description["optimizer"], **arrays} or None
    return model, Info(checks.integer("step", description["step"], 0), optimizer, description["extra"])


def _checked_config(kind: Any, config: object, elements: int) -> dict[str, Any]:
    """The config, once it is known that a model of it is no larger than the file."""
    if not isinstance(config, dict) or not isinstance(config.get("vocabulary", ""), str):
        raise ValueError(f"config: expected the arguments of {kind.__name__}")
    for name, value in config.items():
        low, high = LIMITS.get(name, (0, _LARGEST))
        if (name in LIMITS or type(value) is int) and checks.integer(name, value, low) > high:
            raise ValueError(f"{name}: expected an integer <= {high}, got {value}")
    try:
        least = kind.least_elements(config)
    except KeyError as error:
        raise ValueError(f"config: expected the arguments of {kind.__name__}, missing {error}") from None
    if least > elements:
        raise ValueError(f"parameters: expected at least {least} elements for the config, got {elements}")
    return config


def _check_array(name: str, value: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    checks.array(name, value, dtype, *shape)
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: not finite")
