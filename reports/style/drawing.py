"""A figure with its data and its caption, one style for all figures, and the files that it is written to."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rcParams, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from reports.style.fonts import font_families
from reports.style.frame_csv import frame_csv
from reports.style.palette import DARK, GREY, INK, SeriesStyle
from reports.style.quantities import Scale
from reports.style.tables import as_markdown, headed

SINGLE, DOUBLE = 3.5, 7.0  # column widths, inches
REFERENCE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (2, 2))}  # a line to compare with
MOST_ABOVE = 6  # series in a legend above one narrow panel
LEGEND_LINE = 0.15  # inches


@dataclass(frozen=True)
class Drawing:
    """`data` holds exactly what is drawn, in the units that its column names say."""

    name: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame


@contextmanager
def report_style() -> Iterator[None]:
    """Our style sheet, for all that draws or writes a figure.

    A character that no installed font has (`reports.style.fonts`) is drawn as a box in PNG and PDF, of which the page
    warns; SVG holds text, and is shown right.
    """
    with style.context(str(Path(__file__).with_name("longhaul.mplstyle"))), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        rcParams["font.sans-serif"] = families = font_families()
        if len(families) > 1:  # matplotlib falls back from one named family to the next, but not within "sans-serif"
            rcParams["font.family"] = families
        yield


def plain(text: str) -> str:
    """Text from a record, safe to draw: printable, on one line, never a hidden legend entry (underscore)."""
    shown = "".join(c if c.isprintable() else " " for c in text)[:80]
    return f" {shown}" if shown.startswith("_") else shown


def panels(count: int, height: float = 2.1, columns: int = 3, share: bool = True) -> tuple[Figure, list[Axes]]:
    """`count` small panels on a grid, y shared unless told otherwise. A single one takes one column's width."""
    columns = min(columns, count)
    rows = -(-count // columns)
    width = DOUBLE if columns > 1 else SINGLE
    figure = Figure(figsize=(width, rows * height + 0.35))
    axes = figure.subplots(rows, columns, sharey=share, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def legend(
    figure: Figure,
    styles: dict[str, SeriesStyle],
    labels: Sequence[str],
    line: bool = True,
    references: Sequence[str] = (),
) -> None:
    """One legend for the whole figure: above it, or beside a single panel that has many series.

    references: names of the horizontal lines that are drawn as `REFERENCE`.
    """
    handles = [
        Line2D([], [], label=plain(label), **(style.keywords | ({} if line else {"linestyle": "none"})))
        for label in labels
        if (style := styles[label])
    ]
    handles += [Line2D([], [], label=plain(label), marker="", **REFERENCE) for label in references]
    if len(handles) > MOST_ABOVE and figure.get_figwidth() <= SINGLE:
        figure.set_figwidth(DOUBLE)
        figure.set_figheight(max(figure.get_figheight(), LEGEND_LINE * (len(handles) + 1)))
        figure.legend(handles=handles, loc="outside right upper")
        return
    longest = max((len(plain(label)) for label in (*labels, *references)), default=0)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.65 + 0.06 * longest))))
    figure.set_figheight(figure.get_figheight() + 0.14 * (-(-len(handles) // columns) - 1))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)


def log_axis(axes: Axes, which: str, scale: Scale, values: Sequence[float] = ()) -> None:
    """Logarithmic, with plain numbers. `values`: the only ones to mark, where there are few."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale.factor:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
    marked = sorted({value for value in values if value > 0})
    if 0 < len(marked) <= 7:
        axis.set_major_locator(FixedLocator(marked))
        axis.set_minor_locator(FixedLocator([]))
        return
    low, high = (axes.get_xlim if which == "x" else axes.get_ylim)()
    span = high / low if low > 0 else 1.0
    axis.set_major_locator(
        LogLocator(subs=(1.0,) if span > 200 else (1.0, 2.0, 5.0) if span > 8 else (1.0, 1.5, 2.0, 3.0, 5.0))
    )


def plain_ticks(axes: Axes, which: str) -> None:
    """Plain numbers on an axis with a scale of its own (symlog), one at each power of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def linear_axis(axes: Axes, which: str, scale: Scale) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale.factor:,.6g}"))


def write(drawing: Drawing, folder: Path) -> str:
    """PNG, PDF, SVG, CSV and, in Markdown, the figure with its caption, under `folder`; returns the SVG."""
    with report_style():
        _lay_out(drawing.figure)
        # By their canvases: `savefig` draws each format once more, for a layout that is fixed already.
        pdf: Any = FigureCanvasPdf(drawing.figure)
        pdf.print_pdf(folder / f"{drawing.name}.pdf", metadata={"CreationDate": None, "Title": drawing.title})
        svg_canvas: Any = FigureCanvasSVG(drawing.figure)
        svg_canvas.print_svg(folder / f"{drawing.name}.svg", metadata={"Date": None, "Title": drawing.title})
        drawing.figure.set_dpi(rcParams["savefig.dpi"])
        png: Any = FigureCanvasAgg(drawing.figure)
        png.print_png(folder / f"{drawing.name}.png")
    (folder / f"{drawing.name}.csv").write_text(frame_csv(drawing.data), encoding="utf-8")
    words = f"![{as_markdown(drawing.title)}]({drawing.name}.png)\n\n{headed(drawing.title, drawing.caption)}\n"
    (folder / f"{drawing.name}.md").write_text(words, encoding="utf-8")
    path = folder / f"{drawing.name}.svg"
    svg = re.sub(r'\bid="series-(\d+)"', r'data-series="\1"', path.read_text(encoding="utf-8"))  # ids are unique
    path.write_text(svg, encoding="utf-8")
    return svg


def write_images(drawing: Drawing, folder: Path) -> None:
    """PNG and SVG under `folder`, for the documentation. Equal drawings give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    with report_style():
        _lay_out(drawing.figure)
        drawing.figure.savefig(folder / f"{drawing.name}.png", dpi=200)
        drawing.figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None, "Title": drawing.title})


def _lay_out(figure: Figure) -> None:
    """Fix the layout once, so that every format gets the same and none computes it again."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def series_id(place: int) -> str:
    """The group of everything that an SVG shows of the series at `place`."""
    return f"series-{place}"


def _own_ids(tag: str, prefix: str) -> str:
    """Ids and references of one SVG tag made unique in a page with several figures."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)


def _themed(tag: str) -> str:
    """Ink in the page's text colour, other colours by variables that the page sets for light and dark."""
    tag = tag.replace(INK, "currentColor")
    return re.sub(r"#[0-9a-f]{6}", lambda colour: f"var(--c-{colour[0][1:]})" if colour[0] in DARK else colour[0], tag)


def colour_variables() -> str:
    """CSS for the variables of `inline_svg`, in light and dark."""
    light = "".join(f"--c-{colour[1:]}: {colour}; " for colour in DARK)
    dark = "".join(f"--c-{colour[1:]}: {other}; " for colour, other in DARK.items())
    return f":root {{ {light}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"


def inline_svg(name: str, svg: str) -> str:
    """A written SVG as an element for a page: ids its own, colours by the page's theme, no background."""
    svg = svg[svg.index("<svg") :].replace("fill: #ffffff", "fill: none")
    # A style sheet in one figure holds for the whole page, which is then styled anew for each; page.css has its rule.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: _themed(_own_ids(tag[0], name)), svg)
    opening = re.match(r"<svg[^>]*>", svg)
    assert opening is not None
    box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', opening[0])
    assert box is not None
    # Points to CSS pixels at 1.8, so that 8 pt type reads like text; narrower screens shrink it.
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]}'
    head += f' style="max-width:{float(box[1]) * 1.8:.0f}px" role="img" aria-labelledby="caption-{name}">'
    return head + svg[opening.end() :]
