"""A small suite whose runs stand for a scenario of a hundred times the parameters, written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite

SHARE = 0.02
BIG_MOE: dict[str, Any] = {
    "name": "big-moe",
    "kind": "moe",
    "layers": 12,
    "width": 768,
    "heads": 12,
    "vocabulary": 50368,
}
BIG_MOE |= {"experts": 64, "top_k": 8, "expert_width": 96, "sequence": 2048}
SCENARIO: dict[str, Any] = {
    "name": "larger",
    "model": "photon-125m",
    "sites": 4,
    "site": {"device": "rtx-4090"},
    "network": {"rate": "1 Gbit", "rtt": "40 ms"},
    "batch": 64,
    "steps": 1000,
    "options": {"wire_dtype": "bf16", "sync_every": 4},
    "methods": [
        "ddp",
        "diloco",
        {"method": "photon", "options": {"aggregation": "ring"}},
        {"method": "photon", "label": "photon ps", "options": {"aggregation": "ps", "clients_per_round": 3}},
        {"method": "lordo", "options": {"broadcast_basis": True}},
        {"method": "fomoe", "model": BIG_MOE, "options": {"replication": 2}},
        {"method": "streaming_diloco", "options": {"wire_dtype": "fp4", "sync_every": 10}},
        {"method": "lowrank_ddp", "options": {"send": "projected"}},
        "local_adam",
        "desloc",
    ],
    "uncertainty": {"compute": "10 %", "rate": "10 %", "reason": "a test"},
}
SMALLER = {  # options that go with the size of the model
    "ddp": {"bucket_mb": 0.5},
    "streaming_diloco": {"layers_per_fragment": 1},
}
LABELS = [entry if isinstance(entry, str) else entry.get("label", entry["method"]) for entry in SCENARIO["methods"]]
TOPOLOGY: dict[str, Any] = {
    "name": "equal",
    "defaults": {"up": "1 Gbit", "down": "1 Gbit", "rtt": "40 ms"},
    "sites": {"a": {}, "b": {}, "c": {}, "d": {}},
}


def write_suite(folder: Path, scenario: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The suite, with a file of the scenario beside it."""
    (folder / "larger.yaml").write_text(yaml.safe_dump({**SCENARIO, **(scenario or {})}))
    methods = [{"method": label.split()[0], "label": label, "options": SMALLER.get(label, {})} for label in LABELS]
    suite = {
        "name": "scaled",
        "stands_for": {"scenario": "larger.yaml", "bytes": SHARE},
        "model": "tiny-moe",
        "train": {"steps": 10, "batch": 2, "warmup": 2, "evaluate_every": 10, "evaluation_sequences": 8},
        "compute": {"mode": "paced", "step_seconds": 0.1},
        "methods": methods,
        "topologies": [TOPOLOGY],
        **changes,
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in suite.items() if value is not None}))
    return path


def cell(folder: Path, label: str, **changes: Any) -> RunSpec:
    return next(one for one in load_suite(write_suite(folder, **changes)).cells if one.label == label)
