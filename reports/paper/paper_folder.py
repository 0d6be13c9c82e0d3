"""Writes the folder of a paper from stored runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports import summary
from reports.build import draw_all
from reports.faults import faults_table
from reports.manifest import check_place, new_report
from reports.paper.latex import figure_source, file_name, main_source, table_parts, table_source
from reports.paper.published_figures import published_beside_measured
from reports.predictions import predict_runs
from reports.records import collect
from reports.scaled_table import scaled_table
from reports.study import Study
from reports.style.drawing import Drawing, report_style, write
from reports.style.tables import Table

_PUBLISHED = "Published beside measured"


def write_paper(folders: Sequence[Path], out: Path, *, baseline: str | None = None, predict: bool = True) -> Path:
    """main.tex, tables/ and figures/ in `out`, as a report replaces a report there; returns the path of main.tex.

    InputError where no record can be read, and for an `out` that holds something other than a report.
    """
    check_place(out)
    collection = collect(folders, baseline)
    study = Study(collection, predict_runs(collection.runs, None) if predict else None)
    with new_report(out) as made:
        _write(study, made)
    return out / "main.tex"


def _write(study: Study, folder: Path) -> None:
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    texts: list[str] = []
    tables = [summary.methods_table(study), summary.memory_table(study), summary.convergence_table(study)]
    tables += [scaled_table(study), faults_table(study)]
    sections: list[tuple[str, list[str]]] = [("Results", _tables(tables, folder, texts))]
    with report_style():
        published = published_beside_measured(study)
    for title, drawings in {**draw_all(study), _PUBLISHED: published}.items():
        if drawings:
            sections.append((title, _figures(drawings, folder, texts)))
    title = f"Low-communication training over an emulated WAN: {', '.join(study.groups)}"
    (folder / "main.tex").write_text(main_source(title, _scope(study), sections, texts), encoding="utf-8")


def _tables(tables: Sequence[Table], folder: Path, texts: list[str]) -> list[str]:
    files = []
    for table in (part for whole in tables if whole.rows for part in table_parts(whole)):
        texts.append(table_source(table))
        name = f"tables/{file_name(table.name)}"
        (folder / f"{name}.tex").write_text(texts[-1], encoding="utf-8")
        files.append(name)
    return files


def _figures(drawings: Sequence[Drawing], folder: Path, texts: list[str]) -> list[str]:
    files = []
    for drawing in drawings:
        texts.append(figure_source(drawing))
        write(drawing, folder / "figures")
        for unused in (".png", ".svg", ".md"):
            (folder / "figures" / f"{drawing.name}{unused}").unlink()
        name = f"figures/{file_name(drawing.name)}"
        (folder / f"{name}.tex").write_text(texts[-1], encoding="utf-8")
        files.append(name)
    return files


def _scope(study: Study) -> str:
    runs = study.runs
    methods = _counted(len(study.labels), "method")
    networks, seeds = _counted(runs["topology"].nunique(), "network"), _counted(runs["seed"].nunique(), "seed")
    return (
        f"{methods} on {networks} with {seeds}: {len(runs)} valid runs of "
        f"{len(study.everything) + len(study.collection.unfinished)}. Training time leaves out evaluation and "
        f"checkpoints. Every number is measured on an emulated network unless it is marked as published or predicted."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
