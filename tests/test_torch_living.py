"""fastrnn and torch in one process: threads, import orders, workers of a DataLoader, training by several processes."""

import textwrap
from pathlib import Path

import pytest
from oracles import import_torch

torch = import_torch()

import fastrnn  # noqa: E402
from fastrnn import threads  # noqa: E402
from fastrnn.torch import function  # noqa: E402


@pytest.fixture
def output(tmp_path, run_python):
    """What a program in a file of its own prints, as words; spawned children import that file."""

    def run(program, *arguments, **environment):
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(program))
        command = ["python", str(file), *arguments]
        here = str(Path(fastrnn.__file__).parent.parent)
        done = run_python(f"import os, sys; os.execv(sys.executable, {command})", PYTHONPATH=here, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def test_fastrnn_does_without_torch(output):
    program = """
        import sys, fastrnn, fastrnn.models, fastrnn.training, fastrnn.cli
        fastrnn.LSTM(3, 4).vjp(fastrnn.GRU(3, 3).parameters["weight_hh_l0"].reshape(3, 3, 3))
        print("torch" in sys.modules)
    """
    assert output(program) == ["False"]


@pytest.mark.parametrize(
    "order",
    ["fastrnn, torch, fastrnn.torch", "torch, fastrnn.torch", "fastrnn.torch"],
)
def test_torchs_threads_stay_what_they_were(output, order):
    """Before and after the first kernel, which starts Numba's threads; both ways to say how many torch may use."""
    program = f"""
        import {order}
        import torch, fastrnn.torch
        before = torch.get_num_threads(), torch.get_num_interop_threads()
        module = fastrnn.torch.GRU(64, 128)
        module(torch.randn(20, 32, 64))[0].sum().backward()
        assert (torch.get_num_threads(), torch.get_num_interop_threads()) == before
        torch.set_num_threads(1)
        module(torch.randn(20, 32, 64))[0].sum().backward()
        print(before[0], torch.get_num_threads(), fastrnn.get_num_threads())
    """
    assert output(program, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="1") == ["1", "1", "2"]


@pytest.mark.parametrize("count", ["1", "2"])
def test_torch_after_the_first_kernel_finds_its_own_number_of_threads(output, count):
    program = """
        import numpy as np
        import fastrnn
        fastrnn.GRU(64, 128)(np.ones((20, 32, 64), np.float32))
        import torch, fastrnn.torch
        before = torch.get_num_threads()
        fastrnn.torch.GRU(64, 128)(torch.randn(20, 32, 64))[0].sum().backward()
        print(before, torch.get_num_threads(), fastrnn.get_num_threads())
    """
    assert output(program, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS=count) == [count, count, "2"]


def test_no_more_threads_than_either_allows(monkeypatch):
    """In the forward and in the backward pass."""
    counts, run = [], function.functional.run_layer

    def watched(*arguments):
        counts.append(threads.get_num_threads())
        y, final, pullback, kept = run(*arguments)

        def watch(*arguments, **options):
            counts.append(threads.get_num_threads())
            return pullback(*arguments, **options)

        return y, final, watch, kept

    monkeypatch.setattr(function.functional, "run_layer", watched)
    monkeypatch.setattr(threads, "_threads", 4)
    from fastrnn.torch import GRU

    module, x, before = GRU(3, 4), torch.ones(2, 2, 3), torch.get_num_threads()
    try:
        for count in (1, 3, 8):
            torch.set_num_threads(count)
            module(x)[0].sum().backward()
    finally:
        torch.set_num_threads(before)
    assert counts == [1, 1, 3, 3, 4, 4]
    assert fastrnn.get_num_threads() == 4


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader(output, method):
    """They run kernels, before and after the parent has started threads."""
    program = """
        import sys
        import torch
        import fastrnn.torch

        class Encoded(torch.utils.data.Dataset):
            def __init__(self):
                torch.manual_seed(0)
                self.rnn, self.x = fastrnn.torch.GRU(64, 128), torch.randn(4, 20, 32, 64)

            def __len__(self):
                return len(self.x)

            def __getitem__(self, i):
                y, _ = self.rnn(self.x[i])
                y.sum().backward()
                return y.detach()

        if __name__ == "__main__":
            data = Encoded()
            for _ in range(2):
                loader = torch.utils.data.DataLoader(
                    data, batch_size=None, num_workers=2, multiprocessing_context=sys.argv[1]
                )
                found = torch.stack(list(loader))
                expected = torch.stack([data[i] for i in range(4)])
                print(torch.equal(found, expected))
    """
    assert output(program, method, NUMBA_NUM_THREADS="2") == ["True", "True"]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_train_as_one(output, tmp_path):
    """DistributedDataParallel over gloo, half a batch each, against one process with the whole batch."""
    program = """
        import sys
        import torch
        import fastrnn.torch
        from torch import distributed as dist, multiprocessing as mp

        def model():
            torch.manual_seed(0)
            rnn = fastrnn.torch.LSTM(5, 9, num_layers=2, bidirectional=True, batch_first=True)
            return torch.nn.ModuleDict({"rnn": rnn, "head": torch.nn.Linear(18, 3)}).double()

        class Last(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.parts = model()

            def forward(self, x):
                return self.parts["head"](self.parts["rnn"](x)[0].mean(1))

        def train(net, x):
            optimizer = torch.optim.Adam(net.parameters(), 0.01)
            for step in range(3):
                optimizer.zero_grad()
                net(x[step]).square().mean().backward()
                optimizer.step()

        def work(rank, folder, x):
            torch.set_num_threads(1)
            dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
            net = torch.nn.parallel.DistributedDataParallel(Last())
            train(net, x[:, rank * 4 : rank * 4 + 4])
            torch.save(net.module.state_dict(), f"{folder}/{rank}")
            dist.destroy_process_group()

        if __name__ == "__main__":
            torch.manual_seed(1)
            x = torch.randn(3, 8, 6, 5, dtype=torch.float64)
            mp.spawn(work, (sys.argv[1], x), nprocs=2)
            alone = Last()
            train(alone, x)
            first = Last().state_dict()
            for rank in range(2):
                for name, value in torch.load(f"{sys.argv[1]}/{rank}").items():
                    torch.testing.assert_close(value, alone.state_dict()[name], rtol=1e-9, atol=1e-11)
                    assert not torch.equal(value, first[name])
            print("same")
    """
    assert output(program, str(tmp_path), GLOO_SOCKET_IFNAME="lo") == ["same"]
