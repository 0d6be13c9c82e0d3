"""Writes run records that follow the schema, with made-up numbers that fit together, for benchmarks and tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Any

from harness.records.run_record import Result, Step, write_json

MODEL_BYTES = 4 * 850_000
SYNC_EVERY = {"ddp": 1, "diloco": 20, "photon": 20, "lordo": 20, "fomoe": 20}


@dataclass(frozen=True)
class SyntheticNetwork:
    """Uniform: `rate` in bit/s, `rtt` in seconds."""

    name: str = "wan"
    rate: float = 100e6
    rtt: float = 0.08
    sites: int = 4

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "defaults": {
                "up": f"{self.rate / 1e6} Mbit",
                "down": f"{self.rate / 1e6} Mbit",
                "rtt": f"{self.rtt * 1e3} ms",
            },
            "sites": {name: {} for name in "abcdefgh"[: self.sites]},
        }

    def link_report(self, passed: bool = True) -> dict[str, Any]:
        names = "abcdefgh"[: self.sites]
        expected = self.rate / 1e6 * 1448 / 1514
        links = [
            {
                "source": a,
                "target": b,
                "rtt_ms_asked": self.rtt * 1e3,
                "rtt_ms": self.rtt * 1e3 + 0.2,
                "rate_mbit_asked": self.rate / 1e6,
                "goodput_mbit_expected": expected,
                "goodput_mbit": expected * 0.99,
                "loss_asked": 0.0,
                "loss": 0.0,
                "passed": passed,
            }
            for a in names
            for b in names
            if a != b
        ]
        return {"topology": self.name, "engine": "nfqueue", "substrate": "netns", "passed": passed, "links": links}


@dataclass(frozen=True)
class SyntheticRun:
    """One run's record. `speed` makes a method learn faster or slower; `metrics` are logged at each synchronisation."""

    label: str = "diloco"
    method: str = "diloco"
    network: SyntheticNetwork = field(default_factory=SyntheticNetwork)
    seed: int = 1
    steps: int = 100
    every: int = 10
    target: float | None = None
    stop_at_target: bool = False  # said in the spec; the run goes on
    speed: float = 1.0
    suite: str = "made-up"
    options: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    valid: bool = True
    why_invalid: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)  # over the result

    @property
    def directory_name(self) -> str:
        return f"{''.join(c if c.isalnum() else '-' for c in self.label)}-{self.network.name}-s{self.seed}-0123456789"

    def write(self, folder: Path) -> Path:
        directory = folder / self.directory_name
        directory.mkdir(parents=True)
        draw = random.Random(f"{self.label} {self.seed} {self.network.name}")
        shift = random.Random(f"{self.label} {self.seed}").gauss(0, 0.01)
        period = int(self.options.get("sync_every", SYNC_EVERY.get(self.method, 20)))
        sites, step_seconds = self.network.sites, 0.1
        sync_bytes = 2 * (sites - 1) / sites * MODEL_BYTES
        sync_seconds = 2 * self.network.rtt / 2 + sync_bytes * 8 / self.network.rate
        seconds, reached, loss = (
            dict.fromkeys(("data", "compute", "pacing", "communication", "evaluation"), 0.0),
            None,
            None,
        )
        clock = 0.0
        lines: list[Step] = []
        for step in range(1, self.steps + 1):
            synchronises = step % period == 0
            spent = {
                "data": 0.001,
                "compute": 0.06,
                "pacing": step_seconds - 0.061,
                "communication": 0.0,
                "evaluation": 0.0,
            }
            if synchronises:
                spent["communication"] = sync_seconds * draw.uniform(0.98, 1.05)
            evaluated = step % self.every == 0
            spent["evaluation"] = 0.05 if evaluated else 0.0
            clock += sum(spent.values())
            seconds = {name: value + spent.get(name, 0.0) for name, value in seconds.items()}
            true = 1.5 + 4.0 * exp(-self.speed * step / 40) + shift
            loss = true if evaluated else loss
            if evaluated and reached is None and self.target is not None and true <= self.target:
                reached = clock - seconds["evaluation"]
            lines.append(
                Step(
                    step=step,
                    clock=clock,
                    loss=true + draw.gauss(0, 0.05),
                    lr=1e-3,
                    tokens=step * 8 * 128,
                    seconds=spent,
                    payload_bytes=int(step // period * sync_bytes),
                    evaluation_loss=true if evaluated else None,
                    metrics=self.metrics if synchronises else {},
                )
            )
        for rank in range(sites):
            (directory / f"rank-{rank}").mkdir()
            text = "".join(line.model_dump_json(exclude_none=True) + "\n" for line in lines)
            (directory / f"rank-{rank}" / "steps.jsonl").write_text(text)
        payload = self.steps // period * sync_bytes
        memory = {"weights": MODEL_BYTES, "gradients": MODEL_BYTES, "inner_moments": 2 * MODEL_BYTES}
        if self.method != "ddp":
            memory |= {"outer_parameters": MODEL_BYTES, "outer_momentum": MODEL_BYTES}
        result = {
            "id": self.directory_name,
            "suite": self.suite,
            "label": self.label,
            "algorithm": self.method,
            "topology": self.network.name,
            "seed": self.seed,
            "sites": sites,
            "steps": self.steps,
            "substrate": "netns",
            "engine": "nfqueue",
            "wall_seconds": clock,
            "compute_seconds": seconds["compute"] + seconds["pacing"],
            "communication_seconds": seconds["communication"],
            "seconds": seconds,
            "startup_seconds": 4.2,
            "tokens": self.steps * 8 * 128 * sites,
            "final_loss": loss,
            "target_loss": self.target,
            "time_to_target_seconds": reached,
            "payload_bytes_per_worker": payload,
            "planned_payload_bytes_per_worker": payload,
            "wire_bytes_per_worker": payload * 1.05,
            "memory_bytes": memory,
            "predicted_memory_bytes": memory,
            "peak_rss_bytes": 400_000_000,
            "slot_overruns": 0,
            "valid": self.valid,
            "why_invalid": list(self.why_invalid),
        }
        write_json(directory / "spec.json", self.spec())
        write_json(directory / "environment.json", ENVIRONMENT)
        report = self.network.link_report()
        write_json(directory / "links.json", {"before": report, "after": report})
        write_json(directory / "memory.json", {})
        (directory / "events.jsonl").write_text("")
        write_json(directory / "result.json", Result.model_validate(result | self.changes))
        return directory

    def spec(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "label": self.label,
            "method": self.method,
            "options": self.options,
            "topology": self.network.document(),
            "seed": self.seed,
            "model": {"name": "tiny", "kind": "dense", "layers": 4, "width": 128, "heads": 4, "sequence": 128},
            "data": {"source": "stdlib", "partition": "iid"},
            "train": {
                "steps": self.steps,
                "batch": 8,
                "target_loss": self.target,
                "stop_at_target": self.stop_at_target,
                "evaluate_every": self.every,
            },
            "compute": {"mode": "paced", "step_seconds": 0.1},
            "network": {"substrate": "netns"},
        }


ENVIRONMENT = {
    "python": "3.11.7",
    "versions": {"torch": "2.13.0", "numpy": "2.4.0"},
    "kernel": "6.1.0",
    "machine": "x86_64",
    "cpu": "A processor",
    "cores": 2,
    "memory_bytes": 25_000_000_000,
    "code": "0123456789abcdef",
    "git": {"commit": "0" * 40, "dirty": False},
}


def write_grid(
    folder: Path,
    methods: Sequence[str] = ("ddp", "diloco"),
    networks: Sequence[SyntheticNetwork] = (SyntheticNetwork(),),
    seeds: Sequence[int] = (1, 2, 3),
    **fields: Any,
) -> list[Path]:
    """A whole suite: every method on every network with every seed."""
    return [
        SyntheticRun(label=method, method=method, network=network, seed=seed, **fields).write(folder)
        for seed in seeds
        for network in networks
        for method in methods
    ]
