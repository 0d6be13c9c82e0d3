"""The features of links on a live network: jitter, loss, duplication, queues and frames, as the topology says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

import pytest

from netsim.emulated.gate import LinkFinding
from netsim.emulated.network import Network, open_network
from netsim.emulated.node.impairments import deviate
from netsim.topology import topology_from
from tests.emulated.networks import need

pytestmark = pytest.mark.timing
LINKS: list[dict[str, Any]] = [
    {"from": "a", "to": "b", "delay": "30 ms", "jitter": {"spread": "4 ms"}},
    {"from": "a", "to": "c", "delay": "30 ms", "jitter": {"spread": "4 ms", "distribution": "pareto", "reorder": True}},
    {"from": "a", "to": "d", "delay": "30 ms", "jitter": {"spread": "6 ms", "distribution": "uniform"}},
    {"from": "b", "to": "c", "loss": {"to_bad": 0.02, "to_good": 0.2}},
    {"from": "b", "to": "d", "duplicate": "5 %"},
    {"from": "c", "to": "d", "rate": "6 Mbit", "queue": "50 ms"},
    {"from": "d", "to": "a", "loss": "3 %"},
]


@pytest.fixture(
    scope="module",
    params=[pytest.param("netns", marks=pytest.mark.root), pytest.param("docker", marks=pytest.mark.docker)],
)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    need(request.param)
    document = {
        "name": "features",
        "defaults": {"up": "20 Mbit", "down": "20 Mbit", "delay": "5 ms"},
        "transport": {"congestion_control": "reno", "mtu": 3000},
        "sites": {"a": {}, "b": {}, "c": {}, "d": {}},
        "links": LINKS,
    }
    directory: Path = tmp_path_factory.mktemp("features")
    with open_network(
        topology_from(document, "test"),
        run_id="features",
        directory=directory,
        substrate=request.param,
        engine="nfqueue",
    ) as made:
        yield made


@pytest.fixture(scope="module")
def links(network: Network) -> dict[str, LinkFinding]:
    return {f"{link.source}{link.target}": link for link in network.check(short=True).links}


def test_every_link_is_within_tolerance(links: dict[str, LinkFinding]) -> None:
    assert {name: link.why for name, link in links.items() if not link.passed} == {}


@pytest.mark.parametrize(
    ("target", "spread", "distribution"), [("b", 4, "normal"), ("c", 4, "pareto"), ("d", 6, "uniform")]
)
def test_jitter_spreads_echoes_as_asked(network: Network, target: str, spread: float, distribution: str) -> None:
    """The middle half of the echoes is as wide as that of the draws; a host that stalls moves the ends alone."""
    found = network.echo("a", target, count=200, interval=0.035)
    times = [took * 1000 for _, took in found if took is not None]
    draws = [35.5 + spread * deviate(distribution, Random(index)) for index in range(4000)]
    assert median(times) == pytest.approx(median(draws), abs=1.6)
    assert _middle_half(times) == pytest.approx(_middle_half(draws), rel=0.5)


def _middle_half(values: list[float]) -> float:
    low, _, high = quantiles(values, n=4)
    return high - low


def test_only_links_that_say_so_lose_or_duplicate(links: dict[str, LinkFinding]) -> None:
    assert {name for name, link in links.items() if link.lost} <= {"bc", "da"}
    assert links["bd"].duplicated > 0
    assert {name for name, link in links.items() if link.duplicated} == {"bd"}


def test_a_pair_rate_caps_its_pair_alone(links: dict[str, LinkFinding]) -> None:
    payload = 2948 / 3014
    assert links["cd"].goodput_mbit == pytest.approx(6 * payload, rel=0.06)
    assert links["dc"].goodput_mbit == pytest.approx(20 * payload, rel=0.06)


def test_frames_are_as_long_as_the_topology_says_and_queues_too(network: Network) -> None:
    facts = network.environment()["nodes"]["c"]
    assert facts["mtu"] == 3000
    limits = {entry["handle"]: entry["options"]["limit"] for entry in facts["qdiscs"] if entry["kind"] == "bfifo"}
    assert limits["12:"] == round(6e6 * 0.05 / 8)


def test_senders_over_per_packet_links_send_single_frames(network: Network) -> None:
    """Senders over links that treat packets apart send single frames."""
    nodes = network.environment()["nodes"]
    single = {name: facts["offloads"]["gso_max_segs"] == 1 for name, facts in nodes.items()}
    assert single == {"a": True, "b": True, "c": False, "d": True}
