"""The command `fastrnn`: what it prints, writes and refuses."""

import gzip
import io
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time

import click
import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn import checkpoint, cli, kinds
from fastrnn.checkpoint import load
from fastrnn.cli import charlm, example
from fastrnn.cli.program import Bar
from fastrnn.examples import EXAMPLES
from fastrnn.examples.shared import Result
from fastrnn.models import CharLM
from fastrnn.training import loop, min_char_rnn
from fastrnn.training.text import Batches, split

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
SMALL = ["--hidden", "8", "--seq-length", "5", "--batch", "4"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder with the text to train on, and threads as they were."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fox.txt").write_text(TEXT, encoding="utf-8")
    threads = fastrnn.get_num_threads()
    yield tmp_path
    fastrnn.set_num_threads(threads)


def fastrnn_command(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def trained(*arguments):
    """The result of a short, successful training."""
    result = fastrnn_command("charlm", "train", "fox.txt", *SMALL, "--steps", 20, *arguments)
    assert result.exit_code == 0, result.output
    return result


def error_of(result):
    """The one line that a failure prints."""
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert result.stderr.startswith("fastrnn: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("fastrnn: error: ").rstrip("\n")


def lines_of(path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def summaries(result):
    return [line for line in result.stderr.splitlines() if line.startswith("step ")]


def test_training_prints_its_course_and_its_result(folder):
    result = trained()
    assert f"text: fox.txt, {len(TEXT):,} characters, 29 different\n" in result.stderr
    assert len(summaries(result)) == 10
    pattern = r"step \d+ \(\d+0%\): loss \d\.\d{3}, validation \d\.\d{3}, [\d,]+ characters/s"
    assert all(re.fullmatch(pattern, line) for line in summaries(result))
    model, info = load("charlm/model.safetensors")
    nats, bits, sample = re.fullmatch(
        r"validation loss: ([\d.]+) nats, ([\d.]+) bits a character\n\n(.*)\n\nmodel: charlm/model.safetensors\n",
        result.stdout,
        re.DOTALL,
    ).groups()
    _, validated = split(TEXT, 0.02, 4, 5)
    loss = loop.evaluate(model, Batches(model.encode(validated), 4, 5))
    assert (nats, bits) == (f"{loss:.4f}", f"{loss / math.log(2):.4f}")
    assert sample == model.sample(300, seed=0)
    assert info.step == 20
    assert info.extra["hidden"] == 8
    assert info.optimizer["step"] == 20


def test_training_learns_the_text():
    loss = float(
        re.search(
            r"loss: ([\d.]+) nats", trained("--steps", 600, "--hidden", 32, "--lr", 0.02, "--val-fraction", 0.3).stdout
        )[1]
    )
    assert loss < 0.3  # an unpredictable character has ln 29 = 3.4


@pytest.mark.parametrize("cell", kinds.names())
def test_the_model_is_that_of_the_options(cell):
    trained("--cell", cell, "--layers", 2, "--embedding", 3, "--dropout", 0.25, "--dtype", "float64", "--out", "a/b")
    config = load("a/b/model.safetensors")[0].config
    del config["vocabulary"]
    assert config == {
        "cell": cell,
        "hidden_size": 8,
        "num_layers": 2,
        "embedding_size": 3,
        "dropout": 0.25,
        "dtype": "float64",
    }


@pytest.mark.parametrize("optimizer", charlm._OPTIMIZERS)
def test_every_optimiser_trains(optimizer):
    losses = [
        float(line.split()[4].rstrip(",")) for line in summaries(trained("--optimizer", optimizer, "--steps", 300))
    ]
    assert losses[-1] < losses[0] - 0.15
    assert load("charlm/model.safetensors")[1].extra["optimizer"] == optimizer


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"clip_norm": 5.0, "clip_value": None, "clip_step": None}),
        (["--clip-norm", "0.5"], {"clip_norm": 0.5, "clip_value": None, "clip_step": None}),
        (["--clip-norm", "0"], {"clip_norm": None, "clip_value": None, "clip_step": None}),
        (["--clip-value", "2"], {"clip_norm": None, "clip_value": 2.0, "clip_step": None}),
        (["--clip-step", "0.1"], {"clip_norm": 5.0, "clip_value": None, "clip_step": 0.1}),
        (["--recipe", "min-char-rnn"], min_char_rnn.SETTINGS),
    ],
)
def test_the_loop_gets_its_settings(monkeypatch, options, settings):
    seen = []
    train = loop.train
    monkeypatch.setattr(loop, "train", lambda *args, **kw: seen.append(kw) or train(*args, **kw))
    small = [] if "--recipe" in options else SMALL
    assert fastrnn_command("charlm", "train", "fox.txt", *small, "--steps", 2, *options).exit_code == 0
    assert seen == [{"steps": 2, "seconds": None, **settings}]


