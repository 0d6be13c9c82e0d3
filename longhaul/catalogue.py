"""What is shipped, in one line each: suites, topologies, scenarios, methods, models and devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from algorithms.loading import files, installed
from algorithms.method import find_class, summaries
from harness.spec.presets import find_device, find_model, presets
from netsim.documents import read_yaml
from netsim.errors import InputError
from netsim.library import Kind, names, shipped
from netsim.topology import load_topology
from netsim.units import show_size

Entry = dict[str, str | int | float]


def catalogue(kind: str) -> list[Entry]:
    """The entries of a kind, by name; every entry of a kind has the same keys.

    Raises InputError for a kind that there is not.
    """
    if kind not in _KINDS:
        raise InputError.unknown("list", "", kind, _KINDS)
    return _KINDS[kind]()


def _suites() -> list[Entry]:
    return [
        {
            "name": name,
            "methods": len(document["methods"]),
            "networks": len(document["topologies"]),
            "seeds": len(document.get("seeds", [1])),
            "description": _one_line(document),
        }
        for name, document in _documents("suites")
    ]


def _topologies() -> list[Entry]:
    return [
        {
            "name": name,
            "sites": len(topology.sites),
            "longest_rtt_ms": round(1e3 * max(topology.rtt(a.name, b.name) for a, b in topology.pairs()), 3),
            "description": " ".join(topology.description.split()),
        }
        for name in names("topologies")
        for topology in [load_topology(shipped("topologies") / f"{name}.yaml")]
    ]


def _scenarios() -> list[Entry]:
    return [
        {
            "name": name,
            "model": document["model"] if isinstance(document["model"], str) else document["model"].get("like", "own"),
            "sites": _count(document["sites"]),
            "methods": len(document["methods"]),
            "description": _one_line(document),
        }
        for name, document in _documents("scenarios")
    ]


def _methods() -> list[Entry]:
    """Ours, those of installed distributions, and the files of this folder that define one, as suites name them."""
    found: list[Entry] = [
        {"name": name, "from": "longhaul", "description": summary} for name, summary in summaries().items()
    ]
    outside = {name: entry.value for name, entry in installed().items()} | dict.fromkeys(files(Path()), "file")
    for name, home in outside.items():
        found.append({"name": name, "from": home, "description": _outside(name)})
    return found


def _outside(name: str) -> str:
    """The summary of a method from outside the package, or why it has none: one of them may not break the list."""
    try:
        return find_class(name, name).summary
    except Exception as error:
        return f"cannot be used: {error}"


def _models() -> list[Entry]:
    return [
        {"name": name, "kind": shape.kind, "parameters": shape.count(), "sequence": shape.sequence}
        for name in presets("models")
        for shape in [find_model(name, "the library")]
    ]


def _devices() -> list[Entry]:
    return [
        {
            "name": name,
            "peak_tflops": device.peak_flops / 1e12,
            "achieved_mfu": device.achieved_mfu,
            "memory": show_size(device.memory),
        }
        for name in presets("devices")
        for device in [find_device(name, "the library")]
    ]


def _count(sites: int | list[dict[str, Any]]) -> int:
    """Of a scenario's sites, all alike or group by group."""
    return sites if isinstance(sites, int) else sum(group.get("count", 1) for group in sites)


def _documents(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    return [(name, read_yaml(shipped(kind) / f"{name}.yaml")) for name in names(kind)]


def _one_line(document: dict[str, Any]) -> str:
    return " ".join(document.get("description", "").split())


_KINDS: dict[str, Callable[[], list[Entry]]] = {
    "suites": _suites,
    "topologies": _topologies,
    "scenarios": _scenarios,
    "methods": _methods,
    "models": _models,
    "devices": _devices,
}
