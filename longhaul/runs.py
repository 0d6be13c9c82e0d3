"""Records and reports from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.records import archive
from harness.records.run_record import Run
from netsim.errors import InputError
from reports.build import build_report
from reports.sharing.archive_reader import kept_records

Source = str | os.PathLike[str]


def read_runs(*sources: Source) -> list[Run]:
    """Every finished run under directories of records, or in files of `longhaul validate --store`.

    Args:
        sources: directories such as `runs` or `runs/quickstart`, and .jsonl files; by default `runs`.

    Returns:
        The runs, each once, ordered by id: `spec`, `result`, `environment`, and `steps(rank)`, which reads one worker's
        steps (seconds by bucket, loss, bytes).

    Raises:
        InputError: a source does not exist, or a record in it is damaged.

    Example:
        >>> for run in longhaul.read_runs("runs/quickstart"):  # doctest: +SKIP
        ...     print(run.spec.label, run.result.final_loss, run.result.wall_seconds)
    """
    paths = [Path(source) for source in sources or ("runs",)]
    for path in paths:
        if not path.exists():
            raise InputError(str(path), "", "no such file or directory", "a directory of runs, or a .jsonl file")
    return archive.read_runs(paths)


def report(
    *runs: Source,
    out: Source | None = None,
    baseline: str | None = None,
    claims: Source | None = None,
    predict: bool = True,
    calibration: Source | None = None,
    tensorboard: bool = False,
    parquet: bool = False,
) -> dict[str, Any]:
    """Write tables, figures and one offline HTML page about finished runs.

    Args:
        runs: directories or archives of records; several are compared; by default `runs`.
        out: the report's directory, by default report/<suite>; an earlier report there is replaced, other files are
            left alone, and a directory without a report is refused.
        baseline: the label to compare with; by default the suite's own.
        claims: a YAML file of claims to hold against the runs (docs/reports.md).
        predict: whether every run is also predicted by the cost model.
        calibration: the file of constants for the predictions; by default first principles.
        tensorboard: whether TensorBoard event files are written too.
        parquet: whether all steps are written as one tidy Parquet file too.

    Returns:
        What report.json holds: `answers` to the report's questions, `excluded` runs, `page`, the path of the page, and
        the names of tables and figures.

    Raises:
        InputError: no finished run is found, a record is damaged, or `out` holds something that is not a report.

    Example:
        >>> longhaul.report("runs/quickstart", out="report/quickstart")["page"]  # doctest: +SKIP
        'report/quickstart/index.html'
    """
    folders, place = kept_records([Path(path) for path in runs or ("runs",)], None if out is None else Path(out))
    return build_report(
        folders,
        place,
        baseline=baseline,
        claims_file=None if claims is None else Path(claims),
        predict=predict,
        calibration=None if calibration is None else Path(calibration),
        tensorboard=tensorboard,
        parquet=parquet,
    )
