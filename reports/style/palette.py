"""Colours of all figures: one for each method, time bucket and memory component, in light and in dark.

Every series differs by colour, line and marker at once, every fill by colour and hatch, so that figures can be read
without colour. Lines have a contrast of at least 4.5 on the page's background (WCAG 2.2, 1.4.3), in light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

INK = "#1a1a1a"
LIGHT_INK = "#e8e8e5"  # the same on a dark page
GREY = "#6b6b6b"  # reference lines

METHOD_COLOURS = {
    "ddp": INK,
    "diloco": "#0072b2",
    "photon": "#b84e00",
    "lordo": "#007a58",
    "fomoe": "#a8447c",
    "lowrank_ddp": "#5b3a8c",
    "local_adam": "#8a6100",
    "desloc": "#a01f2e",
    "streaming_diloco": "#00707a",
}
SPARE_COLOURS = (*list(METHOD_COLOURS.values())[1:], "#50631f", GREY)
LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    (0, (1, 1.2)),
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (3, 1)),
    (0, (8, 2)),
    (0, (1, 3)),
)
# The same in a browser's chart, CSS pixels; none for a solid line.
DASHES: dict[Any, tuple[float, ...]] = {"-": (), "--": (6, 3), "-.": (7, 3, 2, 3)} | {
    line: tuple(2.0 * part for part in line[1]) for line in LINES if isinstance(line, tuple)
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "h", ">")


@dataclass(frozen=True)
class SeriesStyle:
    """Colour, line and marker of a series. `gid`: the SVG group of what is drawn of it, by which a page can hide it."""

    colour: str
    line: Any
    marker: str
    gid: str | None = None

    @property
    def keywords(self) -> dict[str, Any]:
        named = {} if self.gid is None else {"gid": self.gid}
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker, **named}

    @property
    def dark(self) -> str:
        """The colour on a dark page."""
        return LIGHT_INK if self.colour == INK else DARK.get(self.colour, self.colour)

    @property
    def range_keywords(self) -> dict[str, Any]:
        """Of the line from the least to the greatest value beside a mark."""
        return {"color": self.colour, "linewidth": 0.8, "gid": self.gid}


@dataclass(frozen=True)
class Fill:
    """Colour and hatch of a bar's part."""

    colour: str
    hatch: str

    @property
    def keywords(self) -> dict[str, Any]:
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": INK}


# Light and dark alternate, so that neighbours differ in grey too.
FILLS = (
    Fill("#0072b2", ""),
    Fill("#e8c33f", "///"),
    Fill("#c9c9c9", ""),
    Fill("#d55e00", "\\\\\\"),
    Fill("#56b4e9", "..."),
    Fill("#009e73", ""),
    Fill("#cc79a7", "xxx"),
    Fill("#7f7f7f", "---"),
    Fill("#f0e442", "++"),
    Fill("#5b3a8c", ""),
)
# One fill for each thing that a bar shows, in every figure.
NAMED_FILLS = {
    "data": FILLS[0],
    "compute": FILLS[1],
    "pacing": FILLS[2],
    "communication": FILLS[3],
    "evaluation": FILLS[4],
    "checkpoint": FILLS[5],
    "other": FILLS[6],
    "computation": FILLS[1],
    "exposed communication": FILLS[3],
    "training": FILLS[1],
    "waiting for others": FILLS[3],
}
# What the dark page draws instead; colours that are not named here serve both.
DARK = {
    "#0072b2": "#6db9ee",
    "#b84e00": "#f2935a",
    "#007a58": "#4cc9a0",
    "#a8447c": "#e39cc4",
    "#5b3a8c": "#b79ae0",
    "#8a6100": "#e0b550",
    "#a01f2e": "#f08a94",
    "#00707a": "#5cc6d0",
    "#50631f": "#b3c97a",
    GREY: "#a8a8a8",
    "#9a9a9a": "#8a8a8a",
    "#e8c33f": "#a88a1f",
    "#c9c9c9": "#55585c",
    "#d55e00": "#b85410",
    "#56b4e9": "#3a7ba3",
    "#009e73": "#0b7d5d",
    "#cc79a7": "#94567a",
    "#7f7f7f": "#77797c",
    "#f0e442": "#9c9326",
}


def series_styles(labels: Sequence[str], algorithm_of: dict[str, str]) -> dict[str, SeriesStyle]:
    """A style for each label. A method keeps its colour in every figure; its variants take spare colours."""
    colours: dict[str, str] = {}
    for label in sorted(labels, key=lambda label: label != algorithm_of.get(label)):  # plain methods choose first
        own = METHOD_COLOURS.get(algorithm_of.get(label, ""))
        if own is not None and own not in colours.values():
            colours[label] = own
    styles: dict[str, SeriesStyle] = {}
    for place, label in enumerate(labels):
        spare = [colour for colour in SPARE_COLOURS if colour not in colours.values()]
        colour = colours.setdefault(label, spare[0] if spare else SPARE_COLOURS[place % len(SPARE_COLOURS)])
        styles[label] = SeriesStyle(colour, LINES[place % len(LINES)], MARKERS[place % len(MARKERS)])
    return styles


def fills_of(names: Sequence[str]) -> dict[str, Fill]:
    """A fill for each name: its own where it has one, else the next that is free, in order."""
    known = {name: NAMED_FILLS[name] for name in names if name in NAMED_FILLS}
    free = [fill for fill in FILLS if fill not in known.values()] or list(FILLS)
    others = [name for name in names if name not in known]
    again = [Fill(fill.colour, f"{fill.hatch}oo") for fill in FILLS]  # more names than fills: another hatch
    free += again
    return known | {name: free[place % len(free)] for place, name in enumerate(others)}


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours like '#0072b2', 1 to 21."""
    bright, dim = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
