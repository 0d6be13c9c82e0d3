"""When a lost worker is let in again: at a step of the paced clock, so that it is no race. Pure.

A site that returns after so many seconds is let in at the first synchronisation that many seconds' worth of steps
later, however long its program and the network take in real time. Without a paced clock (`compute.mode: native`), and
for what the timeline does to sites at a second, there is no such step: those are let in when they ask for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.spec.run_spec import RunSpec
from netsim.timeline import Timeline
from netsim.traffic import Plan


@dataclass(frozen=True)
class Absence:
    """Why a worker is outside, as far as the suite declares it.

    kind: of the fault; at: the local step at which it was injected. step: from which the worker is let in again; None:
    never. seconds: for how long it is away at least, where the others cannot go on without it.
    """

    kind: str
    at: int
    step: int | None
    seconds: float = 0.0


def absence(spec: RunSpec, plan: Plan, rank: int, since: int, noticed: int) -> Absence | None:
    """The declared fault for which `rank`, a member since step `since`, was missed at step `noticed`.

    None where no fault explains it, or where steps have no declared length. A crash explains everything after it; of
    pauses and corrupt payloads the last one does.
    """
    length, site = spec.compute.step_seconds, list(spec.topology["sites"])[rank]
    if length is None:
        return None
    last = next((s for s in range(max(noticed, 1), plan.steps + 1) if _takes_part(plan, rank, s)), plan.steps)
    found: Absence | None = None
    for step in range(since + 1, last + 1):
        for index, fault in enumerate(spec.faults):
            if fault.kind == "straggle" or not fault.happens(index, spec.seed, site, step):
                continue
            if fault.kind == "crash":
                if fault.back_after is None:
                    return Absence("crash", step, None)
                return Absence("crash", step, step + steps_in(fault.back_after, length), fault.back_after)
            if step <= noticed:
                lasts = fault.lasts or 0.0
                found = Absence(fault.kind, step, max(noticed, step + steps_in(lasts, length)), lasts)
    return found


def declared_absence(spec: RunSpec, timeline: Timeline, rank: int) -> float | None:
    """For how many seconds at most the site of `rank` is declared to be away before it returns; None if it never is.

    timeline: of the topology; of its events, seconds from the run's start, which is at least as long.
    """
    site = spec.sites[rank]
    own = (fault for fault in spec.faults if fault.site in (None, site))
    lengths = [length for fault in own for length in (fault.back_after, fault.lasts) if length is not None]
    back = [event.at for event in timeline.site_events() if event.site == site and event.kind in ("restart", "resume")]
    return max([*lengths, *back], default=None)


def _takes_part(plan: Plan, rank: int, step: int) -> bool:
    return any(rank in transfer.members for transfer in plan.at(step))


def steps_in(seconds: float, length: float) -> int:
    """How many paced steps of `length` seconds begin within `seconds`."""
    return math.ceil(seconds / length - 1e-9)


def lets_in(plan: Plan, step: int) -> bool:
    """Whether workers may be let in after `step`: everyone has just synchronised, or could have."""
    return bool(plan.at(step))
