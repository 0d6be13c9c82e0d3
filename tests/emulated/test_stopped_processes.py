"""A process of the network that stops without dying (SIGSTOP) is named, and taken down, within the stated time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from netsim.emulated import agent_client
from netsim.emulated.network import open_network
from netsim.emulated.node.processes import is_stopped
from netsim.emulated.owner import Owner
from netsim.emulated.substrates.netns_nodes import CLOSE_SECONDS
from netsim.errors import LinkError
from tests.emulated.networks import command_of, eventually, need, pair, processes_of

pytestmark = [pytest.mark.root, pytest.mark.timing]
NAMED = {
    "longhaul-switch": (0.0, "nodes of this network have ended or are stopped"),
    "longhaul-agent": (agent_client.ANSWER_SECONDS, "the agent of site . has not answered for 20 s"),
    "delay daemon": (0.0, "the delay daemon is stopped"),
    "prober": (0.0, "the prober is stopped"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMED)
def test_a_stopped_process_is_named_in_time(tmp_path: Path, name: str) -> None:
    need("netns")
    seconds, message = NAMED[name]
    with open_network(pair(), run_id="test", directory=tmp_path, substrate="netns", engine="nfqueue") as network:
        network.verify()
        process = next(one for one in processes_of(str(Owner.this())) if command_of(one) == name)
        os.kill(process, signal.SIGSTOP)
        assert eventually(lambda: is_stopped(process))  # once it has run again, which a busy host lets wait
        began = time.monotonic()
        with pytest.raises(LinkError, match=message):
            network.verify()
        noticed = time.monotonic()
        assert noticed - began < seconds + 3
        if name == "longhaul-agent":  # it was waited for once: what else is asked of it fails at once
            with pytest.raises(LinkError, match=message):
                network.verify()
            assert time.monotonic() - noticed < 1
        closing = time.monotonic()
    assert time.monotonic() - closing < CLOSE_SECONDS + 3
    assert list(processes_of(str(Owner.this()))) == []
