"""What the guest measures, and measuring ahead of the tests: `python -m tests.qemu.measuring`.

Its time is virtual, so that a measurement does not depend on what else this machine does: it may be taken at the lowest
priority while other tests run.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from netsim.errors import LonghaulError
from netsim.library import ROOT
from tests.qemu.guest_networks import networks
from tests.qemu.lab import GUEST, HERE, LAB, lab

AHEAD = LAB.with_name("qemu-ahead.json")
Measured = dict[str, Any]  # by network


def measure(cases: list[dict[str, Any]]) -> Measured:
    """Boots the guest once. HostError for what building it lacks; LonghaulError if it or the guest fails."""
    guest = lab()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "networks.json").write_text(json.dumps(cases))
        command = [str(HERE / "run.sh"), str(guest), str(ROOT), folder, "sh", "-c", GUEST]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
        if ran.returncode:
            raise LonghaulError(f"the guest failed: {ran.stdout[-3000:]}\n{ran.stderr[-1000:]}")
        measured: Measured = json.loads(Path(folder, "results.json").read_text())
    return measured


def measured(cases: list[dict[str, Any]]) -> Measured:
    """What was measured ahead of the same networks by the same code, once; else what is measured now."""
    lab()
    with FileLock(f"{AHEAD}.lock"):
        try:
            ahead = json.loads(AHEAD.read_text())
        except FileNotFoundError:
            return measure(cases)
        AHEAD.unlink()
    found: Measured = ahead["measured"] if ahead["digest"] == _digest(cases) else measure(cases)
    return found


def measure_ahead(cases: list[dict[str, Any]]) -> None:
    LAB.parent.mkdir(exist_ok=True)
    with FileLock(f"{AHEAD}.lock"):
        AHEAD.unlink(missing_ok=True)
        digest = _digest(cases)
        AHEAD.write_text(json.dumps({"digest": digest, "measured": measure(cases)}))


def _digest(cases: list[dict[str, Any]]) -> str:
    """Of the networks and of all code that the guest runs."""
    digest = hashlib.sha256(json.dumps(cases).encode())
    for path in sorted([*(ROOT / "netsim").rglob("*.py"), *(path for path in HERE.iterdir() if path.is_file())]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    measure_ahead(networks())
