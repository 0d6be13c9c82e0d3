"""A figure with its data and its caption, one look for all, and the files that it becomes.

Every series differs by colour, line and marker at once: the colours are Okabe and Ito's, which colour-blind readers
tell apart, and lines, markers and hatches carry the difference in print without colour.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from reports.quantities import Scale
from reports.tables import as_markdown, headed

INK = "#1a1a1a"
SINGLE, DOUBLE = 3.5, 7.0  # column widths, inches

_COLOURS = {
    "ddp": INK,
    "diloco": "#0072b2",
    "photon": "#d55e00",
    "lordo": "#009e73",
    "fomoe": "#cc79a7",
    "lowrank_ddp": "#56b4e9",
    "local_adam": "#e69f00",
    "desloc": "#e69f00",
}
_SPARE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#5b3a8c", "#8c510a", "#b3a100")
_LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    (0, (1, 1.2)),
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (3, 1)),
    (0, (8, 2)),
    (0, (1, 3)),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "h", ">")

# Time buckets and memory components: light and dark alternate, so that neighbours differ in grey too.
FILLS: tuple[tuple[str, str], ...] = (
    ("#0072b2", ""),
    ("#e8c33f", "///"),
    ("#c9c9c9", ""),
    ("#d55e00", "\\\\\\"),
    ("#56b4e9", "..."),
    ("#009e73", ""),
    ("#cc79a7", "xxx"),
    ("#7f7f7f", "---"),
    ("#f0e442", "++"),
    ("#5b3a8c", ""),
)


@dataclass(frozen=True)
class Look:
    colour: str
    line: Any
    marker: str

    @property
    def keywords(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker}


@dataclass(frozen=True)
class Drawing:
    """`data` holds exactly what is drawn, in the units that its column names say."""

    name: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame


def series_styles(labels: Sequence[str], algorithm_of: dict[str, str]) -> dict[str, Look]:
    """A look for each label. A method keeps its colour in every report; its variants take spare colours."""
    colours: dict[str, str] = {}
    for label in sorted(labels, key=lambda label: label != algorithm_of.get(label)):  # plain methods choose first
        own = _COLOURS.get(algorithm_of.get(label, ""))
        if own is not None and own not in colours.values():
            colours[label] = own
    found: dict[str, Look] = {}
    for place, label in enumerate(labels):
        spare = [colour for colour in _SPARE if colour not in colours.values()] or [_SPARE[place % len(_SPARE)]]
        colour = colours.setdefault(label, spare[0])
        found[label] = Look(colour, _LINES[place % len(_LINES)], _MARKERS[place % len(_MARKERS)])
    return found


@contextmanager
def report_style() -> Iterator[None]:
    """Our style sheet; a label in a script that the font lacks is drawn as boxes, without a word."""
    with style.context(str(Path(__file__).with_name("longhaul.mplstyle"))), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
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


def legend(figure: Figure, looks_of: dict[str, Look], labels: Sequence[str], line: bool = True) -> None:
    """One legend for the whole figure, above it."""
    handles = [
        Line2D([], [], label=plain(label), **(look.keywords | ({} if line else {"linestyle": "none"})))
        for label in labels
        if (look := looks_of[label])
    ]
    longest = max((len(plain(label)) for label in labels), default=0)
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
    wide = low > 0 and high / low > 200
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))


def linear_axis(axes: Axes, which: str, scale: Scale) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale.factor:,.6g}"))


def write(drawing: Drawing, folder: Path) -> str:
    """PNG, PDF, SVG, CSV and, in Markdown, the figure with its caption, under `folder`; returns the SVG."""
    with report_style():
        _lay_out(drawing.figure)
        drawing.figure.savefig(folder / f"{drawing.name}.png")
        drawing.figure.savefig(folder / f"{drawing.name}.pdf", metadata={"CreationDate": None, "Title": drawing.title})
        drawing.figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None, "Title": drawing.title})
    drawing.data.to_csv(folder / f"{drawing.name}.csv", index=False)
    words = f"![{as_markdown(drawing.title)}]({drawing.name}.png)\n\n{headed(drawing.title, drawing.caption)}\n"
    (folder / f"{drawing.name}.md").write_text(words, encoding="utf-8")
    return (folder / f"{drawing.name}.svg").read_text(encoding="utf-8")


def _lay_out(figure: Figure) -> None:
    """Fix the layout once, so that every format gets the same and none computes it again."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _own_ids(tag: str, prefix: str) -> str:
    """Ids and references of one SVG tag made unique in a page with several figures."""
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag)


def inline_svg(name: str, svg: str) -> str:
    """A written SVG as an element for a page: ids its own, ink in the page's text colour, no background."""
    svg = svg[svg.index("<svg") :].replace("fill: #ffffff", "fill: none")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: _own_ids(tag[0], name).replace(INK, "currentColor"), svg)
    opening = re.match(r"<svg[^>]*>", svg)
    assert opening is not None
    box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', opening[0])
    assert box is not None
    # Points to CSS pixels at 1.8, so that 8 pt type reads like text; narrower screens shrink it.
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]}'
    head += f' style="max-width:{float(box[1]) * 1.8:.0f}px" role="img" aria-labelledby="caption-{name}">'
    return head + svg[opening.end() :]
