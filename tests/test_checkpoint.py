"""Checkpoints: bit for bit what was saved, or an error of one line."""

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from fastrnn import LSTM, checkpoint, optim
from fastrnn.checkpoint import CheckpointError, load, save
from fastrnn.models import CharLM, Seq2Seq, SequenceClassifier, SequenceTagger

VOCABULARY = '\n"\\a\u00e9\U0001f600'


def model_of(seed=0, **arguments):
    return CharLM(VOCABULARY, hidden_size=3, seed=seed, **arguments)


def trained(model, kind="Adam"):
    """An optimiser of the model after one step."""
    optimizer = getattr(optim, kind)(model.parameters)
    grads = model.parameters.zeros_like()
    grads.flat[:] = np.random.default_rng(1).standard_normal(grads.flat.size)
    optimizer.step(grads)
    return optimizer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """The bytes of a small whole checkpoint that lies at `path`."""
    save(path, model_of(), trained(model_of()), 7, {"note": "x"})
    return path.read_bytes()


def error_of(path):
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def header_size(data):
    return 8 + int.from_bytes(data[:8], "little")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arguments", [{}, {"cell": "relu", "num_layers": 2, "embedding_size": 4, "dropout": 0.25}])
@pytest.mark.parametrize("kind", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_a_checkpoint_gives_back_every_bit(path, dtype, arguments, kind):
    model = model_of(dtype=dtype, **arguments)
    model.parameters.flat[:4] = [-0.0, 5e-324 if dtype == "float64" else 1e-45, np.finfo(dtype).max, 0.1]
    optimizer = trained(model, kind)
    extra = {"text": "\u00e9 \U0001f600", "count": 2**70, "loss": 0.1}
    save(path, model, optimizer, 12, extra)
    found, info = load(path)
    assert found.config == model.config
    assert found.vocabulary == VOCABULARY
    assert found.parameters.shapes == model.parameters.shapes
    assert found.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert (info.step, info.extra) == (12, extra)
    again = getattr(optim, kind)(found.parameters)
    again.load_state_dict(info.optimizer)
    for name, value in optimizer.state_dict().items():
        assert np.array_equal(again.state_dict()[name], value), name


def test_an_optimiser_is_optional(path):
    save(path, model_of())
    assert load(path)[1] == checkpoint.Info(0, None, {})


def test_a_loaded_model_owns_its_memory(path, saved):
    model, _ = load(path)
    model.parameters.flat[:] = 0
    assert path.read_bytes() == saved
    assert load(path)[0].parameters.flat.any()


class Strided(CharLM):
    """A model whose parameters lie in memory as no file can hold them."""

    def __init__(self, model, strided):
        self.config = model.config
        self.parameters = {name: strided(value) for name, value in model.parameters.items()}


Strided.__name__ = "CharLM"  # what the file calls it


@pytest.mark.parametrize(
    "strided",
    [
        lambda value: np.asfortranarray(value),
        lambda value: np.repeat(value, 2, axis=0)[::2],
        lambda value: value[::-1].copy()[::-1],
        lambda value: value.astype(value.dtype.newbyteorder()),
    ],
    ids=["fortran", "strided", "reversed", "byteswapped"],
)
def test_parameters_are_saved_by_value_not_by_layout(path, strided):
    model = model_of()
    save(path, Strided(model, strided))
    assert load(path)[0].parameters.flat.tobytes() == model.parameters.flat.tobytes()


def test_a_checkpoint_is_an_ordinary_safetensors_file(path, saved):
    tensors = safetensors.numpy.load_file(path)
    for name, value in model_of().parameters.items():
        np.testing.assert_array_equal(tensors[name], value)
    assert sorted(set(tensors) - set(model_of().parameters)) == ["optimizer.exp_avg", "optimizer.exp_avg_sq"]


def test_every_truncation_is_an_error(path, saved):
    for end in range(len(saved)):
        path.write_bytes(saved[:end])
        assert error_of(path).startswith("not a safetensors file: ")


def test_anything_appended_is_an_error(path, saved):
    path.write_bytes(saved + b"\0")
    assert error_of(path).startswith("not a safetensors file: ")


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x20, 0x80, 0xFF])
def test_every_flipped_header_byte_is_an_error(path, saved, mask):
    for i in range(header_size(saved)):
        damaged = bytearray(saved)
        damaged[i] ^= mask
        path.write_bytes(damaged)
        assert error_of(path), i


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_flipped_data_byte_is_an_error(path, saved, mask):
    for i in range(header_size(saved), len(saved)):
        damaged = bytearray(saved)
        damaged[i] ^= mask
        path.write_bytes(damaged)
        assert error_of(path) == "damaged: checksum mismatch", i


