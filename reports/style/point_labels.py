"""Texts beside marks, each where the most room is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

_RADIUS = 7.0  # points between the middle of a mark and that of its text
_DIRECTIONS = [(np.cos(angle), np.sin(angle)) for angle in np.radians([45, -45, 135, -135, 0, 90, 180, -90])]
_PIECES = 12  # of each line between two marks, that a text keeps away from


def label_marks(panel: Axes, curves: Sequence[Sequence[tuple[float, float, str]]], size: float = 6.0) -> None:
    """Write the text of each mark (x, y, text) of each curve. Call it once the panel's limits and scales are set.

    A text goes to that side of its mark from which marks, lines, the panel's frame and the texts before it are farthest
    away.
    """
    panel.autoscale_view()
    drawn = [_in_points(panel, curve) for curve in curves if curve]
    low, high = panel.bbox.get_points() * 72.0 / panel.figure.dpi
    marks = np.concatenate(drawn) if drawn else np.empty((0, 2))
    lines = [
        start + (end - start) * part / _PIECES
        for curve in drawn
        for start, end in pairwise(curve)
        for part in range(1, _PIECES)
    ]
    occupied = [*marks, *lines]
    for (x, y, text), mark in zip((point for curve in curves for point in curve), marks, strict=True):
        others = np.array([place for place in occupied if np.hypot(*(place - mark)) > 1e-6] or [mark + 1e6])
        offsets = _RADIUS * np.array(_DIRECTIONS)
        to_others = [np.hypot(*(others - (mark + offset)).T).min() for offset in offsets]
        to_frame = [np.minimum(mark + offset - low, high - mark - offset).min() for offset in offsets]
        offset = offsets[int(np.argmax(np.minimum(to_others, to_frame)))]
        panel.annotate(
            text,
            (x, y),
            xytext=(float(offset[0]), float(offset[1])),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
        )
        occupied.append(mark + offset)


def _in_points(
    panel: Axes, curve: Sequence[tuple[float, float, str]]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    pixels = panel.transData.transform([(x, y) for x, y, _ in curve])
    return np.asarray(pixels) * 72.0 / panel.figure.dpi
