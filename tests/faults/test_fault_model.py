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


def cost_of(*events: FaultEvent, **changes: Any) -> PredictedFaultCost:
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


def test_without_faults_there_is_no_cost() -> None:
    assert cost_of() == PredictedFaultCost(1, 0, 0, 0, (), (), 12.0)


def test_a_crash_is_detected_at_the_next_synchronisation() -> None:
    """A crash is detected at the next synchronisation, which is redone."""
    found = cost_of(FaultEvent("crash", 2, step=6), rendezvous=0.3, round_trip=0.1)
    assert found.generations == 2
    assert found.detection_seconds == (3.0,)  # from the start of step 6 to the end of step 8
    assert found.recovery_seconds == pytest.approx((0.5,))  # a decision and two round trips
    assert found.tokens_lost == 10 * (1 + 2)  # its step 5; step 8 of the two others
    assert (found.bytes_repeated, found.bytes_caught_up) == (0, 0)
    assert found.wall_seconds == pytest.approx(12 + 1 + 0.5)


def test_a_method_that_needs_everyone_rolls_back() -> None:
    """A method that needs everyone goes back to the last checkpoint."""
    found = cost_of(FaultEvent("crash", 2, step=7), plan=plan(1), after_loss="rollback", checkpoint_every=4)
    assert found.detection_seconds == (1.0,)
    assert found.tokens_lost == 10 * (2 * 3 + 2)  # steps 5, 6 and 7 of those left, 5 and 6 of the lost one
    assert found.bytes_repeated == 2 * 1600  # steps 5 and 6
    assert found.wall_seconds == 7 + 8


def test_a_checkpoint_detects_a_loss_before_the_next_sync() -> None:
    """A checkpoint notices a loss before the next synchronisation does."""
    found = cost_of(FaultEvent("crash", 2, step=5), checkpoint_every=6)
    assert found.detection_seconds == (2.0,)
    assert found.tokens_lost == 0  # it had just synchronised, and nobody was interrupted


def test_a_returning_site_joins_after_a_synchronisation() -> None:
    """A site that comes back is let in after a synchronisation."""
    found = cost_of(FaultEvent("crash", 2, step=2, lasts=4.0), start=0.5)
    assert found.generations == 3  # without it, and with it again after step 8
    assert found.bytes_caught_up == 400
    assert found.tokens_lost == 10 * (1 + 2)
    assert len(found.recovery_seconds) == 1  # letting somebody in is no recovery


def test_a_site_back_before_it_was_missed_is_let_in_at_once() -> None:
    found = cost_of(FaultEvent("crash", 2, step=2, lasts=1.0), start=1.0, grace=2.0)
    assert found.generations == 2
    assert found.recovery_seconds == (0.0,)
    assert found.bytes_caught_up == 400


def test_a_return_after_the_end_loses_unsynchronised_work() -> None:
    """A site that comes back after the end has lost what it had not synchronised."""
    found = cost_of(FaultEvent("crash", 2, step=8, lasts=60.0))
    assert (found.generations, found.bytes_caught_up) == (2, 0)
    assert found.tokens_lost == 10 * (3 + 2)


def test_a_pause_within_the_timeout_costs_time_alone() -> None:
    assert cost_of(FaultEvent("pause", 1, step=2, lasts=5.0)) == PredictedFaultCost(1, 0, 0, 0, (), (), 17.0)


def test_a_silent_site_is_dropped_and_readmitted() -> None:
    """A silent site is given up after the timeout and let in again."""
    found = cost_of(FaultEvent("pause", 2, step=2, lasts=9.0), timeout=3.0, grace=2.0)
    assert found.detection_seconds == (6.0,)  # three steps and the timeout
    assert found.recovery_seconds == (2.0,)
    assert found.tokens_lost == 10 * (2 + 2)  # step 4 of those who wait; steps 1 and 2 of the silent one
    assert found.bytes_repeated == 264 + 264  # what each of the two waiting had sent: all but its own third
    assert (found.generations, found.bytes_caught_up) == (3, 400)


