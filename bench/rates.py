"""GF/s: measured side by side with the FMA peak, compared within each repeat, and printed."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from machine import interleave
from peak import peak
from systems import Call

Rates = dict[str, list[float]]  # GF/s of every system, and of the FMA peak as "peak", in every repeat


def measure(runs: Mapping[str, tuple[Call, int]], dtype: str, threads: int, repeats: int) -> Rates:
    """GF/s of calls that come with their flop, and of the FMA peak."""
    runs = {**runs, "peak": peak(dtype, threads)}
    times = interleave({name: call for name, (call, _) in runs.items()}, repeats)
    return {name: [flops / t / 1e9 for t in times[name]] for name, (_, flops) in runs.items()}


def ratio(rates: Rates, name: str, others: Iterable[str]) -> float:
    """One system's speed over that of the fastest of the others: the median over repeats."""
    repeats = zip(rates[name], *(rates[other] for other in others), strict=True)
    return statistics.median(ours / max(theirs) for ours, *theirs in repeats)


def speed(rates: Rates, name: str) -> str:
    """`181 (84%)`: median GF/s and share of the peak."""
    rate = statistics.median(rates[name])
    share = "" if name == "peak" else f" ({ratio(rates, name, ['peak']):.0%})"
    return f"{rate:.{0 if rate >= 20 else 1}f}{share}"


def markdown_lines(labels: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, line by line as the rows come: columns of labels, then columns of numbers."""
    for cells in ([*labels, *numbers], ["---"] * len(labels) + ["---:"] * len(numbers)):
        yield f"| {' | '.join(cells)} |"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def markdown(labels: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The whole table."""
    return "\n".join(markdown_lines(labels, numbers, rows))


def peak_note(measured: Iterable[Rates]) -> str:
    """A line if the FMA peak varied by more than 10 %, otherwise nothing."""
    peaks = [rate for rates in measured for rate in rates["peak"]]
    if max(peaks) <= 1.1 * min(peaks):
        return ""
    return f"The FMA peak varied from {min(peaks):.0f} to {max(peaks):.0f} GF/s: the cores are not ours alone.\n"
