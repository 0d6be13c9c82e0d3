"""The page: one HTML file with everything in it, readable offline, on paper and on a phone."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from reports.answers import Answer
from reports.cards import environment_card, network_cards, options_table, workload_cards
from reports.figures.conditions import conditions, networks, repeats
from reports.study import Study
from reports.style.drawing import Drawing, colour_variables, inline_svg
from reports.style.frame_csv import frame_csv
from reports.style.tables import Table
from reports.summary import levels

MAIN = "Speed-up"  # the section whose figures stand beside the answer
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class _Picture:
    name: str
    title: str
    caption: str
    svg: Markup
    csv: str
    narrow: bool


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
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((_TEMPLATES / "page.html").read_text(encoding="utf-8"))
    excluded = _excluded(study, out)
    common = (repeats(study), conditions(study), f"{networks(study)}.")  # said once, not in every caption
    main = [drawing for drawing in sections.get(MAIN, ()) if drawing.name in pictures]
    return template.render(
        title=" and ".join(study.groups),
        scope=_scope(study),
        warning=_warning(study) if excluded else "",
        caveats=_caveats(study),
        common=" ".join(common),
        main=[_picture(drawing, pictures[drawing.name], common) for drawing in main],
        answers=answers,
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
        excluded=excluded,
        superseded=study.collection.superseded,
        css=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8") + colour_variables()),
        js=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
    )


def _caveats(study: Study) -> list[str]:
    """What a reader should know of valid runs, with the runs it holds for."""
    found: dict[str, list[str]] = {}
    for run in study.stored:
        for caveat in run.result.caveats if run.result.valid else ():
            found.setdefault(caveat, []).append(run.result.label)
    return [f"{', '.join(dict.fromkeys(labels))}: {caveat}" for caveat, labels in found.items()]


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
    encoded = base64.b64encode(frame_csv(drawing.data).encode()).decode()
    return _Picture(
        drawing.name,
        drawing.title,
        " ".join(caption.split()),
        Markup(inline_svg(drawing.name, svg)),
        f"data:text/csv;base64,{encoded}",
        narrow=drawing.figure.get_figwidth() <= 5.0,
    )
