"""Regions, graphs and traces as sources of topologies."""

from pathlib import Path
from statistics import fmean

import pytest

from netsim.errors import InputError
from netsim.importers import PACKET, read_mahimahi
from netsim.states import states as states_of
from netsim.topology import load_topology, read_topology, topology_from

GML = """
graph [
  directed 0
  node [ id 0 label "east" host_bandwidth_up "100 Mbit" host_bandwidth_down "200 Mbit" ]
  node [ id 1 label "hub" ]
  node [ id 2 label "west" host_bandwidth_up "50 Mbit" host_bandwidth_down "50 Mbit" ]
  edge [ source 0 target 1 latency "10 ms" packet_loss 0.01 bandwidth "1 Gbit" ]
  edge [ source 1 target 2 latency "15 ms" packet_loss 0.02 bandwidth "20 Mbit" ]
  edge [ source 0 target 2 latency "40 ms" ]
]
"""

GRAPHML = """<?xml version="1.0"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="up" for="node" attr.name="up" attr.type="string"/>
  <key id="down" for="node" attr.name="down" attr.type="string"/>
  <key id="delay" for="edge" attr.name="delay" attr.type="string"/>
  <graph edgedefault="directed">
    <node id="a"><data key="up">1 Gbit</data><data key="down">1 Gbit</data></node>
    <node id="b"><data key="up">1 Gbit</data><data key="down">1 Gbit</data></node>
    <edge source="a" target="b"><data key="delay">5 ms</data></edge>
    <edge source="b" target="a"><data key="delay">7 ms</data></edge>
  </graph>
</graphml>
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_regions_give_the_delays_that_are_not_stated() -> None:
    document = {
        "name": "regions",
        "defaults": {"up": "1 Gbit", "down": "1 Gbit"},
        "sites": {"a": {"region": "us-east"}, "b": {"region": "europe"}, "c": {"region": "europe"}},
        "links": [{"from": "a", "to": "c", "delay": "99 ms"}],
    }
    topology = topology_from(document, "here")
    assert topology.rtt("a", "b") == pytest.approx(0.084)
    assert topology.rtt("b", "c") == pytest.approx(0.002)
    assert topology.link("a", "c").delay == 0.099
    assert topology.link("c", "a").delay == pytest.approx(0.042)


def test_an_unknown_region_is_named_with_those_there_are() -> None:
    document = {
        "name": "regions",
        "defaults": {"up": "1 Gbit", "down": "1 Gbit"},
        "sites": {"a": {"region": "us-east"}, "b": {"region": "atlantis"}},
    }
    with pytest.raises(InputError, match=r"'atlantis'; allowed: .*europe"):
        topology_from(document, "here")


def test_a_graph_becomes_the_shortest_paths_among_its_sites(tmp_path: Path) -> None:
    topology = load_topology(written(tmp_path, "two coasts.gml", GML))
    assert topology.name == "two-coasts"
    assert [site.name for site in topology.sites] == ["east", "west"]
    link = topology.link("east", "west")
    assert link.delay == pytest.approx(0.025)
    assert link.rate == 20e6
    assert link.mean_loss == pytest.approx(1 - 0.99 * 0.98)
    assert topology.rate("west", "east") == 20e6
    assert topology.site("east").down == 200e6


def test_the_variances_of_an_edges_jitter_add_up(tmp_path: Path) -> None:
    text = GML.replace('latency "10 ms"', 'latency "10 ms" jitter "3 ms"').replace('"15 ms"', '"15 ms" jitter "4 ms"')
    jitter = load_topology(written(tmp_path, "jittery.gml", text)).link("east", "west").jitter
    assert jitter is not None
    assert jitter.spread == pytest.approx(0.005)


DUMBBELL = """
graph [
  node [ id 0 label "a" up "50 Mbit" down "50 Mbit" ]
  node [ id 1 label "b" up "50 Mbit" down "50 Mbit" ]
  node [ id 2 label "c" up "50 Mbit" down "50 Mbit" ]
  node [ id 8 label "left" ]
  node [ id 9 label "right" ]
  edge [ source 0 target 8 latency "1 ms" ]
  edge [ source 1 target 8 latency "1 ms" ]
  edge [ source 8 target 9 latency "5 ms" bandwidth "10 Mbit" ]
  edge [ source 9 target 2 latency "1 ms" ]
]
"""


def test_edges_that_several_pairs_share_are_named(tmp_path: Path) -> None:
    assert "8 - 9 (2 pairs)" in load_topology(written(tmp_path, "dumbbell.gml", DUMBBELL)).description
    assert load_topology(written(tmp_path, "apart.gml", GML)).description == ""


def test_a_directed_graph_keeps_its_directions(tmp_path: Path) -> None:
    topology = load_topology(written(tmp_path, "pair.graphml", GRAPHML))
    assert topology.link("a", "b").delay == pytest.approx(0.005)
    assert topology.link("b", "a").delay == pytest.approx(0.007)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('latency "10 ms"', 'latency "10"'), "a duration in one of"),
        (('latency "10 ms"', 'colour "red"'), "'colour'; allowed: only bandwidth, delay, jitter"),
        (('latency "10 ms"', 'label "slow"'), "a value for latency"),
        (('host_bandwidth_up "50 Mbit"', ""), "two nodes or more"),
        (("graph [", "graph"), "a gml graph"),
    ],
)
def test_a_graph_that_says_too_little_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_topology(written(tmp_path, "wrong.gml", GML.replace(*change)))


TRACED = """
name: traced
defaults: {up: 10 Mbit, down: 10 Mbit, delay: 10 ms}
sites: {a: {}, b: {}}
timeline:
  - {from: 0 s, to: 1 s, trace: {site: a, side: up, file: cell.trace, every: 100 ms}}
