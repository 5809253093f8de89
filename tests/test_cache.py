"""Kernels on disk: whatever happens to the files, results are right; and nothing is compiled twice without need."""

import compileall
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import types

import numba
import numpy as np
import pytest
from programs import LOSS, ROWS, copy_of_fastrnn, output

from fastrnn.kernels import cache, embedding, jit

ANSWER = "[[4, 5], [0, 1]]"  # of ROWS

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions, limits and signals")


def compiled(result):
    """Whether a program compiled anything; it has ended well, with the right answer."""
    assert output(result) == ANSWER
    return "compiling kernels" in result.stderr


@pytest.fixture(scope="module")
def complete(tmp_path_factory, run_python):
    """A folder for NUMBA_CACHE_DIR that holds what ROWS needs."""
    folder = tmp_path_factory.mktemp("complete")
    assert compiled(run_python(ROWS, NUMBA_CACHE_DIR=str(folder)))
    return folder


@pytest.fixture
def kept(complete, tmp_path):
    """A copy of it, and its files, the shared functions first."""
    shutil.copytree(complete, tmp_path / "cache")
    return tmp_path / "cache", sorted((tmp_path / "cache").rglob("*.kernel"))


def test_an_edit_below_a_kernel_is_seen(tmp_path, run_python):
    """Numba looks at the file of a cached function alone; the loss is compiled anew when vmath changes."""
    vmath = copy_of_fastrnn(tmp_path) / "kernels" / "vmath.py"

    def run():
        result = run_python(LOSS, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        return float(output(result)), "compiling kernels" in result.stderr

    before, anew = run()
    assert anew
    assert run() == (before, False)
    source = vmath.read_text()
    assert source.count("return (a + b) * f * g\n") == 1
    vmath.write_text(source.replace("return (a + b) * f * g\n", "return (a + b) * f * g * 2.0\n"))
    after, anew = run()
    assert anew
    assert after == pytest.approx(before + 0.6931471805599453, rel=1e-6)
    assert run() == (after, False)
    vmath.write_text(source)
    assert run() == (before, False)


def test_an_edit_while_running_is_harmless(tmp_path, run_python):
    """An upgrade under a running process does not part kernels from the symbols that they link to."""
    copy_of_fastrnn(tmp_path)
    use = "import numpy as np\nprint(fastrnn.Linear(2, 1)(np.ones((1, 2), 'f')).shape)\n"
    edit = "open('fastrnn/kernels/pack.py', 'a').write('\\n# upgraded\\n')\n"
    for program in ("import fastrnn\n" + use, "import fastrnn\n" + edit + use):
        assert output(run_python(program, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))) == "(1, 1)"


def test_every_kernel_file_is_in_the_stamp(tmp_path, run_python):
    """As are the versions of Numba and LLVM's binding, and the settings that change code."""
    kernels = copy_of_fastrnn(tmp_path) / "kernels"
    show = "from fastrnn.kernels import cache; print(cache.source_stamp())"
    files = sorted(kernels.rglob("*.py"))
    assert len(files) > 20
    after = "from fastrnn.kernels import cache\n"
    for path in files:
        edit = f"path = {str(path)!r}; text = open(path).read(); open(path, 'w').write(text + '#')\n"
        after += edit + "print(cache.source_stamp())\nopen(path, 'w').write(text)\n"
    for change in (
        "import numba; numba.__version__ = '0.1'",
        "import llvmlite; llvmlite.__version__ = '0.1'",
        "numba.config.OPT = 1",
        "numba.config.BOUNDSCHECK = 1",
    ):
        after += f"{change}\nprint(cache.source_stamp())\n"
    stamps = output(run_python(after, tmp_path)).split()
    assert len({*stamps, output(run_python(show, tmp_path))}) == len(files) + 5