def test_epochs_are_passes_over_the_text():
    learned, _ = split(TEXT, 0.02, 4, 5)
    windows = (len(learned) - 1) // 4 // 5
    assert fastrnn_command("charlm", "train", "fox.txt", *SMALL, "--epochs", 2).exit_code == 0
    assert load("charlm/model.safetensors")[1].step == 2 * windows


def test_a_run_is_a_minute_by_default(monkeypatch):
    monkeypatch.setattr(charlm, "_RUN_SECONDS", 0.2)
    start = time.monotonic()
    assert fastrnn_command("charlm", "train", "fox.txt", *SMALL).exit_code == 0
    assert time.monotonic() - start > 0.2


def test_without_a_text_it_learns_the_standard_library():
    result = fastrnn_command("charlm", "train", "--steps", 2, "--hidden", 4)
    assert result.exit_code == 0
    assert re.search(
        r"text: the source code of Python's standard library, [\d,]{9} characters, \d\d different\n", result.stderr
    )


def test_gzip_trains_the_same_model(folder):
    trained("--out", "plain")
    (folder / "fox.txt").write_bytes(gzip.compress(TEXT.encode()))
    trained("--out", "gzip")
    assert (folder / "plain/model.safetensors").stat().st_size == (folder / "gzip/model.safetensors").stat().st_size
    plain, packed = load("plain/model.safetensors")[0], load("gzip/model.safetensors")[0]
    np.testing.assert_array_equal(plain.parameters.flat, packed.parameters.flat)


def test_standard_input_trains_the_same_model(folder):
    trained("--out", "plain")
    for name, data in {"plain": TEXT.encode(), "gzip": gzip.compress(TEXT.encode())}.items():
        arguments = ["charlm", "train", "-", *SMALL, "--steps", "20", "--out", f"{name}-input"]
        result = CliRunner().invoke(cli.main, arguments, input=data)
        assert result.exit_code == 0, result.output
        assert f"text: standard input, {len(TEXT):,} characters, 29 different\n" in result.stderr
        np.testing.assert_array_equal(
            load(f"{name}-input/model.safetensors")[0].parameters.flat,
            load("plain/model.safetensors")[0].parameters.flat,
        )


def test_pictures_of_what_standard_input_says(folder):
    trained("--metrics", "m.jsonl")
    for arguments, data in {
        ("flow", "charlm", "-", "--batch", "2", "--seq-length", "5"): TEXT,
        ("curves", "-"): (folder / "m.jsonl").read_text(),
        ("activations", "charlm", "-", "--out", "units.html"): TEXT,
    }.items():
        result = CliRunner().invoke(cli.main, ["plot", *arguments], input=data)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("picture: ")
    shown = CliRunner().invoke(cli.main, ["plot", "curves", "-"], input="{}\nx")
    assert error_of(shown) == "standard input: line 2: expected a JSON object"


def test_metrics_are_json_lines_that_repeat(folder):
    trained("--metrics", "a.jsonl", "--steps", 200)
    trained("--metrics", "b.jsonl", "--steps", 200, "--threads", 1)
    records, again = lines_of(folder / "a.jsonl"), lines_of(folder / "b.jsonl")
    assert [record["step"] for record in records] == list(range(2, 201, 2))
    for record in records:
        assert list(record) == ["step", "train_loss", "val_loss", "chars_per_second", "grad_norm"]
        assert (record["val_loss"] is None) == (record["step"] % 20 != 0)
        assert record["train_loss"] > 0
        assert record["grad_norm"] > 0
        assert record.pop("chars_per_second") > 0
    for record in again:
        del record["chars_per_second"]
    assert records == again
    assert records[-1]["val_loss"] < records[9]["val_loss"]


