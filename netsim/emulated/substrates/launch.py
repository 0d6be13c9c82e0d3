"""How an agent is started, the same on every substrate."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netsim.emulated.owner import TOKEN_VARIABLE, VARIABLE, Owner
from netsim.library import ROOT

FIRST_USER = 61_000  # of a range that Debian and its kin give to nobody


def program_user(index: int) -> int:
    """The user number that programs of node `index` run as in a container: another one at each site, never root."""
    return FIRST_USER + index if os.getuid() == 0 else os.getuid()


@dataclass(frozen=True)
class AgentSpec:
    """One node to bring up. `control`: the runner's socket; `log`: where the agent complains."""

    index: int
    site: str
    control: Path
    token: str
    log: Path

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
    raw_sockets: bool = False  # for links that duplicate packets
    cpus: float | None = None
    memory: int | None = None
