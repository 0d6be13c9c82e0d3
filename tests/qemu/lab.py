"""The guest: where it lies, how it is built, and what it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from netsim.errors import HostError, LonghaulError
from netsim.library import ROOT

HERE = Path(__file__).parent
LAB = ROOT / "build" / "qemu-lab"

# Compiled once inside: to compile for every process again would take most of the time.
GUEST = """
mkdir -p /tmp/code/tests/qemu
cp -r /host/netsim /tmp/code
cp /host/tests/qemu/guest.py /tmp/code/tests/qemu
python3 -S -m compileall -q /tmp/code/netsim/emulated /tmp/code/netsim/*.py
PYTHONPATH=/tmp/code python3 -S /tmp/code/tests/qemu/guest.py
code=$?
cat /tmp/*.log
exit $code
"""


def lab() -> Path:
    """The guest, built if it is not yet, by one process at a time. HostError for what that lacks; LonghaulError if it
    fails."""
    if shutil.which("qemu-system-x86_64") is None and not (LAB / "qemu").is_dir():
        raise HostError("qemu-system-x86_64 is not installed")
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise HostError("building the guest needs root and debootstrap")
    LAB.parent.mkdir(exist_ok=True)
    with FileLock(f"{LAB}.lock"):
        if not (LAB / "complete").exists():
            _build()
    return LAB


def _build() -> None:
    part = LAB.with_name(f"{LAB.name}.part")  # what an interrupted build left is of no use
    for stale in (part, LAB):
        shutil.rmtree(stale, ignore_errors=True)
    building = [HERE / "build.sh", part]
    built = subprocess.run(building, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if built.returncode:
        raise LonghaulError(f"the guest could not be built: {built.stdout.strip()[-2000:] or built.returncode}")
    part.rename(LAB)
