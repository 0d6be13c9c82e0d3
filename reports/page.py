"""The page: one HTML file with everything in it, readable offline, on paper and on a phone."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from reports.answers import Answer, overview
from reports.cards import environment_card, modules_card, network_cards, options_table, workload_cards
from reports.figures.conditions import conditions, networks, repeats
from reports.interactive.page_data import page_curves, page_data
from reports.study import Study
from reports.style.drawing import Drawing, inline_svg
from reports.style.fonts import missing_characters
from reports.style.frame_csv import frame_csv
from reports.style.tables import Table
from reports.style.web_page import page_css, page_scripts, page_template, script_json
from reports.summary import levels

MAIN = "Speed-up"  # the section whose figures stand beside the answer
CURVES = "Convergence"  # the section with the chart of losses
_TEMPLATES = Path(__file__).with_name("templates")
_VENDOR = Path(__file__).parent / "interactive" / "vendor"
_FIRST_SCRIPTS = ("quantities.js", "compare.js", "chart.js", "explore.js")  # run before the rest of the page is read
_LAST_SCRIPTS = ("figures.js", "tables.js")
_CHARTS = {"speedup-loss": "speedup"}  # what a browser draws in place of a figure
_COVERED = ("loss-time", "loss-tokens", "loss-bytes")  # by the chart of losses


@dataclass(frozen=True)
class _Picture:
    name: str
    title: str
    caption: str
    svg: Markup
    csv: str
    narrow: bool
    chart: str = ""
    replaced: bool = False  # by the chart: on a screen with scripts the figure itself is hidden
    covered: bool = False  # by the chart of losses


@dataclass(frozen=True)
class _Section:
    id: str
    title: str
    figures: list[_Picture]


@dataclass(frozen=True)
class _Excluded:
    name: str
    reason: str
    href: str


def render_page(
    study: Study,
    out: Path,
    answers: Sequence[Answer],
    tables: Sequence[Table],
    runs: Table,
    sections: Mapping[str, Sequence[Drawing]],
    pictures: Mapping[str, str],
) -> str:
    """The HTML of a report that will stand at `out`, to which links are relative. `pictures`: SVG by figure name."""
    template = page_template(_TEMPLATES / "page.html")
    excluded = _excluded(study, out)
    common = (repeats(study), conditions(study), f"{networks(study)}.")  # said once, not in every caption
    main = [drawing for drawing in sections.get(MAIN, ()) if drawing.name in pictures]
    return template.render(
        title=" and ".join(study.groups),
        scope=_scope(study),
        warning=_warning(study) if excluded else "",
        caveats=_caveats(study) + _without_font(study),
        common=" ".join(common),
        main=[_picture(drawing, pictures[drawing.name], common) for drawing in main],
        answers=answers,
        overview=overview(answers),
        curves_section=CURVES,
        shaded=bool(study.runs.groupby(["group", "topology", "label"]).size().max() > 1) if len(study.runs) else False,
        answer_note=levels(study) + " Training time leaves out evaluation and checkpoints." if levels(study) else "",
        tables=tables,
        runs=runs,
        run_hrefs={index: _href(run.directory, out) for index, run in enumerate(study.stored)},
        sections=[
            _Section(
                title.lower().replace(" ", "-"),
                title,
                [_picture(drawing, pictures[drawing.name], common) for drawing in drawings],
            )
            for title, drawings in sections.items()
            if drawings and title != MAIN
        ],
        networks=network_cards(study),
        options=options_table(study),
        workloads=workload_cards(study),
        environment=environment_card(study),
        modules=modules_card(study),
        excluded=excluded,
        superseded=study.collection.superseded,
        css=page_css(_VENDOR / "uPlot.min.css"),
        data=script_json(page_data(study, answers)),
        curves=script_json(page_curves(study, answers)),
        plotting=Markup((_VENDOR / "uPlot.iife.min.js").read_text(encoding="utf-8")),
        first_js=page_scripts(*(_TEMPLATES / name for name in _FIRST_SCRIPTS)),
        last_js=page_scripts(*(_TEMPLATES / name for name in _LAST_SCRIPTS)),
    )


def _caveats(study: Study) -> list[str]:
    """What a reader should know of valid runs, with the runs it holds for."""
    found: dict[str, list[str]] = {}
    for run in study.stored:
        for caveat in run.result.caveats if run.result.valid else ():
            found.setdefault(caveat, []).append(run.result.label)
    return [f"{', '.join(dict.fromkeys(labels))}: {caveat}" for caveat, labels in found.items()]


def _without_font(study: Study) -> list[str]:
    """That figures in files show boxes, where no installed font has a character of a label."""
    missing = missing_characters([*study.labels, *(text for place in study.places for text in place)])
    if not missing:
        return []
    shown = missing if len(missing) <= 20 else f"{missing[:20]}…"
    return [f"No installed font has {shown}: figures in PNG and PDF show boxes there. Noto Sans CJK has most scripts."]


def _runs(count: int) -> str:
    return "1 run is" if count == 1 else f"{count} runs are"


def _scope(study: Study) -> str:
    runs = study.runs
    parts = [(len(study.labels), "method"), (runs["topology"].nunique(), "network"), (runs["seed"].nunique(), "seed")]
    words = ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for count, word in parts)
    return f"{words}; {len(study.runs)} valid runs of {len(study.everything) + len(study.collection.unfinished)}."


def _excluded(study: Study, out: Path) -> list[_Excluded]:
    """Invalid, unfinished and unreadable runs with their reasons."""
    found = [
        _Excluded(
            run.directory.name,
            "invalid: " + ("; ".join(run.result.why_invalid) or "no reason was recorded"),
            _href(run.directory, out),
        )
        for run in study.stored
        if not run.result.valid
    ]
    found += [
        _Excluded(run.directory.name, f"unfinished: {run.reason}", _href(run.directory, out))
        for run in study.collection.unfinished
    ]
    return found + [
        _Excluded(one.directory.name, f"unreadable: {one.reason}", _href(one.directory, out))
        for one in study.collection.unreadable
    ]


def _warning(study: Study) -> str:
    counts = {
        "invalid": len(study.everything) - len(study.runs),
        "unfinished": len(study.collection.unfinished),
        "unreadable": len(study.collection.unreadable),
    }
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state != "unreadable")
    return f"{_runs(sum(counts.values()))} left out: {words}"


def _href(directory: Path, out: Path) -> str:
    return quote(Path(os.path.relpath(directory, out.resolve())).as_posix()) + "/"


def _picture(drawing: Drawing, svg: str, common: Sequence[str] = ()) -> _Picture:
    caption = drawing.caption
    for words in common:
        caption = caption.replace(words, "")
    single = sum(panel.get_visible() for panel in drawing.figure.axes) == 1
    encoded = base64.b64encode(frame_csv(drawing.data).encode()).decode()
    return _Picture(
        drawing.name,
        drawing.title,
        " ".join(caption.split()),
        Markup(inline_svg(drawing.name, svg)),
        f"data:text/csv;base64,{encoded}",
        narrow=drawing.figure.get_figwidth() <= 5.0,
        chart=_CHARTS.get(drawing.name, ""),
        replaced=single and drawing.name in _CHARTS,
        covered=single and drawing.name in _COVERED,
    )
