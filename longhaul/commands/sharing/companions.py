"""What may go along with a suite that runs: the page on loopback, and trackers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from harness.run.cell import Cell
from netsim.errors import LonghaulError
from reports.live.event_files import EventFiles
from reports.live.run_writers import WRITING_SECONDS
from reports.live.server import served
from reports.live.suite_follower import SuiteFollower
from reports.live.trackers import Trackers, tracked_offline

_log = logging.getLogger(__name__)


@contextmanager
def followed(cells: Sequence[Cell], serve: int | None, trackers: Trackers) -> Iterator[None]:
    """Until the block ends, the page at port `serve`, if that is given, and what the trackers write."""
    ids = [cell.run_id for cell in cells]
    follower = SuiteFollower(_root(cells), frozenset(ids))
    with ExitStack() as stack:
        if serve is not None:
            server = stack.enter_context(served(serve, lambda: follower.read().json()))
            typer.echo(
                f"serving {server.url} while it runs; afterwards: longhaul watch --serve {serve} {_root(cells)}",
                err=True,
            )
        if trackers.tensorboard is not None:
            stack.enter_context(_written(EventFiles(trackers.tensorboard), follower))
        for package, folder in trackers.offline.items():
            stack.enter_context(tracked_offline(package, folder, _root(cells), ids))
        yield


@contextmanager
def _written(files: EventFiles, follower: SuiteFollower) -> Iterator[None]:
    ended = threading.Event()

    def write() -> None:
        try:
            follower.read()
            files.write(follower.runs())
        except (LonghaulError, OSError) as error:  # of no run: the suite goes on
            _log.warning("TensorBoard event files: %s", error)

    def work() -> None:
        while not ended.wait(WRITING_SECONDS):
            write()

    thread = threading.Thread(target=work, name="event files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with files:
            write()


def _root(cells: Sequence[Cell]) -> Path:
    return cells[0].directory.parent
