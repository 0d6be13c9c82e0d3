"""Figures can be read by all, and texts of a record do no harm where they are shown."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from rich.console import Console

from reports.cards import environment_card
from reports.figures.speedup import speedup_against_loss
from reports.page import render_page
from reports.records import collect
from reports.study import Study
from reports.style.drawing import inline_svg, legend, panels, report_style
from reports.style.fonts import FALLBACK_FONTS, font_families, missing_characters
from reports.style.frame_csv import frame_csv
from reports.style.palette import DARK, INK, METHOD_COLOURS, SPARE_COLOURS, contrast, fills_of, series_styles
from reports.style.tables import Column, Table, Value, as_markdown
from reports.style.terminal import printable, terminal_table
from reports.summary import runs_table
from tests.reports.conftest import Built
from tests.reports.made_up import RecordedRun, rewrite
from tests.reports.test_study import study

PAGE = {"light": "#fdfdfc", "dark": "#16181b"}


@pytest.mark.parametrize("colour", sorted({*METHOD_COLOURS.values(), *SPARE_COLOURS}))
def test_every_line_has_enough_contrast_in_light_and_dark(colour: str) -> None:
    dark = "#e8e8e5" if colour == INK else DARK[colour]
    assert contrast(colour, PAGE["light"]) >= 4.5
    assert contrast(dark, PAGE["dark"]) >= 4.5


def test_no_two_methods_share_a_colour() -> None:
    assert len(set(METHOD_COLOURS.values())) == len(METHOD_COLOURS)


def test_series_and_fills_differ() -> None:
    styles = series_styles([f"m{i}" for i in range(10)], {})
    assert len({style.colour for style in styles.values()}) == 10
    fills = fills_of([*"abcdefghijklmn", "compute"])
    assert len(set(fills.values())) == len(fills)


def test_a_legend_of_many_series_is_inside_its_figure() -> None:
    labels = [f"method {number}" for number in range(24)]
    with report_style():
        figure, _ = panels(1)
        legend(figure, series_styles(labels, {}), labels)
        figure.draw_without_rendering()
    found = figure.legends[0].get_window_extent()
    assert 0 <= found.y0 < found.y1 <= figure.bbox.height
    assert 0 <= found.x0 < found.x1 <= figure.bbox.width


def test_a_figure_on_the_page_takes_the_pages_colours() -> None:
    svg = '<svg viewBox="0 0 10 10"><path style="stroke: #0072b2; fill: #1a1a1a"/></svg>'
    assert 'style="stroke: var(--c-0072b2); fill: currentColor"' in inline_svg("x", svg)


def _table(text: str) -> Table:
    return Table("t", text, text, (Column("a", "a", numeric=False),), ({"a": Value(text, text)},))


@pytest.mark.parametrize("text", ["=1+1", "+x", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_label_is_no_formula_in_a_spreadsheet(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(_table(text).csv()))
    assert row["a"].startswith("'")
    assert frame_csv(pd.DataFrame({"a": [text], "b": [-1.5]})).splitlines()[1].lstrip('"').startswith("'")
    assert "-1.5" in frame_csv(pd.DataFrame({"a": [text], "b": [-1.5]}))


def test_a_dollar_is_no_mathematics_in_markdown() -> None:
    assert as_markdown("costs $5 and $6") == r"costs \$5 and \$6"


def test_a_label_moves_no_cursor_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    console.print(terminal_table(_table("\x1b[31mred\x1b]0;title\x07")))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[31mred" not in shown
    assert "\x1b]0" not in shown
    assert printable("a\nb\x1b[2J") == "a b [2J"


def test_code_is_compared_within_a_method(tmp_path: Path) -> None:
    for method in ("ddp", "diloco"):
        for seed in (1, 2):
            run = RecordedRun(method, method, seed=seed).write(tmp_path)
            rewrite(run / "environment.json", code=("a" if method == "ddp" else "b") * 16)
    entries = {entry.name: entry for entry in environment_card(study(tmp_path))}
    assert not entries["code of ddp"].differs
    rewrite(run / "environment.json", code="c" * 16)
    entries = {entry.name: entry for entry in environment_card(study(tmp_path))}
    assert entries["code of diloco"].differs


def test_caveats_of_valid_runs_stand_at_the_top(tmp_path: Path) -> None:
    RecordedRun("ddp", "ddp", changes={"marks": ["17 of 400 paced slots were too short"]}).write(tmp_path / "runs")
    found: Study = study(tmp_path / "runs")
    page = render_page(found, tmp_path / "out", [], [], runs_table(found), {}, {})
    assert "ddp: 17 of 400 paced slots were too short" in page[: page.index("<nav")]


def test_axis_labels_of_panels_stay_apart_and_inside(built: Built) -> None:
    drawing = speedup_against_loss(Study(collect([built.runs])))
    assert drawing is not None
    figure = drawing.figure
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    boxes = [panel.xaxis.label.get_window_extent() for panel in figure.axes if panel.xaxis.label.get_text()]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def _tiny_font(path: Path, name: str, characters: str) -> None:
    """A font that has these characters, all with one outline."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 500), (500, 500), (500, 0)):
        pen.lineTo(point)
    pen.closePath()
    box, names = pen.glyph(), [".notdef", *(f"uni{ord(c):04X}" for c in characters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(c): f"uni{ord(c):04X}" for c in characters})
    font.setupGlyf(dict.fromkeys(names, box))
    font.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)


@pytest.fixture
def font_with_ideographs(tmp_path: Path) -> Iterator[None]:
    """As if only this one of the fallback fonts were installed, with two ideographs."""
    before = list(fontManager.ttflist)
    fontManager.ttflist = [font for font in before if font.name not in FALLBACK_FONTS]
    _tiny_font(tmp_path / "tiny.ttf", "WenQuanYi Zen Hei", "网络")
    fontManager.addfont(tmp_path / "tiny.ttf")
    yield
    fontManager.ttflist = before


@pytest.mark.usefixtures("font_with_ideographs")
def test_labels_take_the_installed_font_that_has_them() -> None:
    assert font_families() == ["DejaVu Sans", "WenQuanYi Zen Hei"]
    assert missing_characters(["ddp", "网络", "路 网"]) == "路"
    with report_style(), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        figure = Figure()
        figure.text(0.5, 0.5, "ddp 网络")
        figure.savefig(io.BytesIO())
        assert [str(one.message) for one in heard if "Glyph" in str(one.message)] == []
        figure.text(0.5, 0.2, "路")
        figure.savefig(io.BytesIO())
        assert [str(one.message) for one in heard if "Glyph" in str(one.message)] != []


@pytest.mark.usefixtures("font_with_ideographs")
def test_a_character_without_a_font_is_a_caveat(tmp_path: Path) -> None:
    """Once, and none where every character has a font."""
    RecordedRun("网络", "ddp").write(tmp_path / "drawn")
    for label in ("路由", "路"):
        RecordedRun(label, "ddp").write(tmp_path / "boxes")
    pages = {}
    for name in ("drawn", "boxes"):
        found: Study = study(tmp_path / name)
        pages[name] = render_page(found, tmp_path / "out", [], [], runs_table(found), {}, {})
    assert "No installed font" not in pages["drawn"]
    assert pages["boxes"].count("No installed font has 由路:") == 1
