"""Follows one run's record while it is written."""

from __future__ import annotations

import time
from math import isfinite
from pathlib import Path
from typing import Any

from harness.records.layout import RunDirectory
from harness.records.run_record import Result, failure_reason, read_record
from harness.spec.run_spec import RunSpec
from netsim.errors import InputError
from netsim.topology import Topology, topology_from
from reports.live.log_follower import LogFollower
from reports.live.status import (
    CHECKING,
    CHECKING_AFTER,
    COMPLETE,
    FAILED,
    INVALID,
    PREPARING,
    SILENT,
    STARTING,
    TRAINING,
    CellStatus,
    GateOutcome,
    Point,
    Uplink,
    thinned,
)

SILENCE_SECONDS = 120.0  # without a write to any file: the runner is gone
_STAGE_AFTER = {
    "nodes": CHECKING,
    "trainers": CHECKING,
    "resumed": PREPARING,
    "go": TRAINING,
    "trained": CHECKING_AFTER,
}


class CellFollower:
    """One run directory. Damaged and half-written files are passed over: a later reading finds them whole."""

    def __init__(self, directory: Path) -> None:
        self._files = RunDirectory(directory)
        self.spec = read_record(self._files.spec, RunSpec)
        self._topology: Topology = topology_from(self.spec.topology, f"{self._files.spec}: topology")
        self._sites = [site.name for site in self._topology.sites]
        self._steps = [LogFollower(self._files.worker(rank).steps) for rank in range(len(self._sites))]
        self._events_file = LogFollower(self._files.events)
        self._events: list[dict[str, Any]] = []
        self._last: list[dict[str, Any]] = [{} for _ in self._sites]
        self._waited = self._spent = 0.0
        self.points: list[Point] = []

    @property
    def seconds(self) -> float | None:
        """What the whole cell took, by its last event; None while it lasts."""
        return _number(self._events[-1].get("at")) if self._events and self._files.finished else None

    def read(self) -> CellStatus:
        self._read_logs()
        stage, reason = self._stage()
        held_out = tuple(point for point in self.points if point.evaluation_loss is not None)
        curve = held_out or tuple(point for point in self.points if point.loss is not None)
        last = self.points[-1] if self.points else None
        shown = curve[-1] if curve else None
        loss = None if shown is None else shown.evaluation_loss if held_out else shown.loss
        left = None
        if stage == TRAINING and last is not None and last.step:
            left = max(0.0, (self.spec.train.steps - last.step) * last.clock / last.step)
        return CellStatus(
            id=self._files.path.name,
            suite=self.spec.suite,
            label=self.spec.label,
            method=self.spec.method_name,
            topology=str(self.spec.topology.get("name")),
            seed=self.spec.seed,
            stage=stage,
            steps=self.spec.train.steps,
            step=last.step if last else 0,
            loss=loss,
            utilisation=1 - self._waited / self._spent if self._spent > 0 else None,
            clock=last.clock if last else None,
            seconds_left=left,
            uplinks=self._uplinks(),
            gates=tuple(_gate(event) for event in self._events if event.get("kind") == "gate"),
            curve=thinned(curve),
            held_out=bool(held_out),
            faults=sum("fault" in event for event in self._events),
            reason=reason,
        )

    def _read_logs(self) -> None:
        anew, events = self._events_file.read()
        self._events = events if anew else self._events + events
        for rank, log in enumerate(self._steps):
            anew, steps = log.read()
            if anew:
                self._last[rank] = {}
                if rank == 0:
                    self.points, self._waited, self._spent = [], 0.0, 0.0
            for step in steps:
                if rank == 0:
                    self._add(step)
            if steps:
                self._last[rank] = steps[-1]

    def _add(self, step: dict[str, Any]) -> None:
        number, clock = _number(step.get("step")), _number(step.get("clock"))
        if number is None or clock is None:
            return
        seconds = step.get("seconds")
        if isinstance(seconds, dict):
            self._spent += sum(_number(value) or 0.0 for value in seconds.values())
            self._waited += _number(seconds.get("communication")) or 0.0
        sent = int(_number(step.get("payload_bytes")) or 0)
        loss, held_out = _number(step.get("loss")), _number(step.get("evaluation_loss"))
        self.points.append(Point(int(number), clock, loss, held_out, sent))

    def _uplinks(self) -> tuple[Uplink, ...]:
        """Of each site in order: one worker of a site sends for all of them."""
        return tuple(_uplink(site, step) for site, step in zip(self._sites, self._last, strict=True))

    def _stage(self) -> tuple[str, str]:
        if self._files.finished:
            try:
                result = read_record(self._files.result, Result)
            except InputError as error:
                return FAILED, str(error)
            return (COMPLETE, "; ".join(result.caveats)) if result.valid else (INVALID, "; ".join(result.why_invalid))
        if self._files.failure.exists():
            try:
                return FAILED, failure_reason(self._files)
            except InputError as error:
                return FAILED, str(error)
        quiet = time.time() - self._last_write()
        if quiet > SILENCE_SECONDS:
            return SILENT, f"nothing was written for {quiet:.0f} s: its runner ended, or hangs"
        stage = PREPARING
        for event in self._events:
            kind = event.get("kind")
            if kind == "gate":
                stage = STARTING if event.get("passed") and stage != CHECKING_AFTER else stage
            else:
                stage = _STAGE_AFTER.get(str(kind), stage)
        return stage, ""

    def _last_write(self) -> float:
        paths = [self._files.path, self._files.spec, self._files.events]
        for rank in range(len(self._sites)):
            worker = self._files.worker(rank)
            paths += [worker.path, worker.heartbeat, worker.steps]
        return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def _uplink(site: str, step: dict[str, Any]) -> Uplink:
    sent, clock = int(_number(step.get("payload_bytes")) or 0), _number(step.get("clock")) or 0.0
    return Uplink(site, sent, 8 * sent / clock if clock > 0 else None)


def _gate(event: dict[str, Any]) -> GateOutcome:
    problems = event.get("problems")
    words = tuple(str(problem) for problem in problems) if isinstance(problems, list) else ()
    return GateOutcome(_number(event.get("at")) or 0.0, bool(event.get("passed")), words)


def _number(value: object) -> float | None:
    """A finite number; None for anything else, NaN included."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None
