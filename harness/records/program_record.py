"""The record of somebody else's program that ran over an emulated WAN: runs/torchrun/<name>/.

program.json      ProgramSpec: what was run on which network, written first
environment.json  as of a run         links.json   the gate before and after, as of a run
events.jsonl      what happened when  traffic.jsonl  counters of every link, one reading per line
site-NAME/        the folder of a site's programs: log.txt, and whatever they write to $LONGHAUL_OUT
outcome.json      ProgramOutcome, written last and atomically
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.records.layout import RecordDirectory
from harness.records.run_record import Record, read_record
from netsim.errors import InputError


class ProgramSpec(Record):
    """A torchrun of `command` (the script and its arguments) with a node at every site of `topology`."""

    schema_version: int = Field(default=1, ge=1)
    command: tuple[str, ...]
    topology: dict[str, Any]
    sites: tuple[str, ...]
    processes_per_site: int = Field(ge=1)
    rendezvous: str  # the network that carries it: wan or mgmt
    seed: int = 0


class ProgramLink(Record):
    """What a directed link carried while the program ran: bytes with headers; packets dropped and lost."""

    source: str
    target: str
    bytes: int = Field(ge=0)
    packets: int = Field(ge=0)
    drops: int = Field(ge=0)
    lost: int = Field(ge=0)


class ProgramOutcome(Record):
    """How it ended. wall_seconds: from the first start to the last end. exit_codes: by site; minus a signal."""

    schema_version: int = Field(default=1, ge=1)
    substrate: str
    engine: str
    wall_seconds: float = Field(ge=0)
    exit_codes: dict[str, int]
    links: tuple[ProgramLink, ...]
    valid: bool
    why_invalid: tuple[str, ...] = ()

    @property
    def wan_bytes(self) -> int:
        """On all links together."""
        return sum(link.bytes for link in self.links)


@dataclass(frozen=True)
class ProgramDirectory(RecordDirectory):
    """The files of one record."""

    @property
    def spec(self) -> Path:
        return self.path / "program.json"

    @property
    def traffic(self) -> Path:
        return self.path / "traffic.jsonl"

    @property
    def outcome(self) -> Path:
        return self.path / "outcome.json"

    def site(self, name: str) -> Path:
        return self.path / f"site-{name}"

    def log(self, site: str) -> Path:
        return self.site(site) / "log.txt"


@dataclass(frozen=True)
class ProgramRun:
    """A record, read back. outcome: None if the program was not run to its end."""

    directory: Path
    spec: ProgramSpec
    outcome: ProgramOutcome | None


def read_program(directory: Path) -> ProgramRun:
    """The record in `directory`. Raises InputError for one that is damaged."""
    files = ProgramDirectory(directory)
    outcome = read_record(files.outcome, ProgramOutcome) if files.outcome.is_file() else None
    return ProgramRun(directory, read_record(files.spec, ProgramSpec), outcome)


def read_programs(folders: Sequence[Path]) -> list[ProgramRun]:
    """Every readable record under `folders`, by name; damaged ones are passed over."""
    found: dict[Path, ProgramRun] = {}
    for folder in folders:
        for path in sorted(folder.rglob("program.json")):
            try:
                found.setdefault(path.parent.resolve(), read_program(path.parent))
            except InputError:
                continue
    return list(found.values())
