"""Kernels used from several threads and processes, forked ones too; each test in a Python of its own."""

import sys

import numpy as np
import pytest
from numba.core import event
from programs import output

import fastrnn

# results(seed): the bits of a layer's pass, cut for two threads; `first` of them is computed by one thread
PASS = """
import hashlib, os, sys
import numpy as np
import fastrnn
from fastrnn import threads

rnn = fastrnn.RNN(19, 37, dtype="float32", seed=0)

def share(count):
    threads.for_sequence = lambda *work: threads.Plan(count, 1)
    threads.for_work = threads.for_bytes = lambda amount: count

def results(seed):
    x = np.random.default_rng(seed).standard_normal((7, 13, 19)).astype("float32")
    (y, h_n), pullback = rnn.vjp(x)
    dx, dh0, grads = pullback(np.cos(y), np.sin(h_n))
    return hashlib.sha256(b"".join(a.tobytes() for a in (y, h_n, dx, dh0, grads.flat))).hexdigest()

def in_threads(function, items, count):
    import threading
    found, together = {}, threading.Barrier(count)
    def work(item):
        together.wait()
        found[item] = function(item)
    workers = [threading.Thread(target=work, args=(item,)) for item in items]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    return found
"""


def test_the_first_use_by_several_threads(tmp_path, run_python):
    """Four threads meet an empty cache."""
    program = """
def use(seed):
    x = np.random.default_rng(seed).standard_normal((3, 4)).astype("float32")
    return fastrnn.Linear(4, 5, seed=0)(x).tobytes()
found = in_threads(use, range(4), 4)
assert len(found) == 4
assert found == {seed: use(seed) for seed in range(4)}
"""
    output(run_python(PASS + program, NUMBA_CACHE_DIR=str(tmp_path)))


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_threads_that_share_kernels(layer, run_python):
    """Eight threads run kernels of five parts at the same time, with different inputs, again and again."""
    program = """
share(1)
expected = {seed: results(seed) for seed in range(8)}
share(5)
for _ in range(20):
    assert in_threads(results, range(8), 8) == expected
print(__import__("numba").threading_layer())
"""
    found = output(run_python(PASS + program, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2"))
    assert layer in ("default", found)


# forked(work): what work() gives in a forked child, which ends well
FORK = """
import warnings

def forked(work):
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads; that is what is tested
        child = os.fork()
    if child == 0:
        os.write(write, str(work()).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(write)
    with open(read) as pipe:
        return pipe.read()

def alone(work):
    return in_threads(lambda item: work(), [0], 1)[0]
"""

has_fork = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")


@has_fork
@pytest.mark.parametrize("place", ["work()", "alone(work)", "forked(work)", "[work(), alone(work)][1]"])
@pytest.mark.parametrize(
    "work", ["share(threads.get_num_threads()); return results(0)", "share(2); return results(0)", "return gradient()"]
)
def test_a_forked_child(work, place, run_python):
    """After parallel kernels in the parent, its child computes the same bits, and so does the parent afterwards.

    The child's work is a pass of its own, or the backward half of a pass that its parent began; it is done in the
    child's first thread, in another one, or in a child of its own.
    """
    program = f"""
share(2)
x = np.random.default_rng(0).standard_normal((7, 13, 19)).astype("float32")
(y, h_n), pullback = rnn.vjp(x)
gradient = lambda: hashlib.sha256(pullback(y, h_n)[0].tobytes()).hexdigest()
before = results(0), gradient()
kept = threads.get_num_threads()
def work():
    {work}
assert forked(lambda: {place}) in before
assert threads.get_num_threads() == kept
assert (results(0), gradient()) == before
"""
    output(run_python(PASS + FORK + program, NUMBA_NUM_THREADS="2"))


@has_fork
def test_a_forked_child_that_asks_for_threads(run_python):
    """There are none, which it is told; its results are right all the same, in every thread."""
    program = """
def work():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fastrnn.set_num_threads(2)
    assert fastrnn.get_num_threads() == 1
    share(2)
    assert results(0) == alone(lambda: results(0)) == expected
    return *[f"{each.category.__name__}: {each.message}" for each in said], len(said)
share(2)
expected = results(0)
print(forked(work))
"""
    found = output(run_python(PASS + FORK + program, NUMBA_NUM_THREADS="2"))
    message = "count: expected 1 thread in a process forked after threads had started, got 2; it stays at 1"
    assert found == str((f"RuntimeWarning: {message}", 1))


@has_fork
def test_threads_that_another_package_started(run_python):
    """A child of a process whose pool runs, though not for our kernels, runs on one thread."""
    program = """
import numba
@numba.njit(parallel=True)
def add_one(x):
    for i in numba.prange(len(x)):
        x[i] += 1
add_one(np.ones(100))
def work():
    share(2)
    return results(0)
found = forked(work)
share(1)
assert found == results(0)
"""
    output(run_python(PASS + FORK + program, NUMBA_NUM_THREADS="2"))


@has_fork
def test_a_child_forked_before_there_were_threads(run_python):
    """It starts with one, and may take more."""
    program = """
def work():
    before = threads.get_num_threads()
    fastrnn.set_num_threads(2)
    share(threads.get_num_threads())
    return before, results(0), numba_threads()
def numba_threads():
    import numba
    return numba.get_num_threads()
found = forked(work)
share(1)
assert found == str((1, results(0), 2))
"""
    output(run_python(PASS + FORK + program, NUMBA_NUM_THREADS="2"))


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_the_workqueue_is_announced(layer, run_python):
    program = "share(2)\nresults(0)\nresults(1)\nprint(__import__('numba').threading_layer())\n"
    result = run_python(PASS + program, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    found = output(result)
    assert layer in ("default", found)
    line = (
        "fastrnn: kernels run on Numba's workqueue, which ends the process if another package's parallel Numba code "
        "runs at the same time; with OpenMP's library (libgomp1) or tbb installed it would not\n"
    )
    assert result.stderr.count(line) == (found == "workqueue")


def test_numba_without_its_compiler(run_python):
    program = """
try:
    results(0)
except RuntimeError as error:
    print(error)
"""
    found = output(run_python(PASS + program, NUMBA_DISABLE_JIT="1"))
    assert found == "NUMBA_DISABLE_JIT: expected 0, got 1: fastrnn's kernels only run compiled"


@pytest.mark.parametrize("moment", ["atexit.register(work)", "ending = type('Ending', (), {'__del__': work})()"])
def test_kernels_at_exit(moment, run_python):
    """A layer that has run before runs until the very end; the results need nothing that Python has unloaded."""
    program = f"""
import atexit
expected = results(0)
x = np.random.default_rng(0).standard_normal((7, 13, 19)).astype("float32")
(y, h_n), pullback = rnn.vjp(x)
dx = pullback(y, h_n)[0]
def work(*_):
    (again, h_again), pullback = rnn.vjp(x)
    print(again.tobytes() == y.tobytes(), pullback(again, h_again)[0].tobytes() == dx.tobytes(), flush=True)
{moment}
"""
    result = run_python(PASS + program)
    assert (output(result), result.stderr) == ("True True", "")


def test_results_do_not_change_from_call_to_call(run_python):
    program = """
share(2)
assert len({results(0) for _ in range(50)}) == 1
"""
    output(run_python(PASS + program, NUMBA_NUM_THREADS="2"))


def test_torch_keeps_its_threads(run_python):
    """The first launch of Numba's threads would reset the number of torch's."""
    pytest.importorskip("torch", reason="torch is what is disturbed")
    program = """
import torch
torch.set_num_threads(1)
share(2)
results(0)
assert torch.get_num_threads() == 1
"""
    output(run_python(PASS + program, NUMBA_NUM_THREADS="2"))


def test_arrays_in_any_memory_use_the_same_kernels():
    """Read-only, misaligned and strided inputs are other types to Numba; none of them waits for a compiler."""
    rnn, model = fastrnn.RNN(5, 7, seed=0), fastrnn.models.CharLM("abcd", hidden_size=8, seed=0)
    x, tokens = np.random.default_rng(0).standard_normal((3, 2, 5)).astype("float32"), np.array([[0, 3], [1, 2]])

    def results(x, tokens):
        (y, h_n), pullback = rnn.vjp(x)
        dx, _, grads = pullback(y, h_n)
        return y, dx, grads.flat, model.loss_and_gradients(tokens, tokens)[2].flat

    def read_only(array):
        array = array.copy()
        array.flags.writeable = False
        return array

    def misaligned(array):
        moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        moved[...] = array
        return moved

    expected = results(x, tokens)
    with event.install_recorder("numba:compile") as compiled:
        for other in (read_only, misaligned, np.asfortranarray):
            for got, wanted in zip(results(other(x), other(tokens)), expected, strict=True):
                np.testing.assert_array_equal(got, wanted, err_msg=other.__name__)
    names = {e.data["dispatcher"].py_func.__name__ for _, e in compiled.buffer}
    assert not names, f"compiled again: {', '.join(sorted(names))}"
