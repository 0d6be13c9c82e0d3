"""Importing GML and GraphML: links among sites become the shortest paths between them.

Edges carry `latency` (or `delay`) and may carry `bandwidth` (or `rate`), `packet_loss` (or `loss`) and `jitter`, a
standard deviation; anything else on an edge but a name is refused. Nodes may carry `host_bandwidth_up` and
`host_bandwidth_down` (or `up` and `down`), which is the form of the shadow simulator's graphs.
The nodes that have access rates are the sites; the others only forward. The path of least latency is taken; its rate is
that of its narrowest edge, a packet survives it if it survives every edge, and the variances of its jitters add up.

A topology has no links that pairs share but the access links: pairs whose paths share an edge each get its whole rate.
The document's description names such edges.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from netsim.errors import InputError
from netsim.units import parse_duration, parse_rate, parse_share

SUFFIXES = (".gml", ".graphml")
EDGE_KEYS = {"latency", "delay", "bandwidth", "rate", "packet_loss", "loss", "jitter"}
NAMES = {"label", "id", "name", "key"}  # an edge's own, which say nothing of it


def read_graph(path: Path) -> dict[str, Any]:
    """The graph in `path` as a topology document that stands alone."""
    import networkx  # takes half a second, and only imports need it

    try:
        graph = networkx.read_graphml(path) if path.suffix == ".graphml" else networkx.read_gml(path, label="id")
    except OSError as error:
        raise InputError(str(path), "", error.strerror or str(error), f"a {path.suffix[1:]} graph") from None
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
    links = []
    users: Counter[tuple[str, str]] = Counter()
    for source in sites:
        _, paths = networkx.single_source_dijkstra(graph, source, weight="seconds")
        for target in sites:
            if source != target:
                if target not in paths:
                    found = f"no path from {sites[source]} to {sites[target]}"
                    raise InputError(str(path), "edges", found, "a connected graph")
                links.append(_link(graph, paths[target], sites, str(path)))
                users.update((str(a), str(b)) for a, b in pairwise(paths[target]) if _capped(graph, a, b))
    shared = [f"{a} - {b} ({pairs} pairs)" for (a, b), pairs in users.items() if pairs > 1]
    caveat = f"Each pair gets the whole rate of the edges that it shares with others: {', '.join(shared)}."
    return {
        "description": caveat if shared else "",
        "name": re.sub(r"[^a-z0-9-]+", "-", path.stem.lower()).strip("-")[:40] or "graph",
        "source": f"imported from {path.name}",
        "sites": {name: _site(graph.nodes[node], f"{path}: node {name}") for node, name in sites.items()},
        "links": links,
    }


def _capped(graph: Any, a: Any, b: Any) -> bool:
    return not {"bandwidth", "rate"}.isdisjoint(_edge(graph, a, b))


def _link(graph: Any, nodes: list[Any], sites: dict[Any, str], where: str) -> dict[str, Any]:
    delay, kept, variance, rates = 0.0, 1.0, 0.0, []
    for a, b in pairwise(nodes):
        edge = _edge(graph, a, b)
        delay += edge["seconds"]
        loss = _value(edge, ("packet_loss", "loss"), parse_share, f"{where}: edge {a} - {b}", 0.0)
        kept *= 1 - loss
        variance += _value(edge, ("jitter",), parse_duration, f"{where}: edge {a} - {b}", 0.0) ** 2
        if any(key in edge for key in ("bandwidth", "rate")):
            rates.append(_value(edge, ("bandwidth", "rate"), parse_rate, f"{where}: edge {a} - {b}"))
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
    text = str(data.get("label", node))
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:30] or "site"


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


PACKET = 1504  # bytes that mahimahi lets pass at each opportunity: 1500 and its own header
EMPTY_RATE = 8_000.0  # bit/s: a stretch of a trace without any packet; shapers have no zero
_MILLISECONDS = re.compile("[0-9]{1,12}")


def read_mahimahi(path: Path, every: float) -> tuple[list[float], float]:
    """Mean rates of a trace's stretches, bit/s, and the length of a stretch, seconds: about `every`.

    The trace repeats after its last line's time, so the stretches divide that period evenly, and the mean of their
    rates is the trace's. A trace shorter than one and a half stretches has one rate. A stretch without any packet has
    `EMPTY_RATE`, which the others give up.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), "", getattr(error, "strerror", "not text"), "a readable trace") from None
    times: list[int] = []
    for number, line in enumerate(lines, start=1):
        if line and (not _MILLISECONDS.fullmatch(line) or (times and int(line) < times[-1])):
            raise InputError(str(path), f"line {number}", line[:40], "milliseconds, not less than in the line before")
        if line:
            times.append(int(line))
    if not times or times[-1] == 0:
        raise InputError(str(path), "", "no time above zero", "at least one line with a time above zero")
    period = times[-1]  # ms
    stretches = max(1, round(period / 1000 / every))
    step = period / 1000 / stretches
    counts = [0] * stretches
    for time in times:  # the packet of millisecond t passes in (t - 1, t]
        counts[max(0, (time * stretches - 1) // period)] += 1
    rates = [count * PACKET * 8 / step for count in counts]
    if stretches == 1:
        return rates, max(step, every)
    total, given = sum(rates), EMPTY_RATE * counts.count(0)
    if given >= total:
        return [total / stretches] * stretches, step
    return [rate * (1 - given / total) if rate else EMPTY_RATE for rate in rates], step
