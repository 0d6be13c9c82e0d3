"""What faults is expected to cost, on plans that can be reckoned by hand: steps take a second, exchanges none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from algorithms.catch_up import to_those_behind
from harness.costmodel.fault_model import PredictedFaultCost, simulate_faults
from harness.costmodel.fault_terms import FaultEvent, FaultModelInputs, first_hand, touches
from netsim.traffic import Algorithm, Collective, Plan, Recurrence, Transfer

EVERYONE = Transfer("delta", 100, (0, 1, 2))  # 400 bytes encoded: 1600 among three, 800 between two


def plan(every: int, steps: int = 12, **changes: Any) -> Plan:
    return Plan(3, steps, (Recurrence((replace(EVERYONE, **changes),), every, every, steps),))


def toll(*events: FaultEvent, **changes: Any) -> PredictedFaultCost:
    """Of 3 sites that synchronise every 4 of 12 steps of 10 tokens."""
    terms = FaultModelInputs(
        plan=plan(4),
        after_loss="redo",
        survives=bool,
        catch_up=lambda root, behind, present: [to_those_behind("catch_up", 100, root, behind)],
        algorithm=lambda transfer: Algorithm.DIRECT,
        exposed=lambda transfers, cold: 0.0,
        step_seconds=1.0,
        tokens_per_step=10,
        evaluate_every=12,
        timeout=30.0,
    )
    return simulate_faults(replace(terms, **changes), events)


def test_without_misfortune_there_is_nothing_to_pay() -> None:
    assert toll() == PredictedFaultCost(1, 0, 0, 0, (), (), 12.0)


def test_a_crash_is_noticed_at_the_next_synchronisation_which_is_made_anew() -> None:
    found = toll(FaultEvent("crash", 2, step=6), rendezvous=0.3, round_trip=0.1)
    assert found.generations == 2
    assert found.detection_seconds == (3.0,)  # from the start of step 6 to the end of step 8
    assert found.recovery_seconds == pytest.approx((0.5,))  # a decision and two round trips
    assert found.tokens_lost == 10 * (1 + 2)  # its step 5; step 8 of the two others
    assert (found.bytes_repeated, found.bytes_caught_up) == (0, 0)
    assert found.wall_seconds == pytest.approx(12 + 1 + 0.5)


def test_a_method_that_needs_everyone_goes_back_to_the_last_checkpoint() -> None:
    found = toll(FaultEvent("crash", 2, step=7), plan=plan(1), after_loss="rollback", checkpoint_every=4)
    assert found.detection_seconds == (1.0,)
    assert found.tokens_lost == 10 * (2 * 3 + 2)  # steps 5, 6 and 7 of those left, 5 and 6 of the lost one
    assert found.bytes_repeated == 2 * 1600  # steps 5 and 6
    assert found.wall_seconds == 7 + 8


def test_a_checkpoint_notices_a_loss_before_the_next_synchronisation_does() -> None:
    found = toll(FaultEvent("crash", 2, step=5), checkpoint_every=6)
    assert found.detection_seconds == (2.0,)
    assert found.tokens_lost == 0  # it had just synchronised, and nobody was interrupted


def test_a_site_that_comes_back_is_let_in_after_a_synchronisation() -> None:
    found = toll(FaultEvent("crash", 2, step=2, lasts=4.0), start=0.5)
    assert found.generations == 3  # without it, and with it again after step 8
    assert found.bytes_caught_up == 400
    assert found.tokens_lost == 10 * (1 + 2)
    assert len(found.recovery_seconds) == 1  # letting somebody in is no recovery


def test_a_site_back_before_it_was_missed_is_let_in_at_once() -> None:
    found = toll(FaultEvent("crash", 2, step=2, lasts=1.0), start=1.0, grace=2.0)
    assert found.generations == 2
    assert found.recovery_seconds == (0.0,)
    assert found.bytes_caught_up == 400


def test_a_site_that_comes_back_after_the_end_has_lost_what_it_had_not_synchronised() -> None:
    found = toll(FaultEvent("crash", 2, step=8, lasts=60.0))
    assert (found.generations, found.bytes_caught_up) == (2, 0)
    assert found.tokens_lost == 10 * (3 + 2)


def test_a_pause_within_the_timeout_costs_time_alone() -> None:
    assert toll(FaultEvent("pause", 1, step=2, lasts=5.0)) == PredictedFaultCost(1, 0, 0, 0, (), (), 17.0)


def test_a_silent_site_is_given_up_after_the_timeout_and_let_in_again() -> None:
    found = toll(FaultEvent("pause", 2, step=2, lasts=9.0), timeout=3.0, grace=2.0)
    assert found.detection_seconds == (6.0,)  # three steps and the timeout
    assert found.recovery_seconds == (2.0,)
    assert found.tokens_lost == 10 * (2 + 2)  # step 4 of those who wait; steps 1 and 2 of the silent one
    assert found.bytes_repeated == 264 + 264  # what each of the two waiting had sent: all but its own third
    assert (found.generations, found.bytes_caught_up) == (3, 400)


def test_a_straggler_costs_time_alone() -> None:
    slow = [FaultEvent("straggle", 0, step=step, factor=3.0) for step in (2, 3)]
    assert toll(*slow) == PredictedFaultCost(1, 0, 0, 0, (), (), 16.0)


def test_a_run_in_which_somebody_is_always_too_late_is_given_up() -> None:
    assert "no progress" in toll(FaultEvent("straggle", 0, step=4, factor=50.0), timeout=3.0).abandoned


@pytest.mark.parametrize("kind", ["corrupt", "short"])
def test_a_site_that_sends_what_it_must_not_is_left_out_and_let_in_again(kind: Any) -> None:
    found = toll(FaultEvent(kind, 2, step=5))
    assert found.generations == 3
    assert found.detection_seconds == (4.0,)
    assert found.tokens_lost == 10 * (2 + 4)  # step 8 of those who stay; steps 5 to 8 of the one that takes over theirs
    assert found.bytes_repeated == 264  # of rank 1, who had not heard that 0 and 2 part
    assert found.bytes_caught_up == 400


def test_clients_of_a_server_have_sent_their_updates_when_it_misses_one_of_them() -> None:
    update = replace(EVERYONE, name="update", collective=Collective.REDUCE, root=0)
    model = replace(EVERYONE, name="model", collective=Collective.BROADCAST, root=0, phase=1)
    rounds = Plan(3, 12, (Recurrence((update, model), 4, 4, 12),))
    found = toll(FaultEvent("crash", 2, step=6), plan=rounds)
    assert found.detection_seconds == (3.0,)
    assert found.bytes_repeated == 400  # of the one client that is left
    assert found.tokens_lost == 10 * (1 + 2)


def test_without_a_site_that_is_needed_the_others_wait_and_all_go_back() -> None:
    needs_first = {"survives": lambda members: 0 in members, "checkpoint_every": 4}
    found = toll(FaultEvent("crash", 0, step=6, lasts=4.0), start=1.0, **needs_first)
    assert found.recovery_seconds == (2.0,)  # noticed at 8, back at 10
    assert found.tokens_lost == 10 * (1 + 2 * 4)  # its step 5; steps 5 to 8 of the others
    assert found.generations == 2
    assert "cannot continue" in toll(FaultEvent("crash", 0, step=6), **needs_first).abandoned


def test_what_happens_at_a_second_is_in_no_diary_and_so_has_no_detection() -> None:
    found = toll(FaultEvent("crash", 2, at=5.5))
    assert found.detection_seconds == ()
    assert len(found.recovery_seconds) == 1
    assert found.tokens_lost == 10 * (1 + 2)


def test_an_exchange_that_overlaps_with_training_is_missed_when_it_is_due() -> None:
    found = toll(FaultEvent("crash", 2, step=3), plan=plan(4, overlap=2), after_loss="resync")
    assert found.detection_seconds == (4.0,)
    assert found.bytes_caught_up == 400  # one of the two left takes over the state of the other
    assert found.tokens_lost == 10 * (2 + 2)  # of the lost one; of the one that takes over the other's state
    assert found.bytes_repeated == 0  # both knew when it began


def test_what_was_sent_of_an_overlapping_exchange_before_a_loss_was_in_vain() -> None:
    slow = {"exposed": lambda transfers, cold: 0.5, "plan": plan(4, overlap=2), "after_loss": "resync"}
    assert toll(FaultEvent("crash", 2, step=5), **slow).bytes_repeated == 264 + 264


def test_who_sends_to_each_other_notices_a_loss_by_itself() -> None:
    four = Transfer("delta", 100, (0, 1, 2, 3), root=0)
    assert touches(four, Algorithm.DIRECT, 0, 2)
    assert not touches(four, Algorithm.RING, 0, 2)
    assert touches(four, Algorithm.RING, 0, 3)
    assert not touches(four, Algorithm.PS, 1, 2)
    assert touches(replace(four, collective=Collective.REDUCE), Algorithm.PS, 0, 2)


def test_what_a_member_sends_before_it_needs_anybody_is_its_own() -> None:
    four = Transfer("delta", 100, (0, 1, 2, 3), root=0)
    shares = {0: 104, 2: 96, 3: 96}  # of 26, 26, 24 and 24 numbers
    assert first_hand(four, Algorithm.DIRECT, 1) == shares
    assert first_hand(four, Algorithm.RING, 3) == {0: 96}
    assert first_hand(four, Algorithm.PS, 1) == {0: 400}
    assert first_hand(four, Algorithm.PS, 0) == {}
    assert first_hand(replace(four, collective=Collective.BROADCAST), Algorithm.PS, 0) == {1: 400, 2: 400, 3: 400}
