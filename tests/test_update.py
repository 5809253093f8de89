"""Optimisers and gradient norms: against the reference, against torch, and to the bit for any number of threads."""

import numpy as np
import pytest
from cases import DTYPES, UPDATES, check
from numerics import relative_error

from fastrnn import optim, threads
from fastrnn.kernels import update
from fastrnn.parameters import Parameters

SIZES = [(1, 3), (15, 5), (16, 1), (33, 20), (1000, 3), (0, 2)]
BLOCK = update.NORM_BLOCK

by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_case = pytest.mark.parametrize("name", UPDATES)


def use_threads(monkeypatch, count):
    monkeypatch.setattr(threads, "for_bytes", lambda size: count)


def gradients(values):
    grads = Parameters({"p": values.shape}, values.dtype)
    grads["p"] = values
    return grads


@by_dtype
@by_case
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_updates(name, size, dtype):
    check(UPDATES[name], size, dtype)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}], ids=["plain", "decay"])
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("Adagrad", {}),
        ("RMSprop", {}),
        ("Adam", {}),
        ("AdamW", {}),
    ],
    ids=["SGD", "momentum", "Nesterov", "Adagrad", "RMSprop", "Adam", "AdamW"],
)
def test_updates_match_torch(name, extra, options):
    """Our defaults are torch's, and 30 steps with growing and vanishing gradients stay together."""
    torch = pytest.importorskip("torch", reason="torch is the independent implementation that this test compares with")
    rng = np.random.default_rng(0)
    p = gradients(rng.standard_normal(37))
    theirs = torch.nn.Parameter(torch.tensor(p.flat.copy()))
    ours = getattr(optim, name)(p, **extra, **options)
    other = getattr(torch.optim, name)([theirs], **extra, **options)
    for _ in range(30):
        g = rng.standard_normal(37) * np.exp(3 * rng.standard_normal(37))
        g[::5] = 0
        ours.step(gradients(g))
        theirs.grad = torch.from_numpy(g)
        other.step()
        assert relative_error(p.flat, theirs.detach().numpy()) < 1e-13


def test_eps_inside_the_root():
    """p - lr g / sqrt(sum + eps), and a gradient of 0 moves nothing."""
    g = np.array([3.0, 0.0, -1e-6])
    p = gradients(np.ones(3))
    optim.Adagrad(p, lr=0.1, eps=1e-8, eps_inside=True).step(gradients(g))
    np.testing.assert_allclose(p.flat, 1 - 0.1 * g / np.sqrt(g * g + 1e-8), rtol=1e-15)


@by_dtype
def test_a_gradient_that_is_nan_spoils_its_own_parameter(dtype):
    for case in UPDATES.values():
        inputs = case.draw((40, 3), dtype)
        clean = case.compiled(**inputs)
        inputs["grads"][1, 17] = np.nan
        for name, value in case.compiled(**inputs).items():
            assert np.isnan(value[17]), name
            np.testing.assert_array_equal(np.delete(value, 17), np.delete(clean[name], 17), err_msg=name)


@by_dtype
@pytest.mark.parametrize("size", [0, 1, 17, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_norm(size, dtype, monkeypatch):
    """Of any length, exact for integers, and the same bits for any number of threads."""
    rng = np.random.default_rng(size)
    integers = gradients(rng.integers(-3, 4, size).astype(dtype))
    normal = gradients(rng.standard_normal(size).astype(dtype))
    norms = set()
    for count in (1, 2, 3):
        use_threads(monkeypatch, count)
        assert optim.grad_norm(integers) == np.sqrt((integers.flat.astype(np.int64) ** 2).sum())
        norms.add(optim.grad_norm(normal))
    assert len(norms) == 1
    exact = float(np.sqrt((normal.flat.astype(np.longdouble) ** 2).sum()))
    assert norms.pop() == pytest.approx(exact, rel=40 * float(np.finfo(dtype).eps), abs=0)


@by_dtype
def test_every_element_counts_in_the_norm(dtype):
    g = gradients(np.zeros(BLOCK + 100, dtype))
    for i in (0, 1, 15, 16, BLOCK - 1, BLOCK, BLOCK + 99):
        g.flat[:] = 0
        g.flat[i] = -3
        assert optim.grad_norm(g) == 3


@by_dtype
def test_norm_of_extremes(dtype):
    g = gradients(np.ones(100, dtype))
    for value in (np.nan, np.inf):
        g.flat[77] = value
        norm = optim.grad_norm(g)
        assert np.isnan(norm) if np.isnan(value) else norm == np.inf
