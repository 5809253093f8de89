"""What a gradient check found: rows, a table and a verdict."""

import math
from typing import NamedTuple

_BLIND = 1e-3  # a tolerance above which a block says nothing


class Entry(NamedTuple):
    """One number of a gradient."""

    name: str  # as in x[4, 0, 2]
    place: tuple[int, ...]  # its index in the input
    expected: float
    got: float


class Row(NamedTuple):
    """How the gradient of one block of the output with respect to one block of an input compares.

    error and tolerance are dimensionless: relative to the block's largest entry, or, in the dot-product test, to the
    Euclidean norm of its products with v.
    """

    input: str
    block: str  # of the input; "" if it is not divided
    output: str  # the block <u, f> is taken of, or "all"
    method: str  # complex, central; dot, complex; dot, central
    entries: int
    kinks: int  # entries that have no derivative and were not compared
    error: float
    tolerance: float
    worst: Entry | None  # None in the dot-product test, unless it fails

    @property
    def ok(self) -> bool:
        """Whether the gradient is right, and most of it was compared."""
        return self.error <= self.tolerance and 2 * self.kinks <= self.entries

    @property
    def blind(self) -> bool:
        """Whether the gradient is so small that differences see little of it."""
        return self.ok and self.error > 0 and self.tolerance > _BLIND

    @property
    def badness(self) -> tuple[int, float]:
        """Larger for worse rows: first right ones, then those with too many kinks, then wrong ones."""
        ratio = self.error / self.tolerance if self.tolerance else math.inf if self.error else 0.0
        return 2 if not self.error <= self.tolerance else int(not self.ok), ratio


class Report(NamedTuple):
    """The outcome of a check; str(report) is a table that ends with the verdict."""

    title: str
    rows: list[Row]

    @property
    def ok(self) -> bool:
        """Whether every gradient is right."""
        return all(row.ok for row in self.rows)

    @property
    def inputs(self) -> dict[str, Row]:
        """The worst row of each input."""
        found: dict[str, Row] = {}
        for row in self.rows:
            if row.input not in found or row.badness > found[row.input].badness:
                found[row.input] = row
        return found

    @property
    def worst(self) -> Row | None:
        """The row that is furthest off, or comes closest to it; None where there is nothing to compare."""
        return max(self.rows, key=lambda row: row.badness, default=None)

    @property
    def verdict(self) -> str:
        """One line: right or wrong, and the worst entry."""
        row = self.worst
        if row is None:
            return "right: nothing to compare"
        block = f"{row.input}, {row.block}" if row.block else row.input
        if row.ok:
            place = row.worst.name if row.worst else block
            worst = f"worst error {row.error:.1e}, tolerance {row.tolerance:.1e}, {place} to {row.output}"
            return f"right: {len(self.inputs)} gradients; {worst}"
        if row.error <= row.tolerance:
            kinks = f"{row.kinks} of {row.entries} entries are at kinks"
            return f"UNDECIDED: {block} to {row.output}: {kinks}: check at another point"
        entry, others = row.worst, sum(not other.ok for other in self.rows) - 1
        assert entry is not None
        place = f"{entry.name}, {row.block}" if row.block else entry.name
        more = f"; {others} more of {len(self.rows)} blocks are" if others else ""
        numbers = f"expected {entry.expected:.12g}, got {entry.got:.12g}, error {row.error:.1e}"
        return f"WRONG: {place} to {row.output}: {numbers}{more}"

    def raise_if_wrong(self) -> None:
        """AssertionError with the verdict unless `ok`."""
        if not self.ok:
            raise AssertionError(self.verdict)

    def __str__(self) -> str:
        outputs = list(dict.fromkeys(row.output for row in self.rows))
        blocks: dict[tuple[str, str], dict[str, Row]] = {}
        for row in self.rows:
            blocks.setdefault((row.input, row.block), {})[row.output] = row
        table = [("error of the gradient of", "entries", "method", *outputs)]
        for (name, block), found in blocks.items():
            first = found[outputs[0]]
            cells = [_shown(found[output]) for output in outputs]
            table.append((f"{name} {block}".rstrip(), str(first.entries), first.method, *cells))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [_line(cells, widths) for cells in table]
        if any(row.blind for row in self.rows):
            lines.append("~ too small to be told from rounding")
        if any(row.kinks for row in self.rows):
            lines.append("k entries at kinks, not compared")
        return "\n".join([self.title, "", *lines, "", self.verdict])


def _shown(row):
    error = "~" if row.blind else f"{row.error:.0e}" if row.error else "0"
    return error + f" {row.kinks}k" * bool(row.kinks) + " !" * (not row.ok)


def _line(cells, widths):
    """Words to the left, numbers to the right."""
    padded = [
        cell.ljust(width) if column in (0, 2) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
