"""`longhaul show RUN`: the story of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.records.layout import run_directories
from netsim.errors import InputError
from reports.sharing.archive_reader import is_archive, record_folders
from reports.story import LOG_LINES, story


def show(
    run: Annotated[
        Path,
        typer.Argument(help="A run's directory, like runs/quickstart/ddp-..., or an archive.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Argument(help="Of an archive: which run; without it, its runs are listed.")
    ] = None,
    log_lines: Annotated[int, typer.Option(min=0, help="Last lines of each worker's log.")] = LOG_LINES,
) -> None:
    """Outcome, caveats, link checks, events, faults and the end of the logs of one run, finished or failed."""
    if not is_archive(run):
        if name is not None:
            raise InputError(str(run), "", f"a directory, and the name {name}", "the run's directory alone")
        lines = story(run, log_lines)
    else:
        with record_folders([run]) as (folder,):
            lines = _of_archive(run, folder, name, log_lines)
    for line in lines:
        typer.echo(line)


def _of_archive(archive: Path, folder: Path, name: str | None, log_lines: int) -> list[str]:
    runs = {files.path.name: files for files in run_directories(folder)}
    if name is None and len(runs) != 1:
        return [f"{run}: {'finished' if files.finished else 'unfinished'}" for run, files in runs.items()]
    chosen = name if name is not None else next(iter(runs))
    if chosen not in runs:
        raise InputError.unknown(str(archive), "", chosen, runs, "one of its runs:")
    lines = story(runs[chosen].path, log_lines)
    return [line.replace(f"{folder}/", f"{archive}:") for line in lines]
