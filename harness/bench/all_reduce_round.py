"""All-reduces on one emulated network, a worker at each site: what each of them saw. In the command line's process."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from harness.bench.all_reduce_worker import BenchJob, Case, Sample
from harness.run.worker_group import TRAINER_ENVIRONMENT
from netsim.emulated.network import Network, NodeProcess, open_network
from netsim.errors import LonghaulError
from netsim.text_files import last_words
from netsim.topology import Topology


def one_round(
    topology: Topology,
    substrate: str,
    engine: str,
    cases: Sequence[Case],
    streams: Sequence[dict[int, int]],
    limit: float,
    environment: Mapping[str, str] | None = None,
) -> tuple[list[Sample], bool, float]:
    """On a network of its own: (samples, whether its links passed the check, how busy the host was before, percent).

    limit: the bound of a case, seconds. environment: of the workers, besides what trainers have.
    """
    busy = psutil.cpu_percent(interval=1.0)
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as folder:
        directory = Path(folder)
        directory.chmod(0o777)  # in a container the workers run as nobody
        with open_network(
            topology,
            run_id="bench-collectives",
            directory=directory,
            substrate=substrate,
            engine=engine,
            writable=[directory],
        ) as network:
            checked = network.check(short=True)
            samples = _run(network, directory, cases, streams, max(60.0, 5 * limit), environment or {})
            network.verify()
    return samples, checked.passed, busy


def _run(
    network: Network,
    directory: Path,
    cases: Sequence[Case],
    streams: Sequence[dict[int, int]],
    timeout: float,
    environment: Mapping[str, str],
) -> list[Sample]:
    """All workers, one per node; LonghaulError with the end of its log if one fails."""
    processes: list[tuple[NodeProcess, Path]] = []
    jobs: list[BenchJob] = []
    token = f"bench/{time.monotonic_ns()}"
    for rank, node in enumerate(network.nodes):
        job = BenchJob(
            rank=rank,
            token=token,
            wan=tuple(node.wan_address for node in network.nodes),
            control=tuple(node.mgmt_address for node in network.nodes),
            interface="wan0",
            streams=streams[rank],
            cases=tuple(cases),
            timeout=timeout,
            result=directory / f"result-{rank}.json",
        )
        jobs.append(job)
        path, log = directory / f"job-{rank}.json", directory / f"log-{rank}.txt"
        path.write_text(job.model_dump_json())
        argv = [sys.executable, "-m", "harness.bench.all_reduce_worker", str(path)]
        processes.append(
            (node.start(argv, {**TRAINER_ENVIRONMENT, **environment, "LONGHAUL_SITE": node.site}, log), log)
        )
    for rank, (process, log) in enumerate(processes):
        if status := process.wait():
            site = network.nodes[rank].site
            raise LonghaulError(f"the worker at {site} ended with {status}: {last_words(log)}")
    return [Sample(**entry) for job in jobs for entry in json.loads(job.result.read_text())]


def slowest(samples: Sequence[Sample], case: int) -> list[float]:
    """Seconds of each repetition: the longest that any member took."""
    found: dict[int, float] = {}
    for sample in samples:
        if sample.case == case:
            found[sample.repeat] = max(found.get(sample.repeat, 0.0), sample.seconds)
    return [found[repeat] for repeat in sorted(found)]


def processor_seconds(samples: Sequence[Sample], case: int) -> float:
    """Processor seconds of one warm all-reduce, all members together, in user and kernel."""
    warm: list[Any] = [sample for sample in samples if sample.case == case and sample.repeat > 0]
    return float(sum(sample.cpu_seconds for sample in warm) / len({sample.repeat for sample in warm}))
