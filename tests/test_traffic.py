"""Payload bytes: what a transfer moves in total does not depend on how it is carried out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.traffic import Algorithm, Cohort, Collective, Plan, Recurrence, Transfer, WireType, split

elements = st.integers(0, 5000)
wires = st.sampled_from([wire for wire in WireType if wire is not WireType.UINT8])


@given(elements, st.integers(1, 9), wires)
def test_direct_ring_and_ps_move_the_same_bytes(count: int, sites: int, wire: WireType) -> None:
    """Direct and ring and a parameter server move the same bytes."""
    transfer = Transfer("x", count, tuple(range(sites)), wire, root=0)
    for algorithm in (Algorithm.DIRECT, Algorithm.RING, Algorithm.PS):
        assert sum(transfer.sent_by(rank, algorithm) for rank in range(sites)) == transfer.payload_bytes
    assert transfer.payload_bytes == 2 * (sites - 1) * wire.bytes_for(count)


@given(
    elements, st.integers(1, 9), wires, st.sampled_from([Collective.REDUCE, Collective.BROADCAST, Collective.GATHER])
)
def test_rooted_collectives_move_one_size_per_other_member(
    count: int, sites: int, wire: WireType, collective: Collective
) -> None:
    transfer = Transfer("x", count, tuple(range(sites)), wire, collective, root=sites - 1)
    assert sum(transfer.sent_by(rank) for rank in range(sites)) == transfer.payload_bytes
    assert transfer.payload_bytes == (sites - 1) * wire.bytes_for(count)


@given(elements, st.integers(1, 9), wires, st.sampled_from([Collective.ALL_GATHER, Collective.ALL_TO_ALL]))
def test_collectives_in_rows_move_one_size_per_pair(
    count: int, sites: int, wire: WireType, collective: Collective
) -> None:
    transfer = Transfer("x", count, tuple(range(sites)), wire, collective)
    assert sum(transfer.sent_by(rank) for rank in range(sites)) == transfer.payload_bytes
    assert transfer.payload_bytes == sites * (sites - 1) * wire.bytes_for(count)


@given(elements, st.integers(1, 9), wires)
def test_a_reduce_scatter_moves_half_of_an_all_reduce(count: int, sites: int, wire: WireType) -> None:
    half = Transfer("x", count, tuple(range(sites)), wire, Collective.REDUCE_SCATTER)
    whole = Transfer("x", count, tuple(range(sites)), wire)
    assert sum(half.sent_by(rank) for rank in range(sites)) == half.payload_bytes == whole.payload_bytes / 2


@given(elements, st.integers(1, 9), st.integers(1, 300))
def test_shares_cover_the_tensor_in_order_and_start_on_a_unit(count: int, parts: int, unit: int) -> None:
    shares = split(count, parts, unit)
    assert shares[0][0] == 0
    assert shares[-1][1] == count
    assert all(a[1] == b[0] for a, b in pairwise(shares))
    assert all(start % unit == 0 or start == count for start, _ in shares)


def test_int8_carries_one_scale_per_block() -> None:
    assert WireType.INT8.bytes_for(256) == 256 + 4
    assert WireType.INT8.bytes_for(257) == 257 + 8
    assert WireType.FP4.bytes_for(256) == 128 + 4


def plan_of(*recurrences: Recurrence, steps: int = 10) -> Plan:
    return Plan(2, steps, recurrences)


X = Transfer("x", 10, (0, 1))


def test_a_plan_lists_what_each_step_releases() -> None:
    plan = plan_of(Recurrence((X,), every=3, first=3, last=10), Recurrence((X,), every=10, first=10, last=10))
    assert list(plan.sync_steps()) == [3, 6, 9, 10]
    assert plan.at(6) == (X,)
    assert plan.at(7) == ()
    assert plan.payload_bytes == 4 * 80
    assert plan.payload_bytes_until(8) == 2 * 80


@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40))
def test_counting_a_recurrence_agrees_with_walking_through_it(every: int, first: int, last: int, until: int) -> None:
    recurrence = Recurrence((X,), every, first, last)
    walked = [step for step in range(1, 60) if recurrence.happens_at(step)]
    assert recurrence.count == len(walked)
    assert recurrence.count_until(until) == len([step for step in walked if step <= until])
    assert recurrence.next_from(until) == next((step for step in walked if step >= until), None)


recurrences = st.builds(Recurrence, st.just((X,)), st.integers(1, 5), st.integers(1, 12), st.integers(1, 25))


@given(st.lists(recurrences, max_size=6), st.integers(1, 30))
def test_a_plan_finds_what_a_scan_of_its_recurrences_finds(found: list[Recurrence], step: int) -> None:
    plan = Plan(2, 25, tuple(found))
    assert plan.at(step) == tuple(t for r in found for t in r.transfers if r.happens_at(step))
    later = [s for s in range(step, 40) if any(r.happens_at(s) for r in found)]
    assert plan.next_from(step) == (later[0] if later else None)


def test_everyone_trains_unless_a_cohort_says_otherwise() -> None:
    plan = Plan(3, 9, (), cohorts=(Cohort(1, 3, (0, 2)), Cohort(7, 9, (1,))))
    assert plan.active(2) == (0, 2)
    assert plan.active(5) == (0, 1, 2)
    assert plan.active(9) == (1,)


def test_bytes_per_rank_of_an_unresolved_algorithm_are_not_known() -> None:
    with pytest.raises(AssertionError, match="resolved"):
        X.sent_by(0)
