"""Importing GML, GraphML and node-link JSON: links among sites become the shortest paths between them.

Edges carry `latency` (or `delay`) and may carry `bandwidth` (or `rate`), `packet_loss` (or `loss`) and `jitter`, a
standard deviation; anything else on an edge but a name is refused. Nodes may carry `host_bandwidth_up` and
`host_bandwidth_down` (or `up` and `down`), which is the form of the shadow simulator's graphs.
The nodes that have access rates are the sites; the others only forward. The path of least latency is taken; a packet
survives it if it survives every edge, and the variances of its jitters add up. An edge that several pairs cross, and
that could be their bottleneck, becomes a core link whose rate they share; of the other edges the narrowest bounds a
pair. An edge of an undirected graph has its rate in either direction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from netsim.errors import InputError, Phrase
from netsim.text_files import read_text
from netsim.units import parse_duration, parse_rate, parse_share

SUFFIXES = (".gml", ".graphml")
EDGE_KEYS = {"latency", "delay", "bandwidth", "rate", "packet_loss", "loss", "jitter"}
NAMES = {"label", "id", "name", "key"}  # an edge's own, which say nothing of it


def read_graph(path: Path) -> dict[str, Any]:
    """The graph in `path` as a topology document that stands alone."""
    import networkx  # takes half a second, and only imports need it

    try:
        if path.suffix == ".json":
            graph = _node_link(json.loads(read_text(path, "a json graph")))
        else:
            graph = networkx.read_graphml(path) if path.suffix == ".graphml" else networkx.read_gml(path, label="id")
    except InputError:
        raise
    except OSError as error:
        raise InputError(str(path), "", error.strerror or str(error), f"a {path.suffix[1:]} graph") from None
    except json.JSONDecodeError as error:
        raise InputError(str(path), f"line {error.lineno}", Phrase(error.msg), "a json graph") from None
    except Exception as error:  # networkx has no error of its own for most of what can be wrong in a file
        found = str(error) if isinstance(error, networkx.NetworkXError | ValueError | SyntaxError) else repr(error)
        raise InputError(str(path), "", found, f"a {path.suffix[1:]} graph") from None
    for a, b, edge in graph.edges(data=True):
        if unknown := sorted(set(edge) - EDGE_KEYS - NAMES):
            raise InputError(f"{path}: edge {a} - {b}", "", unknown[0], f"only {', '.join(sorted(EDGE_KEYS))}")
        edge["seconds"] = _value(edge, ("latency", "delay"), parse_duration, f"{path}: edge {a} - {b}")
    up = ("host_bandwidth_up", "up")
    sites = {node: _name(node, data) for node, data in graph.nodes(data=True) if any(key in data for key in up)}
    if len(sites) < 2:
        raise InputError(str(path), "nodes", f"{len(sites)} sites", "two nodes or more with host_bandwidth_up")
    paths: list[list[Any]] = []
    for source in sites:
        _, reached = networkx.single_source_dijkstra(graph, source, weight="seconds")
        for target in sites:
            if source != target:
                if target not in reached:
                    missing = f"no path from {sites[source]} to {sites[target]}"
                    raise InputError(str(path), "edges", missing, "a connected graph")
                paths.append(reached[target])
    described = {name: _site(graph.nodes[node], f"{path}: node {name}") for node, name in sites.items()}
    shared = _shared(graph, paths, {node: described[name] for node, name in sites.items()}, str(path))
    return {
        "name": topology_name(path),
        "source": f"imported from {path.name}",
        "sites": described,
        "links": [_link(graph, nodes, sites, shared, str(path)) for nodes in paths],
        "core": [_core_link(graph, *numbered, sites) for numbered in zip(count(1), shared, shared.values())],
    }


def is_json_graph(path: Path) -> bool:
    """Whether a JSON file has a graph in node-link form, and no topology."""
    try:
        found = json.loads(read_text(path, "a json graph"))
    except (InputError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "nodes" in found and "sites" not in found


def _node_link(data: dict[str, Any]) -> Any:
    """From `{"directed", "multigraph", "nodes": [{"id", ...}], "links" or "edges": [{"source", "target", ...}]}`."""
    import networkx

    edges = "links" if "links" in data else "edges"
    lists = [data.get("nodes"), data.get(edges)]
    if not all(isinstance(items, list) and all(isinstance(item, dict) for item in items) for items in lists):
        raise ValueError("no lists of nodes and of links")
    for name, keys in (("nodes", ("id",)), (edges, ("source", "target"))):
        for place, item in enumerate(data[name]):
            if lacking := [key for key in keys if not isinstance(item.get(key), str | int)]:
                raise ValueError(f"{name}.{place} without {lacking[0]}")
    known = {node["id"] for node in data["nodes"]}
    if strangers := [end for edge in data[edges] for end in (edge["source"], edge["target"]) if end not in known]:
        raise ValueError(f"a link of node {strangers[0]}, which is not among the nodes")
    kind = {"directed": data.get("directed") is True, "multigraph": data.get("multigraph") is True}
    return networkx.node_link_graph({**data, "graph": {}, **kind}, edges=edges)


def _shared(
    graph: Any, paths: list[list[Any]], access: dict[Any, dict[str, str]], where: str
) -> dict[tuple[Any, Any], list[list[Any]]]:
    """The edges whose rate bounds several pairs together, each in one direction, with the paths that cross it.

    An edge that carries whatever its pairs' access links do is no bottleneck.
    """
    users: dict[tuple[Any, Any], list[list[Any]]] = {}
    for nodes in paths:
        for a, b in pairwise(nodes):
            if _rate(graph, a, b, where) is not None:
                users.setdefault((a, b), []).append(nodes)
    found = {}
    for edge, crossing in users.items():
        rate = _rate(graph, *edge, where) or 0.0
        sent = sum(parse_rate(access[node]["up"]) for node in {nodes[0] for nodes in crossing})
        received = sum(parse_rate(access[node]["down"]) for node in {nodes[-1] for nodes in crossing})
        if len(crossing) > 1 and rate < min(sent, received):
            found[edge] = crossing
    return found


def _core_link(
    graph: Any, number: int, edge: tuple[Any, Any], paths: list[list[Any]], sites: dict[Any, str]
) -> dict[str, Any]:
    """number: makes the name unique, since nodes may be called alike."""
    named = "-".join(_name(node, graph.nodes[node])[:16] for node in edge)
    pairs = [[sites[nodes[0]], sites[nodes[-1]]] for nodes in paths]
    return {"name": f"{named}-{number}", "rate": f"{_rate(graph, *edge, ''):.0f} bit", "pairs": pairs}


def _rate(graph: Any, a: Any, b: Any, where: str) -> float | None:
    """Of an edge, bit/s; None for one that states none."""
    edge = _edge(graph, a, b)
    if {"bandwidth", "rate"}.isdisjoint(edge):
        return None
    return _value(edge, ("bandwidth", "rate"), parse_rate, f"{where}: edge {a} - {b}")


def _link(
    graph: Any, nodes: list[Any], sites: dict[Any, str], shared: Collection[tuple[Any, Any]], where: str
) -> dict[str, Any]:
    delay, kept, variance, rates = 0.0, 1.0, 0.0, []
    for a, b in pairwise(nodes):
        edge = _edge(graph, a, b)
        delay += edge["seconds"]
        loss = _value(edge, ("packet_loss", "loss"), parse_share, f"{where}: edge {a} - {b}", 0.0)
        kept *= 1 - loss
        variance += _value(edge, ("jitter",), parse_duration, f"{where}: edge {a} - {b}", 0.0) ** 2
        if (a, b) not in shared and (rate := _rate(graph, a, b, where)) is not None:
            rates.append(rate)
    found: dict[str, Any] = {
        "from": sites[nodes[0]],
        "to": sites[nodes[-1]],
        "delay": f"{delay * 1e6:.3f} us",
        "loss": round(1 - kept, 12),
    }
    if variance:
        found["jitter"] = {"spread": f"{variance**0.5 * 1e6:.3f} us"}
    return {**found, "rate": f"{min(rates):.0f} bit"} if rates else found


def _edge(graph: Any, a: Any, b: Any) -> dict[str, Any]:
    found = graph.get_edge_data(a, b)
    if graph.is_multigraph():
        return min(found.values(), key=lambda edge: float(edge["seconds"]))
    return dict(found)


def _site(node: dict[str, Any], where: str) -> dict[str, str]:
    sides = {"up": ("host_bandwidth_up", "up"), "down": ("host_bandwidth_down", "down")}
    return {side: f"{_value(node, keys, parse_rate, where):.0f} bit" for side, keys in sides.items()}


def _name(node: Any, data: dict[str, Any]) -> str:
    return site_name(str(data.get("label", node)))


def site_name(text: str) -> str:
    """`text` as the name of a site."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:30] or "site"


def topology_name(path: Path) -> str:
    """The name of a topology imported from `path`."""
    return re.sub(r"[^a-z0-9-]+", "-", path.stem.lower()).strip("-")[:40] or "network"


def _value(data: dict[str, Any], keys: tuple[str, ...], parse: Any, where: str, default: float | None = None) -> float:
    for key in keys:
        if key in data:
            try:
                return float(parse(data[key]))
            except ValueError as error:
                raise InputError(where, key, data[key], str(error)) from None
    if default is None:
        raise InputError(where, keys[0], "nothing", f"a value for {' or '.join(keys)}")
    return default
