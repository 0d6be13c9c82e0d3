"""The stored outcomes of `longhaul bench chaos`, as one JSON file that a later call goes on from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.bench.chaos.chaos_plan import ChaosOutcome
from harness.records.files import write_atomically
from netsim.errors import InputError


@dataclass(frozen=True)
class ChaosReport:
    """abilities: disturbances beyond signals that were drawn from. undisturbed: seconds by substrate and method.

    at_once: how many ran side by side, at most.
    """

    seed: int
    abilities: list[str]
    outcomes: list[ChaosOutcome] = field(default_factory=list)
    undisturbed: dict[str, float] = field(default_factory=dict)
    at_once: int = 1

    def adding(self, outcome: ChaosOutcome) -> ChaosReport:
        return replace(self, outcomes=[*self.outcomes, outcome])


def store_chaos(report: ChaosReport, path: Path) -> None:
    write_atomically(path, json.dumps(asdict(report), indent=1) + "\n")


def load_chaos(path: Path) -> ChaosReport:
    """InputError if the file is not one of `store_chaos`."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        outcomes = [ChaosOutcome(**outcome) for outcome in stored.pop("outcomes")]
        return ChaosReport(outcomes=outcomes, **stored)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), "", str(error), "a file of `longhaul bench chaos`") from None