def test_metrics_are_written_as_they_come(folder, monkeypatch):
    counts = []
    train = loop.train

    def watched(*args, **kw):
        for m in train(*args, **kw):
            yield m
            counts.append(len((folder / "m.jsonl").read_bytes().splitlines()))

    monkeypatch.setattr(loop, "train", watched)
    trained("--metrics", "m.jsonl")
    assert counts == list(range(1, 21))


def test_without_validation_the_training_loss_is_printed(folder):
    result = trained("--val-fraction", 0, "--metrics", "m.jsonl")
    assert result.stdout.startswith("training loss: ")
    assert len(summaries(result)) == 1
    assert {record["val_loss"] for record in lines_of(folder / "m.jsonl")} == {None}


def test_a_long_run_is_saved_between_evaluations(monkeypatch):
    monkeypatch.setattr(charlm, "_SAVE_SECONDS", 0.0)
    assert len(summaries(trained("--val-fraction", 0))) == 20


def test_quiet_prints_nothing(folder):
    trained()  # kernels are compiled, which is announced once
    result = trained("--quiet", "--out", "quiet")
    assert result.output == ""
    assert load("quiet/model.safetensors")[1].step == 20


def test_a_terminal_sees_a_bar(folder):
    terminal, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    command = [sys.executable, "-m", "fastrnn", "charlm", "train", "fox.txt", *SMALL, "--steps", "20"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=child, env=environment(), check=True)
    os.close(child)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert re.search(r"100%\|.{20}\| 00:\d\d<00:00, loss \d\.\d{3}, [\d,]+ characters/s", shown)
    assert "step 20" not in shown


