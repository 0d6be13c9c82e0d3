"""The networks that the guest measures for the netem tests: every link feature by one engine or both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from netsim.emulated.compile import compile_topology, node_names
from netsim.emulated.link_check import FULL_BUDGET, LinkChecker
from netsim.emulated.plan import NodePlan
from netsim.emulated.substrates.netns_nodes import NetnsNodes
from netsim.topology import Topology, topology_from

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


def plans_of(topology: Topology, engine: str) -> list[NodePlan]:
    addresses = {name: NetnsNodes().address(index) for index, name in enumerate(node_names(topology))}
    return compile_topology(topology, addresses, engine, 1)


def case(name: str, engine: str, topology: Topology, **more: Any) -> dict[str, Any]:
    plans = plans_of(topology, engine)
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


CHANGED = "netem-changed"  # whose links change while it stands


def networks() -> list[dict[str, Any]]:
    """All of them, compiled for `tests.qemu.guest`."""
    cases = [case(name, name.split("-")[0], topology) for name, topology in TOPOLOGIES.items()]
    after = plans_of(network("netem", {"delay": "60 ms", "loss": 0.05}), "netem")
    before = case(CHANGED, "netem", network("netem", {"delay": "25 ms"}), after=[plan.to_json() for plan in after])
    return [*cases, before]
