"""The examples: their data, and each of them end to end on a small budget."""

import ast
import datetime
import io
import keyword
import re
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fastrnn import cli
from fastrnn.examples import EXAMPLES, dates, digits, tags, words
from fastrnn.examples.shared import Alphabet, Run, picked, table

HEADINGS = {  # how the first line of a result begins
    "digits": " ",
    "words": "number ",
    "dates": "date ",
    "tags": "n name, k keyword, ",
    "delays": "lag ",
    "trees": "operations ",
}
MODELS = {"delays": 2, "trees": 2}  # that an example trains, others one
SAMPLES = {"delays": 1000, "trees": 1000}  # from which something is learned; others need 300


def example(*arguments):
    return CliRunner().invoke(cli.main, ["example", *[str(argument) for argument in arguments]])


@pytest.fixture(params=EXAMPLES)
def name(request):
    if request.param == "digits":
        pytest.importorskip("sklearn")
    return request.param


def test_an_example_shows_samples_and_says_how_good_it_is(name):
    result = example(name, "--epochs", 1, "--samples", 60)
    assert result.exit_code == 0, result.output
    *shown, empty, last = result.stdout.splitlines()
    assert shown[0].startswith(HEADINGS[name])
    assert len(shown) > 4
    assert not empty
    form = rf"{name}: (\d+\.\d)% of .*[a-z] \(goal: (\d+)%\), in \d+ s on \d+ threads?"
    quality, goal = re.fullmatch(form, last).groups()
    assert 0 <= float(quality) <= 100
    assert 90 <= int(goal) < 100


def test_quiet_is_the_last_line_alone(name):
    result = example(name, "--epochs", 1, "--samples", 20, "--quiet")
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    assert result.stdout.startswith(f"{name}: ")


def test_an_example_learns(name):
    """The loss falls, and progress goes from 0 to 1."""
    shares = []
    run = Run(0, epochs=4, samples=SAMPLES.get(name, 300), progress=lambda share, loss: shares.append(share))
    EXAMPLES[name].run(run)
    assert len(run.losses) == MODELS.get(name, 1)
    for losses in run.losses:
        tenth = len(losses) // 10 + 1
        assert np.mean(losses[-tenth:]) < 0.97 * np.mean(losses[:tenth])
    assert len(shares) == sum(map(len, run.losses))
    assert shares[0] > 0
    assert (np.diff(shares) > 0).all()
    assert shares[-1] == pytest.approx(1)


def test_a_seed_fixes_everything(name):
    def losses(seed):
        run = Run(seed, epochs=1, samples=40)
        return EXAMPLES[name].run(run), run.losses

    assert losses(1) == losses(1)
    assert losses(1)[1] != losses(2)[1]


def test_without_a_name_the_examples_are_listed():
    result = example()
    assert result.exit_code == 0
    assert "fastrnn charlm train" in result.stdout
    for name, module in EXAMPLES.items():
        assert re.search(rf"^  {name} +{re.escape(module.__doc__.splitlines()[0])}$", result.stdout, re.MULTILINE)


def test_help_says_what_every_option_is_for(name):
    result = example(name, "--help")
    assert result.exit_code == 0
    assert " ".join(EXAMPLES[name].__doc__.split()) in " ".join(result.stdout.split())
    assert set(re.findall(r"^  (--\w+) .*\w", result.stdout, re.MULTILINE)) == {
        "--epochs", "--samples", "--seed", "--quiet", "--help",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["music"], "No such command 'music'."),
        (["words", "--epochs", 0], "Invalid value for '--epochs': 0 is not in the range x>=1."),
        (["words", "--samples", 0], "Invalid value for '--samples': 0 is not in the range x>=1."),
        (["words", "--seed", -1], "Invalid value for '--seed': -1 is not in the range x>=0."),
        (["words", "--steps", 1], "No such option"),
        (["words", "more"], "Got unexpected extra argument (more)"),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments, message):
    result = example(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"fastrnn: error: {message}")


def test_digits_name_the_package_that_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = example("digits")
    needs = "fastrnn: error: example digits: needs scikit-learn: pip install scikit-learn\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", needs)


def test_tags_name_the_folder_without_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(tags.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=f"^{tmp_path}: no source code of the standard library$"):
        tags.data(10, 10, 0)


