"""How an agent is started, the same on every substrate."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netsim.emulated.owner import TOKEN_VARIABLE, VARIABLE, Owner
from netsim.library import ROOT

FIRST_USER = 61_000  # of a range that Debian and its kin give to nobody


PROCESSES = 4096  # of a node, at most


def program_user(index: int) -> int:
    """The user number of a confined node's programs: another one at each site, never root."""
    return FIRST_USER + index if os.getuid() == 0 else os.getuid()


@dataclass(frozen=True)
class AgentSpec:
    """One node to bring up. `control`: the runner's socket; `log`: where the agent complains; `sysctls`: its own."""

    index: int
    site: str
    control: Path
    token: str
    log: Path
    sysctls: Mapping[str, str] = field(default_factory=dict)

    def argv(self, user: int | None) -> list[str]:
        """Without the site packages, which the agent does not need and which cost most of the start."""
        path = base64.b64encode(str(self.control).encode()).decode()
        number = "-" if user is None else str(user)
        return [sys.executable, "-S", "-m", "netsim.emulated.node.agent", path, str(self.index), number]

    def env(self, owner: Owner) -> dict[str, str]:
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            VARIABLE: str(owner),
            TOKEN_VARIABLE: self.token,  # the command line is anybody's to read
        }


@dataclass(frozen=True)
class NetworkRequest:
    """What a substrate is asked to bring up."""

    run_id: str
    owner: Owner
    runtime: Path
    nodes: Sequence[AgentSpec]
    mtu: int
    sysctls: Mapping[str, str]
    read_only: Sequence[Path] = ()
    writable: Sequence[Path] = ()
    raw_sockets: bool = False  # of agents, for links that duplicate packets and for captures
    program_raw_sockets: bool = False  # of programs
    cpus: float | None = None
    memory: int | None = None
    confined: bool = False  # programs are not trusted: also where nodes are no containers they are confined as there
    gpus: Sequence[str] = ()  # that programs may use, as the host numbers them
