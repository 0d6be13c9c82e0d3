"""The process group "longhaul" of torch.distributed: the same results as gloo, and an error when a member dies."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from harness.transport.group_connection import own_address
from harness.transport.process_group import LonghaulProcessGroup, create_process_group
from netsim.errors import HostError, LonghaulError
from netsim.library import ROOT
from tests.threads import together

SAME = """
import datetime, torch, torch.distributed as dist
import longhaul.process_group
from torch.distributed import ReduceOp
dist.init_process_group("gloo")
gloo, ours = dist.group.WORLD, dist.new_group(backend="longhaul", timeout=datetime.timedelta(seconds=20))
rank, world = dist.get_rank(), dist.get_world_size()
LOOSE = (torch.bfloat16, torch.float16)

def data(dtype, n=7):
    return torch.randint(0, 5, (n,), generator=torch.Generator().manual_seed(100 + rank)).to(dtype)

def reduced(group, dtype, op):
    x = data(dtype); dist.all_reduce(x, op=op, group=group); return [x]
def copied(group, dtype):
    x = data(dtype); dist.broadcast(x, 1, group=group); return [x]
def gathered(group, dtype):
    x = data(dtype); out = [torch.empty_like(x) for _ in range(world)]; dist.all_gather(out, x, group=group); return out
def gathered_into(group, dtype):
    out = torch.empty(7 * world, dtype=dtype); dist.all_gather_into_tensor(out, data(dtype), group=group); return [out]
def scattered(group, dtype):
    out = torch.empty(7, dtype=dtype)
    dist.reduce_scatter_tensor(out, data(dtype, 7 * world), group=group); return [out]
def to_one(group, dtype):
    x = data(dtype); dist.reduce(x, 1, group=group); return [x] if rank == 1 else []
def at_one(group, dtype):
    out = [torch.empty(7, dtype=dtype) for _ in range(world)] if rank == 2 else None
    dist.gather(data(dtype), out, 2, group=group); return out or []
def from_one(group, dtype):
    out = torch.empty(7, dtype=dtype)
    dist.scatter(out, list(data(dtype, 7 * world).view(world, 7)) if rank == 2 else None, 2, group=group); return [out]
def exchanged(group, dtype):
    x = data(dtype, 2 * world); out = torch.empty_like(x); dist.all_to_all_single(out, x, group=group); return [out]
def sent(group, dtype):
    x = data(dtype)
    if rank == 0: dist.send(x, 1, group=group, tag=3)
    if rank == 1: dist.recv(x, 0, group=group, tag=3)
    return [x]
def strided(group, dtype):
    x = data(dtype, 12).view(3, 4).t(); dist.all_reduce(x, group=group); return [x]
def overlapping(group, dtype):
    xs = [data(dtype, 1000) + i for i in range(10)]
    works = [dist.all_reduce(x, group=group, async_op=True) for x in xs]
    for work in works: work.wait()
    return [work.get_future().wait()[0] for work in works]

same = different = 0
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
for dtype in (*FLOATS, torch.int32, torch.int64, torch.uint8, torch.int8):
    ops = [ReduceOp.SUM, ReduceOp.MIN, ReduceOp.MAX, ReduceOp.PRODUCT]
    ops += [ReduceOp.AVG] if dtype in FLOATS else [ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR]
    cases = [lambda group, op=op: reduced(group, dtype, op) for op in ops]
    plain = (copied, gathered, gathered_into, scattered, to_one, at_one, from_one, exchanged, sent)
    plain += (strided, overlapping)
    cases += [lambda group, work=work: work(group, dtype) for work in plain]
    for number, case in enumerate(cases):
        tolerance = {"rtol": 2e-2, "atol": 1e-2} if dtype in LOOSE else {"rtol": 1e-6, "atol": 0}
        expected, found = case(gloo), case(ours)
        equal = all(torch.allclose(a.double(), b.double(), **tolerance) for a, b in zip(expected, found, strict=True))
        same, different = same + equal, different + (not equal)
        if not equal: print(dtype, number, expected, found, flush=True)
