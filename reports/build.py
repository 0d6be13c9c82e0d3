"""Builds a report in a temporary directory and puts it in place whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.records.layout import run_directories
from harness.records.program_record import ProgramRun, read_programs
from reports import summary
from reports.answers import Answer, answers, overview
from reports.claim_runs import claim_runs
from reports.claims import Claim, claims, claims_table, load_claims
from reports.exports import write_parquet, write_tensorboard
from reports.faults import faults_table
from reports.figures import (
    curves,
    fault_figures,
    memory,
    methods,
    network,
    prediction,
    rounds,
    scaled_figure,
    speedup,
    times,
)
from reports.manifest import check_place, new_report
from reports.page import render_page
from reports.predictions import predict_runs
from reports.programs import program_tables, programs_page
from reports.records import collect
from reports.scaled_table import scaled_table
from reports.study import Study
from reports.style.drawing import Drawing, report_style, write
from reports.style.tables import Table, write_table
from reports.style.web_page import page_bytes

Draw = Callable[[Study], Drawing | None]

SECTIONS: dict[str, tuple[Draw, ...]] = {
    "Speed-up": (speedup.speedup_against_loss,),
    "Convergence": (curves.loss_against_time, curves.loss_against_tokens, curves.loss_against_bytes),
    "Time": (times.time_to_loss, times.where_time_went, rounds.round_timeline),
    "Network": (
        network.utilisation_against_rate,
        network.speedup_against_rate,
        network.speedup_against_rtt,
        network.fastest_map,
    ),
    "Faults": (fault_figures.what_happened,),
    "Memory": (memory.memory_by_component,),
    "Methods": (
        methods.replication_frontier,
        methods.lordo_rank,
        methods.lordo_omega,
        methods.aggregation_against_clients,
        methods.metrics_over_steps,
    ),
    "Prediction": (prediction.predicted_against_measured, scaled_figure.measured_beside_projected),
}
_DOCUMENT = "report.json"


def build_report(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    baseline: str | None = None,
    claims_file: Path | None = None,
    predict: bool = False,
    calibration: Path | None = None,
    tensorboard: bool = False,
    parquet: bool = False,
    loss: float | None = None,
) -> dict[str, Any]:
    """Write the report of all runs under `folders` to `out`; returns what report.json holds.

    loss: the held-out loss that times are measured to; the suites' targets if None.
    out: report/<suite> if None. An older report there is replaced; files that no report wrote are left alone.
    InputError where no record can be read, and for an `out` that holds something other than a report.
    """
    if out is not None:
        check_place(out)
    listed = load_claims(claims_file) if claims_file is not None else ()
    programs = read_programs([folder for folder in folders if folder.is_dir()])
    if programs and not any(run_directories(folder) for folder in folders if folder.is_dir()):
        return _programs_alone(programs, out or Path("report") / "torchrun")
    collection = collect(folders, baseline)
    predictions = predict_runs(collection.runs, calibration) if predict or calibration is not None else None
    study = Study(collection, predictions, loss)
    if out is None:
        out = Path("report") / _name_of(study)
    with new_report(out) as temporary:
        document = _write(study, temporary, out, listed, programs)
        if parquet:
            write_parquet(study.collection, temporary / "steps.parquet")
        if tensorboard:
            write_tensorboard(study.collection, temporary / "tensorboard")
    return document


def _programs_alone(programs: Sequence[ProgramRun], out: Path) -> dict[str, Any]:
    """A report of programs, where no method was run."""
    with new_report(out) as temporary:
        (temporary / "tables").mkdir()
        tables = program_tables(programs)
        for table in tables:
            write_table(table, temporary / "tables")
        (temporary / "index.html").write_text(programs_page(programs), encoding="utf-8")
        document: dict[str, Any] = {
            "page": str(out / "index.html"),
            "programs": [str(program.directory) for program in programs],
            "runs": [],
            "valid_runs": 0,
            "excluded": [],
            "overview": "",
            "answers": [],
            "tables": {table.name: [{k: v.raw for k, v in row.items()} for row in table.rows] for table in tables},
            "figures": [],
        }
        (temporary / _DOCUMENT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def _name_of(study: Study) -> str:
    """The suites of the report, as a file name."""
    return "+".join(re.sub(r"[^\w.-]+", "-", group).strip(".") for group in study.groups)[:100] or "runs"


def _write(
    study: Study, folder: Path, out: Path, listed: Sequence[Claim], programs: Sequence[ProgramRun]
) -> dict[str, Any]:
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    tables = [summary.methods_table(study), summary.memory_table(study), summary.convergence_table(study)]
    tables += [scaled_table(study), faults_table(study)]
    tables += [claims_table(claims(claim_runs(study), listed))] if listed else []
    tables += program_tables(programs)
    tables = [table for table in tables if table.rows]
    runs = summary.runs_table(study)
    for table in [*tables, runs]:
        write_table(table, folder / "tables")
    sections = draw_all(study)
    drawings = [drawing for drawn in sections.values() for drawing in drawn]
    pictures = {drawing.name: write(drawing, folder / "figures") for drawing in drawings}
    found = answers(study)
    page = render_page(study, out, found, tables, runs, sections, pictures)
    (folder / "index.html").write_bytes(page_bytes(page))
    document = _document(study, out, found, tables, sections)
    (folder / _DOCUMENT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def draw_all(study: Study) -> dict[str, list[Drawing]]:
    """Every figure that the records have data for, by section."""
    with report_style():
        drawn = {title: [draw(study) for draw in draws] for title, draws in SECTIONS.items()}
    return {title: [drawing for drawing in drawings if drawing is not None] for title, drawings in drawn.items()}


def _document(
    study: Study, out: Path, found: Sequence[Answer], tables: Sequence[Table], sections: dict[str, list[Drawing]]
) -> dict[str, Any]:
    """What other programs read; NaN becomes null."""
    excluded = [
        {"directory": str(run.directory), "state": "invalid", "why": run.result.why_invalid}
        for run in study.stored
        if not run.result.valid
    ]
    excluded += [
        {"directory": str(run.directory), "state": "unfinished", "why": [run.reason]}
        for run in study.collection.unfinished
    ]
    excluded += [
        {"directory": str(one.directory), "state": "unreadable", "why": [one.reason]}
        for one in study.collection.unreadable
    ]
    document = {
        "page": str(out / "index.html"),
        "runs": [str(run.directory) for run in study.stored],
        "valid_runs": len(study.runs),
        "excluded": excluded,
        "baselines": study.collection.baselines,
        "overview": overview(found),
        "answers": [_answer_json(answer) for answer in found],
        "tables": {
            table.name: [
                {key: value.raw for key, value in row.items()} | (dict(table.extra[i]) if table.extra else {})
                for i, row in enumerate(table.rows)
            ]
            for table in tables
        },
        "figures": [drawing.name for drawings in sections.values() for drawing in drawings],
    }
    cleaned: dict[str, Any] = _finite(document)
    return cleaned


def _answer_json(answer: Answer) -> dict[str, Any]:
    words = {name: getattr(answer, name) for name in ("brief", "headline", "evidence", "why", "elsewhere")}
    return {**answer.json(), **words}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value
