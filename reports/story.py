"""The story of one run for a terminal: outcome, caveats, events in order, and the end of the workers' logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records.layout import RunDirectory, WorkerDirectory
from harness.records.run_record import Result, failure_reason, read_record
from harness.spec.run_spec import RunSpec
from netsim.errors import InputError
from netsim.units import show_duration, show_size
from reports.style.terminal import printable

LOG_LINES = 20  # of each worker
_LARGEST_LOG = 1 << 20  # bytes read from the end of a log


def story(directory: Path, log_lines: int = LOG_LINES) -> list[str]:
    """Lines to print, without control characters. InputError if `directory` holds no run."""
    files = RunDirectory(directory)
    if not files.spec.is_file():
        raise InputError(str(directory), "", "no run", "a directory with spec.json, like runs/quickstart/ddp-...")
    spec = read_record(files.spec, RunSpec)
    sites = [str(site) for site in spec.topology.get("sites", {})]
    lines = [f"{spec.label} on {spec.topology.get('name')}, seed {spec.seed}: {spec.method}, {len(sites)} sites"]
    lines += _outcome(files)
    lines += ["", "events (seconds since the cell began)", *(_event(line) for line in _json_lines(files.events))]
    lines += ["", "workers"]
    for worker in files.workers():
        rank = int(worker.path.name.removeprefix("rank-"))
        lines += list(_worker(worker, sites[rank] if rank < len(sites) else "", log_lines))
    return [printable(line) for line in lines]


def _outcome(files: RunDirectory) -> list[str]:
    if not files.result.is_file():
        return [f"failed or unfinished: {failure_reason(files)}", f"log: {files.log}"]
    result = read_record(files.result, Result)
    loss = "-" if result.final_loss is None else f"{result.final_loss:.3f}"
    lines = [
        f"{'valid' if result.valid else 'INVALID'}: {result.steps} steps in {show_duration(result.wall_seconds)}, "
        f"loss {loss}, {show_duration(result.communication_seconds)} waiting for the network, "
        f"{show_size(result.payload_bytes_per_worker)} per worker"
    ]
    lines += [f"invalid because: {why}" for why in result.why_invalid]
    lines += [f"caveat: {caveat}" for caveat in result.caveats]
    if result.faults:
        lines.append(f"faults: {', '.join(f'{count} {kind}' for kind, count in sorted(result.faults.items()))}")
    return lines


def _event(event: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("at", "kind"))
    at = event.get("at")
    clock = f"{at:9.3f}" if isinstance(at, int | float) else f"{at!s:>9}"
    return f"{clock}  {event.get('kind', '?')}{f': {facts}' if facts else ''}"


def _worker(worker: WorkerDirectory, site: str, log_lines: int) -> Iterator[str]:
    steps = list(_json_lines(worker.steps))
    at = f"step {steps[-1].get('step')}" if steps else "no step"
    yield f"{worker.path.name}{f' at {site}' if site else ''}: {at}; log: {worker.log}"
    for line in _tail(worker.log, log_lines):
        yield f"  | {line}"


def _tail(path: Path, count: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LARGEST_LOG))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return lines[-count:] if count else []


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a log; a line cut short, as the last one of a killed process, is passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found
