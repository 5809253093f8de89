"""How messages show values."""

_SHOWN = 60  # characters of a value in a message


def line(text: str) -> str:
    """A text on one line, cut where it is long."""
    whole = " ".join(text.split())
    return whole if len(whole) <= _SHOWN else whole[: _SHOWN - 3] + "..."


def got(value: object) -> str:
    """A value on one line."""
    return line(repr(value))
