"""An unmodified torchrun script over an emulated WAN: one torchrun node per site, rendezvous set. In the runner."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.environment import fingerprint
from harness.records.files import give_folder
from harness.records.logs import Events, text_lines
from harness.records.program_record import ProgramDirectory, ProgramLink, ProgramOutcome, ProgramSpec
from harness.records.run_record import write_json
from harness.run.link_gate import checked_links
from netsim.emulated.network import Network, open_network
from netsim.emulated.nodes import Node, NodeProcess
from netsim.emulated.substrates.gpus import gpus_of_sites
from netsim.emulated.traffic_counts import TrafficCounts, carried
from netsim.errors import LonghaulError
from netsim.library import ROOT
from netsim.topology import topology_from

SCRIPT_RUNNER = ROOT / "harness" / "worker" / "torchrun_script.py"
PORT = 29500  # of the rendezvous, at the first site
READING_SECONDS = 1.0  # between two lines of traffic.jsonl
POLL_SECONDS = 0.1
STOP_SECONDS = 15.0  # for the other sites to end by themselves after one has failed


@dataclass(frozen=True)
class TorchrunOrder:
    """What to run where. topology: the document; where: names its file. read_only, writable: for containers.

    timeout: seconds, after which everything is ended; None: no limit. play: the topology's timeline is played.
    """

    topology: Mapping[str, Any]
    where: str
    command: tuple[str, ...]
    processes_per_site: int = 1
    rendezvous: str = "wan"
    substrate: str = "auto"
    engine: str = "auto"
    seed: int = 0
    gate: bool = True
    play: bool = True
    timeout: float | None = None
    read_only: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    gpus: tuple[str, ...] = ()


def run_torchrun(order: TorchrunOrder, directory: Path, report: Callable[[str], None]) -> ProgramOutcome:
    """Runs the script at every site and writes its record to `directory`; `report` gets a line per stage.

    Raises LinkError where the links are off before it starts, LonghaulError where the network breaks.
    """
    topology = topology_from(order.topology, order.where)
    files = ProgramDirectory(directory)
    sites = [site.name for site in topology.sites]
    directory.mkdir(parents=True)
    spec = ProgramSpec(
        command=order.command,
        topology=dict(order.topology),
        sites=tuple(sites),
        processes_per_site=order.processes_per_site,
        rendezvous=order.rendezvous,
        seed=order.seed,
    )
    write_json(files.spec, spec)
    events = Events(files.events)
    with open_network(
        topology,
        run_id=f"torchrun-{directory.name}"[:60],
        directory=directory,
        substrate=order.substrate,
        engine=order.engine,
        read_only=order.read_only,
        writable=order.writable,
        seed=order.seed,
        raw_sockets=True,
        gpus=order.gpus,
    ) as network:
        report(f"{topology.name} on {network.substrate}, engine {network.engine}: checking the links")
        write_json(files.environment, {**fingerprint(), "network": network.environment()})
        with checked_links(network, order.gate, events) as checked:
            report(f"running {' '.join(order.command)} at {', '.join(sites)}")
            before, began = network.traffic(), time.monotonic()
            with _timeline(network, order.play), _readings(network, files.traffic):
                codes = _run_everywhere(network, files, order, events)
            wall, after = time.monotonic() - began, network.traffic()
            events.add("ended", exit_codes=codes)
        write_json(files.links, checked.to_json())
        outcome = _outcome(network, wall, codes, before, after, checked.problems())
    for site in sites:
        give_folder(files.site(site), None, 0o755)  # from now on a record that anybody may read
    events.close()
    write_json(files.outcome, outcome)
    return outcome


def torchrun_arguments(order: TorchrunOrder, rank: int, sites: int, address: str, own_address: str) -> list[str]:
    """The command line of the torchrun node of one site. address: of the first site, where the rendezvous is."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={sites}",
        f"--node-rank={rank}",
        f"--nproc-per-node={order.processes_per_site}",
        f"--master-addr={address}",
        f"--master-port={PORT}",
        f"--local-addr={own_address}",
        str(SCRIPT_RUNNER),
        *order.command,
    ]


