"""What a cell will move, hold and take, before anything starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harness.costmodel.predict import predict
from harness.costmodel.scaled_target import project_target
from harness.run.cell import Cell


@dataclass(frozen=True)
class Expectation:
    """Bytes are exact. `wall_seconds` is simulated, from first principles; None when compute is native.

    target_seconds: what the run stands for takes by the cost model, if it stands for something.
    """

    label: str
    topology: str
    seed: int
    state: str
    payload_bytes_per_worker: float
    memory_bytes_per_worker: int
    wall_seconds: float | None
    target_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def expectation(cell: Cell) -> Expectation:
    """The plan summed and simulated, the memory predicted."""
    spec, world = cell.spec, cell.run.world
    expected = predict(spec)
    return Expectation(
        label=spec.label,
        topology=spec.topology["name"],
        seed=spec.seed,
        state="complete" if cell.finished() is not None else "to run",
        payload_bytes_per_worker=expected.payload_bytes / world,
        memory_bytes_per_worker=sum(cell.run.heaviest_memory().values()),
        wall_seconds=expected.wall_seconds,
        target_seconds=project_target(spec).seconds if spec.stands_for is not None else None,
    )
