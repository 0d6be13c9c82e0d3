"""What a byte costs on a link besides its line rate: framing, windows, loss, and what a message costs by itself.

The defaults are first principles and hold without any measurement; other numbers come from a calibration file
(`harness.costmodel.calibration`), never from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from netsim.collectives import Chunking, streams_per_pair, unsent_limit
from netsim.framing import goodput, segment
from netsim.simulated.send_buffers import held_bytes
from netsim.topology import Topology, Transport


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
    send_buffers: whether a member goes on when its kernel has what it sends (`netsim.simulated.send_buffers`), as the
    executor does; else when the network has carried it.
    """

    efficiency: float = 1.0
    message_seconds: float = 0.0
    transfer_seconds: float = 0.0
    byte_seconds: float = 0.0
    host_bandwidth: float | None = None
    cold_start: bool = False
    streams: int | None = None
    send_buffers: bool = False
    chunking: Chunking = field(default_factory=Chunking)

    def goodput(self, rate: float, transport: Transport) -> float:
        """TCP payload bytes per second of a saturated link of line rate `rate` bit/s."""
        return goodput(rate, transport.mtu) / 8 * self.efficiency

    def connections(self, topology: Topology, source: str, target: str) -> int:
        """TCP connections between two sites."""
        return self.streams or streams_per_pair(topology, source, target)

    def window_cap(self, topology: Topology, source: str, target: str) -> float:
        """Bytes per second that buffers allow on the pair, however wide the links; inf when nothing bounds."""
        rtt = topology.rtt(source, target)
        if rtt == 0:
            return inf
        return self.connections(topology, source, target) * (topology.transport.buffer / rtt)

    def held_bytes(self, topology: Topology, source: str, target: str) -> float:
        """Bytes that the kernels of a pair hold besides those in flight, where every site sends to every other one."""
        others = len(topology.sites) - 1
        rate = min(
            topology.rate(source, target), topology.site(source).up / others, topology.site(target).down / others
        )
        streams, transport = self.connections(topology, source, target), topology.transport
        flight = self.goodput(rate, transport) * topology.rtt(source, target) / streams
        return streams * held_bytes(flight, transport, unsent_limit(streams))

    def initial_window(self, topology: Topology, source: str, target: str) -> float:
        """Bytes that a pair may have in flight in its first round trip."""
        segments = topology.transport.initial_window * self.connections(topology, source, target)
        return float(segments * segment(topology.transport.mtu))
