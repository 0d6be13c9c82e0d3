"""Where the code lies, and the descriptions that are shipped beside it: topologies, suites and scenarios by name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the packages
PACKAGES = ("netsim", "algorithms", "harness")  # what a run's processes import


def shipped(kind: str) -> Path:
    """The folder of the descriptions of one kind: `topologies`, `suites` or `scenarios`."""
    return ROOT / kind
