"""Optimisers and clipping against torch.optim over several steps, and what a saved state must carry."""

import numpy as np
import pytest
from cases import DTYPES
from numerics import relative_error
from oracles import import_torch, normal

from fastrnn import Parameters, optim
from fastrnn.reference import update

SHAPES = {"weight": (7, 5), "empty": (0, 3), "bias": (13,)}
OPTIONS = {
    "SGD": [
        {},
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.2},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.2},
    ],
    "Adagrad": [{}, {"lr": 0.1, "eps": 0.01}, {"weight_decay": 0.2}],
    "RMSprop": [{}, {"lr": 0.1, "alpha": 0.5, "eps": 0.01}, {"alpha": 0}, {"weight_decay": 0.2}],
    "Adam": [{}, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 0.01}, {"betas": (0.0, 0.0)}, {"weight_decay": 0.2}],
    "AdamW": [{}, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 0.01}, {"lr": 0.1, "weight_decay": 0.5}, {"weight_decay": 0}],
}
EACH = [(name, options) for name, several in OPTIONS.items() for options in several]
IDS = ["-".join([name, *options]) for name, options in EACH]
each = pytest.mark.parametrize(("name", "options"), EACH, ids=IDS)
EVERY = [several[-1] | {"lr": 0.1} for several in OPTIONS.values()]
every = pytest.mark.parametrize(("name", "options"), list(zip(OPTIONS, EVERY, strict=True)), ids=list(OPTIONS))


def parameters(seed=0, dtype="float64"):
    p = Parameters(SHAPES, dtype)
    p.flat[:] = normal(p.flat.size, seed=seed, dtype=dtype)
    return p


def train(optimizer, seeds):
    for seed in seeds:
        optimizer.step(parameters(seed, optimizer.parameters.dtype))


def torch_twin(p):
    """A torch parameter for each of p's, and a function that gives them gradients."""
    torch = import_torch()
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in p.values()]

    def give(grads):
        for parameter, gradient in zip(theirs, grads.values(), strict=True):
            parameter.grad = torch.tensor(gradient)

    return torch, theirs, give


def joined(tensors):
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


@each
def test_steps_match_torch(name, options):
    p = parameters()
    torch, theirs, give = torch_twin(p)
    optimizer = getattr(optim, name)(p, **options)
    twin = getattr(torch.optim, name)(theirs, **options)
    for seed in range(1, 6):
        grads = parameters(seed)
        give(grads)
        twin.step()
        optimizer.step(grads)
        assert relative_error(p.flat, joined(theirs)) < 1e-14


@every
def test_a_new_learning_rate_matches_torch(name, options):
    p = parameters()
    torch, theirs, give = torch_twin(p)
    optimizer = getattr(optim, name)(p, **options)
    twin = getattr(torch.optim, name)(theirs, **options)
    for seed in range(1, 6):
        optimizer.lr = twin.param_groups[0]["lr"] = 0.1 / seed
        grads = parameters(seed)
        give(grads)
        twin.step()
        optimizer.step(grads)
        assert relative_error(p.flat, joined(theirs)) < 1e-14


