"""Who takes part in a generation, and from what it starts: decided from reports alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.elastic.decision import decide
from harness.elastic.rendezvous import suspects_of
from harness.elastic.views import Report, View
from netsim.errors import PeerError

FOUR = View(generation=3, members=(0, 1, 2, 3), source=0)


def reports(**changes: Mapping[str, object]) -> dict[int, Report]:
    """All four have done step 12 and committed step 8, but for the changes, by `r0`, `r1`, ..."""
    found = {}
    for rank in range(4):
        fields = {"rank": rank, "step": 12, "committed": 8, "checkpoints": (4, 8), **changes.get(f"r{rank}", {})}
        found[rank] = Report.model_validate(fields)
    return found


def without(rank: int, found: dict[int, Report]) -> dict[int, Report]:
    return {other: report for other, report in found.items() if other != rank}


def anyone(members: tuple[int, ...]) -> bool:
    return bool(members)


def test_survivors_make_the_interrupted_step_anew() -> None:
    decision = decide(FOUR, without(2, reports()), {}, "redo", anyone)
    assert decision == View(generation=4, members=(0, 1, 3), source=0, step=12, max_step=12, committed=8, lost=(2,))


def test_members_learn_the_highest_step_reached() -> None:
    """Members learn how far the furthest is so that nobody waits for it at a step that it has done."""
    for after_loss, max_step in (("redo", 15), ("resync", 12), ("rollback", 8)):
        decision = decide(FOUR, without(2, reports(r3={"step": 15})), {}, after_loss, anyone)
        assert decision is not None
        assert decision.max_step == max_step


def test_who_missed_a_synchronisation_takes_over_from_who_has_it() -> None:
    decision = decide(FOUR, without(2, reports(r1={"committed": 12}, r3={"committed": 12})), {}, "redo", anyone)
    assert decision is not None
    assert (decision.source, decision.lagging, decision.committed) == (1, (0,), 12)


def test_a_newcomer_takes_over_and_nobody_goes_back_for_it() -> None:
    before = View(generation=3, members=(0, 1, 3), source=0)
    newcomer = {2: Report(rank=2, step=0, committed=-1)}
    for after_loss in ("redo", "resync", "rollback"):
        decision = decide(before, without(2, reports()), newcomer, after_loss, anyone)
        assert decision is not None
        assert (decision.members, decision.lagging, decision.rollback) == ((0, 1, 2, 3), (2,), None)


def test_rollback_goes_to_the_last_step_that_all_can_restore() -> None:
    """A method that needs everyone goes back to the last step that all can restore."""
    decision = decide(FOUR, without(2, reports(r3={"checkpoints": (0, 4)})), {}, "rollback", anyone)
    assert decision is not None
    assert (decision.rollback, decision.step, decision.committed) == (4, 4, 4)


def test_workers_that_lost_a_fragment_all_take_over_one_state() -> None:
    decision = decide(FOUR, without(2, reports()), {}, "resync", anyone)
    assert decision is not None
    assert (decision.source, decision.lagging) == (0, (1, 3))


def test_required_sites_are_awaited_and_all_roll_back() -> None:
    """Those who are needed are waited for and then all go back."""

    def with_the_first(members: tuple[int, ...]) -> bool:
        return 0 in members

    left = without(0, reports())
    assert decide(FOUR, left, {}, "redo", with_the_first) is None
    back = {0: Report(rank=0, step=0, committed=-1, checkpoints=(4, 8))}
    decision = decide(FOUR, left, back, "redo", with_the_first)
    assert decision is not None
    assert (decision.members, decision.rollback, decision.lagging) == ((0, 1, 2, 3), 8, ())


@pytest.mark.parametrize(
    ("suspects", "stay"),
    [
        ({"r0": (3,), "r1": (3,), "r2": (3,)}, (0, 1, 2)),
        ({"r3": (0, 1, 2)}, (0, 1, 2)),
        ({"r0": (2, 3), "r1": (2, 3), "r2": (0, 1), "r3": (0, 1)}, (0, 1)),
        ({"r0": (1,)}, (0, 2, 3)),
        ({}, (0, 1, 2, 3)),
    ],
)
def test_the_largest_group_that_can_reach_itself_stays(
    suspects: dict[str, tuple[int, ...]], stay: tuple[int, ...]
) -> None:
    found = reports(**{name: {"suspects": ranks} for name, ranks in suspects.items()})
    decision = decide(FOUR, found, {}, "redo", anyone)
    assert decision is not None
    assert decision.members == stay
    assert set(decision.lost) == set(range(4)) - set(stay)


def test_evidence_of_corruption_outweighs_a_closed_connection() -> None:
    """The culprit saw its victim hang up; both exclude each other, and the victim has the evidence."""
    for culprit, victim in ((0, 1), (3, 0)):
        found = reports(
            **{f"r{culprit}": {"suspects": (victim,)}, f"r{victim}": {"suspects": (culprit,), "evidence": (culprit,)}}
        )
        decision = decide(FOUR, found, {}, "redo", anyone)
        assert decision is not None
        assert decision.lost == (culprit,)


def test_members_who_reach_each_other_again_stay_together() -> None:
    """A partition that heals while the decision waits for somebody who is needed."""

    def everyone(members: tuple[int, ...]) -> bool:
        return len(members) == 4

    cut = {
        "r0": {"suspects": (2, 3)},
        "r1": {"suspects": (2, 3)},
        "r2": {"suspects": (0, 1)},
        "r3": {"suspects": (0, 1)},
    }
    assert decide(FOUR, reports(**cut), {}, "redo", everyone) is None
    healed = {name: {**changes, "healed": changes["suspects"]} for name, changes in cut.items()}
    decision = decide(FOUR, reports(**healed), {}, "redo", everyone)
    assert decision is not None
    assert decision.members == (0, 1, 2, 3)


def test_who_leaves_for_a_rendezvous_is_not_suspected() -> None:
    hung_up = PeerError("rank 2 (10.0.0.3) closed its connection", (2,), hung_up=True)
    assert suspects_of(hung_up, called=False) == (2,)
    assert suspects_of(hung_up, called=True) == ()
    assert suspects_of(PeerError("rank 2 (10.0.0.3) has left"), called=False) == ()
    silent = PeerError("rank 3 (10.0.0.4) and rank 1 (10.0.0.2) did not answer within 3 s", (3, 1))
    assert suspects_of(silent, called=True) == (1, 3)
    corrupt = PeerError("rank 2 ended in the middle of a frame", (2,), hung_up=True, corrupt=True)
    assert suspects_of(corrupt, called=True) == (2,)
    assert suspects_of(None, called=False) == ()
