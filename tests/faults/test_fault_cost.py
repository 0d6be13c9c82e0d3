"""What faults cost, counted from logs and ledgers."""

from __future__ import annotations

from typing import Any

from harness.run.fault_cost import fault_cost, membership_of, payload, seconds
from netsim.traffic import Plan, Recurrence, Transfer

EVERYONE = Transfer("delta", 100, (0, 1, 2))  # 400 bytes encoded: 1600 among three, 800 between two
PLAN = Plan(3, 8, (Recurrence((EVERYONE,), 4, 4, 8),))


def line(generation: int, step: int, sent: int, members: int, name: str = "delta") -> dict[str, Any]:
    return {
        "generation": generation,
        "step": step,
        "transfer": name,
        "phase": 0,
        "members": members,
        "payload_bytes": sent,
    }


def entry(when: float, kind: str, **facts: Any) -> dict[str, Any]:
    return {"when": when, "kind": kind, **facts}


DIARIES = {
    0: [entry(11.0, "detected", generation=1), entry(12.0, "reformed", generation=1, step=4, members=[0, 1])],
    1: [
        entry(11.5, "detected", generation=1),
        entry(12.0, "tokens lost", tokens=64),
        entry(12.5, "reformed", generation=1, step=4, members=[0, 1]),
    ],
    2: [entry(10.0, "crash", fault=0, step=6)],
}
LEDGERS = {
    0: [line(0, 4, 534, 3), line(1, 8, 400, 2)],
    1: [line(0, 4, 533, 3), line(1, 8, 400, 2)],
    2: [line(0, 4, 533, 3)],
}
MEMBERS = {0: (0, 1, 2), 1: (0, 1)}


def test_a_generations_members_are_what_its_members_agree() -> None:
    """The members of a generation are those that its members say."""
    assert membership_of(DIARIES, 3) == MEMBERS


def test_bytes_equal_the_plan_for_those_who_were_there() -> None:
    assert payload(PLAN, LEDGERS, MEMBERS) == (1600 + 800, 0, [])


def test_missing_bytes_are_wrong_unless_a_worker_was_lost() -> None:
    """A step that lacks bytes is wrong unless somebody was lost in it."""
    short = {**LEDGERS, 0: [line(0, 4, 500, 3), line(0, 6, 1, 3), line(1, 8, 400, 2)]}
    _, _, wrong = payload(PLAN, short, MEMBERS)
    assert len(wrong) == 1
    assert "step 4 of generation 0: the ledger holds 1566 bytes, the plan 1600" in wrong[0]
    interrupted = {**LEDGERS, 0: [line(0, 4, 534, 3), line(0, 8, 200, 3), line(1, 8, 400, 2)]}
    assert payload(PLAN, interrupted, MEMBERS) == (2400, 0, [])


def test_catching_up_is_counted_apart() -> None:
    caught = {**LEDGERS, 0: [*LEDGERS[0], line(1, 8, 4000, 2, "catch_up/0")]}
    assert payload(PLAN, caught, MEMBERS) == (2400, 4000, [])


def test_detection_ends_at_the_first_and_recovery_at_the_last() -> None:
    """Detection runs to the first who noticed and recovery to the last who went on."""
    assert seconds(DIARIES) == ([1.0], [1.5])


def test_a_partition_is_detected_like_any_other_fault() -> None:
    """The network's cut is in no worker's log; the runner says when it was."""
    logs = {rank: [entry for entry in entries if entry["kind"] != "crash"] for rank, entries in DIARIES.items()}
    assert seconds(logs)[0] == []
    noticed = min(entry["when"] for entries in logs.values() for entry in entries if entry["kind"] == "detected")
    assert seconds(logs, [noticed - 2.5])[0] == [2.5]


def test_the_cost_adds_up() -> None:
    dead = {2: [{"step": s, "tokens": 32 * s, "committed": 4 if s >= 4 else 0} for s in range(1, 6)]}
    found, wrong = fault_cost(PLAN, DIARIES, LEDGERS, {0: 256, 1: 256}, dead, sent=2500, sites="abc")
    assert wrong == []
    assert found.faults == {"crash": 1}
    assert found.generations == 2
    assert found.tokens_committed == 256 + 256 + 128
    assert found.tokens_lost == 64 + 32
    assert found.bytes_repeated == 100
    assert [(a.site, a.from_step, a.to_step) for a in found.absences] == [("c", 4, None)]


def test_steps_after_the_rollback_point_are_wasted() -> None:
    """Steps of a lost worker that the others have gone back behind are lost."""
    dead = {2: [{"step": s, "tokens": 32 * s, "committed": s} for s in range(1, 6)]}
    before = entry(9.0, "rolled back", step=1)  # and then made again, by the worker that is lost now, too
    after = {**DIARIES, 0: [before, *DIARIES[0][:1], entry(11.9, "rolled back", step=4), *DIARIES[0][1:]]}
    found, _ = fault_cost(PLAN, after, LEDGERS, {0: 256, 1: 256}, dead, sent=2500, sites="abc")
    assert (found.tokens_committed, found.tokens_lost) == (256 + 256 + 4 * 32, 64 + 32)