def test_a_straggler_costs_time_alone() -> None:
    slow = [FaultEvent("straggle", 0, step=step, factor=3.0) for step in (2, 3)]
    assert cost_of(*slow) == PredictedFaultCost(1, 0, 0, 0, (), (), 16.0)


def test_a_run_in_which_somebody_is_always_too_late_is_given_up() -> None:
    assert "no progress" in cost_of(FaultEvent("straggle", 0, step=4, factor=50.0), timeout=3.0).abandoned


@pytest.mark.parametrize("kind", ["corrupt", "short"])
def test_a_site_sending_garbage_is_excluded_and_readmitted(kind: Any) -> None:
    """A site that sends what it must not is left out and let in again."""
    found = cost_of(FaultEvent(kind, 2, step=5))
    assert found.generations == 3
    assert found.detection_seconds == (4.0,)
    assert found.tokens_lost == 10 * (2 + 4)  # step 8 of those who stay; steps 5 to 8 of the one that takes over theirs
    assert found.bytes_repeated == 264  # of rank 1, who had not heard that 0 and 2 part
    assert found.bytes_caught_up == 400


def test_clients_have_sent_when_the_server_misses_one() -> None:
    """Clients of a server have sent their updates when it misses one of them."""
    update = replace(EVERYONE, name="update", collective=Collective.REDUCE, root=0)
    model = replace(EVERYONE, name="model", collective=Collective.BROADCAST, root=0, phase=1)
    rounds = Plan(3, 12, (Recurrence((update, model), 4, 4, 12),))
    found = cost_of(FaultEvent("crash", 2, step=6), plan=rounds)
    assert found.detection_seconds == (3.0,)
    assert found.bytes_repeated == 400  # of the one client that is left
    assert found.tokens_lost == 10 * (1 + 2)


def test_without_a_required_site_the_others_wait_and_roll_back() -> None:
    """Without a site that is needed the others wait and all go back."""
    needs_first = {"survives": lambda members: 0 in members, "checkpoint_every": 4}
    found = cost_of(FaultEvent("crash", 0, step=6, lasts=4.0), start=1.0, **needs_first)
    assert found.recovery_seconds == (2.0,)  # noticed at 8, back at 10
    assert found.tokens_lost == 10 * (1 + 2 * 4)  # its step 5; steps 5 to 8 of the others
    assert found.generations == 2
    assert "cannot continue" in cost_of(FaultEvent("crash", 0, step=6), **needs_first).abandoned


def test_faults_at_a_second_have_no_detection_time() -> None:
    """What happens at a second is in no diary and so has no detection."""
    found = cost_of(FaultEvent("crash", 2, at=5.5))
    assert found.detection_seconds == ()
    assert len(found.recovery_seconds) == 1
    assert found.tokens_lost == 10 * (1 + 2)


def test_a_lost_overlapped_exchange_is_detected_when_due() -> None:
    """An exchange that overlaps with training is missed when it is due."""
    found = cost_of(FaultEvent("crash", 2, step=3), plan=plan(4, overlap=2), after_loss="resync")
    assert found.detection_seconds == (4.0,)
    assert found.bytes_caught_up == 400  # one of the two left takes over the state of the other
    assert found.tokens_lost == 10 * (2 + 2)  # of the lost one; of the one that takes over the other's state
    assert found.bytes_repeated == 0  # both knew when it began


def test_bytes_of_an_interrupted_overlap_are_retransmitted() -> None:
    """What was sent of an overlapping exchange before a loss was in vain."""
    slow = {"exposed": lambda transfers, cold: 0.5, "plan": plan(4, overlap=2), "after_loss": "resync"}
    assert cost_of(FaultEvent("crash", 2, step=5), **slow).bytes_repeated == 264 + 264


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