dist.barrier(group=ours)
print(f"rank {rank}: {same} same, {different} different\\n", end="", flush=True)
dist.destroy_process_group()
"""
TRAIN = """
import sys, torch, torch.distributed as dist
import longhaul.process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group(sys.argv[1])
for shard in (False, True):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    if shard:
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    else:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(dist.get_rank()))
    for _ in range(4):
        loss = (model(x) - x[:, :1]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    if dist.get_rank() == 0:
        print(f"loss {total.item():.5f}", flush=True)
dist.destroy_process_group()
"""


END = """
import os, sys
sys.stdout.flush()
os._exit(0)  # the interpreter's own end is torn down under gloo's threads: see harness/worker/torchrun_script.py
"""


def torchrun(tmp_path: Path, script: str, *arguments: str) -> str:
    file = tmp_path / "script.py"
    file.write_text(script + END)
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=3", "--standalone", str(file)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([*argv, *arguments], env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_operation_gives_what_gloo_gives(tmp_path: Path) -> None:
    output = torchrun(tmp_path, SAME)
    assert sorted(output.splitlines()) == [f"rank {rank}: 136 same, 0 different" for rank in range(3)], output


@pytest.mark.slow
def test_ddp_and_fsdp_train_as_with_gloo(tmp_path: Path) -> None:
    losses = torchrun(tmp_path, TRAIN, "longhaul")
    assert losses.count("loss") == 2
    assert losses == torchrun(tmp_path, TRAIN, "gloo")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[LonghaulProcessGroup]:
    """Three members in threads of this process."""
    for name in ("MASTER_ADDR", "GLOO_SOCKET_IFNAME", "LONGHAUL_TOPOLOGY"):
        monkeypatch.delenv(name, raising=False)
    store = HashStore()
    return together(range(3), lambda rank: create_process_group(store, rank, 3, timedelta(seconds=5)))


def test_a_work_is_done_when_its_sum_is_there(groups: list[LonghaulProcessGroup]) -> None:
    tensors = [torch.full((5,), float(rank)) for rank in range(3)]
    works = together(range(3), lambda rank: groups[rank].allreduce([tensors[rank]]))
    assert all(work.wait() for work in works)
    assert all(work.is_success() and work.exception() is None for work in works)
    assert [tensor.tolist() for tensor in tensors] == [[3.0] * 5] * 3
    assert works[0].get_future().wait() == [tensors[0]]
    together(range(3), lambda rank: groups[rank].shutdown())


def test_the_death_of_a_member_is_an_error_that_names_it(groups: list[LonghaulProcessGroup]) -> None:
    works = [groups[rank].allreduce([torch.ones(4)]) for rank in (0, 1)]
    groups[2].shutdown()
    for work in works:
        with pytest.raises(dist.DistBackendError, match="rank 2"):
            work.wait(timedelta(seconds=5))
    together((0, 1), lambda rank: groups[rank].shutdown())


def test_a_member_that_never_comes_is_an_error_in_time(groups: list[LonghaulProcessGroup]) -> None:
    work = groups[0].allreduce([torch.ones(4)])
    with pytest.raises(dist.DistBackendError, match=r"not done within 0.2 s"):
        work.wait(timedelta(seconds=0.2))
    together(range(3), lambda rank: groups[rank].shutdown())


def test_an_address_comes_from_the_interface_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAUL_IFNAME", "lo")
    assert own_address() == "127.0.0.1"
    monkeypatch.setenv("LONGHAUL_IFNAME", "nosuch0")
    with pytest.raises(HostError, match="nosuch0"):
        own_address()


def test_a_tensor_elsewhere_is_refused(groups: list[LonghaulProcessGroup]) -> None:
    with pytest.raises(LonghaulError, match="on the CPU"):
        groups[0].allreduce([torch.ones(4, device="meta")])
    together(range(3), lambda rank: groups[rank].shutdown())
