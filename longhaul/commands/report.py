"""`longhaul report`: statistics, tables, figures and one offline page, from run records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.style.terminal import printable


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Directories or archives of runs; several are compared.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the report: report/SUITE by default. An earlier one is replaced.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Label to compare with; default: the suite's own.")] = None,
    claims: Annotated[Path | None, typer.Option(help="A YAML file of claims to hold against the runs.")] = None,
    loss: Annotated[
        float | None, typer.Option(help="Held-out loss that times are measured to; default: the suite's target.")
    ] = None,
    predict: Annotated[bool, typer.Option(help="Also predict every run with the cost model.")] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="Constants for the predictions; default: first principles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard event files.")] = False,
    paper: Annotated[
        Path | None,
        typer.Option(help="Write only a folder for a paper here: LaTeX tables, PDF figures, main.tex."),
    ] = None,
    parquet: Annotated[bool, typer.Option(help="Also write every step as one tidy Parquet file.")] = False,
) -> None:
    """Make tables, figures and one offline HTML page from finished runs."""
    from reports.build import build_report  # here, so that other commands do not wait for pandas and matplotlib
    from reports.sharing.archive_reader import kept_records

    folders, out = kept_records(runs, out)
    if paper is not None:
        from reports.paper.paper_folder import write_paper

        typer.echo(f"{write_paper(folders, paper, baseline=baseline, predict=predict)}")
        return
    summary = build_report(
        folders,
        out,
        baseline=baseline,
        claims_file=claims,
        predict=predict,
        calibration=calibration,
        tensorboard=tensorboard,
        parquet=parquet,
        loss=loss,
    )
    if as_json:
        import json

        print(json.dumps(summary, indent=1))
        return
    briefly = [summary["overview"]] if summary["overview"] else [answer["brief"] for answer in summary["answers"]]
    if briefly:
        typer.echo(printable("; ".join(briefly)))
    for run in summary["excluded"]:
        if run["state"] == "unreadable":
            typer.echo(f"left out: {'; '.join(run['why'])}", err=True)
    count = len(summary["excluded"])
    left_out = f" ({count} run{' is' if count == 1 else 's are'} left out)" if count else ""
    typer.echo(f"{summary['page']}{left_out}")
