"""A cell of a suite: a run with its substrate and engine chosen, its identity, and where its record goes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from harness.records.code_hash import code_hash
from harness.records.layout import RunDirectory
from harness.records.run_record import Result, read_record
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from netsim.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """A run with its substrate and engine chosen, and where its record goes.

    asked: the spec as suite and command line have it, before a substrate was chosen for what they leave open. The run's
    id is its hash, so that a run which may take any substrate stays the same run when the host has another one to
    offer, and a substrate that is asked for makes another run. Both are done with what either of them has finished on
    the substrate and engine in question (`harness.run.suite_runner.cells_of`).
    code: the hash of the source that the run executes.
    """

    run: ResolvedRun
    asked: RunSpec
    run_id: str
    code: str
    directory: Path

    @classmethod
    def of(cls, spec: RunSpec, runs: Path, asked: RunSpec | None = None) -> Cell:
        asked = asked or spec
        code = code_hash(spec.method)
        run_id = asked.run_id(code)
        return cls(ResolvedRun.of(spec), asked, run_id, code, runs.absolute() / spec.suite / run_id)

    def asked_as(self, asked: RunSpec) -> Cell:
        """The same run under the name that it has where it is asked for so."""
        run_id = asked.run_id(self.code)
        return replace(self, asked=asked, run_id=run_id, directory=self.directory.with_name(run_id))

    @property
    def spec(self) -> RunSpec:
        return self.run.spec

    @property
    def files(self) -> RunDirectory:
        return RunDirectory(self.directory)

    def finished(self) -> Result | None:
        """The stored result of a valid earlier run of this very cell."""
        if not self.files.finished:
            return None
        try:
            result = read_record(self.files.result, Result)
        except InputError as error:  # torn or foreign: the cell is run again, the rest of the suite goes on
            _log.warning("%s: its run is made again: %s", self.run_id, error)
            return None
        return result if result.valid and result.id == self.run_id else None
