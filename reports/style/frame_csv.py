"""Frames as CSV."""

from __future__ import annotations

import pandas as pd

from reports.style.tables import spreadsheet_safe


def frame_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV, its texts safe to open in a spreadsheet."""
    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    safe = frame.assign(**{str(name): frame[name].map(spreadsheet_safe) for name in texts})
    return str(safe.to_csv(index=False))
