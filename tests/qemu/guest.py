"""Runs inside the guest: builds each network of /out/networks.json by the real agents and writes what it measured.

Only the standard library is there, so the plans come compiled and the judgement is made outside.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from netsim.emulated.agent_client import AgentClient, AgentListener, wait
from netsim.emulated.load_probe import probe_under_load
from netsim.emulated.node.probes import ProbeStream
from netsim.emulated.node.requests import (
    CheckHealth,
    Echo,
    ReadFacts,
    ReadStream,
    Reshape,
    SendStream,
    Shape,
)
from netsim.emulated.owner import Owner, make_runtime
from netsim.emulated.plan import NodePlan
from netsim.emulated.substrates.launch import AgentSpec, NetworkRequest
from netsim.emulated.substrates.netns_nodes import NetnsNodes
from netsim.framing import ETHERNET, datagram, segment

OUT = Path("/out")
PATIENCE = 600.0  # everything is slow here, by the guest's clock too


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One network: echoes, a stream of datagrams and one of TCP from the first site to the second, and its state."""
    plans = [NodePlan.from_json(plan) for plan in case["plans"]]
    owner = Owner.this()
    runtime = make_runtime("guest", owner)
    listener = AgentListener(runtime / "control", [plan.site for plan in plans])
    nodes = [
        AgentSpec(number, plan.site, runtime / "control", listener.token, Path(f"/tmp/{case['name']}-{plan.site}.log"))
        for number, plan in enumerate(plans)
    ]
    base = NetnsNodes()
    base.start(NetworkRequest("guest", owner, runtime, nodes, plans[0].mtu, {}))
    try:
        links = listener.accept_all(PATIENCE, base.alive)
        shaped = wait([link.request(Shape(plan, pin=True)) for link, plan in zip(links, plans, strict=True)], PATIENCE)
        found = {
            "mismatches": [mismatch for answer in shaped for mismatch in answer.mismatches],
            "facts": links[0].call(ReadFacts(), PATIENCE).to_json(),
            **probe(case, plans, links),
        }
        if "after" in case:
            after = [NodePlan.from_json(plan) for plan in case["after"]]
            wait([link.request(Reshape(plan)) for link, plan in zip(links, after, strict=True)], PATIENCE)
            found["after"] = probe(case, plans, links)
            found["mismatches"] += links[0].call(CheckHealth(), PATIENCE).mismatches
        return found
    finally:
        base.close()
        listener.close()
        shutil.rmtree(runtime, ignore_errors=True)  # the switch removes it too


def probe(case: dict[str, Any], plans: list[NodePlan], links: list[AgentClient]) -> dict[str, Any]:
    source, target = plans[0].address, plans[1].address
    mtu, seconds = plans[0].mtu, case["seconds"]
    echo = Echo((target,), case["echoes"], case["interval"], patience=1.0)
    found: dict[str, Any] = {"echoes": links[0].call(echo, PATIENCE).echoes[0]}
    batch = max(1, min(40, int(case["rate"] * 0.002 / 8 / datagram(mtu))))
    room = max(2, batch) * (mtu + ETHERNET)
    streams = [ProbeStream(1, "udp", source, target, seconds, datagram(mtu), batch, room)]
    if case["tcp"]:
        streams.append(ProbeStream(2, "tcp", source, target, seconds + 0.5, segment(mtu), streams=2))
    for stream in streams:
        sent = links[0].call(SendStream(stream), PATIENCE)
        time.sleep(1.0)  # idle time costs nothing here
        received = links[1].call(ReadStream(stream.number, 0.7 * seconds, finish=True), PATIENCE)
        found[stream.kind] = {**sent.to_json(), **received.to_json()}
    if "gate" in case:
        stream = ProbeStream(**case["gate"]["stream"])
        sent = links[0].call(SendStream(stream), PATIENCE)
        time.sleep(1.0)
        received = links[1].call(ReadStream(stream.number, case["gate"]["window"], finish=True), PATIENCE)
        found["gate"] = {**sent.to_json(), **received.to_json()}
    if "loads" in case:
        flood = Path(f"/tmp/{case['name']}-flood.log")
        ends, seconds = (plans[:2], links[:2]), case["load_seconds"]
        found["loaded"] = {
            load: probe_under_load(load, *ends, case["rate"], seconds, flood, PATIENCE).to_json()
            for load in case["loads"]
        }
    return found


def main() -> None:
    results = {}
    for case in json.loads((OUT / "networks.json").read_text()):
        print(f"measuring {case['name']}", file=sys.stderr, flush=True)
        results[case["name"]] = measure(case)
        (OUT / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
