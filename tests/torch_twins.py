"""What tests of fastrnn.torch share: modules beside torch's own, and the comparison of all they give."""

import pytest
from cells import CELLS
from oracles import import_torch

torch = import_torch()
nn = torch.nn

import fastrnn.torch as fast  # noqa: E402

rnn = nn.utils.rnn
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
KINDS = {name: cell for name, cell in CELLS.items() if cell.kind.torch and not cell.peepholes}
kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
I, H = 17, 33


def twins(kind, dtype=torch.float64, sizes=(I, H), cell=False, **options):
    """Our module, and torch's with the same weights."""
    module = KINDS[kind].kind.torch
    name, own = module.name + "Cell" * cell, module.attributes | ({"proj_size": 5} if KINDS[kind].projected else {})
    torch.manual_seed(0)
    ours = getattr(fast, name)(*sizes, **own, **options, dtype=dtype)
    theirs = getattr(nn, name)(*sizes, **own, **options, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def leaves(value):
    """The tensors of nested tuples."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, rnn.PackedSequence):
        return [value.data, *(t for t in value[1:] if t is not None)]
    return [t for part in value for t in leaves(part)]


def initial(module, B, *, batched=True):
    """Random hx that needs gradients."""
    D, L, dtype = 2 if module.bidirectional else 1, module.num_layers, module.weight_ih_l0.dtype
    widths = [module.proj_size or module.hidden_size, module.hidden_size][: len(module._kind.states)]
    states = [torch.randn(*((L * D, B, w) if batched else (L * D, w)), dtype=dtype, requires_grad=True) for w in widths]
    return tuple(states) if len(states) == 2 else states[0]


def with_gradients(module, inputs, call):
    """The outputs, and the gradients of a sum over them for inputs and parameters."""
    outputs = [t for t in leaves(call()) if t.is_floating_point()]
    loss = sum((torch.cos(torch.arange(o.numel(), dtype=o.dtype)).reshape(o.shape) * o).sum() for o in outputs)
    wanted = [t for t in (*inputs, *module.parameters()) if t.requires_grad]
    return outputs, torch.autograd.grad(loss, wanted, retain_graph=True)  # of what was packed before


def assert_same(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = a.detach(), b.detach()
        if b.numel():
            assert float((a - b).abs().max()) <= tolerance * max(float(b.abs().max()), 1e-3)


def compare(ours, theirs, inputs, *arguments):
    tolerance = TOLERANCE[next(ours.parameters()).dtype]
    (y, grads), (expected, wanted) = (with_gradients(m, inputs, lambda m=m: m(*arguments)) for m in (ours, theirs))
    assert_same(y, expected, tolerance)
    assert_same(grads, wanted, tolerance)


def same_error(call, ours, theirs):
    """What torch raises, which is what we raise; None if neither does."""
    raised = []
    for module in (ours, theirs):
        try:
            call(module)
            raised.append(None)
        except Exception as error:
            raised.append((type(error), str(error)))
    assert raised[0] == raised[1]
    return raised[1]
