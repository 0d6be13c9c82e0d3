"""The netem engine on a stock Debian kernel: every link feature, measured in the guest's exact virtual time."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from statistics import fmean, median, stdev
from typing import Any

import pytest
from scipy.stats import binom

from netsim.emulated.compile import compile_topology, node_names
from netsim.emulated.gate import FULL, LinkMeasurement, evaluate, loss_interval
from netsim.emulated.jitter import deviation
from netsim.emulated.link_check import FULL_BUDGET, LinkChecker
from netsim.emulated.plan import NodePlan
from netsim.emulated.substrates.netns_nodes import NetnsNodes
from netsim.errors import HostError
from netsim.framing import datagram, goodput, segment
from netsim.library import ROOT
from netsim.topology import Topology, topology_from
from tests.qemu.lab import GUEST, HERE, lab

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("guest")]

LINKS: dict[str, dict[str, Any]] = {
    "plain": {"delay": "25 ms"},
    "slow": {"delay": "5 ms", "rate": "2 Mbit"},
    "lossy": {"delay": "10 ms", "loss": 0.03},
    "bursty": {"delay": "10 ms", "loss": {"to_bad": 0.02, "to_good": 0.25}},
    "jittery": {"delay": "40 ms", "jitter": {"spread": "4 ms"}},
    "heavy": {"delay": "40 ms", "jitter": {"spread": "4 ms", "distribution": "pareto", "reorder": True}},
    "even": {"delay": "40 ms", "jitter": {"spread": "6 ms", "distribution": "uniform"}},
    "twice": {"delay": "10 ms", "duplicate": 0.05},
    "queued": {"delay": "40 ms", "queue": "60 kB"},
    "far": {"delay": "1 s", "rate": "1 Mbit"},
    "codel": {"delay": "40 ms", "queue": {"kind": "fq_codel", "size": "120 kB"}},
    "red": {"delay": "40 ms", "queue": {"kind": "red", "size": "120 kB", "ecn": True}},
}
# Under load: queues and small packets. The links of the last are as far as the moon.
LOADS = {"queued": ["tcp", "flood"], "downlink": ["flood"], "far": ["small"], "core": ["flood"]}
LOADS |= {"codel": ["tcp", "flood"], "red": ["tcp"]}
GATED = ("plain", "codel", "red")  # which the gate judges, too


def network(engine: str, link: dict[str, Any], rate: str = "8 Mbit", down: str = "8 Mbit", **more: Any) -> Topology:
    """Two sites; the way from a to b is `link`, the way back a plain delay."""
    return topology_from(
        {
            "name": engine,
            "defaults": {"up": rate, "down": rate, "delay": "10 ms"},
            "transport": {"congestion_control": "reno"},
            "sites": {"a": {}, "b": {"down": down}},
            "links": [{"from": "a", "to": "b", **link}],
            **more,
        },
        "test",
    )


def case(name: str, engine: str, topology: Topology, **more: Any) -> dict[str, Any]:
    addresses = {name: NetnsNodes().address(index) for index, name in enumerate(node_names(topology))}
    plans = compile_topology(topology, addresses, engine, 1, duplicates=engine == "nfqueue" and "twice" in name)
    return {
        "name": name,
        "plans": [plan.to_json() for plan in plans],
        "rate": topology.rate("a", "b"),
        "echoes": 60,
        "interval": 0.05,
        "seconds": 1.5,
        "tcp": name.endswith(("plain", "slow")),
        **({"gate": gate_stream(topology, plans)} if name.split("-")[1] in GATED else {}),
        **({"loads": LOADS[name.split("-")[1]], "load_seconds": 3.0} if name.split("-")[1] in LOADS else {}),
        **more,
    }


def gate_stream(topology: Topology, plans: list[NodePlan]) -> dict[str, Any]:
    """The stream of datagrams by which the full check measures the way from a to b, and the window that it counts."""
    checker = LinkChecker(topology, {}, {plan.site: plan for plan in plans}, seed=1)
    stream, window = checker.datagrams(("a", "b"), FULL_BUDGET)
    return {"stream": {**asdict(stream), "number": 3}, "window": window}  # others have 1 and 2


# The nfqueue engine is tested on whatever kernel the tests run on; here it shows that both engines do the same.
TOPOLOGIES = {f"netem-{name}": network("netem", link) for name, link in LINKS.items()} | {
    f"nfqueue-{name}": network("nfqueue", LINKS[name]) for name in ("plain", "lossy", "jittery", "queued", "far")
}
TOPOLOGIES |= {
    f"{engine}-downlink": network(engine, {"delay": "40 ms", "queue": "15 kB"}, down="2 Mbit")
    for engine in ("netem", "nfqueue")
}


CORE = [{"name": "middle", "between": [["a"], ["b"]], "rate": "4 Mbit", "queue": "30 kB"}]
TOPOLOGIES |= {f"{engine}-core": network(engine, {"delay": "40 ms"}, core=CORE) for engine in ("netem", "nfqueue")}


def of(*links: str) -> list[str]:
    return [name for name in TOPOLOGIES if name.split("-")[1] in links]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the guest measured, by engine and link; one boot for all."""
    try:
        guest = lab()
    except HostError as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("guest")
    cases = [case(name, name.split("-")[0], topology) for name, topology in TOPOLOGIES.items()]
    changed = network("netem", {"delay": "60 ms", "loss": 0.05})
    addresses = {site.name: NetnsNodes().address(index) for index, site in enumerate(changed.sites)}
    after = [plan.to_json() for plan in compile_topology(changed, addresses, "netem", 1)]
    cases.append(case("netem-changed", "netem", network("netem", {"delay": "25 ms"}), after=after))
    (out / "networks.json").write_text(json.dumps(cases))
    ran = subprocess.run(
        [HERE / "run.sh", guest, ROOT, out, "sh", "-c", GUEST],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-1000:]}"
    measured: dict[str, Any] = json.loads((out / "results.json").read_text())
    return measured


def took(result: dict[str, Any]) -> list[float]:
    return [one for _, one in result["echoes"] if one is not None]


@pytest.mark.parametrize("name", [*TOPOLOGIES, "netem-changed"])
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
    before, after = found["netem-changed"], found["netem-changed"]["after"]
    assert median(took(before)) == pytest.approx(0.035, abs=0.001)
    assert median(took(after)) == pytest.approx(0.070, abs=0.001)
    assert before["udp"]["seen"] == before["udp"]["sent"]
    assert 0.01 < 1 - after["udp"]["seen"] / after["udp"]["sent"] < 0.12