def test_digits_are_read_by_rows():
    datasets = pytest.importorskip("sklearn.datasets")
    (images, classes), (held_out, expected) = digits.data(1437, 360)
    bunch = datasets.load_digits()
    assert images.shape == (1437, 8, 8)
    assert held_out.shape == (360, 8, 8)
    assert (images.min(), images.max(), images.dtype) == (0, 1, np.float32)
    np.testing.assert_array_equal(held_out[2] * 16, bunch.images[10])
    np.testing.assert_array_equal(images[4] * 16, bunch.images[6])
    assert (classes[4], expected[2]) == (bunch.target[6], bunch.target[10])
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in held_out}


def test_an_image_is_drawn():
    image = np.zeros((8, 8), np.float32)
    image[0, 0], image[7, 7], image[1, 2] = 1, 1, 0.5
    *rows, caption = digits.drawn(image, "is 3, got 3")
    assert rows[0] == "@@" + 14 * " "
    assert rows[1] == "    ==" + 10 * " "
    assert rows[7] == 14 * " " + "@@"
    assert caption == "is 3, got 3     "


def spoken(text):
    """The number that is said."""
    values = {word: number for number, word in enumerate(words.ONES)}
    values |= {word: 10 * (number + 2) for number, word in enumerate(words.TENS)}
    thousands = number = 0
    for word in re.split("[ -]", text.replace(" and ", " ")):
        if word == "thousand":
            thousands, number = number, 0
        elif word == "hundred":
            number *= 100
        else:
            number += values[word]
    return 1000 * thousands + number


def test_numbers_in_words():
    for number, text in {
        0: "zero",
        13: "thirteen",
        20: "twenty",
        42: "forty-two",
        100: "one hundred",
        342: "three hundred and forty-two",
        1000: "one thousand",
        1001: "one thousand and one",
        1100: "one thousand one hundred",
        9019: "nine thousand and nineteen",
        99_999: "ninety-nine thousand nine hundred and ninety-nine",
    }.items():
        assert words.in_words(number) == text
    for number in range(20_000):
        assert spoken(words.in_words(number)) == number


def test_numbers_as_conditions():
    vectors = words.digits(np.array([7, 4096]))
    assert vectors.shape == (2, 40)
    assert vectors.dtype == np.float32
    assert [list(vector.reshape(4, 10).argmax(axis=1)) for vector in vectors] == [[0, 0, 0, 7], [4, 0, 9, 6]]
    assert (vectors.sum(axis=1) == 4).all()


PARSED = [  # each of dates.FORMATS as time.strptime reads it, where ordinals and small words are left out
    "%d %B, %Y", "%d %b %y", "%A, %d %B %Y", "%a %d/%m/%y", "%a %b %d %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%Y",
    "%d.%m.%Y", "%d/%m/%y", "%Y%m%d", "%Y/%m/%d",
]  # fmt: skip


def test_dates_can_be_parsed_back():
    assert dates.written(datetime.date(1987, 3, 3), dates.FORMATS[0]) == "3rd of March, 1987"
    assert dates.written(datetime.date(1987, 3, 3), dates.FORMATS[3]) == "Tue 03/03/87"
    for days in range(0, (dates.LAST - dates.FIRST).days + 1, 41):
        date = dates.FIRST + datetime.timedelta(days)
        for form, parsed in zip(dates.FORMATS, PARSED, strict=True):
            text = dates.written(date, form)
            plain = re.sub(r"(?<=\d)(st|nd|rd|th)\b|the |of |'", "", text)
            assert datetime.datetime.strptime(plain, parsed).date() == date, text


def test_ordinals_of_days():
    for day, ordinal in {
        1: "1st",
        2: "2nd",
        3: "3rd",
        4: "4th",
        11: "11th",
        12: "12th",
        13: "13th",
        21: "21st",
    }.items():
        assert dates.written(datetime.date(2000, 1, day), dates.FORMATS[0]) == f"{ordinal} of January, 2000"


