"""Random modules, and what programs do to them: every outcome is torch's, its numbers or its error, never a crash.

What torch itself reads beyond memory, or is killed by, is left out here: tests/test_torch_misfits.py has it.
"""

import contextlib
import copy
import random
import time
import warnings

import pytest
from torch_twins import assert_same, leaves, nn, rnn, torch

import fastrnn.torch as fast

SECONDS = 12
KINDS = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")


def setup(rng):
    """A module of torch's with float64 weights, its arguments, and whether it trains."""
    kind, sizes = rng.choice(KINDS), (rng.randint(1, 5), rng.randint(2, 6))
    cell, lstm = kind.endswith("Cell"), kind.startswith("LSTM")
    options = {"bias": rng.random() < 0.8, "dtype": torch.float64}
    if kind.startswith("RNN"):
        options["nonlinearity"] = rng.choice(("tanh", "relu"))
    if not cell:
        options |= {"num_layers": rng.randint(1, 3), "bidirectional": rng.random() < 0.4}
        options["batch_first"] = rng.random() < 0.4
        if kind == "LSTM" and rng.random() < 0.3:
            options["proj_size"] = rng.randint(1, sizes[1] - 1)
    module = getattr(nn, kind)(*sizes, **options)
    T, B, (I, H) = rng.randint(1, 4), rng.randint(1, 4), sizes
    LD = module.num_layers * (2 if module.bidirectional else 1) if not cell else 1
    widths = ((module.proj_size or H, H) if not cell else (H, H))[: 2 if lstm else 1]
    form = rng.choice(("batch", "alone") if cell else ("batch", "alone", "packed"))
    batch = () if form == "alone" else (B,)
    if cell:
        x, state = torch.randn(*batch, I), batch
    elif form == "alone":
        x, state = torch.randn(T, I), (LD,)
    else:
        x, state = torch.randn(*((B, T) if module.batch_first else (T, B)), I), (LD, B)
    x = x.double().requires_grad_(rng.random() < 0.5)
    hx = None
    if rng.random() < 0.6:
        states = [torch.randn(*state, w).double().requires_grad_(rng.random() < 0.5) for w in widths]
        hx = tuple(states) if lstm else states[0]
    if form == "packed":
        lengths = [rng.randint(1, T) for _ in range(B)]
        x = rnn.pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
    return module, x, hx, rng.random() < 0.7


def weight(rng, module):
    return rng.choice([name for name, _ in module.named_parameters()] or ["weight_ih_l0"])


def other_shape(rng, shape):
    """A shape close to another one: sizes changed, swapped, added, left out, for broadcasting."""
    shape = list(shape)
    for _ in range(rng.randint(1, 2)):
        change, k = rng.randrange(7), rng.randrange(len(shape)) if shape else 0
        if change == 0:
            shape.insert(k, 1)
        elif change == 1 or not shape:
            shape.append(rng.randint(1, 3))
        elif change == 2:
            shape[k] = 1
        elif change == 3:
            shape[k] = max(shape[k] + rng.choice((-1, 1)), 0)
        elif change == 4:
            shape[k] *= rng.choice((2, 3))
        elif change == 5:
            del shape[k]
        else:
            shape.reverse()
    return shape


def replaced(rng, module, x, hx):
    name = weight(rng, module)
    shape = other_shape(rng, getattr(module, name).shape)
    setattr(module, name, nn.Parameter(torch.randn(shape, dtype=torch.float64)))


def through_data(rng, module, x, hx):
    own = getattr(module, weight(rng, module))
    own.data = torch.randn(other_shape(rng, own.shape), dtype=torch.float64)


def same_through_data(rng, module, x, hx):
    own = getattr(module, weight(rng, module))
    own.data = torch.randn(own.shape[::-1], dtype=torch.float64).permute(*reversed(range(own.dim())))


def flat_weights(rng, module, x, hx):
    if hasattr(module, "_flat_weights"):
        module._flat_weights = [w.detach() * 0.5 for w in module._flat_weights]
        if rng.random() < 0.4:
            k = rng.randrange(len(module._flat_weights))
            module._flat_weights[k] = torch.randn(other_shape(rng, module._flat_weights[k].shape), dtype=torch.float64)
        elif rng.random() < 0.3:
            rng.choice((module._flat_weights.pop, module._flat_weights.clear, module._flat_weights.reverse))()


def names(rng, module, x, hx):
    if hasattr(module, "_flat_weights_names"):
        module._flat_weights_names = rng.choice(
            (module._flat_weights_names[:-1], module._flat_weights_names[::-1], [*module._flat_weights_names, "x"])
        )
        module._all_weights = [module._flat_weights_names]
        if rng.random() < 0.5:
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]


def plain(rng, module, x, hx):
    name = weight(rng, module)
    value = getattr(module, name).detach() * 2
    delattr(module, name)
    if rng.random() < 0.7:
        setattr(module, name, value)


def none(rng, module, x, hx):
    setattr(module, weight(rng, module), None)


def refused(rng, module, x, hx):
    """An assignment that raises, and all the same leaves its value among the flat weights."""
    name = weight(rng, module)
    with pytest.raises(TypeError):
        setattr(module, name, getattr(module, name).detach() * 3)


def expanded(rng, module, x, hx):
    name = weight(rng, module)
    own = getattr(module, name).detach()
    setattr(module, name, nn.Parameter(own[:1].expand(own.shape)))


