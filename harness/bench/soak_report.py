"""The stored outcome of a soak test: kills, fault costs and malformed documents, as one JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.bench.malformed_inputs import Tried
from harness.bench.soak import MethodFaultCost, SoakResult
from netsim.errors import InputError


@dataclass(frozen=True)
class SoakReport:
    """`costs`: one row per method, empty if no faults were declared."""

    soak: SoakResult
    costs: list[MethodFaultCost]
    inputs: Tried

    @property
    def passed(self) -> bool:
        return self.soak.passed and not self.inputs.wrong and all(row.valid for row in self.costs)


def store_soak(report: SoakReport, path: Path) -> None:
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


def load_soak(path: Path) -> SoakReport:
    """InputError if the file is not one of `store_soak`."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        costs = [MethodFaultCost(**row) for row in stored["costs"]]
        return SoakReport(SoakResult(**stored["soak"]), costs, Tried(**stored["inputs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), "", str(error), "a file of `longhaul bench soak --write-docs`") from None
