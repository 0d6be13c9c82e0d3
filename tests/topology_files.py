"""Files of topologies, graphs, tables and traces that tests read."""

from pathlib import Path


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path
