"""What a person sees while a suite runs: one line per cell, and the running one live."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.records.files import open_to_read
from harness.records.layout import RunDirectory
from harness.records.run_record import Result
from harness.run.cell import Cell
from harness.run.suite_runner import CellOutcome
from netsim.errors import InputError
from netsim.units import show_duration, show_size
from reports.live.lines import fitted
from reports.style.terminal import printable

_STYLE = {"complete": "green", "reused": "cyan", "invalid": "yellow", "failed": "red"}
REFRESH_SECONDS = 0.5
PIPED_SECONDS = 30.0  # between lines about a running cell where nobody watches a terminal


class RunProgress:
    """Prints to stderr, so that stdout stays for results. On a terminal the running cell's line is live."""

    def __init__(self, cells: int, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._cells = cells
        self._numbers: dict[Path, int] = {}  # of cells, by their directory, in the order of their beginning
        self._now: dict[Path, tuple[Cell, str]] = {}  # under way
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._live.stop()

    def stage(self, cell: Cell, stage: str, directory: Path) -> None:
        if directory not in self._now and not self._console.is_terminal:
            self._console.print(f"{self._title(cell)} ...", markup=False, soft_wrap=True)
        self._now[directory] = (cell, stage)

    def done(self, outcome: CellOutcome) -> None:
        self._now.pop(outcome.cell.directory, None)
        title, facts = self._title(outcome.cell), _facts(outcome.result)
        # A terminal has the numbers on a line of their own where the first has no room; a pipe has one line an event.
        apart = self._console.is_terminal and len(f"{title}: {outcome.state}  {facts}") > self._console.width
        line = Text(f"{title}: ")
        line.append(outcome.state, style=_STYLE[outcome.state])
        if facts:
            line.append(f"\n    {facts}" if apart else f"  {facts}")
        for caveat in outcome.result.caveats if outcome.result is not None else ():
            line.append(f"\n    {printable(caveat)}", style="yellow")
        if outcome.reason:
            line.append(f"\n    {printable(outcome.reason)}")
        if outcome.state == "failed":
            line.append(f"\n    {_last_words(outcome.cell)}more: longhaul show {outcome.cell.directory}")
        self._console.print(line, soft_wrap=True)

    def _refresh(self) -> None:
        terminal = self._console.is_terminal
        while not self._stop.wait(REFRESH_SECONDS if terminal else PIPED_SECONDS):
            now = [
                (self._title(cell), f"{stage}{_position(cell, at)}") for at, (cell, stage) in list(self._now.items())
            ]
            if terminal:  # one line each, within the terminal's width
                lines = [fitted(title, _brief(state), self._console.width) for title, state in now]
                self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            for title, state in now if not terminal else ():
                self._console.print(f"{title}: {state}", markup=False, soft_wrap=True)

    def _title(self, cell: Cell) -> str:
        number = self._numbers.setdefault(cell.directory, len(self._numbers) + 1)
        spec = cell.spec
        where = f"{spec.topology['name']}, seed {spec.seed}"
        return printable(f"[{number}/{self._cells}] {spec.label} on {where}")


def _facts(result: Result | None) -> str:
    if result is None:
        return ""
    if result.final_loss is None:
        return show_duration(result.wall_seconds)
    utilisation = result.compute_seconds / result.wall_seconds
    return (
        f"{show_duration(result.wall_seconds)}, loss {result.final_loss:.3f}, CU {utilisation:.0%}, "
        f"{show_size(result.payload_bytes_per_worker)} per worker"
    )


def _brief(state: str) -> str:
    """A position without the stage's name: that it trains is plain from the step."""
    return state.removeprefix("training, ")


def _last_words(cell: Cell) -> str:
    """The site, last step and last line of each worker whose log ends with something, for a cell that failed."""
    sites = list(cell.spec.topology["sites"])
    words = []
    for worker in RunDirectory(cell.directory).workers():
        if (last := _last_line(worker.log)) is not None:
            rank, _, member = worker.path.name.removeprefix("rank-").partition(".")
            where = sites[int(rank)] if int(rank) < len(sites) else worker.path.name
            where += f", worker {member}" if member else ""
            words.append(
                f"{where}, step {_last_step(worker.steps)}: {printable(last)[:200]}\n    log: {worker.log}\n    "
            )
    return "".join(words)


def _last_step(path: Path) -> int:
    try:
        return int(json.loads(_last_line(path) or "{}").get("step", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _position(cell: Cell, directory: Path) -> str:
    """Step, loss, compute utilisation and remaining time, from the last line that worker 0 logged."""
    line = _last_line(RunDirectory(directory).worker(0).steps)
    if line is None:
        return ""
    try:
        step: dict[str, Any] = json.loads(line)
        done, clock = int(step["step"]), float(step["clock"])
    except (ValueError, KeyError, TypeError):
        return ""
    total = cell.spec.train.steps
    left = (total - done) * clock / done
    spent = sum(step["seconds"].values()) or 1.0
    utilisation = 1 - step["seconds"]["communication"] / spent
    loss = step.get("loss")
    shown = f"{loss:.3f}" if loss is not None else "-"
    return f", step {done}/{total}, loss {shown}, CU {utilisation:.0%}, {show_duration(left)} left"


def _last_line(path: Path) -> str | None:
    try:
        with open_to_read(path) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except (OSError, InputError):
        return None
    return lines[-1] if lines else None
