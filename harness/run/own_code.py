"""Code of the user's that trainers import: method files, model files and packages. Which paths their nodes must see."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from algorithms.loading import installed
from algorithms.own_model.module_shape import ModuleShape
from harness.spec.run_spec import RunSpec
from netsim.errors import InputError


@dataclass(frozen=True)
class OwnCode:
    """files: single files.   packages: folders or files of packages that are not beside the interpreter's."""

    files: tuple[Path, ...]
    packages: tuple[Path, ...]

    @classmethod
    def of(cls, spec: RunSpec) -> OwnCode:
        """InputError for a file that trainers, which run as a user of their own if root starts them, may not read."""
        files = spec.own_files
        for file in files:
            if os.geteuid() == 0 and not file.stat().st_mode & 0o004:
                found = f"{file}, which only its owner may read"
                raise InputError(
                    spec.where, "", found, f"a file that trainers may read, as they are not root: chmod o+r {file}"
                )
        return cls(files, tuple(path for name in _packages(spec) if (path := _elsewhere(name)) is not None))

    @property
    def visible(self) -> tuple[Path, ...]:
        return (*self.files, *self.packages)

    @property
    def python_path(self) -> tuple[Path, ...]:
        """Folders in which the packages are found."""
        return tuple(dict.fromkeys(path.parent for path in self.packages))


def _packages(spec: RunSpec) -> set[str]:
    """Top-level names of packages that the method or the model is in."""
    found = set()
    if isinstance(spec.model, ModuleShape) and not spec.model.module.rpartition(":")[0].endswith(".py"):
        found.add(spec.model.module.partition(":")[0].partition(".")[0])
    if (entry := installed().get(spec.method)) is not None:
        found.add(entry.module.partition(".")[0])
    return found


def _elsewhere(package: str) -> Path | None:
    """Where a package is, unless nodes see it anyway with the interpreter and its packages."""
    spec = util.find_spec(package)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = Path(folders[0] if folders else spec.origin or "")
    usual = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
    return None if any(place.is_relative_to(folder) for folder in usual) else place.absolute()
