"""Run records with made-up numbers, by the short names that tests use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.bench.synthetic_records import SyntheticNetwork as Network
from harness.bench.synthetic_records import SyntheticRun as RecordedRun
from harness.bench.synthetic_records import write_grid

__all__ = ["Network", "RecordedRun", "rewrite", "write_grid"]


def rewrite(path: Path, **changes: Any) -> None:
    """Change fields of a JSON record in place."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