def part_of_more(rng, module, x, hx):
    name = weight(rng, module)
    own = getattr(module, name).detach()
    more = torch.randn(own.numel() + 3, dtype=torch.float64)
    setattr(module, name, nn.Parameter(more[rng.randint(0, 3) :][: own.numel()].view(own.shape)))


def dtype(rng, module, x, hx):
    name = weight(rng, module)
    setattr(module, name, nn.Parameter(getattr(module, name).detach().float()))


def attribute(rng, module, x, hx):
    sizes = {"input_size": 5, "hidden_size": 6, "proj_size": 3, "num_layers": 3}
    name = rng.choice([*sizes, "bias", "bidirectional", "batch_first", "dropout", "mode", "nonlinearity", "training"])
    if name in sizes:
        was = getattr(module, name, 1)
        value = rng.choice((*range(-1, sizes[name] + 2), float(was), None, True, [was], torch.tensor(was), "2"))
    else:
        value = rng.choice((True, False, 1, 0, None, "tanh", "relu", "RNN_TANH", "RNN_RELU", [1]))
    vars(module)[name] = value


def batch_sizes(rng, module, x, hx):
    if not isinstance(x, rnn.PackedSequence):
        return None
    data, sizes, order, back = x
    change = rng.randrange(8)
    if change == 0:
        sizes = sizes[None]
    elif change == 1:
        sizes = sizes.to(rng.choice((torch.int32, torch.float64, torch.int16)))
    elif change == 2:
        sizes = sizes + rng.choice((-1, 1))
    elif change == 3:
        sizes = sizes.flip(0)
    elif change == 4:
        data = data[: rng.randint(0, len(data))]
    elif change == 5 and order is not None:
        order = order[: rng.randint(0, len(order))]
    elif change == 6 and order is not None:
        order, back = order.int(), back.int()
    elif order is not None:
        order = torch.zeros_like(order)
    return rnn.PackedSequence(data, sizes, order, back), hx


def states(rng, module, x, hx):
    if hx is None:
        return None
    change = lambda s: torch.randn(other_shape(rng, s.shape), dtype=torch.float64)
    if not isinstance(hx, tuple):
        return x, rng.choice((change(hx), (hx,), [hx], (hx, hx)))
    return x, rng.choice(((change(hx[0]), hx[1]), (hx[0], change(hx[1])), hx[::-1], hx[:1], [*hx], (*hx, hx[0]), hx[0]))


def inputs(rng, module, x, hx):
    if isinstance(x, rnn.PackedSequence):
        return None
    return torch.randn(other_shape(rng, x.shape), dtype=torch.float64), hx


MUTATIONS = [
    replaced, through_data, same_through_data, flat_weights, names, plain, none, refused, expanded, part_of_more, dtype,
    attribute, batch_sizes, states, inputs,
]  # fmt: skip


def outcome(rng, module, x, hx, train, later):
    """Numbers of a forward and a backward pass, or the error."""
    torch.manual_seed(0)
    own = [t for t in [*leaves(x), *leaves(() if hx is None else hx), *module.parameters()] if t.requires_grad]
    for t in own:
        t.grad = None
    try:
        with torch.set_grad_enabled(train):
            found = [t for t in leaves(module(x, hx)) if t.is_floating_point()]
            if not train:
                return found
            loss = sum((torch.cos(torch.arange(o.numel())).reshape(o.shape) * o).sum() for o in found)
            if later is not None:
                later(rng, module, x, hx)
            if loss.requires_grad:
                loss.backward(retain_graph=True)
            return [*found, *[t.grad for t in own if t.grad is not None and t.is_leaf]]
    except Exception as error:
        return type(error), str(error)


def check(seed):
    """One random module twice, changed alike."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    theirs, x, hx, train = setup(rng)
    ours = copy.deepcopy(theirs)
    assert fast.accelerate(ours, cells=True).replaced
    if rng.random() < 0.5:  # what is cached from a call before is not believed
        ours(x, hx), theirs(x, hx)
    done = rng.choices(MUTATIONS, k=rng.choice((0, 1, 1, 1, 2)))
    later = rng.choice((None, None, None, same_through_data))
    state, given = rng.getstate(), []
    for module in (ours, theirs):
        rng.setstate(state)
        torch.manual_seed(seed)
        arguments = x, hx
        for mutation in done:
            with contextlib.suppress(Exception):  # by what the one before has left
                arguments = mutation(rng, module, *arguments) or arguments
        given.append((arguments, rng.getstate()))
    results = []
    for module, (arguments, state) in zip((ours, theirs), given, strict=True):
        rng.setstate(state)
        results.append(outcome(rng, module, *arguments, train, later))
    story = f"seed {seed}: {theirs}, {[m.__name__ for m in done]}, {later and later.__name__}"
    if isinstance(results[1], tuple) or isinstance(results[0], tuple):
        assert results[0] == results[1], story
    else:
        try:
            assert_same(*results, 1e-10)
        except AssertionError as error:
            raise AssertionError(story) from error
    return isinstance(results[1], list)


def run(seeds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [check(seed) for seed in seeds]


def seeds_for(seconds, start):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield start
        start += 1


def test_outcomes_are_torchs():
    worked = run(seeds_for(SECONDS, 0))
    assert len(worked) > 100 and 0.2 < sum(worked) / len(worked) < 0.9


@pytest.mark.exhaustive
def test_many_outcomes_are_torchs():
    run(seeds_for(600, random.randrange(1 << 40)))
