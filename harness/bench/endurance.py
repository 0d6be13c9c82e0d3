"""Long and wide runs: memory and open descriptors of every kind of process while they last, and how large records get.

In the command line's process, over real runners. Each case is one suite: thirty cells of two steps, whose runner and
whose network's programs come and go; one run of five thousand steps; sixty-four sites that train. A kind of process is
flat if what its largest process holds in the last quarter of the training is at most `ALLOWED` times what it held in
the second quarter: the first is the start. Records are bounded if they are no larger than `record_bound`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from harness.bench.rows import stored_rows
from harness.bench.run_processes import kinds_of
from harness.bench.soak import LINKS, TRAIN
from harness.records.run_record import finished_runs
from netsim.emulated.owner import Owner
from netsim.errors import InputError, LonghaulError
from netsim.library import ROOT
from netsim.text_files import last_words

ALLOWED = 1.05
FLAT_BYTES = 8 * 10**6  # below which growth is a matter of when garbage is collected
FLAT_DESCRIPTORS = 2
# Of records: a run's own files, what each site adds to them and to its own, a step's line with its transfers.
RUN_BYTES, SITE_BYTES, STEP_BYTES = 64_000, 16_000, 512
SAMPLE_SECONDS = 2.0
LIMIT_SECONDS = 3600.0
MODEL: dict[str, Any] = {"kind": "dense", "layers": 2, "width": 32, "heads": 2, "vocabulary": 256, "sequence": 32}


@dataclass(frozen=True)
class LongRun:
    """A case: `cells` runs of `steps` steps among `sites` sites. lasting: kinds of processes that live through it."""

    name: str
    sites: int
    cells: int
    steps: int
    lasting: tuple[str, ...] = ("runner", "switch", "agent", "delay daemon", "prober", "trainer")

    def suite(self) -> dict[str, Any]:
        return {
            "name": "endurance",
            "model": MODEL,
            "train": {**TRAIN, "steps": self.steps, "evaluate_every": max(self.steps // 5, 2)},
            "methods": [{"method": "diloco", "options": {"sync_every": min(50, self.steps)}}],
            "topologies": [{"name": "many", "defaults": LINKS, "sites": {f"s{i}": {} for i in range(self.sites)}}],
            "seeds": list(range(1, self.cells + 1)),
            "network": {"gate": False, "timeout_seconds": 120},
        }


CASES = (
    LongRun("30 cells of 2 steps", sites=2, cells=30, steps=2, lasting=("runner",)),
    LongRun("5,000 steps", sites=2, cells=1, steps=5000),
    LongRun("64 sites", sites=64, cells=1, steps=200),
)


@dataclass(frozen=True)
class Held:
    """Resident bytes and open descriptors of the largest process of a kind, medians early and late in a case."""

    process: str
    early_bytes: float
    late_bytes: float
    early_descriptors: float
    late_descriptors: float

    @property
    def flat(self) -> bool:
        grown = self.late_bytes - self.early_bytes
        few = self.late_descriptors <= self.early_descriptors + FLAT_DESCRIPTORS
        return few and (grown <= FLAT_BYTES or self.late_bytes <= ALLOWED * self.early_bytes)


@dataclass(frozen=True)
class EnduranceRow:
    """The outcome of a case. record_bytes: of all its runs; complete: cells that completed."""

    name: str
    substrate: str
    sites: int
    cells: int
    steps: int
    complete: int
    seconds: float
    record_bytes: int
    held: list[Held]

    @property
    def passed(self) -> bool:
        return self.complete == self.cells and all(held.flat for held in self.held) and self.bounded

    @property
    def record_bound(self) -> int:
        """Bytes that the records of all runs may take."""
        return self.cells * (RUN_BYTES + self.sites * (SITE_BYTES + self.steps * STEP_BYTES))

    @property
    def bounded(self) -> bool:
        return self.record_bytes <= self.record_bound

    @property
    def record_bytes_per_worker_step(self) -> float:
        return self.record_bytes / (self.cells * self.steps * self.sites)


Sample = dict[str, tuple[int, int]]  # by kind: resident bytes and descriptors of the largest process


def endure(case: LongRun, command: Sequence[str], folder: Path, substrate: str) -> EnduranceRow:
    """Runs the case. LonghaulError if it does not end within an hour, or if nothing of it completes."""
    suite, runs, log = folder / "endurance.yaml", folder / "runs", folder / "log.txt"
    suite.write_text(yaml.safe_dump(case.suite()))
    arguments = [*command, "run", str(suite), "--runs", str(runs), "--substrate", substrate]
    began, samples = time.monotonic(), []
    with log.open("wb") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        runner = subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        owner = Owner.of(runner.pid)
        while runner.poll() is None:
            if time.monotonic() - began > LIMIT_SECONDS:
                raise LonghaulError(f"{case.name}: did not end within {LIMIT_SECONDS:g} s")
            time.sleep(SAMPLE_SECONDS)
            if owner is not None and any(path.stat().st_size for path in runs.glob("*/*/rank-0/steps.jsonl")):
                samples.append(_sample(runner.pid, owner, case.lasting))
    finally:
        if runner.poll() is None:
            runner.terminate()
            runner.wait()
    finished = list(finished_runs(runs)) if runs.is_dir() else []
    if not finished:
        raise LonghaulError(f"{case.name}: nothing completed: {last_words(log)}")
    records = sum(path.stat().st_size for run in finished for path in run.rglob("*") if path.is_file())
    seconds = round(time.monotonic() - began, 1)
    return EnduranceRow(
        case.name,
        substrate,
        case.sites,
        case.cells,
        case.steps,
        len(finished),
        seconds,
        records,
        held_of(while_training(samples)),
    )


def while_training(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Without what follows the training: many sites take a while to be taken down. All, if no sample has a trainer.

    Trainers have connections to each other while they train, and let go of them when they are done.
    """
    opened = [sample["trainer"][1] if "trainer" in sample else 0 for sample in samples]
    training = [place for place, count in enumerate(opened) if count and count > max(opened) / 2]
    return samples[: training[-1] + 1] if training else samples


