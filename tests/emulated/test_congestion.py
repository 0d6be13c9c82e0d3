"""The host's list of congestion controls is as it was, however the process ends that extended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.emulated.cleanup import sweep
from netsim.emulated.substrates.congestion import allowed
from netsim.library import ROOT

LIST = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
DIE_INSIDE = """
import os, signal
from netsim.emulated.substrates.congestion import allowed
with allowed("cubic"):
    os.kill(os.getpid(), signal.SIGKILL)
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not os.access(LIST, os.W_OK), reason="needs root on the host"),
]


@pytest.fixture
def reno_alone() -> Iterator[None]:
    before = LIST.read_text()
    LIST.write_text("reno")
    yield
    LIST.write_text(before)


@pytest.mark.usefixtures("reno_alone")
def test_the_list_is_extended_for_the_moment_only() -> None:
    with allowed("cubic"):
        assert LIST.read_text().split() == ["reno", "cubic"]
    assert LIST.read_text().split() == ["reno"]
    assert sweep().settings == ()


@pytest.mark.usefixtures("reno_alone")
def test_what_a_killed_process_left_extended_is_put_back() -> None:
    done = subprocess.run([sys.executable, "-c", DIE_INSIDE], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert LIST.read_text().split() == ["reno", "cubic"]
    assert sweep().settings == ("tcp_allowed_congestion_control",)
    assert LIST.read_text().split() == ["reno"]
    assert sweep().settings == ()


@pytest.mark.usefixtures("reno_alone")
def test_whoever_extends_it_next_puts_it_back_as_well() -> None:
    subprocess.run([sys.executable, "-c", DIE_INSIDE], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    with allowed("cubic"):
        assert LIST.read_text().split() == ["reno", "cubic"]
    assert LIST.read_text().split() == ["reno"]
