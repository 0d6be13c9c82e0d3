"""What a cell will move, hold and take, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from harness.costmodel.predict import predict
from harness.costmodel.scaled_target import project_target
from harness.run.cell import Cell
from harness.worker.data import check_data
from netsim.emulated.substrates.gpus import host_gpus
from netsim.errors import InputError, Phrase
from netsim.units import show_size


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


INTERPRETER = 300 * 10**6  # bytes of a trainer process without its training state: Python and torch


def check_host(cells: Sequence[Cell]) -> None:
    """InputError where the runs would fail on this host: their data, a token beyond the vocabulary, its memory."""
    checked = set[str]()
    for cell in cells:
        spec = cell.spec
        sites = cell.run.world
        key = f"{spec.data.model_dump_json()} {sites} {spec.model.sequence} {spec.model.vocabulary}"
        if key not in checked:
            check_data(spec.data, sites, spec.model.sequence, spec.seed, spec.model.vocabulary)
        checked.add(key)
        workers = sum(cell.run.members)
        needed = workers * (INTERPRETER + sum(cell.run.heaviest_memory().values()))
        if needed > (there := psutil.virtual_memory().total):
            found = Phrase(f"{workers} workers that hold {show_size(needed)} together")
            allowed = f"at most this host's {show_size(there)}: a smaller model, or fewer sites"
            raise InputError(spec.where, "model", found, allowed)


def missing_here(cells: Sequence[Cell]) -> str:
    """What the cells need that this host does not have, in words; empty if nothing."""
    wanted = [cell for cell in cells if cell.spec.compute.device == "cuda"]
    if not wanted or host_gpus():
        return ""
    largest = max(sum(cell.run.heaviest_memory().values()) for cell in wanted)
    return (
        f"needs an NVIDIA GPU (compute.device: cuda), which this host does not have, with {show_size(largest)} for the "
        "training state of each site that shares it, and its activations"
    )


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