def torchrun_environment(network: Network, node: Node, order: TorchrunOrder, out: Path) -> dict[str, str]:
    """The variables of a site's programs: the caller's, and by which interface gloo, NCCL and our own transport go."""
    sites = [one.site for one in network.nodes]
    away = {"HOME": str(out), "USER": "longhaul", "LOGNAME": "longhaul"} if node.user is not None else {}
    gpus = gpus_of_sites(order.gpus, sites)[node.site]
    return {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        **away,
        **({"CUDA_VISIBLE_DEVICES": gpus} if order.gpus else {}),
        **dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "LONGHAUL_IFNAME"), "wan0"),
        "PYTHONUNBUFFERED": "1",
        "LONGHAUL_SITE": node.site,
        "LONGHAUL_SITES": ",".join(sites),
        "LONGHAUL_TOPOLOGY": json.dumps(order.topology),
        "LONGHAUL_OUT": str(out),
    }


def _run_everywhere(network: Network, files: ProgramDirectory, order: TorchrunOrder, events: Events) -> dict[str, int]:
    """The exit code of each site's torchrun. One that fails ends the others, after a while."""
    first = network.nodes[0]
    store = first.wan_address if order.rendezvous == "wan" else first.mgmt_address
    processes: dict[str, NodeProcess] = {}
    try:
        for rank, node in enumerate(network.nodes):
            out = files.site(node.site)
            give_folder(out, node.user, 0o700)
            own = node.wan_address if order.rendezvous == "wan" else node.mgmt_address
            argv = torchrun_arguments(order, rank, len(network.nodes), store, own)
            env = torchrun_environment(network, node, order, out)
            processes[node.site] = node.start(argv, env, files.log(node.site), Path.cwd())
        events.add("started")
        return _wait(network, processes, order.timeout, events)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()


def _wait(
    network: Network, processes: Mapping[str, NodeProcess], timeout: float | None, events: Events
) -> dict[str, int]:
    end = None if timeout is None else time.monotonic() + timeout
    codes: dict[str, int] = {}
    while len(codes) < len(processes):
        for site, process in processes.items():
            if site not in codes and (code := process.poll()) is not None:
                codes[site] = code
                events.add("exit", site=site, code=code)
                if code:
                    end = min(end or time.monotonic() + STOP_SECONDS, time.monotonic() + STOP_SECONDS)
        if end is not None and time.monotonic() > end:
            late = [site for site in processes if site not in codes]
            events.add("killed", sites=late)
            for site in late:
                processes[site].kill()
            return {site: codes[site] if site in codes else processes[site].wait(STOP_SECONDS) for site in processes}
        network.verify_when_due()
        time.sleep(POLL_SECONDS)
    return {site: codes[site] for site in processes}


@contextmanager
def _timeline(network: Network, wanted: bool) -> Iterator[None]:
    with network.play() if wanted and network.topology.timeline else nullcontext():
        yield


@contextmanager
def _readings(network: Network, path: Path) -> Iterator[None]:
    """A line with the counters of every link each second, in the background."""
    stopped = threading.Event()
    began = time.monotonic()

    def read() -> None:
        with path.open("a", encoding="utf-8") as file:
            while not stopped.is_set():
                try:
                    counts = network.traffic()
                except LonghaulError:
                    return  # the network has broken, which the runner notices by itself
                print(json.dumps({**counts.to_json(), "at": round(counts.at - began, 3)}), file=file, flush=True)
                stopped.wait(READING_SECONDS)

    reading = threading.Thread(target=read, daemon=True, name="traffic")
    reading.start()
    try:
        yield
    finally:
        stopped.set()
        reading.join(30)


def _outcome(
    network: Network,
    wall: float,
    codes: Mapping[str, int],
    before: TrafficCounts,
    after: TrafficCounts,
    problems: Sequence[str],
) -> ProgramOutcome:
    links = [
        ProgramLink(
            source=link.source,
            target=link.target,
            bytes=link.bytes,
            packets=link.packets,
            drops=link.drops,
            lost=link.lost,
        )
        for link in carried(before, after)
    ]
    why = [f"the program at {site} ended with {code}" for site, code in codes.items() if code]
    why += problems
    return ProgramOutcome(
        substrate=network.substrate,
        engine=network.engine,
        wall_seconds=wall,
        exit_codes=dict(codes),
        links=tuple(links),
        valid=not why,
        why_invalid=tuple(why),
    )


def last_words(directory: Path, sites: Sequence[str]) -> list[str]:
    """The last line with words that each site's program printed; torchrun ends a report of a failure with a rule."""
    files = ProgramDirectory(directory)
    said = {site: [line for line in text_lines(files.log(site)) if any(map(str.isalnum, line))] for site in sites}
    return [f"{site}: {(lines or ['it printed nothing'])[-1].strip()}" for site, lines in said.items()]
