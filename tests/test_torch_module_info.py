"""torch's own list of samples for its recurrent modules (ModuleInfo), run against ours, after torch's test_modules.py.

Left out of torch's checks: those that need a GPU (parity, other devices), memory formats (of images alone), in-place
variants and lazy modules (there are none of these modules).
"""

import copy
import pickle
import sys
import types
import unittest
import warnings

import pytest
from oracles import import_torch

torch = import_torch()

import fastrnn.torch as fast  # noqa: E402

sys.modules.setdefault("expecttest", types.ModuleType("expecttest"))  # torch's own test helpers import it
if not hasattr(sys.modules["expecttest"], "TestCase"):
    sys.modules["expecttest"].TestCase = unittest.TestCase
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    common = pytest.importorskip("torch.testing._internal.common_modules")

NAMES = ("nn.RNN", "nn.GRU", "nn.LSTM", "nn.RNNCell", "nn.GRUCell", "nn.LSTMCell")
INFOS = [info for info in common.module_db if info.name in NAMES]
infos = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
trainings = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


def samples(info, dtype, training=True):
    """Our module, torch's with the same weights, the arguments, and the reference of a sample, for every sample."""
    torch.manual_seed(0)
    given = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
    assert given
    for sample in given:
        args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
        ours = getattr(fast, info.name.removeprefix("nn."))(*args, **kwargs, device="cpu", dtype=dtype).train(training)
        theirs = info.module_cls(*args, **kwargs, device="cpu", dtype=dtype).train(training)
        theirs.load_state_dict(ours.state_dict())
        yield ours, theirs, sample.forward_input.args, sample.reference_fn


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in flat(part)] if isinstance(value, (tuple, list)) else []


def gradients(module, args):
    """Outputs and the gradients of inputs and parameters."""
    outputs = flat(module(*args))
    wanted = [t for t in (*flat(args), *module.parameters()) if t.requires_grad]
    torch.manual_seed(1)
    return outputs, torch.autograd.grad(outputs, wanted, [torch.rand_like(o) for o in outputs])


def noncontiguous(value):
    """The same numbers, every second one of a larger tensor."""
    if isinstance(value, torch.Tensor):
        spread = value.detach().repeat_interleave(2, dim=-1)[..., ::2]
        return spread.requires_grad_(value.requires_grad)
    return type(value)(noncontiguous(part) for part in value) if isinstance(value, (tuple, list)) else value


def test_torch_lists_all_six():
    assert sorted(info.name for info in INFOS) == sorted(NAMES)
    assert {dtype for info in INFOS for dtype in info.dtypes} == {torch.float32, torch.float64}


@infos
@dtypes
@trainings
def test_forward_and_gradients(info, dtype, training):
    for ours, theirs, args, reference in samples(info, dtype, training):
        for got, expected in zip(gradients(ours, args), gradients(theirs, args), strict=True):
            torch.testing.assert_close(list(got), list(expected))
        if reference is not None:
            torch.testing.assert_close(flat(ours(*args)), flat(reference(ours, *args)))
        assert repr(ours) == repr(theirs)


@infos
@dtypes
def test_noncontiguous_inputs_and_gradients(info, dtype):
    for ours, _, args, _ in samples(info, dtype):
        expected, got = gradients(ours, args), gradients(ours, noncontiguous(args))
        assert all(torch.equal(a, b) for e, g in zip(expected, got, strict=True) for a, b in zip(e, g, strict=True))
        outputs = flat(ours(*args))
        spread = [noncontiguous(torch.rand_like(o)) for o in outputs]
        wanted = [*ours.parameters()]
        first = torch.autograd.grad(outputs, wanted, spread, retain_graph=True)
        again = torch.autograd.grad(outputs, wanted, [s.contiguous() for s in spread])
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@infos
def test_gradients_numerically(info):
    """gradcheck and gradgradcheck of one sample in eight: the others differ in options that other tests cross."""
    for ours, _, args, _ in list(samples(info, torch.float64))[::8]:
        tensors = [*flat(args), *ours.parameters()]

        def call(*given, ours=ours, args=args):
            return tuple(flat(ours(*args)))

        assert torch.autograd.gradcheck(call, tensors, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, tensors, fast_mode=True)


@infos
@dtypes
def test_copies_and_state(info, dtype):
    for ours, theirs, args, _ in samples(info, dtype):
        expected = flat(ours(*args))
        for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert type(other) is type(ours)
            assert all(torch.equal(a, b) for a, b in zip(flat(other(*args)), expected, strict=True))
        assert ours.state_dict().keys() == theirs.state_dict().keys()


@infos
def test_constructors_take_device_and_dtype(info):
    for ours, _, _, _ in samples(info, torch.float64):
        assert {(p.device.type, p.dtype) for p in ours.parameters()} == {("cpu", torch.float64)}
        assert {p.dtype for p in ours.float().parameters()} == {torch.float32}
        assert {p.device.type for p in ours.to("meta").parameters()} == {"meta"}


@pytest.mark.parametrize("info", [i for i in INFOS if i.module_error_inputs_func], ids=lambda info: info.name)
def test_errors(info):
    for wrong in info.module_error_inputs_func(info, "cpu", torch.float32, False, True):
        given, call = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
        Module = getattr(fast, info.name.removeprefix("nn."))
        if wrong.error_on is common.ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                Module(*given.args, **given.kwargs)
        else:
            module = Module(*given.args, **given.kwargs)
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                module(*call.args, **call.kwargs)
