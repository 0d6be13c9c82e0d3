"""Texts beside marks cover neither marks nor one another."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reports.style.point_labels import label_marks

CURVES = [
    [(1.0, 2.0, "1"), (2.0, 1.0, "2"), (3.0, 0.0, "4")],
    [(2.05, 1.05, "2"), (3.0, 2.0, "8")],
    [(1.98, 1.12, "2")],
]


def test_texts_of_near_marks_do_not_overlap() -> None:
    figure = Figure(figsize=(3.5, 2.4), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    panel = figure.subplots()
    for curve in CURVES:
        panel.plot([x for x, _, _ in curve], [y for _, y, _ in curve], marker="o", markersize=4)
    label_marks(panel, CURVES)
    boxes = [text.get_window_extent(renderer) for text in panel.texts]
    marks = panel.transData.transform([(x, y) for curve in CURVES for x, y, _ in curve])
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert all(panel.bbox.contains(*box.min) and panel.bbox.contains(*box.max) for box in boxes)
