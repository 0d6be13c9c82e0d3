"""Members that go on when their kernels have what they send."""

from __future__ import annotations

import numpy as np
import pytest

from netsim.simulated.closed_form import uniform_topology
from netsim.simulated.compute import Compute
from netsim.simulated.link_model import LinkModel
from netsim.simulated.link_resources import Links
from netsim.simulated.segments import Segment, Setting, simulate_segment
from netsim.simulated.send_buffers import charge, held_bytes
from netsim.simulated.simulation import simulate
from netsim.topology import Link, Site, Topology, Transport
from netsim.traffic import Algorithm, Collective, Plan, Recurrence, Transfer

RATE = 8e6 * 1514 / 1448  # carries exactly 1 MB of payload a second
MB = 10**6
BUFFERED = LinkModel(send_buffers=True)


def uneven(rtt: float = 0.1) -> Topology:
    """Of three sites the first has a tenth of the uplink."""
    sites = (Site("a", RATE, 10 * RATE), Site("b", 10 * RATE, 10 * RATE), Site("c", 10 * RATE, 10 * RATE))
    links = tuple(Link(a.name, b.name, rtt / 2) for a in sites for b in sites if a is not b)
    return Topology("uneven", sites, links)


def all_reduces(steps: int, megabytes: int = 3) -> Plan:
    transfer = Transfer("x", megabytes * MB // 4, (0, 1, 2), algorithm=Algorithm.DIRECT)
    return Plan(3, steps, (Recurrence((transfer,), 1, 1, steps),))


def test_the_kernel_charges_what_linux_does() -> None:
    """Seen as 2 x 10 and 3 x 10 segments in a new connection's SO_SNDBUF: 46,080 with cubic, 69,120 with bbr."""
    assert 2 * 10 * charge(1500) == 46_080


@pytest.mark.parametrize(
    ("flight", "buffer", "unsent", "expected"),
    [
        (1e3, 64e6, 1 << 22, 65_536 + 32_768 - 1e3),  # as it begins, and half a packet
        (1e5, 64e6, 1 << 22, 4 * 2304 / 1448 * (1e5 + 4 * 1448) + 32_768 - 1e5),  # grown with the window
        (1e5, 2e5, 1 << 22, 1e5),  # as large as it may be
        (1e6, 64e6, 1 << 20, 1e6 + 2 * 4 * 1448 + (1 << 20)),  # TCP_NOTSENT_LOWAT
    ],
)
def test_a_send_buffer_holds(flight: float, buffer: float, unsent: int, expected: float) -> None:
    assert held_bytes(flight, Transport.model_validate({"buffer": f"{buffer:.0f} B"}), unsent) == pytest.approx(
        expected
    )


def test_a_sender_is_done_when_its_kernel_has_the_rest() -> None:
    transfer = Transfer("x", 3 * MB // 4, (0, 1), collective=Collective.BROADCAST, root=0)
    links = Links(uniform_topology(2, RATE, 0.2), BUFFERED)
    progress = simulate_segment(
        Setting(links, Compute((1.0, 1.0)), lambda t: t.algorithm),
        Segment(1, ((0, (transfer,)),)),
        np.zeros(2),
        np.random.default_rng(0),
    )
    held = BUFFERED.held_bytes(uniform_topology(2, RATE, 0.2), "site-0", "site-1")
    assert 1 * MB < held < 2 * MB
    assert progress.clocks == pytest.approx([1.0 + 3.0 - held / MB, 1.0 + 3.0 + 0.1], abs=1e-4)
    assert progress.left[1] == pytest.approx(4.0, abs=1e-4)


def test_a_narrow_uplink_sends_during_the_next_step() -> None:
    """Nothing is faster than the bytes over the narrow uplink, but the step hides some of them."""
    compute, steps = Compute((0.5,) * 3), 20
    plain = simulate(all_reduces(steps), uneven(), compute)
    buffered = simulate(all_reduces(steps), uneven(), compute, link_model=BUFFERED)
    carried = steps * 2 * (3 - 1) / 3 * 3 * MB / MB  # seconds
    assert carried < buffered.wall_seconds < 0.98 * plain.wall_seconds
    assert buffered.payload_bytes == plain.payload_bytes


def test_equal_sites_wait_for_each_other_all_the_same() -> None:
    """Where everyone waits for results that arrive last, it does not matter when a sender may go on."""
    topology = uniform_topology(3, RATE, 0.1)
    plain = simulate(all_reduces(5), topology, Compute((0.5,) * 3))
    buffered = simulate(all_reduces(5), topology, Compute((0.5,) * 3), link_model=BUFFERED)
    assert buffered.wall_seconds == pytest.approx(plain.wall_seconds, rel=1e-6)


def test_repeated_steps_with_a_backlog_equal_simulated_ones() -> None:
    """A steady state is repeated only if what is still in the kernels repeats, too."""
    short, long = (
        simulate(all_reduces(steps), uneven(), Compute((0.3,) * 3), link_model=BUFFERED) for steps in (30, 60)
    )
    period = (long.wall_seconds - short.wall_seconds) / 30
    assert period == pytest.approx(4.0, abs=0.02)  # the uplink is never idle
    assert long.simulated_rounds < 40
