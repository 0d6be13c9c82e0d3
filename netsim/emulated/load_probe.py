"""What a link does under load: echoes while something fills it, and small packets at its full rate.

Run beside the agents, by a bench on this host and inside the guest of the netem tests, so only the standard library and
the agents' requests are used.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from netsim.emulated.agent_client import AgentClient
from netsim.emulated.node.probes import ProbeStream
from netsim.emulated.node.requests import Echo, ReadStream, SendStream, StartProgram
from netsim.emulated.plan import NodePlan
from netsim.emulated.program_output import logged_to
from netsim.framing import ETHERNET, IPV4, UDP, segment

Load = Literal["tcp", "flood", "small"]
SMALL = 100  # bytes of a small frame
EXCESS = 1.5  # of a flood over the rate
ECHOES = 40
_numbers = count(1 << 20)  # of streams; link checks count from 1

FLOOD = """
import socket, sys, time
target, rate, seconds, frame = sys.argv[1], *map(float, sys.argv[2:5])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    start, sent, content = time.monotonic(), 0, bytes(int(frame) - 42)
    while (elapsed := time.monotonic() - start) < seconds:
        if sent * frame * 8 > rate * elapsed:
            time.sleep(0.001)
            continue
        sender.sendto(content, (target, 7009))
        sent += 1
"""


@dataclass(frozen=True)
class LoadFinding:
    """took: round trips of the echoes that came back, seconds. Of tcp and small also how many bit/s of payload arrived,
    and of small how many datagrams were sent and arrived."""

    took: tuple[float, ...]
    rate: float = 0.0
    sent: int = 0
    seen: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> LoadFinding:
        return LoadFinding(**{**data, "took": tuple(data["took"])})


def probe_under_load(
    load: Load,
    plans: Sequence[NodePlan],
    links: Sequence[AgentClient],
    rate: float,
    seconds: float,
    log: Path,
    patience: float = 60.0,
) -> LoadFinding:
    """Echoes from the first of two nodes to the second while something fills the way there.

    tcp: one connection. flood: full frames at one and a half times the rate, which keep the link's queue full. small:
    frames of 100 bytes at the rate of the link, all of which should arrive. rate: of the link, bit/s; log: of the
    program that floods; patience: seconds until an agent must have answered.
    """
    (source, target), mtu, number = (plan.address for plan in plans), plans[0].mtu, next(_numbers)
    finding = LoadFinding(())
    if load == "flood":
        argv = (sys.executable, "-S", "-c", FLOOD, target, str(EXCESS * rate), str(seconds), str(mtu + ETHERNET))
        with logged_to(log, None) as descriptors:
            links[0].request(StartProgram(argv, {}, "/tmp"), descriptors).result(patience)
    else:
        payload, room = (segment(mtu), 0) if load == "tcp" else (SMALL - ETHERNET - IPV4 - UDP, 4096)
        kind: Literal["tcp", "udp"] = "tcp" if load == "tcp" else "udp"
        sending = links[0].request(SendStream(ProbeStream(number, kind, source, target, seconds, payload, 1, room)))
    time.sleep(0.6 * seconds)
    echo = Echo((target,), ECHOES, 0.3 * seconds / ECHOES, patience=3.0)
    took = tuple(one for _, one in links[0].call(echo, patience).echoes[0] if one is not None)
    if load != "flood":
        sent = sending.result(patience)
        time.sleep(4.0)
        received = links[1].call(ReadStream(number, 0.5 * seconds, finish=True), patience)
        finding = LoadFinding((), received.rate, sent.sent, received.seen)
    time.sleep(seconds)
    return replace(finding, took=took)