def test_drawn_dates_and_numbers_are_held_out():
    pairs, held_out = dates.data(5000, 1000, seed=3)
    assert (len(pairs), len(held_out)) == (5000, 1000)
    assert len({iso for _, iso in pairs + held_out}) == 6000
    assert pairs == dates.data(5000, 1000, seed=3)[0]
    assert pairs != dates.data(5000, 1000, seed=4)[0]
    for _, iso in pairs:
        assert dates.FIRST <= datetime.date.fromisoformat(iso) <= dates.LAST
    numbers, others = words.data(2000, 1000, seed=3)
    assert len(set(numbers) | set(others)) == 3000
    assert 0 <= min(numbers) <= max(numbers) < 10_000
    np.testing.assert_array_equal(numbers, words.data(2000, 1000, seed=3)[0])


CODE = '''\
# x
@f
def g(a, *b):  # not
    """Doc
    string."""
    return not a if 1e3 < 0x1F else f"{a!r} {b['c']}" "d" \\
        + b

'''


def test_characters_have_the_kinds_of_their_tokens():
    statements = tags.tagged(CODE)
    assert [text.count("\n") for text, _ in statements] == [2, 1, 2, 2]
    assert "".join(text for text, _ in statements) == CODE[:-1]  # an empty line at the end belongs to none
    marks = "".join(tags.LETTERS[kind] for _, kinds in statements for kind in kinds)
    for line, expected in zip(
        CODE.splitlines(keepends=True),
        [
            "###",
            "+n",
            "kkk n+n+ +n++  #####",
            "    sssssss",  # the end of the line is in the string
            "ssssssssssssss",
            "    kkkkkk kkk n kk 999 + 9999 kkkk sssssssssssssssss sss",
            "        + n",
            "",
        ],
        strict=True,
    ):
        assert marks[: len(line)].rstrip() == expected, line
        marks = marks[len(line) :]


def test_tags_cover_the_standard_library():
    """Every character has a kind, and what is marked is what tokenize gives."""
    source = Path(ast.__file__).read_text(encoding="utf-8")
    statements = tags.tagged(source)
    text, kinds = "".join(text for text, _ in statements), np.concatenate([kinds for _, kinds in statements])
    assert source.startswith(text)
    assert not source[len(text) :].strip()
    assert len(kinds) == len(text)
    marked = {
        kind: "".join(c for c, k in zip(text, kinds, strict=True) if tags.KINDS[k] == kind) for kind in tags.KINDS
    }
    assert not marked["space"].strip(" \n\\\f\t")
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    names = [token.string for token in tokens if token.type == tokenize.NAME]
    assert marked["keyword"] == "".join(filter(keyword.iskeyword, names))
    assert marked["name"] == "".join(name for name in names if not keyword.iskeyword(name))
    for kind, number in (("comment", tokenize.COMMENT), ("number", tokenize.NUMBER)):
        assert marked[kind] == "".join(token.string for token in tokens if token.type == number)


def test_statements_of_other_files_are_held_out():
    learned, tested = tags.data(500, 300, seed=0)
    assert (len(learned), len(tested)) == (500, 300)
    assert all(0 < len(text) == len(kinds) <= tags.LONGEST for text, kinds in learned + tested)
    assert [text for text, _ in tags.data(500, 300, seed=0)[0]] == [text for text, _ in learned]
    assert [text for text, _ in tags.data(500, 300, seed=1)[0]] != [text for text, _ in learned]


def test_characters_are_tokens():
    alphabet = Alphabet(["cab", "d"])
    assert (alphabet.characters, len(alphabet)) == ("abcd", 4)
    assert alphabet.tokens("dab").tolist() == [3, 0, 1]
    assert alphabet.text(np.array([3, 0, 1])) == "dab"


def test_a_table_has_columns():
    assert table(("a", "bcd"), [("12", "3"), ("", "45678")]) == "a   bcd\n12  3\n    45678"


@pytest.mark.parametrize(
    ("right", "places"),
    [
        ([1, 1, 0, 1, 0, 0, 1], [0, 1, 2, 4]),
        ([1, 1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 0, 0, 1, 0, 0], [3, 0, 1, 2]),
        ([0, 0, 0, 0, 0], [0, 1, 2, 3]),
        ([1, 0], [0, 1]),
    ],
)
def test_samples_that_are_wrong_are_shown_too(right, places):
    assert picked(np.array(right, bool), 4).tolist() == places
