"""Runs inside the guest: builds each network of /out/networks.json by the real agents and writes what it measured.

Only the standard library is there, so the plans come compiled and the judgement is made outside.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netsim.emulated.agent_client import AgentClient, AgentListener, wait
from netsim.emulated.node.probes import Stream, pace_of
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
    reception = AgentListener(runtime / "control", [plan.site for plan in plans])
    nodes = [
        AgentSpec(number, plan.site, runtime / "control", reception.token, Path(f"/tmp/{case['name']}-{plan.site}.log"))
        for number, plan in enumerate(plans)
    ]
    base = NetnsNodes()
    base.start(NetworkRequest("guest", owner, runtime, nodes, plans[0].mtu, {}))
    try:
        links = reception.admit(PATIENCE, base.alive)
        shaped = tell(links, "shape", case["plans"], pin=True)
        found = {
            "faults": [fault for answer in shaped for fault in answer["faults"]],
            "facts": links[0].call("facts", timeout=PATIENCE),
            **probe(case, plans, links),
        }
        if "after" in case:
            tell(links, "reshape", case["after"])
            found["after"] = probe(case, plans, links)
            found["faults"] += links[0].call("health", timeout=PATIENCE)["faults"]
        return found
    finally:
        base.close()
        reception.close()
        shutil.rmtree(runtime)


def tell(links: list[AgentClient], do: str, plans: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    return wait([link.ask(do, plan=plan, **more) for link, plan in zip(links, plans, strict=True)], PATIENCE)


def probe(case: dict[str, Any], plans: list[NodePlan], links: list[AgentClient]) -> dict[str, Any]:
    source, target = plans[0].address, plans[1].address
    mtu, seconds = plans[0].mtu, case["seconds"]
    often = {"count": case["echoes"], "interval": case["interval"], "patience": 1.0}
    found: dict[str, Any] = links[0].call("echo", timeout=PATIENCE, targets=[target], **often)
    found["echoes"] = found["echoes"][0]
    batch = max(1, min(40, int(case["rate"] * 0.002 / 8 / datagram(mtu))))
    room = max(2, batch) * (mtu + ETHERNET)
    pace = pace_of(case["rate"], plans[0].peers[0].queue, seconds, mtu) if plans[0].engine == "netem" else None
    streams = [Stream(1, "udp", source, target, seconds, datagram(mtu), batch, room, pace)]
    if case["tcp"]:
        streams.append(Stream(2, "tcp", source, target, seconds + 0.5, segment(mtu), streams=2))
    for stream in streams:
        sent = links[0].call("stream", timeout=PATIENCE, stream=asdict(stream))
        time.sleep(1.0)  # idle time costs nothing here
        received = links[1].call("received", timeout=PATIENCE, stream=stream.number, over=0.7 * seconds, finish=True)
        found[stream.kind] = {**sent, **received}
    return found


def main() -> None:
    results = {}
    for case in json.loads((OUT / "networks.json").read_text()):
        print(f"measuring {case['name']}", file=sys.stderr, flush=True)
        results[case["name"]] = measure(case)
        (OUT / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