@pytest.mark.parametrize("damage", ["cut off", "flipped", "exchanged", "a folder"])
def test_damaged_files_are_compiled_anew(damage, kept, run_python):
    """And put in order: the next process compiles nothing."""
    folder, (first, second) = kept
    if damage == "cut off":
        first.write_bytes(first.read_bytes()[:1000])
        second.write_bytes(b"")
    elif damage == "flipped":
        for path in (first, second):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
    elif damage == "exchanged":
        contents = second.read_bytes(), first.read_bytes()
        first.write_bytes(contents[0])
        second.write_bytes(contents[1])
    else:
        second.unlink()
        second.mkdir()
    assert compiled(run_python(ROWS, NUMBA_CACHE_DIR=str(folder)))
    assert compiled(run_python(ROWS, NUMBA_CACHE_DIR=str(folder))) == (damage == "a folder")


def test_any_damage_is_found(tmp_path, monkeypatch):
    """300 files with a byte flipped or an end cut off: none is unpickled, the whole one is."""
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o755)
    monkeypatch.setattr(cache, "folder", lambda: cache.Folder(folder, ""))
    gather = jit.Kernel(embedding.gather.compiled.py_func)
    out = np.empty(2, "f")
    gather(source=np.ones(4, "f"), source_row=2, index=np.array([0]), D=2, out=out, out_row=2, threads=1)
    dispatcher = gather.compiled
    (signature,), own = dispatcher.overloads, dispatcher._cache
    path, _ = own._place(signature, dispatcher.targetctx.codegen())
    whole, draw = path.read_bytes(), random.Random(0)
    unpickled = []
    monkeypatch.setattr(cache.pickle, "loads", unpickled.append)
    for case in range(300):
        content = bytearray(whole)
        place = draw.randrange(len(whole))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content if case % 2 else whole[:place])
        assert own.load_overload(signature, dispatcher.targetctx) is None
    assert not unpickled
    path.write_bytes(whole)
    own.load_overload(signature, dispatcher.targetctx)
    assert unpickled == [whole[cache._DIGEST :]]


@posix
@pytest.mark.parametrize("limit", ["0", "100000"])
def test_files_that_cannot_be_written(limit, tmp_path, run_python):
    """As with a full disk or a quota: what is compiled is used all the same, and no half of a file stays."""
    program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n" + ROWS
    assert compiled(run_python(program, NUMBA_CACHE_DIR=str(tmp_path)))
    (folder,) = (tmp_path / "fastrnn").iterdir()
    names = [path.name for path in folder.iterdir()]
    assert all(name.endswith(".kernel") for name in names)
    assert (limit == "0") == (not names)


def test_a_disk_that_is_full(tmp_path, run_python):
    program = f"""
import errno, os
def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
os.replace = full
{ROWS}"""
    result = run_python(program, NUMBA_CACHE_DIR=str(tmp_path))
    assert compiled(result)
    (folder,) = (tmp_path / "fastrnn").iterdir()
    assert not list(folder.iterdir())
    assert result.stderr.count(f"fastrnn: {folder}: No space left on device; what is compiled is not kept\n") == 1


def test_a_cache_that_can_only_be_read(kept, run_python):
    """It is used as it is; what it lacks is compiled, and not kept."""
    folder, files = kept
    program = """
import errno, os, tempfile
def read_only(*arguments, **options):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
os.mkdir = tempfile.mkstemp = read_only
os.access = lambda *arguments: False
"""
    assert not compiled(run_python(program + ROWS, NUMBA_CACHE_DIR=str(folder)))
    result = run_python(program + LOSS, NUMBA_CACHE_DIR=str(folder))
    assert float(output(result)) > 0
    assert f"not kept: {files[0].parent} cannot be written" in result.stderr
    assert sorted(files[0].parent.iterdir()) == files


@posix
@pytest.mark.parametrize("what", ["the folder", "a file"])
def test_what_others_can_write_is_refused(what, kept, run_python):
    folder, files = kept
    refused = files[0].parent if what == "the folder" else files[-1]
    refused.chmod(0o777)
    result = run_python(ROWS, NUMBA_CACHE_DIR=str(folder))
    assert compiled(result)
    assert (f"not kept: others than you can write {refused}" in result.stderr) == (what == "the folder")
    assert compiled(run_python(ROWS, NUMBA_CACHE_DIR=str(folder))) == (what == "the folder")


