"""One worker of `longhaul bench collectives`: runs in a node, times what it is told to, writes down what it saw.

A barrier over the unshaped control network starts every repetition, so the time of a collective is the longest that
any member took.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from harness.bench.torch_group import GLOO, OURS, torch_all_reduce, torch_group
from harness.transport.wan_exchange import WanExchange
from harness.worker.process_memory import disable_malloc_trim, freeze_gc
from netsim.documents import Document
from netsim.traffic import Algorithm, Transfer

WAN_PORT, CONTROL_PORT, STORE_PORT = 29410, 29411, 29412


class Case(Document):
    """`repeats` all-reduces of `elements` fp32 numbers on new connections; the first of them is the cold one."""

    algorithm: str  # of `Algorithm`, by our exchange; or a backend of torch.distributed: gloo, longhaul
    elements: int
    repeats: int


class BenchJob(Document):
    """Addresses by rank; `streams` by peer; `result`: the file to write."""

    rank: int
    token: str
    wan: tuple[str, ...]
    control: tuple[str, ...]
    interface: str
    streams: dict[int, int]
    cases: tuple[Case, ...]
    timeout: float
    result: Path


@dataclass(frozen=True)
class Sample:
    """One all-reduce at one rank. seconds: from the barrier to the result; cpu_seconds: of this process meanwhile."""

    case: int
    repeat: int
    seconds: float
    cpu_seconds: float
    payload_bytes: int


def measure(job: BenchJob) -> list[Sample]:
    """Run all cases; PeerError if a member fails."""
    world, samples = len(job.wan), []
    with WanExchange.connect(
        job.rank, world, job.control, CONTROL_PORT, f"{job.token}/control", timeout=job.timeout
    ) as control:
        barrier = Transfer("barrier", 1, tuple(range(world)), algorithm=Algorithm.DIRECT)
        for index, case in enumerate(job.cases):
            tensor = torch.empty(case.elements)

            def timed(
                repeat: int, work: object, sent: object, index: int = index, tensor: torch.Tensor = tensor
            ) -> None:
                assert callable(work)
                assert callable(sent)
                tensor.fill_(float(job.rank))
                before = sent()
                control.run(index * 1_000_000 + repeat, [(barrier, torch.zeros(1))])
                began, cpu = time.monotonic(), time.process_time()
                work()
                seconds, cpu = time.monotonic() - began, time.process_time() - cpu
                samples.append(Sample(index, repeat, seconds, cpu, sent() - before))
                assert bool((tensor == world * (world - 1) / 2).all()), "the sum is wrong"

            if case.algorithm in (GLOO, OURS):
                store = job.control[0], STORE_PORT + index
                with torch_group(case.algorithm, job.rank, world, job.interface, *store, job.timeout):
                    for repeat in range(case.repeats):
                        timed(repeat, lambda tensor=tensor: torch_all_reduce(tensor), lambda: 0)
                continue
            transfer = Transfer(
                "bench", case.elements, tuple(range(world)), algorithm=Algorithm(case.algorithm), root=0
            )
            token = f"{job.token}/{index}"
            with WanExchange.connect(
                job.rank, world, job.wan, WAN_PORT + 10 + index, token, job.streams, timeout=job.timeout
            ) as exchange:
                for repeat in range(case.repeats):
                    timed(
                        repeat,
                        lambda r=repeat, x=exchange, t=transfer, v=tensor: x.run(r, [(t, v)]),
                        lambda x=exchange: x.ledger.total,
                    )
    return samples


def main(path: Path) -> None:
    disable_malloc_trim()  # this, one thread and the frozen collector: as in a trainer
    torch.set_num_threads(1)
    job = BenchJob.model_validate_json(path.read_text())
    freeze_gc()
    samples = measure(job)
    job.result.write_text(json.dumps([asdict(sample) for sample in samples]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
