"""The netem engine on a stock Debian kernel: every link feature, measured in the guest's exact virtual time."""

from __future__ import annotations

from statistics import fmean, median, stdev
from typing import Any

import pytest
from scipy.stats import binom

from netsim.emulated.gate import FULL, LinkMeasurement, evaluate, loss_interval
from netsim.emulated.jitter import deviation
from netsim.errors import HostError
from netsim.framing import datagram, goodput, segment
from tests.qemu.guest_networks import CHANGED, GATED, TOPOLOGIES, networks, of
from tests.qemu.measuring import measured

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("guest")]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the guest measured, by engine and link; one boot for all."""
    try:
        return measured(networks())
    except HostError as error:
        pytest.skip(str(error))


def took(result: dict[str, Any]) -> list[float]:
    return [one for _, one in result["echoes"] if one is not None]


@pytest.mark.parametrize("name", [*TOPOLOGIES, CHANGED])
def test_the_kernel_reports_what_the_plan_says(found: dict[str, Any], name: str) -> None:
    assert found[name]["mismatches"] == []
    kinds = {entry["kind"] for entry in found[name]["facts"]["qdiscs"]}
    assert ("netem" in kinds) == name.startswith("netem")


@pytest.mark.parametrize("name", of("plain", "slow"))
def test_delay_and_goodput_are_as_asked(found: dict[str, Any], name: str) -> None:
    topology, result = TOPOLOGIES[name], found[name]
    assert median(took(result)) == pytest.approx(topology.rtt("a", "b"), abs=0.001)
    expected = goodput(topology.rate("a", "b"), 1500)
    assert result["tcp"]["rate"] == pytest.approx(expected, rel=0.03)
    assert result["udp"]["rate"] * segment(1500) / datagram(1500) == pytest.approx(expected, rel=0.03)
    assert result["udp"]["seen"] == result["udp"]["sent"]


@pytest.mark.parametrize("name", of(*GATED))
def test_the_gate_passes_what_the_kernel_does(found: dict[str, Any], name: str) -> None:
    """Queues that drop early among them: its probes must not be what they drop."""
    topology, result = TOPOLOGIES[name], found[name]
    counted = result["gate"]
    measured = LinkMeasurement(
        round_trips=tuple(took(result)),
        goodput=counted["rate"] * segment(1500) / datagram(1500),
        sent=counted["sent"],
        seen=counted["seen"],
        duplicated=counted["datagrams"] - counted["seen"],
        probe="udp",
        gaps=counted["gaps"],
        reordered=counted["reordered"],
    )
    assert evaluate(topology, "a", "b", measured, FULL).why == ()


@pytest.mark.parametrize("name", of("lossy", "bursty"))
def test_loss_is_as_asked(found: dict[str, Any], name: str) -> None:
    counted = found[name]["udp"]
    low, high = loss_interval(TOPOLOGIES[name].link("a", "b"), counted["sent"], 0.999)
    assert low <= counted["sent"] - counted["seen"] <= high
    assert counted["datagrams"] == counted["seen"]


@pytest.mark.parametrize("name", of("jittery", "heavy", "even"))
def test_jitter_has_the_mean_and_deviation_asked_for(found: dict[str, Any], name: str) -> None:
    topology, times = TOPOLOGIES[name], took(found[name])
    asked = deviation(topology.link("a", "b"), 0.05)
    assert fmean(times) == pytest.approx(topology.rtt("a", "b"), abs=0.001 + 3.3 * asked / len(times) ** 0.5)
    # So few draws of a heavy tail say little of its deviation.
    assert stdev(times) == pytest.approx(asked, rel=0.7 if "heavy" in name else 0.4)


def test_duplicates_are_as_many_as_asked(found: dict[str, Any]) -> None:
    counted = found["netem-twice"]["udp"]
    low, high = binom.interval(0.999, counted["sent"], 0.05)
    assert low <= counted["datagrams"] - counted["seen"] <= high


@pytest.mark.parametrize("name", of("queued"))
def test_the_queue_ahead_of_the_bottleneck_has_the_bytes_stated(found: dict[str, Any], name: str) -> None:
    """A full queue of 60 kB at 8 Mbit/s takes 60 ms to drain; one connection of TCP fills no more than that."""
    under = found[name]["loaded"]
    assert max(under["flood"]["took"]) == pytest.approx(0.050 + 0.060, abs=0.005)
    assert 0.049 < median(under["tcp"]["took"]) < 0.050 + 0.063
    assert under["tcp"]["rate"] == pytest.approx(goodput(8e6, 1500), rel=0.03)


@pytest.mark.parametrize("name", of("core"))
def test_a_shared_core_link_has_its_rate_and_queue(found: dict[str, Any], name: str) -> None:
    """30 kB at 4 Mbit/s take 60 ms to drain; what arrives is the core's rate, not that of the access links."""
    assert max(found[name]["loaded"]["flood"]["took"]) == pytest.approx(0.050 + 0.060, abs=0.008)
    arrived = found[name]["udp"]["rate"] * segment(1500) / datagram(1500)
    assert arrived == pytest.approx(goodput(4e6, 1500), rel=0.03)


def test_fq_codel_keeps_other_flows_from_waiting(found: dict[str, Any]) -> None:
    """A flood fills only its own flow's queue; one connection of TCP waits for little more than the target."""
    under = found["netem-codel"]["loaded"]
    assert median(under["flood"]["took"]) == pytest.approx(0.050, abs=0.006)
    assert median(under["tcp"]["took"]) < 0.050 + 0.006
    assert under["tcp"]["rate"] > 0.8 * goodput(8e6, 1500)


def test_red_holds_the_mean_queue_between_its_thresholds(found: dict[str, Any]) -> None:
    """10 kB to 30 kB are 10 ms to 30 ms at 8 Mbit/s; droptail would let TCP fill all 120 kB, which are 120 ms."""
    under = found["netem-red"]["loaded"]["tcp"]
    assert 0.050 < fmean(under["took"]) < 0.050 + 0.040
    assert under["rate"] > 0.8 * goodput(8e6, 1500)


@pytest.mark.parametrize("name", of("downlink"))
def test_a_downlink_queues_the_bytes_stated(found: dict[str, Any], name: str) -> None:
    assert max(found[name]["loaded"]["flood"]["took"]) == pytest.approx(0.050 + 0.060, abs=0.008)


@pytest.mark.parametrize("name", of("far"))
def test_small_packets_of_a_long_path_are_not_lost(found: dict[str, Any], name: str) -> None:
    small = found[name]["loaded"]["small"]
    assert small["sent"] > 2500
    assert small["seen"] == small["sent"]
    assert median(small["took"]) == pytest.approx(1.010, abs=0.020)


def test_a_change_of_a_live_link_takes_hold(found: dict[str, Any]) -> None:
    before, after = found[CHANGED], found[CHANGED]["after"]
    assert median(took(before)) == pytest.approx(0.035, abs=0.001)
    assert median(took(after)) == pytest.approx(0.070, abs=0.001)
    assert before["udp"]["seen"] == before["udp"]["sent"]
    assert 0.01 < 1 - after["udp"]["seen"] / after["udp"]["sent"] < 0.12
