"""Many to many, after: dates as people write them, to ISO 8601.

A GRU reads a date in one of a dozen formats, another one writes it anew and looks at what was read by attention.
"""

import datetime

import numpy as np

from fastrnn.examples.shared import Alphabet, Result, Run, picked, table
from fastrnn.models import Seq2Seq

FORMATS = (
    "{d.day}{th} of {d:%B}, {d.year}",
    "the {d.day}{th} of {d:%b} '{d:%y}",
    "{d:%A}, {d.day} {d:%B} {d.year}",
    "{d:%a} {d:%d/%m/%y}",
    "{d:%a %b} {d.day} {d.year}",
    "{d:%B} {d.day}, {d.year}",
    "{d:%b} {d.day}{th} {d.year}",
    "{d:%d-%b-%Y}",
    "{d.day}.{d.month}.{d.year}",
    "{d.day}/{d.month}/{d:%y}",
    "{d:%Y%m%d}",
    "{d.year}/{d.month}/{d.day}",
)
FIRST, LAST = datetime.date(1969, 1, 1), datetime.date(2068, 12, 31)  # two digits mean a year as time.strptime reads it


def written(date: datetime.date, form: str) -> str:
    """The date in one of the FORMATS."""
    th = "th" if 10 < date.day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    return form.format(d=date, th=th)


def data(count: int, held_out: int, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs (written, ISO) of different dates to learn from and to test on, each in a format drawn at random."""
    rng = np.random.default_rng(seed)
    days = rng.choice((LAST - FIRST).days + 1, count + held_out, replace=False)
    dates = [FIRST + datetime.timedelta(int(day)) for day in days]
    forms = rng.integers(len(FORMATS), size=len(dates))
    pairs = [(written(date, FORMATS[form]), date.isoformat()) for date, form in zip(dates, forms, strict=True)]
    return pairs[:count], pairs[count:]


def run(run: Run) -> Result:
    """Learn to translate the dates of a century from 5000 of them, and translate others."""
    pairs, held_out = data(run.samples(5000), run.samples(1000), run.seed)
    sources, targets = (Alphabet(texts) for texts in zip(*pairs, *held_out, strict=True))

    model = Seq2Seq(
        len(sources), len(targets), cell="gru", hidden_size=64, embedding_size=32, bidirectional=True, attention=True,
        seed=run.seed,
    )  # fmt: skip
    inputs = [sources.tokens(text) for text, _ in pairs]
    run.fit(model, inputs, [targets.tokens(iso) for _, iso in pairs], epochs=6, batch_size=32, lr=5e-3)

    queries = [sources.tokens(text) for text, _ in held_out]
    translated = model.translate(queries, max_length=10)
    got = [targets.text(tokens) for tokens in translated]
    right = np.array([iso == text for (_, iso), text in zip(held_out, got, strict=True)])
    looks = model.align(queries, translated)  # of each character written, how much it looks at each of the date
    rows = []
    for i in picked(right, 12):
        date, iso = held_out[i]
        rows.append((date, iso, got[i], "".join(date[place] for place in looks[i][:-1].argmax(axis=1))))
    shown = table(("date", "expected", "got", "looked at"), rows)
    return Result(shown, float(np.mean(right)), 0.98, f"{len(right)} dates that it had not seen")
