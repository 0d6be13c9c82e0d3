"""Run records as a runner would leave them, with times from the simulator under known constants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.costmodel.calibration import Calibration, Constants, Domain, Error, Span
from harness.costmodel.predict import predict
from harness.records.run_record import BUCKETS, Result, Step, write_json
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec

WIDE = Span(low=0, high=1e15)
EVERYWHERE = Domain(rate=WIDE, rtt=WIDE, sites=WIDE, transfer_bytes=WIDE)


def calibration(**constants: Any) -> Calibration:
    return Calibration(
        name="known",
        source="typed in by a test",
        fitted_from=(),
        substrates=("netns/nfqueue",),
        constants=Constants(**constants),
        evaluation_seconds_per_flop={"": 1e-10},
        domain=EVERYWHERE,
        error=Error(mean=0, max=0, runs=0),
    )


def topology(rate: str = "100 Mbit", rtt: str = "20 ms", sites: int = 3, **more: Any) -> dict[str, Any]:
    name = f"t-{rate.split()[0]}-{rtt.split()[0]}-{sites}"
    return {
        "name": name,
        "defaults": {"up": rate, "down": rate, "rtt": rtt},
        "sites": {letter: {} for letter in "abcdefgh"[:sites]},
        **more,
    }


def spec(method: str = "diloco", network: dict[str, Any] | None = None, **more: Any) -> RunSpec:
    options = {"sync_every": 10} if method in ("diloco", "photon", "lordo") else {}
    return RunSpec.model_validate(
        {
            "suite": "synthetic",
            "label": method,
            "method": method,
            "options": options,
            "topology": network or topology(),
            "seed": 1,
            "model": {"name": "tiny", "kind": "dense", "layers": 2, "width": 64, "heads": 2, "sequence": 64},
            "train": {"steps": 40, "evaluate_every": 20},
            "compute": {"mode": "paced", "step_seconds": 0.05},
            **more,
        }
    )


def write_run(folder: Path, cell: RunSpec, truth: Calibration, **changes: Any) -> Path:
    """A complete record of `cell`, as if `truth` were how the world works."""
    topology = ResolvedRun.of(cell).topology
    sites, steps = len(topology.sites), cell.train.steps
    found = predict(cell.model_copy(update={"faults": ()}), truth)  # the cost of its faults is in `changes`
    assert found.wall_seconds is not None
    assert found.communication_seconds is not None
    assert found.evaluation_seconds is not None
    seconds = dict.fromkeys(BUCKETS, 0.0)
    pacing = steps * (cell.compute.step_seconds or 0.0)
    seconds |= {
        "pacing": pacing,
        "communication": found.communication_seconds,
        "evaluation": found.evaluation_seconds,
    }
    run_id = cell.run_id("code")
    result = {
        "id": run_id,
        "suite": cell.suite,
        "label": cell.label,
        "algorithm": cell.method,
        "topology": cell.topology["name"],
        "seed": cell.seed,
        "sites": sites,
        "steps": steps,
        "substrate": "netns",
        "engine": "nfqueue",
        "wall_seconds": found.wall_seconds,
        "compute_seconds": pacing,
        "communication_seconds": found.communication_seconds,
        "seconds": seconds,
        "startup_seconds": 1.0,
        "tokens": sites * steps * cell.train.batch * cell.model.sequence,
        "final_loss": 2.0,
        "target_loss": None,
        "time_to_target_seconds": None,
        "payload_bytes_per_worker": found.payload_bytes / sites,
        "planned_payload_bytes_per_worker": found.payload_bytes / sites,
        "wire_bytes_per_worker": 1.06 * found.payload_bytes / sites,
        "memory_bytes": found.memory_bytes,
        "predicted_memory_bytes": found.memory_bytes,
        "peak_rss_bytes": 10**9,
        "slot_overruns": 0,
        "valid": True,
        **changes,
    }
    directory = folder / cell.suite / run_id
    (directory / "rank-0").mkdir(parents=True)
    write_json(directory / "spec.json", cell)
    write_json(directory / "environment.json", {"cpu": "a test", "cores": 2})
    write_json(directory / "links.json", {})
    lines = [Step(step=s, clock=0.1 * s, loss=2.0, lr=1e-3, tokens=s, seconds=seconds, payload_bytes=0) for s in (1, 2)]
    text = "".join(json.dumps(line.model_dump(mode="json")) + "\n" for line in lines)
    (directory / "rank-0" / "steps.jsonl").write_text(text, encoding="utf-8")
    write_json(directory / "result.json", Result.model_validate(result))
    return directory