def forge(path, change, model=None):
    """Write a checkpoint with a right checksum after change(tensors, description)."""
    model = model or model_of()
    save(path, model, trained(model), 7)
    data = path.read_bytes()
    tensors = safetensors.numpy.load(data)
    description = json.loads(json.loads(data[8 : header_size(data)])["__metadata__"]["fastrnn"])
    change(tensors, description)
    text = json.dumps(description)
    metadata = {"fastrnn": text, "sha256": checkpoint._checksum(tensors, text)}
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def config(**values):
    return lambda tensors, description: description["config"].update(values)


def entry(**values):
    return lambda tensors, description: description.update(values)


def tensor(name, change):
    return lambda tensors, description: tensors.update({name: change(tensors[name])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry(format=2), "format 2, expected 1"),
        (entry(format="1"), "format 1, expected 1"),
        (entry(step=-1), "step: expected an integer >= 0, got -1"),
        (entry(step=1.5), "step: expected an integer, got 1.5"),
        (entry(config=[]), "config: expected the arguments of CharLM"),
        (entry(more=1), "unexpected more"),
        (entry(optimizer=[1]), "'list' object is not a mapping"),
        (lambda tensors, description: description.pop("config"), "missing config"),
        (config(hidden_size=0), "hidden_size: expected an integer >= 1, got 0"),
        (config(hidden_size=1 << 40), "hidden_size: expected an integer <= 65536, got 1099511627776"),
        (config(hidden_size=65536), "expected at least 4295360512 elements for the config, got 57"),
        (config(hidden_size="3"), "hidden_size: expected an integer, got '3'"),
        (config(hidden_size=True), "hidden_size: expected an integer, got True"),
        (config(num_layers=257), "num_layers: expected an integer <= 256, got 257"),
        (config(embedding_size=-1), "embedding_size: expected an integer >= 0, got -1"),
        (config(vocabulary=None), "config: expected the arguments of CharLM"),
        (config(vocabulary="aa"), "vocabulary: expected characters, each once, got 'aa'"),
        (config(vocabulary=VOCABULARY[:-1]), "rnn.weight_ih_l0: expected shape (3, 5), got (3, 6)"),
        (config(cell="sine"), "got 'sine'"),
        (config(dtype="float64"), "expected dtype float64, got float32"),
        (config(dtype="int8"), "dtype: expected float32 or float64, got int8"),
        (config(dropout=2.0), "expected a number in 0..1, got 2"),
        (config(surprise=1), "unexpected keyword argument 'surprise'"),
        (config(surprise=1 << 60), "surprise: expected an integer <= 16777216, got 1152921504606846976"),
        (config(dropout=10**400), "dropout: expected an integer <= 16777216, got 1000"),
        (lambda tensors, description: description["config"].pop("vocabulary"), "missing 'vocabulary'"),
        (lambda tensors, description: description["config"].pop("hidden_size"), "missing 'hidden_size'"),
        (entry(model="Sequence"), "model: expected one of CharLM, "),
        (entry(model=["CharLM"]), "model: expected one of CharLM, "),
        (entry(model="SequenceTagger"), "num_classes: expected either num_classes or num_outputs"),
        (tensor("decoder.bias", lambda value: value * np.nan), "decoder.bias: not finite"),
        (tensor("optimizer.exp_avg", lambda value: value / 0), "optimizer.exp_avg: not finite"),
        (tensor("optimizer.exp_avg", lambda value: value[1:]), "optimizer.exp_avg: expected shape (57,), got (56,)"),
        (tensor("decoder.bias", lambda value: value.astype(np.float64)), "expected dtype float32, got float64"),
        (tensor("decoder.bias", lambda value: value.view(np.int32)), "expected dtype float32, got int32"),
        (tensor("decoder.weight", lambda value: value.T.copy()), "expected shape (6, 3), got (3, 6)"),
        (lambda tensors, description: tensors.pop("decoder.bias"), "missing decoder.bias"),
        (lambda tensors, description: tensors.update(more=np.zeros(1)), "unexpected more"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the division by 0
def test_a_forged_checkpoint_is_refused(path, change, message):
    forge(path, change)
    assert message in error_of(path)


def test_a_file_that_names_no_model_holds_a_character_model(path):
    """As those of earlier versions do."""
    model = model_of(cell="lstm", num_layers=2)
    forge(path, lambda tensors, description: description.pop("model"), model)
    found, info = load(path)
    assert type(found) is CharLM
    assert found.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert info.step == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config(hidden_size=65536), "parameters: expected at least "),
        (config(num_tokens=1 << 24), "parameters: expected at least "),
        (config(num_tokens=1 << 40), "num_tokens: expected an integer <= 16777216, got 1099511627776"),
        (config(num_classes=1 << 20), "parameters: expected at least "),
        (config(num_classes=None), "num_classes: expected either num_classes or num_outputs"),
        (config(num_classes=True), "num_classes: expected an integer, got True"),
        (config(num_classes="3"), "num_classes: expected an integer, got '3'"),
        (config(num_tokens=8), "embedding.weight: expected shape (8, 2), got (7, 2)"),
        (config(bidirectional=True), "missing rnn.weight_ih_l0_reverse"),
        (config(embedding_size=None), "embedding_size: expected an integer, got None"),
        (config(cell=[]), "cell: expected one of"),
    ],
)
def test_a_forged_tagger_is_refused(path, change, message):
    forge(path, change, SequenceTagger(3, num_tokens=7, embedding_size=2, hidden_size=3))
    assert message in error_of(path)


