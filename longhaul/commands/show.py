"""`longhaul show RUN`: the story of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.story import LOG_LINES, story


def show(
    run: Annotated[Path, typer.Argument(help="A run's directory, like runs/quickstart/ddp-...", show_default=False)],
    log_lines: Annotated[int, typer.Option(min=0, help="Last lines of each worker's log.")] = LOG_LINES,
) -> None:
    """Outcome, caveats, events, faults and the end of the logs of one run, finished or failed."""
    for line in story(run, log_lines):
        typer.echo(line)
