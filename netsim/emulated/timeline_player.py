"""Plays a timeline on a running network: changes links, sends cross-traffic, pauses and kills programs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from netsim.emulated.agent_client import AgentClient, wait
from netsim.emulated.node.requests import ReadCrossBytes, Reshape, SendTraffic, SignalAllPrograms, StopTraffic
from netsim.emulated.plan import NodePlan
from netsim.errors import LonghaulError
from netsim.states import states
from netsim.timeline import CrossTraffic, WorkerEvent
from netsim.topology import Topology

_SIGNALS = {"pause": signal.SIGSTOP, "resume": signal.SIGCONT, "crash": signal.SIGKILL}

STARTS = 0.1  # seconds, at most, in which the process that sends it starts
CROWDED = 0.95  # of the cross-traffic that is due: with less, it was not what the timeline says

_Kind = Literal["links", "traffic", "pause", "resume", "crash", "restart"]


@dataclass(frozen=True)
class Played:
    """One thing that was done: when it was due and when it was done, seconds from the start of the timeline."""

    due: float
    done: float
    kind: _Kind
    detail: str


class TimelinePlayer:
    """Runs in a thread of its own until `stop`, or until everything has happened."""

    def __init__(
        self,
        topology: Topology,
        links: Mapping[str, AgentClient],
        compile_state: Callable[[Topology], Mapping[str, NodePlan]],
        on_site_event: Callable[[WorkerEvent], None] | None,
    ) -> None:
        self._topology, self._links, self._compile = topology, links, compile_state
        self._on_site_event = on_site_event
        self._in_force = dict(compile_state(topology))
        self._base = dict(self._in_force)
        self._stopped = threading.Event()
        self._begin = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True, name="timeline")
        self._sources = sorted({flow.source for flow in topology.timeline.cross_traffic()})
        self._sent: dict[str, int] = {}  # bytes of cross-traffic before
        self._flows: list[tuple[CrossTraffic, float]] = []  # with when each began, monotonic
        self.played: list[Played] = []
        self.crowded: list[str] = []  # where cross-traffic found no room, known at the end
        self.error: LonghaulError | None = None

    def start(self, begin: float | None = None) -> None:
        """begin: the timeline's zero on the monotonic clock; now unless given."""
        self._begin = time.monotonic() if begin is None else begin
        self._sent = self._cross_bytes()
        self._thread.start()

    def stop(self, restore: bool = True) -> None:
        """Ends playing. restore: end what is sent across, and put the links back to what they were at the start."""
        self._stopped.set()
        self._thread.join()
        if restore and self.error is None and any(not link.ended for link in self._links.values()):
            ended = time.monotonic()
            wait([self._links[site].request(StopTraffic()) for site in self._sources])
            self.crowded = self._crowded(ended)
            self._reshape(self._base)

    def _cross_bytes(self) -> dict[str, int]:
        answers = wait([self._links[site].request(ReadCrossBytes()) for site in self._sources])
        return {site: answer.bytes for site, answer in zip(self._sources, answers, strict=True)}

    def _crowded(self, ended: float) -> list[str]:
        """Sites whose uplink had no room for their cross-traffic: it has its pair's share of it, and no more."""
        found = []
        for site, after in self._cross_bytes().items():
            flows = [(flow, begun) for flow, begun in self._flows if flow.source == site]
            seconds = [
                (flow.rate, min(flow.end - flow.start, max(0.0, ended - begun - STARTS))) for flow, begun in flows
            ]
            due = sum(rate / 8 * length for rate, length in seconds)
            if due and (share := (after - self._sent[site]) / due) < CROWDED:
                found.append(f"{site}: {100 * share:.0f} % of the cross-traffic that was due; the rest found no room")
        return found

    def _run(self) -> None:
        try:
            for due, work in self._schedule():
                if self._stopped.wait(max(0.0, self._begin + due - time.monotonic())):
                    return
                kind, detail = work()
                self.played.append(Played(due, time.monotonic() - self._begin, kind, detail))
        except LonghaulError as error:
            self.error = error
        except Exception as error:  # a thread must not end without its caller learning of it
            self.error = LonghaulError(f"{type(error).__name__}: {error}")
            self.error.__cause__ = error

    def _schedule(self) -> list[tuple[float, Callable[[], tuple[_Kind, str]]]]:
        timeline = self._topology.timeline
        found: list[tuple[float, Callable[[], tuple[_Kind, str]]]] = [
            *((due, partial(self._links_become, state)) for due, state in states(self._topology)),
            *((flow.start, partial(self._send, flow)) for flow in timeline.cross_traffic()),
            *((incident.at, partial(self._happen, incident)) for incident in timeline.site_events()),
        ]
        return sorted(found, key=lambda one: one[0])

    def _links_become(self, state: Topology) -> tuple[_Kind, str]:
        return "links", ", ".join(self._reshape(self._compile(state)))

    def _reshape(self, plans: Mapping[str, NodePlan]) -> list[str]:
        """Sends their new plan to the sites whose plan has changed, and returns their names."""
        changed = [site for site, plan in plans.items() if plan != self._in_force[site]]
        wait([self._links[site].request(Reshape(plans[site])) for site in changed])
        self._in_force.update(plans)
        return changed

    def _send(self, flow: CrossTraffic) -> tuple[_Kind, str]:
        seconds, mtu = flow.end - flow.start, self._topology.transport.mtu
        request = SendTraffic(self._in_force[flow.target].address, flow.rate, seconds, mtu)
        self._links[flow.source].request(request)
        self._flows.append((flow, time.monotonic()))
        return "traffic", f"{flow.source} -> {flow.target}"

    def _happen(self, incident: WorkerEvent) -> tuple[_Kind, str]:
        if incident.kind in _SIGNALS:
            self._links[incident.site].call(SignalAllPrograms(int(_SIGNALS[incident.kind])))
        if self._on_site_event is not None:
            self._on_site_event(incident)
        return incident.kind, incident.site