def held_of(samples: Sequence[Sample]) -> list[Held]:
    """Early and late, of each kind that was seen in both quarters."""
    quarters = samples[len(samples) // 4 : len(samples) // 2], samples[3 * len(samples) // 4 :]
    found = []
    for kind in sorted({kind for sample in samples for kind in sample}):
        early, late = ([sample[kind] for sample in quarter if kind in sample] for quarter in quarters)
        if early and late:
            (before, opened), (after, still) = (
                tuple(statistics.median(one[index] for one in quarter) for index in (0, 1)) for quarter in (early, late)
            )
            found.append(Held(kind, before, after, opened, still))
    return found


def _sample(runner: int, owner: Owner, lasting: Sequence[str]) -> Sample:
    found = kinds_of(owner)
    with suppress(psutil.Error):
        found["runner"] = [psutil.Process(runner)]
    largest: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for kind in lasting:
        for process in found.get(kind, ()):
            with suppress(psutil.Error):
                with process.oneshot():
                    now = process.memory_info().rss, process.num_fds()
                largest[kind] = max(largest[kind][0], now[0]), max(largest[kind][1], now[1])
    return dict(largest)


def stored_endurance(results: Path) -> list[EnduranceRow]:
    """The last row of each case and substrate in `results`. InputError for a line that is none."""
    rows: dict[tuple[str, str], EnduranceRow] = {}
    for stored in stored_rows(results):
        try:
            row = EnduranceRow(**{**stored, "held": [Held(**held) for held in stored["held"]]})
        except (KeyError, TypeError) as error:
            raise InputError(str(results), "", str(error), "rows of `longhaul bench endurance`") from None
        rows[row.name, row.substrate] = row
    return list(rows.values())