@pytest.mark.parametrize("size", ["hidden_size", "input_size", "num_classes"])
def test_a_forged_classifier_takes_no_memory(path, size, monkeypatch):
    forge(path, config(**{size: 60_000}), SequenceClassifier(3, input_size=2, hidden_size=3))
    monkeypatch.setattr(SequenceClassifier, "__init__", None)
    assert error_of(path).startswith("parameters: expected at least ")


def test_a_head_larger_than_its_file_is_never_allocated(path):
    """Sizes whose product the config's lower bound doesn't know: a vocabulary times hidden_size."""
    model = Seq2Seq(4, 5, hidden_size=64, embedding_size=1)
    forge(path, config(num_target=20_000), model)
    most = 2 * model.parameters.flat.size + 65536
    assert error_of(path).endswith(f"parameters: expected at most {most} elements, got {20_001 * 65}")


def test_a_model_larger_than_its_file_is_never_built(path, monkeypatch):
    forge(path, config(hidden_size=65536, num_layers=256))
    monkeypatch.setattr(CharLM, "__init__", None)  # to call it would be a TypeError of another text
    assert error_of(path).startswith("parameters: expected at least ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (safetensors.numpy.save({"a": np.zeros(2)}), "not a checkpoint of fastrnn"),
        (safetensors.numpy.save({"a": np.zeros(2)}, {"fastrnn": "[]", "sha256": ""}), "not a checkpoint of fastrnn"),
        (safetensors.numpy.save({}, {"fastrnn": "{", "sha256": ""}), "Expecting property name"),
        (safetensors.numpy.save({}, {"fastrnn": "[" * 100_000, "sha256": ""}), "maximum recursion depth"),
        (b"PK\x03\x04 a zip file of another program", "not a safetensors file: "),
    ],
    ids=["no metadata", "a list", "half a mapping", "too deep", "another format"],  # the files' own bytes differ by run
)
def test_other_files_are_refused(path, data, message):
    path.write_bytes(data)
    assert error_of(path).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert error_of(tmp_path / "none") == "No such file or directory"
    assert error_of(tmp_path) == "Is a directory"