"""


def test_a_mahimahi_trace_becomes_rates_in_the_document(tmp_path: Path) -> None:
    """A mahimahi trace becomes rates and the document stands alone."""
    written(tmp_path, "cell.trace", "\n".join(["10", "20", "30", "150", "200"]))
    document = read_topology(written(tmp_path, "traced.yaml", TRACED))
    topology = topology_from(document, "elsewhere")
    packet = 1504 * 8 / 0.1
    found = [(time, state.site("a").up) for time, state in states_of(topology)][:3]
    assert found == [(0.0, 3 * packet), (0.1, 2 * packet), (0.2, 3 * packet)]


@pytest.mark.parametrize(
    ("lines", "every", "seconds"),
    [
        ([1, 1, 1, 1], 0.1, 0.001),  # 48 Mbit/s, far shorter than a stretch
        (list(range(1, 251)), 0.1, 0.25),  # 12 Mbit/s, two and a half stretches
        ([10, 20, 30, 150, 200], 0.1, 0.2),
        ([0, 7, 7, 950, 1001], 0.1, 1.001),  # most stretches empty
    ],
)
def test_a_trace_keeps_its_mean_rate_and_period(tmp_path: Path, lines: list[int], every: float, seconds: float) -> None:
    rates, step = read_mahimahi(written(tmp_path, "cell.trace", "\n".join(map(str, lines))), every)
    assert fmean(rates) == pytest.approx(len(lines) * PACKET * 8 / seconds, rel=1e-12)
    assert len(set(rates)) == 1 or len(rates) * step == pytest.approx(seconds, rel=1e-12)
    assert min(rates) > 0


@pytest.mark.parametrize("line", ["\u0661", "1.5", "-3", "1" * 5000])
def test_a_trace_line_must_be_ascii_digits(tmp_path: Path, line: str) -> None:
    written(tmp_path, "cell.trace", f"1\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        read_topology(written(tmp_path, "traced.yaml", TRACED))


def test_a_trace_of_no_duration_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "cell.trace", "10\n")
    with pytest.raises(InputError, match="above zero"):
        read_topology(written(tmp_path, "traced.yaml", TRACED.replace("100 ms", "0 s")))


UNKNOWN_TYPE = (
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><key id="k" attr.type="colour" attr.name="x" for="node"/>'
    '<graph edgedefault="directed"><node id="0"><data key="k">1</data></node></graph></graphml>'
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.graphml", UNKNOWN_TYPE),
        ("b.gml", "graph " + "[ node " * 3000),
        ("c.graphml", "not xml"),
        ("d.gml", "graph [ edge [ source 0 ] ]"),
    ],
)
def test_a_graph_that_cannot_be_read_is_one_error(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match="allowed: a g"):
        load_topology(written(tmp_path, name, text))


def test_a_trace_that_goes_back_in_time_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "cell.trace", "10\n5\n")
    with pytest.raises(InputError, match="line 2: found '5'"):
        read_topology(written(tmp_path, "traced.yaml", TRACED))


@pytest.mark.parametrize("name", ["lan", "transatlantic", "six-regions", "home"])
def test_every_shipped_topology_names_its_source(name: str) -> None:
    """Every topology of the library says where its numbers are from."""
    from netsim.topology import find_topology

    topology = load_topology(find_topology(name))
    assert topology.name == name
    assert topology.source or name == "lan"
