"""Longhaul: low-communication training over an emulated WAN, measured, compared, projected.

    >>> import longhaul
    >>> longhaul.run_suite("quickstart")                              # doctest: +SKIP
    >>> longhaul.report("runs/quickstart", out="report/quickstart")   # doctest: +SKIP
    >>> longhaul.project("photon-7b")                                 # doctest: +SKIP

A name is imported when it is first used, so that importing the package loads neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from algorithms.method import Method
    from algorithms.worker import Worker
    from longhaul.networks import load_topology, open_network
    from longhaul.projections import project
    from longhaul.runs import read_runs, report
    from longhaul.suites import load_suite, run_suite
    from netsim.traffic import Plan, Transfer

    __version__: str

__all__ = [
    "Method",
    "Plan",
    "Transfer",
    "Worker",
    "__version__",
    "load_suite",
    "load_topology",
    "open_network",
    "project",
    "read_runs",
    "report",
    "run_suite",
]

_HOMES = {
    "Method": "algorithms.method",
    "Plan": "netsim.traffic",
    "Transfer": "netsim.traffic",
    "Worker": "algorithms.worker",
    "load_suite": "longhaul.suites",
    "load_topology": "longhaul.networks",
    "open_network": "longhaul.networks",
    "project": "longhaul.projections",
    "read_runs": "longhaul.runs",
    "report": "longhaul.runs",
    "run_suite": "longhaul.suites",
}


if not TYPE_CHECKING:  # so that mypy finds a misspelt name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            found: Any = metadata.version("longhaul-bench")
        elif name in _HOMES:
            found = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'longhaul' has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