@posix
def test_what_belongs_to_others_is_refused(monkeypatch, tmp_path):
    assert cache._trusted(tmp_path.stat())
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    mine = os.stat_result((0o40755, *tmp_path.stat()[1:4], 12345, *tmp_path.stat()[5:]))
    theirs = os.stat_result((0o40755, *tmp_path.stat()[1:4], 54321, *tmp_path.stat()[5:]))
    assert cache._trusted(mine)
    assert not cache._trusted(theirs)


def test_without_a_writable_cache_folder(tmp_path, run_python):
    (tmp_path / "file").touch()
    result = run_python(ROWS, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert compiled(result)
    assert "not kept: no writable cache folder" in result.stderr


def test_without_a_home(run_python):
    program = """
import pathlib
def homeless():
    raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = homeless
"""
    result = run_python(program + ROWS, XDG_CACHE_HOME="", LOCALAPPDATA="", NUMBA_CACHE_DIR="")
    assert compiled(result)
    assert "not kept: no writable cache folder" in result.stderr


def test_the_import_touches_nothing(tmp_path, run_python):
    """The folder is made for the first kernel, and others cannot write it, whatever the umask."""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    result = run_python("import fastrnn", **environment)
    assert (output(result), result.stderr) == ("", "")
    assert not list(tmp_path.iterdir())
    assert compiled(run_python("import os; os.umask(0)\n" + ROWS, **environment))
    if sys.platform == "linux":
        (folder,) = (tmp_path / "fastrnn").iterdir()
        assert {path.stat().st_mode & 0o022 for path in (folder, *folder.iterdir())} == {0}


@pytest.mark.parametrize("form", ["archive", "folder without sources"])
def test_sources_that_are_no_files(form, tmp_path, run_python):
    """A zipapp, a wheel on sys.path, a frozen program: kernels are kept, and an edit is seen."""
    package = copy_of_fastrnn(tmp_path / "sources")

    def built(name):
        source, target = tmp_path / "sources", tmp_path / name
        if "without" in form:
            compileall.compile_dir(source, quiet=1, legacy=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        else:
            target = shutil.make_archive(str(tmp_path / f"{name}-archive"), "zip", source)
        program = f"import sys; sys.path.insert(0, {str(target)!r})\n{ROWS}"
        return run_python(program, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"), PYTHONDONTWRITEBYTECODE="1")

    assert compiled(built("first"))
    assert not compiled(built("second"))
    kernels = package / "kernels" / "embedding.py"
    kernels.write_text(kernels.read_text() + "\n_EDITED = frozenset({'a', 'b', 'c'})\n")
    assert compiled(built("third"))


def test_another_cpu_has_kernels_of_its_own(kept, run_python):
    """Of the same row, so that the stamp is the same."""
    folder, files = kept
    result = run_python(ROWS, NUMBA_CACHE_DIR=str(folder), NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert compiled(result)
    assert not compiled(run_python(ROWS, NUMBA_CACHE_DIR=str(folder)))
    assert all(path.exists() for path in files)


def test_functions_of_one_name_have_files_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "folder", lambda: cache.Folder(tmp_path, ""))
    codegen, array = embedding.gather.compiled.targetctx.codegen(), numba.typeof(np.ones(2, "f"))
    functions = [types.FunctionType((lambda x: None).__code__, {"__name__": name}) for name in ("a", "b", "a")]
    first, second, third = [cache.DiskCache(function)._place((array,), codegen) for function in functions]
    assert first == third != second


def test_types_that_the_stamp_does_not_cover_are_not_kept(tmp_path, monkeypatch):
    """A cell defined elsewhere may have the name of one of ours, and its source is not known here."""
    from typing import NamedTuple

    from fastrnn.kernels.cells.lstm import LSTM

    class Foreign(NamedTuple):
        weights: np.ndarray

    class Wrapped(NamedTuple):
        cell: Foreign

    monkeypatch.setattr(cache, "folder", lambda: cache.Folder(tmp_path, ""))
    own, codegen = cache.DiskCache(embedding.gather.compiled.py_func), embedding.gather.compiled.targetctx.codegen()
    array = np.ones(2, "f")
    places = [
        own._place((numba.typeof(value),), codegen)
        for value in (array, LSTM(), Foreign(array), Wrapped(Foreign(array)))
    ]
    assert [place is not None for place in places] == [True, True, False, False]
    assert places[0] != places[1]


SMALL = "Linear(3, 5, seed=0)", "TimeDelay(3, 5, 2, seed=0)"  # that are compiled in a moment
CELLS = "RNN(3, 5, seed=0)", "GRU(3, 5, seed=0)", "LSTM(3, 5, seed=0)", "LSTM(3, 5, seed=0, proj_size=2)"

# a step of a layer, and a hash of all that it gives
STEP = """
import hashlib, sys
import numpy as np
import fastrnn
layer = eval("fastrnn." + sys.argv[1])
x = np.random.default_rng(0).standard_normal((4, 2, 3), dtype=np.float32)
y, pullback = layer.vjp(x)
y = y[0] if isinstance(y, tuple) else y
dx, *_, grads = pullback(y)
print(hashlib.sha256(b"".join(a.tobytes() for a in (y, dx, grads.flat))).hexdigest())
"""


def steps(kinds, folder, program=STEP):
    """What several processes print that start at once, and whether they compiled anything."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen([*command, kind], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for kind in kinds
    ]
    found = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * len(kinds), found
    return [out.strip() for out, _ in found], ["compiling" in error for _, error in found]


@pytest.mark.parametrize(
    ("kinds", "repeats"), [(SMALL, 1), pytest.param(CELLS, 50, marks=pytest.mark.exhaustive)], ids=["small", "cells"]
)
def test_processes_that_start_together(kinds, repeats, tmp_path):
    """On an empty cache, two of each kind; then all that they wrote is loaded by one process."""
    seen = set()
    for repeat in range(repeats):
        folder = tmp_path / str(repeat)
        found, _ = steps(kinds * 2, folder)
        seen.add(tuple(found[: len(kinds)]))
        seen.add(tuple(found[len(kinds) :]))
        program = "import sys\n" + "".join(f"sys.argv[1:] = [{kind!r}]\n{STEP}" for kind in kinds)
        together, anew = steps(("",), folder, program)
        seen.add(tuple(together[0].split()))
        assert anew == [False]
        shutil.rmtree(folder)
    assert len(seen) == 1


def test_processes_number_their_functions_apart(run_python):
    """LLVM takes functions of one name for one: the counts in the names start anywhere, in forked children as well."""
    program = """
import os, fastrnn
from numba.core.bytecode import FunctionIdentity
print(next(FunctionIdentity._unique_ids), flush=True)
if hasattr(os, "fork") and os.fork() == 0:
    print(next(FunctionIdentity._unique_ids), flush=True)
"""
    found = [int(number) for _ in range(3) for number in output(run_python(program)).split()]
    found.sort()
    assert min(after - before for before, after in itertools.pairwise(found)) > 1 << 20


@posix
def test_what_killed_processes_left_is_removed(kept, run_python):
    """Once it is an hour old: a younger one may still be written."""
    folder, files = kept
    program = f"""
import os, signal
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
{LOSS}"""
    assert run_python(program, NUMBA_CACHE_DIR=str(folder)).returncode == -signal.SIGKILL
    (left,) = files[0].parent.glob("*.tmp")
    output(run_python(LOSS, NUMBA_CACHE_DIR=str(folder)))
    assert left.exists()
    os.utime(left, (0, 0))
    files[-1].unlink()
    assert compiled(run_python(ROWS, NUMBA_CACHE_DIR=str(folder)))
    assert not left.exists()
