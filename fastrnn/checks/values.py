"""Numbers, flags, names, parts and objects."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.checks.words import got, line

_REALS = (int, float, np.integer, np.floating)


def integer(name: str, value: object, low: int, high: float = float("inf")) -> int:
    """A size or a count with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {got(value)}")
    if not low <= value <= high:
        bounds = f">= {low}" if high == float("inf") else f"in {low}..{high}"
        raise ValueError(f"{name}: expected an integer {bounds}, got {line(str(value))}")
    return int(value)


def number(name: str, value: object, low: float = 0.0, high: float = float("inf")) -> float:
    """A number with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, _REALS):
        raise TypeError(f"{name}: expected a number, got {got(value)}")
    try:
        found = float(value)
    except OverflowError:  # an integer beyond all floats
        found = float("nan")
    if not low <= found <= high:
        bounds = f">= {low:g}" if high == float("inf") else f"in {low:g}..{high:g}"
        shown = line(str(value)) if isinstance(value, int) else f"{found:g}"
        raise ValueError(f"{name}: expected a number {bounds}, got {shown}")
    return found


def flag(name: str, value: object) -> bool:
    """True or False, also as 1 or 0; not what merely counts as one, as another argument in its place would."""
    if not isinstance(value, (bool, np.bool_, int, np.integer)) or value not in (0, 1):
        raise TypeError(f"{name}: expected True or False, got {got(value)}")
    return bool(value)


def betas(value: object) -> tuple[float, float]:
    """The decay rates of two moments, in 0..1 without 1."""
    found = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(found) != 2 or not all(isinstance(beta, _REALS) and 0 <= beta < 1 for beta in found):
        raise ValueError(f"betas: expected two numbers >= 0 and < 1, got {got(value)}")
    return float(found[0]), float(found[1])


def vocabulary(value: object) -> str:
    """A string in which every character occurs once."""
    if not isinstance(value, str) or not value or len(set(value)) != len(value):
        raise ValueError(f"vocabulary: expected characters, each once, got {got(value)}")
    return value


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {got(value)}")
    return value


def parts(name: str, value: object, names: Sequence[str]) -> Sequence[object]:
    """As many values as there are names, in a tuple or a list; None for none of them."""
    if value is None:
        return (None,) * len(names)
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
        raise ValueError(f"{name}: expected ({', '.join(names)}), got {type(value).__name__}{size}")
    return value


def one_direction(name: str, bidirectional: bool) -> None:
    """A layer that can be run step by step."""
    if bidirectional:
        raise ValueError(f"{name}: expected a layer in one direction, got a bidirectional one")


def absent(name: str, value: object, reason: str) -> None:
    """An argument that another one rules out."""
    if value is not None:
        raise ValueError(f"{name}: expected None {reason}, got {got(value)}")


def same_names(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Two mappings with the same keys."""
    if not hasattr(found, "keys"):
        raise TypeError(f"{name}: expected a mapping with {', '.join(wanted)}, got {type(found).__name__}")
    missing, extra = [k for k in wanted if k not in found], [str(k) for k in found if k not in wanted]
    if missing or extra:
        wrong = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unexpected {', '.join(extra)}"] * bool(extra)
        raise ValueError(f"{name}: expected {', '.join(wanted)}; {'; '.join(wrong)}")


def instance(name: str, value: object, wanted: type, hint: str = "") -> None:
    """An object of a class; hint: what to write instead."""
    if not isinstance(value, wanted):
        raise TypeError(f"{name}: expected {wanted.__name__}, got {type(value).__name__}{hint and '; ' + hint}")


def member(name: str, value: object, options: Sequence[type]) -> None:
    """One of a few classes."""
    if value not in options:
        shown = value.__name__ if isinstance(value, type) else repr(value)
        raise ValueError(f"{name}: expected one of {', '.join(option.__name__ for option in options)}, got {shown}")


def forwards(name: str, reverse: bool) -> None:
    """Steps from the first to the last."""
    if reverse:
        raise ValueError(f"{name}: expected steps that go forwards, got reverse ones")


def together(name: str, value: Sequence[object] | np.ndarray, count: int, others: str) -> None:
    """As many values as there are of something else."""
    if len(value) != count:
        raise ValueError(f"{name}: expected {count}, one for each of {others}, got {len(value)}")


def unchanged(name: str, value: object, built: object) -> None:
    """What an object was built with, and its weights were made for."""
    plain = (int, float, str, tuple)
    if value is not built and not (isinstance(built, plain) and type(value) is type(built) and value == built):
        got = repr(value) if isinstance(value, plain) else f"another {type(value).__name__}"
        expected = repr(built) if isinstance(built, plain) else f"the {type(built).__name__}"
        raise ValueError(f"{name}: expected {expected} that was built, got {got}")


def only(name: str, value: object, wanted: object) -> None:
    """A setting of which a single value can be taken over."""
    if value != wanted:
        raise ValueError(f"{name}: expected {wanted!r}, got {got(value)}")


def kind(name: str, value: object, kinds: Mapping[str, type]) -> str:
    """The name of the first class that an object is of."""
    for found, wanted in kinds.items():
        if isinstance(value, wanted):
            return found
    raise TypeError(f"{name}: expected {', '.join(kinds)}, got {_class(value, kinds)}")


def _class(value, names):
    """The name of an object's class, with its module where the name alone could be an expected one."""
    own = type(value)
    return f"{own.__module__}.{own.__qualname__}" if own.__name__ in names else own.__name__


def constant(name: str, value: object, origin: str) -> None:
    """Weights that a model holds, and doesn't compute."""
    if value is None:
        raise ValueError(f"{name}: expected a constant, got {origin}")


def of_keras(name: str, value: object, classes: Sequence[str], expected: str) -> str:
    """The name of the first class of an object that is one of a few of Keras, which computes as that class does."""
    own: Any = type(value)
    for found in own.__mro__:
        if found.__name__ in classes and hasattr(value, "get_weights") and own.call is found.call:
            return found.__name__
    raise TypeError(f"{name}: expected {expected}, got {_class(value, classes)}")


def generator(seed: Any) -> np.random.Generator:
    """Random numbers from a seed, as np.random.default_rng gives them."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise TypeError(f"seed: expected None, an integer >= 0 or a Generator, got {got(seed)}") from None


def either(name: str, **values: object) -> None:
    """Exactly one of two arguments."""
    if sum(value is None for value in values.values()) != 1:
        got = " and ".join(f"{key}={line(str(value))}" for key, value in values.items())
        raise ValueError(f"{name}: expected either {' or '.join(values)}, got {got}")


def function(name: str, value: object) -> None:
    """What can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {type(value).__name__}")


def iterable(name: str, value: Any) -> None:
    """Values one after another."""
    try:
        iter(value)
    except TypeError:
        raise TypeError(f"{name}: expected a list, got {type(value).__name__}") from None


def path(value: Any) -> None:
    """The name of a file."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"path: expected a string or a Path, got {type(value).__name__}")
