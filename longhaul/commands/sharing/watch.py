"""`longhaul watch RUNS`: a suite while it runs, from its record files."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from reports.live.lines import event_line, status_table, summary_line
from reports.live.suite_follower import SuiteFollower
from reports.live.trackers import Trackers, tracked_offline

if TYPE_CHECKING:
    from reports.live.status import LiveStatus

REFRESH_SECONDS = 1.0
PIPED_SECONDS = 30.0  # between lines about a running cell where nobody watches a terminal


def watch(
    runs: Annotated[Path, typer.Argument(help="Records of one suite, of several, or a single run.")] = Path("runs"),
    serve: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Also serve a page on 127.0.0.1 at this port; 0 takes a free one."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Also write TensorBoard event files under this directory.")
    ] = None,
    wandb: Annotated[Path | None, typer.Option(help="Also write offline runs of W&B under this directory.")] = None,
    trackio: Annotated[Path | None, typer.Option(help="Also write trackio's databases in this directory.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show what is known now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: one JSON document on stdout.")] = False,
) -> None:
    """Show cells, losses, link checks, bytes and the time left until every cell is done. Reads record files only."""
    trackers = Trackers(tensorboard, wandb, trackio)
    follower = SuiteFollower(runs)
    status = follower.read()
    if as_json:
        import json

        print(json.dumps(status.json()))
        return
    console = Console(highlight=False)
    with ExitStack() as stack:
        if trackers.tensorboard is not None:
            from reports.live.event_files import EventFiles

            files = stack.enter_context(EventFiles(trackers.tensorboard))
        else:
            files = None
        for package, folder in trackers.offline.items():
            stack.enter_context(tracked_offline(package, folder, runs))
        if serve is not None:
            from reports.live.server import served

            url = stack.enter_context(served(serve, lambda: follower.read().json())).url
            console.print(f"serving {url} until Ctrl-C" if not once else f"serving {url}")
        screen = _Screen(console)
        if console.is_terminal and not once:
            stack.enter_context(screen.live)
        while True:
            screen.show(status)
            if files is not None:
                files.write(follower.runs())
            if once or (status.finished and serve is None):
                break
            time.sleep(REFRESH_SECONDS)
            status = follower.read()


class _Screen:
    """A table that is drawn anew on a terminal; elsewhere a line for each event, and one now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.live = Live(console=console, auto_refresh=False)
        self._stages: dict[str, str] = {}
        self._said = float("-inf")

    def show(self, status: LiveStatus) -> None:
        size = self._console.size
        if self._console.is_terminal:
            table = status_table(status, min(size.width, 120), size.height)
            if self.live.is_started:
                self.live.update(table, refresh=True)
            else:
                self._console.print(table)
            return
        due = time.monotonic() - self._said >= PIPED_SECONDS
        lines = []
        for number, cell in enumerate(status.cells, start=1):
            changed = self._stages.get(cell.id) != cell.stage
            self._stages[cell.id] = cell.stage
            if (changed and cell.stage != "waiting") or (due and cell.under_way):
                lines.append(event_line(cell, number, len(status.cells)))
        if lines or due:
            for line in (*lines, summary_line(status)):
                self._console.print(line, markup=False, soft_wrap=True)
            self._said = time.monotonic()
