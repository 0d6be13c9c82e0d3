"""Follows all runs under a directory of records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from harness.records.layout import RunDirectory, suite_description
from harness.records.run_record import read_json
from netsim.errors import InputError
from reports.live.cell_follower import CellFollower
from reports.live.status import UNREADABLE, WAITING, CellStatus, LiveStatus


class SuiteFollower:
    """Reads record files only, so that it may begin, end and begin again whatever the runner does.

    folder: of records, of one suite or of a single run. only: the ids of the runs to follow; all of them if None.
    """

    def __init__(self, folder: Path, only: frozenset[str] | None = None) -> None:
        self._folder = folder
        self._only = only
        self._cells: dict[Path, CellFollower | InputError] = {}
        self._lock = threading.Lock()  # pages are answered by a thread each

    def read(self) -> LiveStatus:
        """What the files say now. InputError if the directory is gone."""
        if not self._folder.is_dir():
            raise InputError(str(self._folder), "", "no such directory", "a directory of runs")
        with self._lock:
            return self._read()

    def runs(self) -> dict[str, CellFollower]:
        """The runs that have begun, by id, as the last `read` found them."""
        with self._lock:
            return {path.name: cell for path, cell in self._cells.items() if isinstance(cell, CellFollower)}

    def _read(self) -> LiveStatus:
        found = self._directories()
        for gone in set(self._cells) - set(found):
            del self._cells[gone]
        begun = {path.name: self._status(path) for path in found}
        planned = [cell for cell in self._planned() if self._only is None or cell.id in self._only]
        order = {cell.id: place for place, cell in enumerate(planned)}
        cells = [begun.get(cell.id, cell) for cell in planned]
        earlier = [cell for name, cell in begun.items() if name not in order]
        cells = sorted(earlier, key=lambda cell: cell.id) + cells
        return LiveStatus(tuple(cells), self._left(cells))

    def _directories(self) -> list[Path]:
        """Of runs: at most two folders down, so that no worker's folder is searched."""
        name = RunDirectory(self._folder).spec.name
        paths = {path.parent for depth in (name, f"*/{name}", f"*/*/{name}") for path in self._folder.glob(depth)}
        return sorted(path for path in paths if self._only is None or path.name in self._only)

    def _status(self, path: Path) -> CellStatus:
        cell = self._cells.get(path)
        if not isinstance(cell, CellFollower):
            try:
                cell = self._cells[path] = CellFollower(path)
            except InputError as error:
                self._cells[path] = error
                return CellStatus(path.name, path.parent.name, path.name, "", "", 0, UNREADABLE, 0, reason=str(error))
        return cell.read()

    def _planned(self) -> Iterator[CellStatus]:
        """The cells that suite.json lists, which may not have begun."""
        for folder in (self._folder, *sorted(path for path in self._folder.iterdir() if path.is_dir())):
            try:
                document = read_json(suite_description(folder))
            except InputError:
                continue
            listed = document.get("cells") if isinstance(document, dict) else None
            for cell in listed if isinstance(listed, list) else ():
                if (status := _planned_cell(str(document.get("suite")), cell)) is not None:
                    yield status

    def _left(self, cells: list[CellStatus]) -> float | None:
        """Seconds until every cell is final, by what cells of the same method took so far, else what all took."""
        took: dict[str, list[float]] = {}
        for run in self._cells.values():
            if isinstance(run, CellFollower) and (seconds := run.seconds) is not None:
                took.setdefault(run.spec.label, []).append(seconds)
        everything = [seconds for group in took.values() for seconds in group]
        left = 0.0
        for cell in cells:
            if cell.final:
                continue
            if cell.seconds_left is not None:
                left += cell.seconds_left
            elif everything:
                left += mean(took.get(cell.label, everything))
            else:
                return None
        return left


def _planned_cell(suite: str, cell: Any) -> CellStatus | None:
    try:
        return CellStatus(
            str(cell["id"]),
            suite,
            str(cell["label"]),
            str(cell.get("method", "")),
            str(cell["topology"]),
            int(cell["seed"]),
            WAITING,
            int(cell["steps"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
