"""What random loss leaves of one TCP connection."""

from __future__ import annotations

from math import inf, sqrt

from netsim.framing import segment
from netsim.topology import Link, Transport


def loss_cap(link: Link, rtt: float, transport: Transport) -> float:
    """Mean bytes per second of one TCP connection under random loss; inf without loss.

    Reno: Mathis et al. 1997, 1.22 / sqrt(p) segments per RTT. Cubic: RFC 8312, equation 6 with C = 0.4 and beta = 0.7,
    and never less than Reno. BBR does not slow down for loss (Cardwell et al. 2016).
    """
    p, size = link.mean_loss, segment(transport.mtu)
    if p == 0 or transport.congestion_control == "bbr":
        return inf
    reno = 1.22 / sqrt(p)
    window = reno if transport.congestion_control == "reno" else max(reno, 1.054 * (rtt / p) ** 0.75)
    return size * window / rtt
