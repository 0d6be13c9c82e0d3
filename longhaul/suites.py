"""Running suites from Python."""

from __future__ import annotations

import os
from pathlib import Path

from harness.run import suite_runner
from harness.run.cell import Cell
from harness.run.suite_runner import CellOutcome, Observer, cells_of, describe
from harness.spec.suite import Suite, find_suite
from harness.spec.suite import load_suite as _load

Source = str | os.PathLike[str]


def load_suite(suite: Source) -> Suite:
    """The suite in a file, or the one of that name in the library, with everything in it checked.

    Args:
        suite: a path to a YAML file (docs/suites.md), or a name that `longhaul list suites` shows.

    Returns:
        The suite: `name`, `baseline` (a label) and `cells`, one frozen `RunSpec` for each method, topology and seed.

    Raises:
        InputError: the file or the name does not exist, or something in the file is wrong; the message names the line.

    Example:
        >>> suite = longhaul.load_suite("quickstart")
        >>> [cell.label for cell in suite.cells]
        ['ddp', 'diloco', 'photon', 'lordo', 'fomoe']
    """
    return _load(find_suite(os.fspath(suite)))


def run_suite(
    suite: Suite | Source,
    runs: Source = "runs",
    *,
    substrate: str = "auto",
    engine: str = "auto",
    fresh: bool = False,
    observer: Observer | None = None,
) -> list[CellOutcome]:
    """Train every cell of a suite on an emulated network of this host; a failed cell does not stop the rest.

    Args:
        suite: a loaded suite, or what `load_suite` takes.
        runs: the directory for records, made if it does not exist; complete cells in it are reused.
        substrate: `netns`, `docker`, `compose` or `auto`; goes before the suite's own.
        engine: `nfqueue`, `netem` or `auto`; goes before the suite's own.
        fresh: whether complete cells are run again.
        observer: is called with each cell's stage and outcome.

    Returns:
        One outcome per cell, in the suite's order: `state` (complete, reused, invalid, failed), `result` (seconds,
        bytes, losses; None if the cell failed), `reason` and `cell.directory`, where the records are.

    Raises:
        InputError: the suite is wrong.
        HostError: this host cannot emulate the network; the message names what is missing.
        LonghaulError: the records cannot be written, or another run is writing them.

    Example:
        >>> for outcome in longhaul.run_suite("quickstart"):  # doctest: +SKIP
        ...     print(outcome.cell.spec.label, outcome.state, outcome.result.wall_seconds)
    """
    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    folder = Path(runs)
    cells = cells_of(loaded, folder, substrate, engine)
    describe(loaded, folder, cells)
    return list(suite_runner.run_suite(cells, folder, fresh, observer or _Silent()))


class _Silent:
    """An observer that shows nothing."""

    def stage(self, cell: Cell, stage: str, directory: Path) -> None: ...

    def done(self, outcome: CellOutcome) -> None: ...
