"""What belongs to a run on this host, found by the owner that everything of it is marked with. For benchmarks."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import psutil

from netsim.emulated.owner import LABEL, VARIABLE, Owner
from netsim.errors import HostError

ENGINE_SECONDS = 120.0  # for a command; with many containers at once, Docker 20.10 has been seen to lock itself up

# A process of a kind by its command line, or by the name that it gives itself.
MODULES = {
    "agent": "netsim.emulated.node.agent",
    "trainer": "harness.worker_main",
    "coordinator": "harness.elastic.coordinator",
}
NAMES = {"agent": "longhaul-agent", "switch": "longhaul-switch", "delay daemon": "delay daemon", "prober": "prober"}


def owned_processes(owner: Owner | None) -> list[psutil.Process]:
    """The processes of `owner`; None: of any owner that is dead."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            theirs = Owner.parse(process.environ().get(VARIABLE, ""))
            if theirs is not None and (theirs == owner if owner is not None else not theirs.alive):
                found.append(process)
    return found


def kinds_of(owner: Owner) -> dict[str, list[psutil.Process]]:
    """The processes of `owner` by kind, a program's own, not those of the shells and wrappers around it."""
    found: dict[str, list[psutil.Process]] = {}
    for process in owned_processes(owner):
        with suppress(psutil.Error):
            if (kind := _kind(process)) is not None:
                found.setdefault(kind, []).append(process)
    return found


def _kind(process: psutil.Process) -> str | None:
    """By the name that it gives itself, or by the module that it runs. Raises psutil.Error if it has ended."""
    words, name = command_line(process).split(), process.name()
    for kind, own in NAMES.items():
        if name == own:
            return kind
    if words and "python" in words[0]:
        return next((kind for kind, module in MODULES.items() if kind not in NAMES and module in words), None)
    return None


def numbers_of(process: str, owner: Owner) -> list[int]:
    """Process numbers of one kind, in order."""
    return sorted(one.pid for one in kinds_of(owner).get(process, ()))


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def containers_of(owner: Owner) -> list[str]:
    return container_engine("ps", "-q", "--filter", f"label={LABEL}={owner}").stdout.split()


def networks_of(owner: Owner) -> list[str]:
    """Names of the container engine's networks."""
    words = ("network", "ls", "--format", "{{.Name}}", "--filter", f"label={LABEL}={owner}")
    return container_engine(*words).stdout.split()


def container_engine(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of the container engine, which may fail. HostError if the engine does not answer it."""
    try:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=ENGINE_SECONDS)
    except subprocess.TimeoutExpired:
        raise HostError(f"the Docker engine has not answered `docker {words[0]}` for {ENGINE_SECONDS:g} s") from None
