"""What a cell will move, hold and take, before anything starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harness.cell import Cell


@dataclass(frozen=True)
class Expectation:
    """Bytes are exact. `wall_seconds` is paced compute plus the simulated exposed communication; None when native."""

    label: str
    topology: str
    seed: int
    state: str
    payload_bytes_per_worker: float
    memory_bytes_per_worker: int
    wall_seconds: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def expectation(cell: Cell) -> Expectation:
    """The plan summed, the memory predicted."""
    spec = cell.spec
    method, sites = spec.resolve_method(), len(spec.topology["sites"])
    plan = method.plan(spec.model, sites, spec.train.steps, spec.seed)
    memory = max(sum(method.memory(spec.model, sites, rank, spec.seed).values()) for rank in range(sites))
    return Expectation(
        label=spec.label,
        topology=spec.topology["name"],
        seed=spec.seed,
        state="complete" if cell.finished() is not None else "to run",
        payload_bytes_per_worker=plan.payload_bytes_per_worker,
        memory_bytes_per_worker=memory,
        wall_seconds=None,
    )
