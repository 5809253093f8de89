"""The autograd function behind fastrnn.torch: derivatives of first and second order, and what torch asks of a graph."""

import gc
import weakref

import numpy as np
import pytest
from torch_twins import H, I, assert_same, compare, initial, kinds, leaves, nn, rnn, torch, twins

import fastrnn
from fastrnn.torch import function


@kinds
def test_gradcheck(kind):
    ours, _ = twins(kind, sizes=(3, 6), bidirectional=True)
    x, hx = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True), leaves(initial(ours, 2))
    names, weights = zip(*ours.named_parameters(), strict=True)

    def dense(x, *tensors):
        state, own = tensors[: len(hx)], dict(zip(names, tensors[len(hx) :], strict=True))
        y, final = torch.func.functional_call(ours, own, (x, tuple(state) if len(state) == 2 else state[0]))
        return y, *leaves(final)

    def packed(x, *tensors):
        sequence = rnn.pack_padded_sequence(x, [2, 3], enforce_sorted=False)
        y, final = torch.func.functional_call(ours, dict(zip(names, tensors, strict=True)), (sequence,))
        return y.data, *leaves(final)

    assert torch.autograd.gradcheck(dense, (x, *hx, *weights))
    assert torch.autograd.gradcheck(packed, (x, *weights))
    assert torch.autograd.gradgradcheck(dense, (x, *hx, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(packed, (x, *weights), fast_mode=True)


def needed(monkeypatch, backward):
    """Which gradients kernels were asked for: dx, and of the weights."""
    seen, run = [], function.functional.run_layer

    def watched(*arguments):
        y, final, pullback, kept = run(*arguments)

        def watch(dy, d_final, grads, **options):
            seen.append((options["need_dx"], [g is not None for g in grads[0][:4]]))
            return pullback(dy, d_final, grads, **options)

        return y, final, watch, kept

    monkeypatch.setattr(function.functional, "run_layer", watched)
    backward()
    return seen


def test_only_what_is_required_is_computed(monkeypatch):
    ours, theirs = twins("lstm")
    for module in (ours, theirs):
        module.weight_hh_l0.requires_grad_(False)
        module.bias_ih_l0.requires_grad_(False)
    x = torch.randn(4, 3, I, dtype=torch.float64)
    seen = needed(monkeypatch, lambda: compare(ours, theirs, [], x))
    assert seen == [(False, [True, False, False, True])]
    for module in (ours, theirs):
        module.requires_grad_(False)
    hx = initial(ours, 3)
    seen = needed(monkeypatch, lambda: compare(ours, theirs, list(hx), x, hx))
    assert seen[-1] == (False, [False] * 4)
    assert not ours(x)[0].requires_grad


def test_cotangents_that_do_not_exist():
    ours, theirs = twins("lstm", bidirectional=True)
    x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
    for pick in (lambda y, hc: y, lambda y, hc: hc[0], lambda y, hc: hc[1], lambda y, hc: y[0, 0, :1]):
        results = [torch.autograd.grad(pick(*m(x)).sum(), [x, *m.parameters()]) for m in (ours, theirs)]
        assert_same(*results, 1e-12)


def test_awkward_layouts():
    ours, theirs = twins("gru", num_layers=2)
    base = torch.randn(I, 6, 8, dtype=torch.float64, requires_grad=True)
    row = torch.randn(1, 1, I, dtype=torch.float64, requires_grad=True)
    imaginary = torch.randn(3, 2, I, dtype=torch.complex128).conj().imag
    assert imaginary.is_neg()
    compare(ours, theirs, [base], base.permute(2, 1, 0)[::2, 1:4])
    compare(ours, theirs, [row], row.expand(4, 3, I))
    compare(ours, theirs, [], imaginary)
    state = torch.randn(1, 1, H, dtype=torch.float64, requires_grad=True)
    compare(ours, theirs, [row, state], row.expand(4, 3, I), state.expand(2, 3, H))
    for module in (ours, theirs):
        module.weight_ih_l0 = nn.Parameter(ours.weight_ih_l0.detach().T.contiguous().T)
    compare(ours, theirs, [base], base.permute(2, 1, 0))


def test_nothing_is_copied(monkeypatch):
    seen, run = [], function.functional.run_layer

    def watched(weights, x, initial, *others):
        own = weights[0].arguments
        seen.extend([x, initial[0][0], own.W_ih, own.W_hh, own.b_ih, own.b_hh])
        return run(weights, x, initial, *others)

    monkeypatch.setattr(function.functional, "run_layer", watched)
    ours, _ = twins("gru", torch.float32)
    x, h = torch.randn(4, 3, I), torch.randn(1, 3, H)
    ours(x, h)[0].sum().backward()
    given = [x, h, *ours.parameters()]
    assert [a.ctypes.data for a in seen] == [t.data_ptr() for t in given]


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_weights_that_take_each_others_place(kind):
    """Weights found where the last ones lay are the last ones; any others are looked at, and so is what is in them."""
    ours, theirs = twins(kind, num_layers=2)
    x = torch.randn(4, 3, I, dtype=torch.float64)
    names = [name for name, _ in ours.named_parameters()]
    for step in range(60):
        name = names[step % len(names)]
        old = getattr(ours, name).detach()
        turned = old.flip(0).t().contiguous().t() if old.dim() == 2 else old.flip(0)
        new = [old * 1.1, old * 0.9, torch._neg_view(old.clone()), turned][step % 4]
        for module in (ours, theirs):
            if step % 3 == 0:
                setattr(module, name, nn.Parameter(new.clone() if step % 4 < 2 else new))
            elif step % 3 == 1:
                getattr(module, name).data = new.clone()
            else:
                with torch.no_grad():
                    getattr(module, name).copy_(new)
        del old, new
        with torch.no_grad():
            assert_same(leaves(ours(x)), leaves(theirs(x)), 1e-12)
    for module in (ours, theirs):
        module.float()
    assert_same(leaves(ours(x.float())), leaves(theirs(x.float())), 1e-5)
    halves = torch.randn(3 if kind == "gru" else 4, H, H, dtype=torch.float64).view(-1, H)
    for module in (ours, theirs):
        module.double()
        module.weight_hh_l0.data = halves
    assert_same(leaves(ours(x)), leaves(theirs(x)), 1e-12)


def test_weights_are_held_no_longer_than_their_module():
    ours, _ = twins("gru")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    ours(x)
    assert ours in function._last
    assert set(vars(ours)) == set(vars(nn.GRU(I, H)))
    module, weight = weakref.ref(ours), weakref.ref(ours.weight_hh_l0)
    del ours
    gc.collect()
    assert module() is None and weight() is None


def test_a_graph_is_used_twice_only_if_kept():
    ours, _ = twins("lstm")
    x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
    y = ours(x)[0].sum()
    first = torch.autograd.grad(y, x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(y, x)[0])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y, x)


def test_what_was_kept_goes_with_the_graph(monkeypatch):
    made, run = [], function.functional.run_layer

    def watched(*arguments):
        y, final, pullback, kept = run(*arguments)
        made.append(weakref.ref(pullback))
        return y, final, pullback, kept

    monkeypatch.setattr(function.functional, "run_layer", watched)
    ours, _ = twins("gru")
    y, _ = ours(torch.randn(4, 3, I, dtype=torch.float64))
    assert made[0]() is not None
    y.sum().backward()
    assert made[0]() is None and y.grad_fn is not None


def test_writes_in_place():
    """An input that was written to is an error, as in torch; an output may be, as torch's GRU and RNN allow."""
    ours, theirs = twins("gru")
    x = torch.randn(4, 3, I, dtype=torch.float64)
    for module in (ours, theirs):
        given = x.clone()
        y, _ = module(given)
        given.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    results = [torch.autograd.grad(m(x)[0].relu_().sum(), list(m.parameters())) for m in (ours, theirs)]
    assert_same(*results, 1e-12)
    y, h = ours(x)
    with torch.no_grad():
        h.zero_()
    expected = torch.autograd.grad(theirs(x)[0].sum(), list(theirs.parameters()))
    assert_same(torch.autograd.grad(y.sum(), list(ours.parameters())), expected, 1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.cpu.amp.autocast:FutureWarning")  # by torch 2.4's checkpoint itself
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_and_offloading(reentrant):
    from torch.utils.checkpoint import checkpoint  # not every version of torch has imported it

    ours, theirs = twins("lstm", num_layers=2)
    x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(theirs(x)[0].sum(), [x])
    ours.zero_grad()
    checkpoint(lambda x: ours(x)[0], x, use_reentrant=reentrant).sum().backward()
    assert_same([x.grad], expected, 1e-12)
    with torch.autograd.graph.save_on_cpu():
        y, _ = ours(x)
    assert_same(torch.autograd.grad(y.sum(), [x]), expected, 1e-12)


def test_many_cotangents_at_once():
    ours, theirs = twins("lstm")
    x = torch.randn(2, 1, I, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (ours, theirs):
        y = module(x)[0]
        eye = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
        results.append(torch.autograd.grad(y, [x], eye, is_grads_batched=True))
    assert_same(*results, 1e-12)


def test_gradient_flow_and_clipped_steps():
    ours, _ = twins("lstm", num_layers=2, bidirectional=True)
    direct = fastrnn.LSTM(I, H, num_layers=2, bidirectional=True, dtype="float64")
    direct.load_state_dict({name: value.detach().numpy() for name, value in ours.state_dict().items()})
    x = torch.randn(4, 3, I, dtype=torch.float64)
    (y, _), pullback = direct.vjp(x.numpy())
    for limit in (None, 0.05):
        with fastrnn.gradient_flow() as expected, fastrnn.clip_steps(limit):
            _, _, grads = pullback(np.ones_like(y))
        ours.zero_grad()
        found = ours(x)[0]
        with fastrnn.gradient_flow() as flows, fastrnn.clip_steps(limit):
            found.sum().backward()
        assert [str(f) for f in flows] == [str(f) for f in expected]
        assert all(np.array_equal(a.d_h, b.d_h) for a, b in zip(flows, expected, strict=True))
        assert all(np.array_equal(p.grad.numpy(), grads[name]) for name, p in ours.named_parameters())


def test_hooks():
    ours, _ = twins("gru")
    seen = []
    ours.register_forward_pre_hook(lambda module, arguments: seen.append("pre"))
    ours.register_forward_hook(lambda module, arguments, result: seen.append("forward"))
    ours.register_full_backward_hook(lambda module, d_in, d_out: seen.append("backward"))
    ours.weight_hh_l0.register_hook(lambda grad: seen.append("weight"))
    x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
    ours(x)[0].sum().backward()
    assert sorted(seen) == ["backward", "forward", "pre", "weight"]


def test_tied_parameters():
    results = []
    for module in twins("gru", sizes=(H, H), num_layers=2):
        module.weight_hh_l0 = module.weight_ih_l0
        module.weight_ih_l1 = module.weight_ih_l0
        module(torch.ones(4, 3, H, dtype=torch.float64))[0].sum().backward()
        results.append([p.grad for p in module.parameters()])
    assert len(results[0]) == 6
    assert_same(*results, 1e-12)
