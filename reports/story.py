"""The story of one run for a terminal: outcome, caveats, events in order, and the end of the workers' logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records.files import read_bytes
from harness.records.layout import RunDirectory, WorkerDirectory
from harness.records.program_record import ProgramDirectory
from harness.records.run_record import Result, failure_reason, read_json, read_record
from harness.spec.run_spec import RunSpec
from netsim.errors import InputError
from netsim.units import show_duration, show_size
from reports.programs import log_tail, program_story
from reports.style.terminal import printable

LOG_LINES = 20  # of each worker


def story(directory: Path, log_lines: int = LOG_LINES) -> list[str]:
    """Lines to print, without control characters. InputError if `directory` holds no run."""
    files = RunDirectory(directory)
    if ProgramDirectory(directory).spec.is_file():
        return [printable(line) for line in program_story(directory, log_lines)]
    if not files.spec.is_file():
        raise InputError(str(directory), "", "no run", "a directory with spec.json, like runs/quickstart/ddp-...")
    spec = read_record(files.spec, RunSpec)
    sites = [str(site) for site in spec.topology.get("sites", {})]
    lines = [f"{spec.label} on {spec.topology.get('name')}, seed {spec.seed}: {spec.method}, {len(sites)} sites"]
    lines += _outcome(files)
    lines += _links(files)
    lines += ["", "events (seconds since the cell began)", *(_event(line) for line in _json_lines(files.events))]
    lines += ["", "workers"]
    for worker in files.workers():
        rank = int(worker.path.name.removeprefix("rank-").partition(".")[0])  # rank-N.M: of the site of rank N
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


def _links(files: RunDirectory) -> list[str]:
    """The link checks before and after the run, with every link that was out of tolerance."""
    try:
        document = read_json(files.links) if files.links.exists() else {}
    except InputError as error:
        return [f"links: {error}"]
    lines = []
    for when in ("before", "after"):
        report = document.get(when) if isinstance(document, dict) else None
        if not isinstance(report, dict):
            continue
        links = [link for link in report.get("links", ()) if isinstance(link, dict)]
        failed = [link for link in links if not link.get("passed")]
        verdict = f"{len(failed)} of {len(links)} out of tolerance" if failed else f"all {len(links)} within tolerance"
        lines.append(f"links {when} the run: {verdict}")
        for link in failed:
            why = link.get("why")
            reasons = (
                "; ".join(str(reason) for reason in why) if isinstance(why, list) and why else "no reason recorded"
            )
            lines.append(f"  {link.get('source')} to {link.get('target')}: {reasons}")
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
    for line in log_tail(worker.log, log_lines):
        yield f"  | {line}"


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a log; a line cut short, as the last one of a killed process, is passed over."""
    try:
        text = read_bytes(path).decode(errors="replace")
    except InputError:
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found
