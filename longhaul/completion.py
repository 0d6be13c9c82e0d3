"""What the shell proposes for an argument that may be a name of the library; files it proposes by itself."""

from __future__ import annotations

from netsim.library import Kind, names


def suites(incomplete: str) -> list[str]:
    """Names of suites that begin with `incomplete`."""
    return _beginning("suites", incomplete)


def scenarios(incomplete: str) -> list[str]:
    """Names of scenarios that begin with `incomplete`."""
    return _beginning("scenarios", incomplete)


def topologies(incomplete: str) -> list[str]:
    """Names of topologies that begin with `incomplete`."""
    return _beginning("topologies", incomplete)


def kinds(incomplete: str) -> list[str]:
    """What `longhaul list` lists that begins with `incomplete`."""
    every = ("devices", "methods", "models", "scenarios", "suites", "topologies")
    return [kind for kind in every if kind.startswith(incomplete)]


def _beginning(kind: Kind, incomplete: str) -> list[str]:
    return [name for name in names(kind) if name.startswith(incomplete)]