def test_a_huge_file_is_refused_unread(path):
    with open(path, "wb") as file:
        file.truncate((1 << 34) + 1)  # a hole that takes no space
    assert error_of(path) == "expected at most 17179869184 bytes, got 17179869185"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_follows_the_umask(path, mask):
    before = os.umask(mask)
    try:
        save(path, model_of())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_symbolic_link_stays_one(tmp_path, path):
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere" / "file")
    save(path, model_of())
    assert path.is_symlink()
    assert load(tmp_path / "elsewhere" / "file")[0].config == model_of().config


def refuse(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(path, saved, monkeypatch, function):
    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: not written: No space left on device")):
        save(path, model_of(seed=1))
    assert path.read_bytes() == saved
    assert os.listdir(path.parent) == [path.name]


def test_a_full_disk_leaves_the_old_file_alone(path, saved):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError) as caught:
            save(path, model_of(seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"{path}: not written: File too large"
    assert path.read_bytes() == saved
    assert os.listdir(path.parent) == [path.name]


def test_an_interrupted_write_leaves_the_old_file_alone(path, saved, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(path, model_of(seed=1))
    assert path.read_bytes() == saved
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "none" / "model.safetensors"
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: not written: No such file or directory")):
        save(path, model_of())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_is_not_saved(path, saved, value):
    model = model_of()
    model.parameters["decoder.bias"][-1] = value
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: not written: decoder.bias is not finite")):
        save(path, model)
    assert path.read_bytes() == saved


def test_the_file_reaches_the_disk_before_its_name(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(stat.S_IFMT(os.fstat(fd).st_mode)) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append((a.parent, b)) or replace(a, b))
    save(path, model_of())
    assert calls == [stat.S_IFREG, (path.parent, path), stat.S_IFDIR]


WRITER = """
import sys
from fastrnn.models import CharLM
from fastrnn.checkpoint import save
models = [CharLM("ab", hidden_size=200, seed=seed) for seed in (0, 1)]
while True:
    for step, model in enumerate(models):
        save(sys.argv[1], model, step=step)
        print(step, flush=True)
"""


def assert_killed_writers_leave_nothing(path, delays):
    """Of every killed save at most its own temporary file, until the next save into the folder."""
    models = [CharLM("ab", hidden_size=200, seed=seed) for seed in (0, 1)]
    left = 0
    for delay in delays:
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        model, info = load(path)
        assert model.parameters.flat.tobytes() == models[info.step].parameters.flat.tobytes()
        assert len(list(path.parent.iterdir())) <= 2
        left += len(list(path.parent.iterdir())) - 1
    save(path.with_name("another"), models[0])
    assert sorted(os.listdir(path.parent)) == ["another", path.name]
    return left


def test_a_killed_writer_leaves_a_whole_file(path):
    assert_killed_writers_leave_nothing(path, (0.0, 0.003, 0.011))


@pytest.mark.exhaustive
def test_many_killed_writers(path):
    """Kills at all times of a save, some of which do leave a file."""
    assert assert_killed_writers_leave_nothing(path, np.linspace(0, 0.02, 40)) > 0


STUCK = """
import os, sys, time
from fastrnn import checkpoint
from fastrnn.models import CharLM
fsync = os.fsync
def stuck(file):
    print("in the middle", flush=True)
    sys.stdin.readline()
    fsync(file)
os.fsync = stuck
checkpoint.save(sys.argv[1], CharLM("ab", hidden_size=20, seed=1))
"""


@pytest.fixture
def stuck(path):
    """A process in the middle of a save, which goes on when it reads a line."""
    command = [sys.executable, "-c", STUCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "in the middle\n"
        yield writer
        writer.kill()


def temporaries(path):
    return [name for name in os.listdir(path.parent) if name.startswith(".fastrnn-")]


def test_what_a_living_process_writes_is_left_alone(path, stuck):
    (temporary,) = temporaries(path)
    save(path, model_of())
    assert temporaries(path) == [temporary]
    stuck.communicate("go on\n" * 2)
    assert stuck.returncode == 0
    assert temporaries(path) == []
    assert load(path)[0].rnn.hidden_size == 20


def test_what_a_killed_process_wrote_is_removed(path, stuck):
    save(path, model_of())
    stuck.kill()
    stuck.wait()
    assert len(temporaries(path)) == 1
    assert load(path)[0].rnn.hidden_size == 3
    save(path.with_name("another"), model_of())
    assert temporaries(path) == []


def test_other_peoples_files_are_left_alone(path):
    names = [
        ".fastrnn-",
        ".fastrnn-0123456789abcde",
        ".fastrnn-0123456789abcdefg",
        "fastrnn-0123456789abcdef",
        ".model",
    ]
    for name in names:
        path.with_name(name).touch()
    folder, link = path.with_name(".fastrnn-0000000000000000"), path.with_name(".fastrnn-1111111111111111")
    folder.mkdir()
    link.symlink_to(path.with_name(".model"))
    os.mkfifo(path.with_name(".fastrnn-2222222222222222"))
    save(path, model_of())
    kept = sorted([*names, folder.name, link.name, path.name])
    assert [name for name in sorted(os.listdir(path.parent)) if "2222" not in name] == kept


def test_a_file_system_without_locks_is_written_to_all_the_same(path, saved, monkeypatch):
    dead = path.with_name(".fastrnn-0123456789abcdef")
    dead.touch()
    monkeypatch.setattr(checkpoint.fcntl, "flock", refuse)
    save(path, model_of(seed=1))
    assert load(path)[0].parameters.flat.tobytes() == model_of(seed=1).parameters.flat.tobytes()
    assert dead.exists()


def test_a_file_that_is_taken_before_it_is_locked_is_made_again(path, monkeypatch):
    flock, taken = checkpoint.fcntl.flock, []

    def late(file, how):
        if not taken:
            taken.extend(temporaries(path))
            path.with_name(taken[0]).unlink()
        return flock(file, how)

    monkeypatch.setattr(checkpoint.fcntl, "flock", late)
    save(path, model_of())
    assert len(taken) == 1
    assert os.listdir(path.parent) == [path.name]
    assert load(path)[0].config == model_of().config


# What is saved can be loaded


class Unknown(CharLM):
    """A model of which files can't say what it is."""


def layers_of(count):
    return CharLM("ab", hidden_size=1, num_layers=count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: (None,), "model: expected one of CharLM, "),
        (lambda: (LSTM(2, 3),), "model: expected one of CharLM, "),
        (lambda: (Unknown("ab"),), "model: expected one of CharLM, "),
        (lambda: (layers_of(257),), "num_layers: expected an integer <= 256, got 257"),
        (lambda: (model_of(), None, -1), "step: expected an integer >= 0, got -1"),
        (lambda: (model_of(), None, "1"), "step: expected an integer, got '1'"),
        (lambda: (model_of(), "Adam"), "optimizer: expected an Optimizer, got str"),
        (lambda: (model_of(), trained(layers_of(1))), "optimizer.exp_avg: expected shape (57,), got (9,)"),
        (lambda: (model_of(), None, 0, ["a"]), "extra: expected a mapping, got list"),
        (lambda: (model_of(), None, 0, {"a": np.ones(2)}), "Object of type ndarray is not JSON serializable"),
        (lambda: (model_of(), None, 0, {"a": np.nan}), "Out of range float values are not JSON compliant"),
    ],
)
def test_what_could_not_be_loaded_is_not_written(path, saved, arguments, message):
    with pytest.raises(CheckpointError) as caught:
        save(path, *arguments())
    assert str(caught.value).startswith(f"{path}: not written: {message}")
    assert path.read_bytes() == saved


@pytest.mark.parametrize("function", [load, lambda path: save(path, model_of())])
@pytest.mark.parametrize("path", [None, 0, b"model"], ids=repr)
def test_what_is_no_path_is_named(function, path):
    with pytest.raises(TypeError, match=f"^path: expected a string or a Path, got {type(path).__name__}$"):
        function(path)
