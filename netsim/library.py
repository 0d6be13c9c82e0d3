"""Where the code lies, and the descriptions that are shipped with it: topologies, suites and scenarios by name.

In a checkout they are folders at its top, in a wheel they are in the package `longhaul`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from netsim.errors import InputError, Phrase

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the packages
PACKAGES = ("netsim", "algorithms", "harness")  # what a run's processes import

Kind = Literal["topologies", "suites", "scenarios"]
_ONE = {"topologies": "topology", "suites": "suite", "scenarios": "scenario"}


def shipped(kind: Kind) -> Path:
    """The folder of the descriptions of one kind."""
    packaged = ROOT / "longhaul" / "library" / kind  # in a checkout, a link to the folder at the top
    return packaged.resolve() if packaged.is_dir() else ROOT / kind


def names(kind: Kind) -> list[str]:
    """What is shipped of one kind, by name; a scenario of a folder has the folder in its name."""
    folder = shipped(kind)
    found = folder.rglob("*.yaml") if kind == "scenarios" else folder.glob("*.yaml")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in found)


def find(kind: Kind, name: str, beside: Sequence[Path] = ()) -> Path:
    """The file that `name` means: a path, from one of the folders `beside` or from here; or a name in the library.

    Raises InputError that lists the library and proposes the nearest name.
    """
    for path in (*(folder / name for folder in beside), Path(name), shipped(kind) / f"{name}.yaml"):
        if _is_file(path):
            return path
    error = InputError.unknown(name, "", Path(name).stem, names(kind), "a file, or one of the library:")
    raise InputError(name, "", Phrase(f"no such {_ONE[kind]}"), error.allowed, error.meant)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name longer than the file system allows, or with a null character
        return False