class Terminal(io.StringIO):
    """Standard error of somebody who looks, and the clock by which a bar tells the time."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.now = 1000.0
        monkeypatch.setattr(sys, "stderr", self)
        monkeypatch.setattr("tqdm.std.time", lambda: self.now)

    def isatty(self):
        return True

    def shows(self):
        """The bar as it was drawn, time after time."""
        return [drawn.rstrip() for drawn in self.getvalue().split("\r") if drawn.strip()]


@pytest.mark.parametrize("first", [1e-9, 0.01])
def test_a_bar_appears_with_the_first_step_and_leaves_its_time_out(monkeypatch, first):
    """A first step of 15 s, which compiles, then a hundred steps of 0.5 s."""
    terminal = Terminal(monkeypatch)
    with Bar(quiet=False) as bar:
        assert bar.hidden
        terminal.now += 15
        assert terminal.shows() == []
        bar.show(first, "loss 3.000")
        assert not bar.hidden
        (drawn,) = terminal.shows()
        assert re.fullmatch(rf"{100 * first:3.0f}%\|.{{20}}\| 00:00<\?, loss 3.000", drawn)
        for i in range(1, 100):
            terminal.now += 0.5
            bar.show(first + i / 100 * (1 - first), f"loss {i}")
    shown = terminal.shows()
    assert len(shown) > 50
    for drawn in shown[1:]:
        share, minutes, seconds, left_minutes, left_seconds = map(
            int, re.match(r"\s*(\d+)%\|.{20}\| (\d\d):(\d\d)<(\d\d):(\d\d), loss", drawn).groups()
        )
        assert minutes == 0
        assert abs(seconds - share / 2) <= 1
        assert abs(60 * left_minutes + left_seconds - (50 - share / 2)) <= 2


@pytest.mark.parametrize("quiet", [False, True])
def test_a_bar_that_nobody_sees_is_silent(monkeypatch, quiet):
    terminal = Terminal(monkeypatch)
    monkeypatch.setattr(terminal, "isatty", lambda: quiet)
    with Bar(quiet) as bar:
        for share in (0.1, 0.5, 1.0):
            bar.show(share, "loss")
            assert bar.hidden
    assert terminal.getvalue() == ""


def test_an_example_draws_nothing_before_its_first_step(monkeypatch):
    terminal = Terminal(monkeypatch)

    def run(run):
        assert terminal.getvalue() == ""
        run._progress(0.25, 1.5)
        assert re.search(r" 25%\|.{20}\| 00:00<\?, loss 1.500", terminal.getvalue())
        return Result("", 1.0, 1.0, "nothing")

    monkeypatch.setattr(EXAMPLES["words"], "run", run)
    example.example.commands["words"].main([], standalone_mode=False)


def test_a_training_draws_nothing_before_its_first_step(folder, monkeypatch):
    terminal = Terminal(monkeypatch)
    step, seen = CharLM.train_step, []

    def watched(*arguments, **options):
        seen.append(terminal.getvalue())
        return step(*arguments, **options)

    monkeypatch.setattr(CharLM, "train_step", watched)
    context = charlm.train.make_context("train", ["fox.txt", *SMALL, "--steps", "3"])
    with context:
        charlm.train.invoke(context)
    assert seen[0] == f"text: fox.txt, {len(TEXT):,} characters, 29 different\n"
    assert seen[1].startswith(seen[0] + "\r 33%|")


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_the_recipe_is_followed(folder):
    result = fastrnn_command(
        "charlm", "train", "fox.txt", "--recipe", "min-char-rnn", "--steps", 50, "--hidden", 100, "--metrics", "m.jsonl"
    )
    assert result.exit_code == 0
    model, optimizer = min_char_rnn.build("".join(sorted(set(TEXT))))
    windows = min_char_rnn.windows(model.encode(TEXT))
    last = list(loop.train(model, optimizer, windows, steps=50, **min_char_rnn.SETTINGS))[-1]
    found, info = load("charlm/model.safetensors")
    assert found.config["dtype"] == "float64"
    np.testing.assert_array_equal(found.parameters.flat, model.parameters.flat)
    assert info.extra["recipe"] == "min-char-rnn"
    assert f"step 50 (100%): loss {25 * last.smooth_loss:.3f}, " in result.stderr
    assert result.stdout.startswith(f"training loss: {last.smooth_loss:.4f} nats, ")
    assert lines_of(folder / "m.jsonl")[-1]["train_loss"] == last.train_loss


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_a_step_and_keeps_the_model(monkeypatch, number):
    before = signal.getsignal(number)
    train = loop.train

    def signalled(*args, **kw):
        for m in train(*args, **kw):
            if m.step == 3:
                signal.raise_signal(number)
                assert signal.getsignal(number) is before  # a second one is not held back
            yield m

    monkeypatch.setattr(loop, "train", signalled)
    result = fastrnn_command("charlm", "train", "fox.txt", *SMALL, "--steps", 1000)
    assert result.exit_code == 128 + number
    assert result.stdout == ""
    assert result.stderr.endswith("stopped after step 3; model: charlm/model.safetensors\n")
    assert load("charlm/model.safetensors")[1].step == 3
    assert signal.getsignal(number) is before


def test_ctrl_c_in_a_shell(folder):
    command = [sys.executable, "-m", "fastrnn", "charlm", "train", "fox.txt", *SMALL, "--metrics", "m.jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        while process.poll() is None and not ((folder / "m.jsonl").exists() and (folder / "m.jsonl").stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err
    assert load("charlm/model.safetensors")[1].step > 0


def test_ctrl_c_before_training_is_quiet(monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(charlm, "read_text", interrupt)
    result = fastrnn_command("charlm", "train", "fox.txt")
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_a_diverging_run_keeps_the_last_good_model(folder, monkeypatch):
    step = CharLM.train_step

    def diverge(model, x, y, state, optimizer, **arguments):
        loss, norm, state = step(model, x, y, state, optimizer, **arguments)
        return (loss if optimizer.steps < 13 else math.nan), norm, state

    monkeypatch.setattr(CharLM, "train_step", diverge)
    result = fastrnn_command("charlm", "train", "fox.txt", *SMALL, "--steps", 20, "--quiet", "--metrics", "m.jsonl")
    assert error_of(result) == "step 13: the loss is nan; try a lower learning rate"
    assert load("charlm/model.safetensors")[1].step == 12
    assert [record["step"] for record in lines_of(folder / "m.jsonl")] == list(range(1, 13))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_an_absurd_learning_rate_is_one_line(folder, cell):
    options = ["--optimizer", "momentum", "--lr", "1e38", "--clip-norm", "0", "--cell", cell, "--quiet"]
    result = fastrnn_command("charlm", "train", "fox.txt", *SMALL, "--steps", 1000, *options, "--metrics", "m.jsonl")
    assert re.fullmatch(r"step \d+: .* is (nan|inf); try a lower learning rate|.* is not finite", error_of(result))
    for record in lines_of(folder / "m.jsonl"):
        assert math.isfinite(record["train_loss"])


def test_a_full_disk_is_one_line(monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    result = fastrnn_command("charlm", "train", "fox.txt", *SMALL, "--steps", 2, "--quiet")
    assert error_of(result) == "charlm/model.safetensors: not written: No space left on device"


SHORT = "text: expected at least 2*(batch*seq_length + 1) = 6402 characters, got 1800"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "none.txt: No such file or directory"),
        (["folder"], "folder: Is a directory"),
        (["empty.txt"], "empty.txt: empty"),
        (["fox.txt", "--batch", 64], SHORT),
        (
            ["fox.txt", "--batch", 64, "--val-fraction", 0],
            "text: expected at least batch*seq_length + 1 = 3201 characters, got 1800",
        ),
        (["latin.txt"], "latin.txt: expected UTF-8, got byte 0xe9 at 3"),
        (["cut.gz"], "cut.gz: damaged gzip: Compressed file ended before the end-of-stream marker was reached"),
        (["/dev/zero", "--max-bytes", 5_000_000], "/dev/zero: expected at most 5000000 bytes of text, got more"),
        (["bomb.gz", "--max-bytes", 99_999], "bomb.gz: expected at most 99999 bytes of text, got more"),
        (["-"], "standard input: empty"),
        (["fox.txt", "--hidden", 0], "Invalid value for '--hidden': 0 is not in the range 1<=x<=65536."),
        (["fox.txt", "--hidden", "x"], "Invalid value for '--hidden': 'x' is not a valid integer range."),
        (["fox.txt", "--lr", 0], "Invalid value for '--lr': 0.0 is not in the range x>0."),
        (["fox.txt", "--lr", "nan"], "Invalid value for '--lr': nan is not finite."),
        (["fox.txt", "--lr", "inf"], "Invalid value for '--lr': inf is not finite."),
        (["fox.txt", "--val-fraction", 1], "Invalid value for '--val-fraction': 1.0 is not in the range 0<=x<1."),
        (["fox.txt", "--dropout", "nan"], "Invalid value for '--dropout': nan is not finite."),
        (["fox.txt", "--seed", -1], "Invalid value for '--seed': -1 is not in the range x>=0."),
        (
            ["fox.txt", "--cell", "sine"],
            "Invalid value for '--cell': 'sine' is not one of 'tanh', 'relu', 'gru', 'lstm'.",
        ),
        (["fox.txt", "--steps", 1, "--epochs", 1], "--steps and --epochs exclude each other"),
        (["fox.txt", "--clip-norm", 1, "--clip-value", 1], "--clip-norm and --clip-value exclude each other"),
        (["fox.txt", *SMALL, "--out", "fox.txt"], "--out fox.txt: File exists"),
        (["fox.txt", *SMALL, "--out", "fox.txt/model"], "--out fox.txt/model: Not a directory"),
        (["fox.txt", *SMALL, "--metrics", "none/m.jsonl"], "none/m.jsonl: No such file or directory"),
        (["fox.txt", *SMALL, "--metrics", "folder"], "folder: Is a directory"),
        (["fox.txt", "more.txt"], "Got unexpected extra argument (more.txt)"),
        (["fox.txt", "--learning-rate", 1], "No such option"),
        (
            ["--recipe", "min-char-rnn", "--hidden", 128],
            "--hidden 128 contradicts --recipe min-char-rnn, which has 100",
        ),
        (
            ["--recipe", "min-char-rnn", "--clip-norm", 5],
            "--clip-norm 5.0 contradicts --recipe min-char-rnn, which has none",
        ),
        (
            ["--recipe", "min-char-rnn", "--seq-length", 50],
            "--seq-length 50 contradicts --recipe min-char-rnn, which has 25",
        ),
        (
            ["--recipe", "min-char-rnn", "--optimizer", "adam"],
            "--optimizer adam contradicts --recipe min-char-rnn, which has adagrad",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_any_model(folder, monkeypatch, arguments, message):
    (folder / "folder").mkdir()
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "bomb.gz").write_bytes(gzip.compress(bytes(100_000)))
    (folder / "cut.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    monkeypatch.setattr(fastrnn.models, "CharLM", None)  # to build a model would be a TypeError, with a traceback
    monkeypatch.setattr(min_char_rnn, "CharLM", None)
    result = fastrnn_command("charlm", "train", *arguments, "--quiet")
    assert error_of(result).startswith(message)


def test_more_threads_than_cores_are_refused():
    result = fastrnn_command("charlm", "train", "fox.txt", "--threads", 100_000)
    assert re.fullmatch(r"--threads: expected 1\.\.\d+ threads, got 100000", error_of(result))


def test_options_of_the_recipe_may_be_repeated():
    options = ["--hidden", 100, "--lr", 0.1, "--clip-value", 5, "--batch", 1, "--val-fraction", 0]
    result = fastrnn_command("charlm", "train", "fox.txt", "--recipe", "min-char-rnn", "--steps", 1, *options)
    assert result.exit_code == 0


def test_sampling_continues_the_prime():
    trained()
    model, _ = load("charlm/model.safetensors")
    for options, arguments in (
        ([], {}),
        (["--temperature", 0.5, "--top-k", 3], {"temperature": 0.5, "top_k": 3}),
        (["--temperature", 0], {"temperature": 0}),
        (["--prime", "the quick"], {"prime": "the quick"}),
    ):
        result = fastrnn_command("charlm", "sample", "charlm/model.safetensors", "--length", 50, "--seed", 4, *options)
        assert result.exit_code == 0
        assert result.stdout == arguments.get("prime", "") + model.sample(50, seed=4, **arguments) + "\n"


def test_a_folder_stands_for_its_checkpoint():
    trained()
    file, folder = (
        fastrnn_command("charlm", "sample", path, "--seed", 1) for path in ("charlm/model.safetensors", "charlm")
    )
    assert file.stdout == folder.stdout
    assert len(file.stdout) == 501


def test_samples_differ_without_a_seed():
    trained()
    assert len({fastrnn_command("charlm", "sample", "charlm").stdout for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: No such file or directory"),
        (["."], "model.safetensors: No such file or directory"),
        (["fox.txt"], "fox.txt: not a safetensors file: "),
        (["damaged"], "damaged: damaged: checksum mismatch"),
        (["charlm", "--prime", "the \u00e9"], "text: character '\u00e9' (U+00E9) at 4 is not in the vocabulary"),
        (["charlm", "--temperature", "-1"], "Invalid value for '--temperature': -1.0 is not in the range x>=0."),
        (["charlm", "--temperature", "nan"], "Invalid value for '--temperature': nan is not finite."),
        (["charlm", "--top-k", "0"], "Invalid value for '--top-k': 0 is not in the range x>=1."),
        ([], "Missing argument 'CHECKPOINT'."),
    ],
)
def test_what_cannot_be_sampled_is_one_line(folder, arguments, message):
    trained()
    data = bytearray((folder / "charlm/model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "damaged").write_bytes(data)
    assert error_of(fastrnn_command("charlm", "sample", *arguments)).startswith(message)


def test_a_reader_that_leaves_is_no_error():
    trained()
    command = [sys.executable, "-m", "fastrnn", "charlm", "sample", "charlm", "--length", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["charlm"], ["charlm", "--help"]])
def test_help_names_the_commands(arguments):
    result = fastrnn_command(*arguments)
    assert result.exit_code == 0
    assert "charlm " in result.stdout or re.search(r"sample .*\n.*train ", result.stdout)


@pytest.mark.parametrize("command", ["train", "sample"])
def test_help_says_what_every_option_is_for(command):
    result = fastrnn_command("charlm", command, "--help")
    assert result.exit_code == 0
    for parameter in charlm.charlm.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.opts[0] in result.stdout


def test_version():
    assert fastrnn_command("--version").stdout == f"fastrnn {fastrnn.__version__}\n"
    run = subprocess.run(
        [sys.executable, "-m", "fastrnn", "--version"], capture_output=True, text=True, env=environment()
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, f"fastrnn {fastrnn.__version__}\n", "")


def test_an_unknown_command_is_one_line():
    assert error_of(fastrnn_command("charlm", "paint")).startswith("No such command 'paint'.")


def test_every_model_that_can_be_trained_can_be_loaded():
    """The bounds of the options are those of checkpoints."""
    ranges = {parameter.name: parameter.type for parameter in charlm.train.params}
    for option, name in (("hidden", "hidden_size"), ("layers", "num_layers"), ("embedding", "embedding_size")):
        assert (ranges[option].min, ranges[option].max) == checkpoint.LIMITS[name]
