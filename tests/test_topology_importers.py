"""Graphs as sources of topologies."""

import json
from pathlib import Path
from typing import Any

import pytest

from netsim.errors import InputError
from netsim.topology import find_topology, load_topology
from tests.topology_files import written

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


def test_edges_that_several_pairs_share_are_core_links(tmp_path: Path) -> None:
    """Each direction for itself; an edge of one pair, or wider than the access links together, is none."""
    topology = load_topology(written(tmp_path, "dumbbell.gml", DUMBBELL))
    there, back = topology.core
    assert (there.name, there.rate, there.pairs) == ("left-right-1", 10e6, (("a", "c"), ("b", "c")))
    assert (back.name, back.rate, back.pairs) == ("right-left-2", 10e6, (("c", "a"), ("c", "b")))
    assert topology.rate("a", "c") == 10e6
    assert topology.rate("a", "b") == 50e6
    assert topology.link("a", "c").rate is None
    wide = DUMBBELL.replace('"10 Mbit"', '"100 Mbit"')
    assert load_topology(written(tmp_path, "wide.gml", wide)).core == ()
    assert load_topology(written(tmp_path, "apart.gml", GML)).core == ()


def test_a_directed_graph_keeps_its_directions(tmp_path: Path) -> None:
    topology = load_topology(written(tmp_path, "pair.graphml", GRAPHML))
    assert topology.link("a", "b").delay == pytest.approx(0.005)
    assert topology.link("b", "a").delay == pytest.approx(0.007)


NODE_LINK: dict[str, Any] = {
    "nodes": [
        {"id": 0, "label": "east", "up": "1 Gbit", "down": "1 Gbit"},
        {"id": "w", "up": "1 Gbit", "down": "1 Gbit"},
    ],
    "links": [{"source": 0, "target": "w", "latency": "5 ms", "rate": "10 Mbit"}],
}


def test_a_graph_in_node_link_json_is_a_topology(tmp_path: Path) -> None:
    topology = load_topology(written(tmp_path, "d3.json", json.dumps(NODE_LINK)))
    assert [site.name for site in topology.sites] == ["east", "w"]
    assert topology.link("w", "east").delay == pytest.approx(0.005)
    assert topology.rate("east", "w") == 10e6
    edges = {"nodes": NODE_LINK["nodes"], "edges": NODE_LINK["links"], "directed": True}
    with pytest.raises(InputError, match="no path from w to east"):
        load_topology(written(tmp_path, "networkx.json", json.dumps(edges)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"links": 3}, "no lists of nodes and of links"),
        ({"links": [{"source": 0}]}, "links.0 without target"),
        ({"links": [{"source": 0, "target": 7}]}, "a link of node 7, which is not among the nodes"),
        ({"nodes": [{"name": "a"}]}, "nodes.0 without id"),
    ],
)
def test_a_wrong_node_link_graph_is_one_error(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_topology(written(tmp_path, "wrong.json", json.dumps({**NODE_LINK, **change})))


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


@pytest.mark.parametrize("name", ["lan", "transatlantic", "six-regions", "home"])
def test_every_shipped_topology_names_its_source(name: str) -> None:
    """Every topology of the library says where its numbers are from."""
    topology = load_topology(find_topology(name))
    assert topology.name == name
    assert topology.source or name == "lan"
