"""The environment fingerprint of a run."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from netsim.library import ROOT

_DISTRIBUTIONS = ("torch", "numpy", "simpy", "docker", "pydantic")


def fingerprint() -> dict[str, Any]:
    """What this host is. Nothing in it names a user, a host or an address."""
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _DISTRIBUTIONS},
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "memory_bytes": memory.total,
        "git": _git(),
        "interpreter": Path(sys.executable).name,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git() -> dict[str, Any] | None:
    """Commit and whether the tree differs from it; None outside a checkout."""
    try:
        commit = _run_git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_run_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _run_git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
