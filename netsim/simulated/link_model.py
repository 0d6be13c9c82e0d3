"""What a byte costs on a link besides its line rate: framing, windows, loss, and what a message costs by itself.

The defaults are first principles and hold without any measurement; other numbers come from a calibration file
(`harness.costmodel.calibration`), never from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from netsim.collectives import Chunking, loss_cap, streams_per_pair
from netsim.framing import goodput, segment
from netsim.topology import Topology, Transport

INITIAL_WINDOW_SEGMENTS = 10  # RFC 6928


@dataclass(frozen=True)
class LinkModel:
    """Constants of the network model.

    efficiency: goodput as a share of what framing alone leaves (acknowledgements, shaping, copies); 1 is ideal.
    message_seconds: cost of one message on top of propagation.
    transfer_seconds: cost of one transfer at a member on top of its messages (encoding, scheduling, waking up).
    byte_seconds: host time per byte of a member's tensor that transmission does not hide (encode, copy, reduce).
    host_bandwidth: bytes/s that all workers of an emulated network together can move, since they share one host; None
    where every site has machines of its own.
    cold_start: whether connections begin in slow start.
    streams: connections per pair of sites; None: as many as the executor opens on this topology.
    """

    efficiency: float = 1.0
    message_seconds: float = 0.0
    transfer_seconds: float = 0.0
    byte_seconds: float = 0.0
    host_bandwidth: float | None = None
    cold_start: bool = False
    streams: int | None = None
    chunking: Chunking = field(default_factory=Chunking)

    def goodput(self, rate: float, transport: Transport) -> float:
        """TCP payload bytes per second of a saturated link of line rate `rate` bit/s."""
        return goodput(rate, transport.mtu) / 8 * self.efficiency

    def connections(self, topology: Topology, source: str, target: str) -> int:
        """TCP connections between two sites."""
        return self.streams or streams_per_pair(topology, source, target)

    def window_cap(self, topology: Topology, source: str, target: str) -> float:
        """Bytes per second that windows and loss allow on the pair, however wide the links; inf when nothing bounds."""
        link, rtt = topology.link(source, target), topology.rtt(source, target)
        if rtt == 0:
            return inf
        single = min(topology.transport.buffer / rtt, loss_cap(link, rtt, topology.transport))
        return self.connections(topology, source, target) * single

    def initial_window(self, topology: Topology, source: str, target: str) -> float:
        """Bytes that a pair may have in flight in its first round trip."""
        return float(INITIAL_WINDOW_SEGMENTS * segment(topology.transport.mtu)) * self.connections(
            topology, source, target
        )
