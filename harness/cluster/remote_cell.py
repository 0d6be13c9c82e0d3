"""One cell on a host of a cluster: run there in a process of its own, its record sent back.

Where it is called (in a Dask worker), `run_remote` waits its turn, for a host carries one run at a time; then it starts
this module as a program, which runs the cell as `longhaul run` would, and packs what the cell left behind.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from harness.records.layout import RunDirectory
from harness.records.run_record import read_json, read_record, write_json
from harness.run.cell import Cell
from harness.run.suite_runner import CellOutcome, State, run_suite
from harness.spec.run_spec import RunSpec
from netsim.emulated.node.realtime import die_with_parent
from netsim.errors import LonghaulError
from netsim.library import ROOT
from netsim.text_files import last_words

POLL_SECONDS = 1.0
STOPPED_SECONDS = 20.0  # for which the process of a cell may be stopped before it is ended
OUTCOME = "outcome.json"
ASKED = "asked.json"


@dataclass(frozen=True)
class RemoteRequest:
    """spec, asked: those of the Cell, as JSON. run_id: its name, also on the host, or the source there is another."""

    spec: str
    asked: str
    run_id: str


@dataclass(frozen=True)
class RemoteResult:
    """state, reason: of the cell's Outcome. record: the run's directory, a gzipped tar; empty if there is none."""

    state: State
    reason: str
    record: bytes


def run_remote(order: RemoteRequest, stopped: Callable[[], bool]) -> RemoteResult:
    """The cell of `order`, on this host, when its turn has come. Ends early, and cleanly, once `stopped`."""
    with _turn(stopped) as mine, tempfile.TemporaryDirectory(prefix="longhaul-lent-") as name:
        folder = Path(name)
        if not mine:
            return RemoteResult("failed", "interrupted before its turn", b"")
        folder.chmod(0o755)  # trainers in containers are nobody
        RunDirectory(folder).spec.write_text(order.spec)
        (folder / ASKED).write_text(order.asked)
        with (folder / "said.txt").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.cluster.remote_cell", str(folder)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=said,
                stderr=said,
            )
            wait_for_cell(process, stopped)
        outcome, record = folder / OUTCOME, b""
        if not outcome.is_file():
            reason = f"the run's process ended with {process.returncode}: {last_words(folder / 'said.txt')}"
            return RemoteResult("failed", reason, b"")
        found = read_json(outcome)
        if (directory := Path(found["directory"])).is_dir():
            if directory.name != order.run_id:
                return RemoteResult("failed", f"the host has other source: it calls this run {directory.name}", b"")
            record = packed(directory)
        return RemoteResult(found["state"], found["reason"], record)


def packed(directory: Path) -> bytes:
    """A run's record without its checkpoints, which are for going on where it was begun."""
    file, checkpoints = io.BytesIO(), RunDirectory(directory).worker(0).checkpoints.name
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(
            directory, arcname=".", filter=lambda entry: None if checkpoints in Path(entry.name).parts else entry
        )
    return file.getvalue()


def unpack(record: bytes, directory: Path) -> None:
    """Puts a packed record where `directory` is to be: whole, or not at all. Refuses what would leave it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=directory.parent) as name:
        arriving = Path(name) / "record"
        with tarfile.open(fileobj=io.BytesIO(record), mode="r:gz") as archive:
            archive.extractall(arriving, filter="data")
        if directory.exists():
            directory.rename(Path(name) / "earlier")
        arriving.rename(directory)


def wait_for_cell(process: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> None:
    """Until the process has ended: by itself, asked to once `stopped`, or killed because it stands still (SIGSTOP)."""
    moved = time.monotonic()
    while True:
        try:
            process.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                moved = time.monotonic()
            elif time.monotonic() - moved > STOPPED_SECONDS:
                process.kill()
            if stopped():
                process.terminate()


@contextmanager
def _turn(stopped: Callable[[], bool]) -> Iterator[bool]:
    """Holds this host; False if `stopped` came first."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"longhaul-{os.getuid()}.lent")
    while True:
        try:
            lock.acquire(timeout=POLL_SECONDS)
            break
        except Timeout:
            if stopped():
                yield False
                return
    try:
        yield True
    finally:
        lock.release()


def _main(folder: Path) -> None:
    """Runs the cell of folder/spec.json; writes folder/outcome.json."""
    die_with_parent(os.getppid())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    spec = read_record(RunDirectory(folder).spec, RunSpec)
    cell = Cell.of(spec, folder / "runs", read_record(folder / ASKED, RunSpec))
    try:
        (outcome,) = run_suite([cell], folder / "runs", fresh=True, observer=_Nobody())
        found: tuple[State, str] = (outcome.state, outcome.reason)
    except KeyboardInterrupt:
        found = ("failed", "interrupted")
    except LonghaulError as error:
        found = ("failed", str(error))
    state, reason = found
    write_json(folder / OUTCOME, {"state": state, "reason": reason, "directory": str(cell.directory)})


class _Nobody:
    """Whom nobody watches needs no observer."""

    def stage(self, cell: Cell, stage: str, directory: Path) -> None:
        pass

    def done(self, outcome: CellOutcome) -> None:
        pass


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
