"""The cost of a run's faults in tokens, bytes and seconds. In the runner; pure, from logs, ledgers and steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from algorithms.catch_up import CATCH_UP
from harness.records.run_record import SiteAbsence
from netsim.errors import LonghaulError
from netsim.traffic import Plan, among

FAULTS = ("crash", "pause", "straggle", "corrupt", "short", "partition")

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FaultCost:
    """Committed and wasted tokens; retransmitted and resync bytes; detection time (from a fault until it was noticed),
    recovery time (from then until all members of the next generation continue), and return time (from a crash until the
    restarted worker is in the waiting room). absences: who was no member, from which step to which.
    """

    faults: dict[str, int]
    generations: int
    tokens_committed: int
    tokens_lost: int
    bytes_repeated: int
    bytes_caught_up: int
    detection_seconds: list[float]
    recovery_seconds: list[float]
    return_seconds: list[float]
    absences: list[SiteAbsence]


def membership_of(logs: Mapping[int, Entries], world: int) -> dict[int, tuple[int, ...]]:
    """The members of each generation that somebody became a member of."""
    found = {0: tuple(range(world))}
    for entries in logs.values():
        for entry in entries:
            if entry["kind"] == "reformed":
                found[entry["generation"]] = tuple(entry["members"])
    return found


def payload(
    plan: Plan, ledgers: Mapping[int, Entries], members: Mapping[int, tuple[int, ...]]
) -> tuple[int, int, list[str]]:
    """(bytes of the steps that count, bytes of catching up, what is wrong). A step counts the last time all members
    carried it out; each time that they did, its bytes must be the plan's for those members.
    """
    sent: defaultdict[tuple[int, int], int] = defaultdict(int)
    missing: defaultdict[tuple[int, int], Counter[str]] = defaultdict(Counter)  # members who did not finish
    caught_up = 0
    for entries in ledgers.values():
        for entry in entries:
            if entry["transfer"].startswith(CATCH_UP):
                caught_up += entry["payload_bytes"]
                continue
            key, name = (entry["generation"], entry["step"]), entry["transfer"]
            sent[key] += entry["payload_bytes"]
            if name not in missing[key]:
                missing[key][name] = entry["members"]
            missing[key][name] -= 1
    last = dict(sorted(sent))  # step by generation
    counted: dict[int, int] = {}
    wrong = []
    for (generation, step), found in sorted(sent.items()):
        try:
            planned = sum(among(transfer, members[generation]).payload_bytes for transfer in plan.at(step))
        except (LonghaulError, KeyError):
            continue
        finished = not any(missing[generation, step].values())
        if finished and found == planned:
            counted[step] = planned
        elif step != last[generation]:  # at its last step a generation may have been interrupted
            wrong.append(f"step {step} of generation {generation}: the ledger holds {found} bytes, the plan {planned}")
    return sum(counted.values()), caught_up, wrong


def seconds(logs: Mapping[int, Entries], partitions: Sequence[float] = ()) -> tuple[list[float], list[float]]:
    """(from each fault to its detection, from detection until the last member continues), by generation.

    partitions: when the network was cut, which no worker's log says.
    """
    entries = sorted((e for found in logs.values() for e in found), key=lambda e: float(e["when"]))
    own = [e["when"] for e in entries if e["kind"] in ("crash", "pause", "corrupt", "short")]
    faults = sorted([*own, *partitions])
    noticed: dict[int, float] = {}
    for entry in entries:
        if entry["kind"] == "detected":
            noticed.setdefault(entry["generation"], entry["when"])
    resumed: dict[int, float] = {}
    for entry in entries:
        if entry["kind"] == "reformed":
            resumed[entry["generation"]] = entry["when"]
    detection, recovery = [], []
    for generation, when in sorted(noticed.items()):
        after = min((g for g in resumed if g >= generation), default=None)
        if after is not None:
            recovery.append(round(resumed[after] - when, 4))
        if earlier := [fault for fault in faults if fault <= when]:
            detection.append(round(when - earlier[-1], 4))
            faults = [fault for fault in faults if fault > when]
    return detection, recovery


def returns(logs: Mapping[int, Entries]) -> list[float]:
    """Seconds from each crash until the worker was back, in the order of the returns."""
    found = []
    for entries in logs.values():
        crashed: float | None = None
        for entry in entries:
            if entry["kind"] == "crash":
                crashed = entry["when"]
            elif entry["kind"] == "back" and crashed is not None:
                found.append((entry["when"], round(entry["when"] - crashed, 4)))
                crashed = None
    return [seconds for _, seconds in sorted(found)]


def absences(logs: Mapping[int, Entries], sites: Sequence[str]) -> list[SiteAbsence]:
    """Who was no member of the run between which steps, in order; `to_step` is None for those who never came back."""
    views: dict[int, tuple[int, tuple[int, ...]]] = {}  # the step that each generation starts from, and its members
    for entries in logs.values():
        for entry in entries:
            if entry["kind"] == "reformed":
                views.setdefault(entry["generation"], (entry["step"], tuple(entry["members"])))
    found: list[SiteAbsence] = []
    outside: dict[int, int] = {}  # by rank: since which step
    for _, (step, members) in sorted(views.items()):
        for rank, site in enumerate(sites):
            if rank not in members:
                outside.setdefault(rank, step)
            elif rank in outside:
                found.append(SiteAbsence(site=site, rank=rank, from_step=outside.pop(rank), to_step=step))
    for rank, step in sorted(outside.items()):
        found.append(SiteAbsence(site=sites[rank], rank=rank, from_step=step, to_step=None))
    return found


def _gone_back_without(rank: int, logs: Mapping[int, Entries]) -> list[int]:
    """The steps to which others went back after the last that is known of `rank`."""
    last = max((e["when"] for e in logs.get(rank, ())), default=0.0)
    others = (e for other, entries in logs.items() if other != rank for e in entries)
    return [e["step"] for e in others if e["kind"] == "rolled back" and e["when"] > last]


def fault_cost(
    plan: Plan,
    logs: Mapping[int, Entries],
    ledgers: Mapping[int, Entries],
    tokens: Mapping[int, int],
    dead: Mapping[int, Entries],
    sent: int,
    sites: Sequence[str],
    partitions: Sequence[float] = (),
) -> tuple[FaultCost, list[str]]:
    """The cost, and what is wrong with the ledger.

    tokens: of the workers that ended the run; dead: the steps of those that did not; sent: payload bytes of all; sites:
    names by rank; partitions: when the network was cut, in the time of the logs.
    """
    kinds = Counter(e["kind"] for entries in logs.values() for e in entries if e["kind"] in FAULTS)
    kinds.update({"partition": len(partitions)} if partitions else {})
    lost = sum(e["tokens"] for entries in logs.values() for e in entries if e["kind"] == "tokens lost")
    committed = sum(tokens.values())
    for rank, steps in dead.items():
        if steps:
            last = min([max(s.get("committed") or 0 for s in steps), *_gone_back_without(rank, logs)])
            kept = max((s["tokens"] for s in steps if s["step"] <= last), default=0)
            committed += kept
            lost += steps[-1]["tokens"] - kept
    absent = absences(logs, sites)
    members = membership_of(logs, plan.sites)
    counted, caught_up, wrong = payload(plan, ledgers, members)
    detection, recovery = seconds(logs, partitions)
    found = FaultCost(
        faults=dict(kinds),
        generations=len(members),
        tokens_committed=committed,
        tokens_lost=lost,
        bytes_repeated=sent - counted - caught_up,
        bytes_caught_up=caught_up,
        detection_seconds=detection,
        recovery_seconds=recovery,
        return_seconds=returns(logs),
        absences=absent,
    )
    return found, wrong
