"""What workers compute on: found or refused on this host, and staged for the exchange."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from algorithms.exchange import local_group
from harness.conformance.trial import in_threads
from harness.spec.suite import find_suite, load_suite
from harness.worker.device import StagedExchange, find_device
from longhaul.cli import build
from netsim.emulated.substrates.gpus import host_gpus
from netsim.errors import HostError, InputError
from netsim.traffic import Collective, Transfer, WireType

no_gpu = pytest.mark.skipif(torch.cuda.is_available() or bool(host_gpus()), reason="this host has a GPU")


@no_gpu
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")


@no_gpu
def test_cuda_without_a_gpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(HostError, match="finds no GPU here; allowed: cpu, or auto"):
        find_device("cuda")


@pytest.mark.parametrize("collective", [Collective.ALL_REDUCE, Collective.BROADCAST, Collective.ALL_GATHER])
def test_staged_transfers_leave_the_bits_of_direct_ones(collective: Collective) -> None:
    """Here between memories of the CPU; the result is there once somebody has waited."""
    root = 1 if collective is Collective.BROADCAST else None
    transfer = Transfer("t", 300, (0, 1, 2), WireType.INT8, collective, root=root)
    found = []
    for staged in (False, True):
        exchanges = [StagedExchange(one, pinned=False) if staged else one for one in local_group(3)]
        torch.manual_seed(1)
        tensors = [torch.randn(transfer.rows(rank), 300) for rank in range(3)]

        def work(rank: int, exchanges: list[StagedExchange] = exchanges, tensors: list[torch.Tensor] = tensors) -> None:  # type: ignore[assignment]
            exchanges[rank].run(1, [(transfer, tensors[rank])])

        in_threads(3, work)
        found.append(torch.stack(tensors))
    assert torch.equal(*found)


@no_gpu
def test_a_dry_run_says_that_a_suite_needs_a_gpu() -> None:
    cells = load_suite(find_suite("claims-gpu")).cells
    assert {cell.compute.device for cell in cells} == {"cuda"}
    assert all(30e6 < cell.model.count() < 125e6 for cell in cells)
    done = CliRunner().invoke(build("run"), ["run", "claims-gpu", "--dry-run"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "claims-gpu needs an NVIDIA GPU (compute.device: cuda)" in " ".join(done.stdout.split())


def test_methods_that_encode_on_the_cpu_say_so(tmp_path: Path) -> None:
    suite = {
        "name": "small",
        "train": {"steps": 4},
        "compute": {"device": "auto"},
        "methods": ["sparseloco"],
        "topologies": ["lan"],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(InputError, match="cpu for sparseloco, which encodes its payloads there"):
        load_suite(tmp_path / "suite.yaml")