@pytest.mark.parametrize("lr", [1, np.float32(0.1), np.float64(0.1), np.int64(1)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_learning_rate_of_any_type(dtype, lr):
    p, q = parameters(dtype=dtype), parameters(dtype=dtype)
    ours, plain = optim.SGD(p, 0.5), optim.SGD(q, 0.5)
    ours.lr, plain.lr = lr, float(lr)
    train(ours, [1])
    train(plain, [1])
    np.testing.assert_array_equal(p.flat, q.flat)


@each
def test_float32_steps(name, options):
    """Within roundings of the same steps in float64."""
    ours, exact = parameters(dtype="float32"), parameters()
    narrow, wide = (getattr(optim, name)(p, **options) for p in (ours, exact))
    train(narrow, range(1, 6))
    train(wide, range(1, 6))
    assert relative_error(ours.flat, exact.flat) < 5e-6
    assert (ours.flat != parameters(dtype="float32").flat).mean() > 0.9


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_adagrad_with_eps_under_the_root(weight_decay):
    p = parameters()
    expected, total = p.flat.copy(), 0.0
    optimizer = optim.Adagrad(p, 0.1, eps=0.3, weight_decay=weight_decay, eps_inside=True)
    for seed in range(1, 6):
        grads = parameters(seed)
        g = grads.flat + weight_decay * expected
        total = total + g * g
        expected -= 0.1 * g / np.sqrt(total + 0.3)
        optimizer.step(grads)
        assert relative_error(p.flat, expected) < 1e-14


@every
def test_gradients_are_left_alone(name, options):
    p, grads = parameters(), parameters(1)
    getattr(optim, name)(p, **options).step(grads)
    np.testing.assert_array_equal(grads.flat, parameters(1).flat)


@pytest.mark.parametrize("dtype", DTYPES)
@every
def test_a_saved_state_continues_with_the_same_bits(name, options, dtype):
    p, q = parameters(dtype=dtype), parameters(dtype=dtype)
    optimizer = getattr(optim, name)(p, **options)
    train(optimizer, range(1, 4))
    optimizer.lr = 0.05
    state = optimizer.state_dict()
    kept = {key: np.copy(value) for key, value in state.items()}
    assert state["step"] == 3
    assert state["lr"] == 0.05
    assert {key for key in state if key not in ("step", "lr")} == set(optimizer.moments)
    q.update(p)
    twin = getattr(optim, name)(q, **options)
    twin.load_state_dict(state)
    train(optimizer, range(4, 7))
    for key, value in state.items():
        np.testing.assert_array_equal(value, kept[key], err_msg=f"{key} changed after it was saved")
    for value in state.values():
        if isinstance(value, np.ndarray):
            value.fill(np.nan)
    train(twin, range(4, 7))
    np.testing.assert_array_equal(q.flat, p.flat)
    for key, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[key], value, err_msg=key)


@every
def test_repeats_give_the_same_bits(name, options):
    results = []
    for _ in range(2):
        p = parameters(dtype="float32")
        train(getattr(optim, name)(p, **options), range(1, 6))
        results.append(p.flat)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every
def test_a_gradient_that_is_not_finite_harms_its_own_parameter_only(name, options, bad):
    clean, p = parameters(), parameters()
    grads = parameters(1)
    getattr(optim, name)(clean, **options).step(grads)
    grads.flat[17] = bad
    getattr(optim, name)(p, **options).step(grads)
    assert not np.isfinite(p.flat[17])
    np.testing.assert_array_equal(np.delete(p.flat, 17), np.delete(clean.flat, 17))


def test_no_learning_rate_changes_nothing():
    for name, options in zip(OPTIONS, EVERY, strict=True):
        p = parameters()
        train(getattr(optim, name)(p, **options | {"lr": 0}), range(3))
        np.testing.assert_array_equal(p.flat, parameters().flat)


def test_an_optimiser_shows_its_options():
    shown = [repr(getattr(optim, name)(parameters(), **options)) for name, options in zip(OPTIONS, EVERY, strict=True)]
    assert shown == [
        "SGD(48 x float64, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2)",
        "Adagrad(48 x float64, lr=0.1, eps=1e-10, weight_decay=0.2, eps_inside=False)",
        "RMSprop(48 x float64, lr=0.1, alpha=0.99, eps=1e-08, weight_decay=0.2)",
        "Adam(48 x float64, lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.2)",
        "AdamW(48 x float64, lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)",
    ]


@pytest.mark.parametrize("limit", [0, 0.5, 1e3, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_norm_matches_torch(dtype, limit):
    grads = parameters(1, dtype)
    torch, theirs, give = torch_twin(grads)
    give(grads)
    norm = optim.clip_grad_norm(grads, limit)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit)
    tolerance = {"float32": 3e-7, "float64": 1e-15}[dtype]
    assert type(norm) is float
    assert norm == pytest.approx(float(expected), rel=tolerance)
    assert relative_error(grads.flat, joined([t.grad for t in theirs])) <= tolerance


@pytest.mark.parametrize("limit", [0, 0.5, 1e3, np.inf])
def test_clip_grad_value_matches_torch(limit):
    grads = parameters(1)
    torch, theirs, give = torch_twin(grads)
    give(grads)
    assert optim.clip_grad_value(grads, limit) is None
    torch.nn.utils.clip_grad_value_(theirs, limit)
    np.testing.assert_array_equal(grads.flat, joined([t.grad for t in theirs]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 16384, 16385, 100_000])
def test_the_norm_of_any_number_of_gradients(size, dtype):
    grads = Parameters({"a": (size,)}, dtype)
    grads.flat[:] = normal(size, dtype=dtype)
    expected = update.global_norm(grads.flat.astype(np.float64))
    assert optim.grad_norm(grads) == pytest.approx(expected, rel={"float32": 3e-7, "float64": 1e-15}[dtype])


@pytest.mark.parametrize(("bad", "norm"), [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)])
def test_clipping_does_not_hide_what_is_not_finite(bad, norm):
    grads, before = parameters(1), parameters(1)
    grads.flat[3] = before.flat[3] = bad
    np.testing.assert_equal(optim.clip_grad_norm(grads, 1.0), norm)
    np.testing.assert_array_equal(grads.flat, before.flat)
    optim.clip_grad_value(grads, 0.5)
    np.testing.assert_array_equal(grads.flat, np.clip(before.flat, -0.5, 0.5))
    assert np.isnan(grads.flat[3]) == np.isnan(bad)
