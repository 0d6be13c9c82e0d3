"""`longhaul report`: statistics, tables, figures and one offline page, from run records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.style.terminal import printable


def report(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs; several are compared.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the report: report/SUITE by default. An earlier one is replaced.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Label to compare with; default: the suite's own.")] = None,
    claims: Annotated[Path | None, typer.Option(help="A YAML file of claims to hold against the runs.")] = None,
    predict: Annotated[bool, typer.Option(help="Also predict every run with the cost model.")] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="Constants for the predictions; default: first principles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard event files.")] = False,
    parquet: Annotated[bool, typer.Option(help="Also write every step as one tidy Parquet file.")] = False,
) -> None:
    """Make tables, figures and one offline HTML page from finished runs."""
    from reports.build import build_report  # here, so that other commands do not wait for pandas and matplotlib

    summary = build_report(
        runs,
        out,
        baseline=baseline,
        claims_file=claims,
        predict=predict,
        calibration=calibration,
        tensorboard=tensorboard,
        parquet=parquet,
    )
    if as_json:
        import json

        print(json.dumps(summary, indent=1))
        return
    for answer in summary["answers"]:
        parts = [answer["headline"], answer["evidence"], answer["why"], answer["elsewhere"].rstrip(".")]
        typer.echo(printable(f"{answer['place']}: {'; '.join(part for part in parts if part)}"))
    if summary["excluded"]:
        typer.echo(f"{len(summary['excluded'])} runs are left out: see the page")
    for run in summary["excluded"]:
        if run["state"] == "unreadable":
            typer.echo(f"left out: {'; '.join(run['why'])}", err=True)
    typer.echo(f"{summary['page']}")
