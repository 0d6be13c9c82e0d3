"""Transfers among those who are there: a method that divides by all members gets the mean over the present."""

from __future__ import annotations

import pytest
import torch

from algorithms.exchange import local_group
from harness.elastic.partial_exchange import PartialExchange
from netsim.errors import LonghaulError
from netsim.traffic import Collective, Transfer, among
from tests.threads import together

PRESENT = (0, 2, 3)


def exchanges() -> list[PartialExchange]:
    made = []
    for rank, inner in zip(range(4), local_group(4), strict=True):
        one = PartialExchange(rank, 4, lambda transfer, present: len(transfer.members) / len(present))
        one.become(inner, PRESENT)
        made.append(one)
    return made


def test_a_mean_over_all_is_the_mean_over_those_present() -> None:
    transfer = Transfer("x", 5, (0, 1, 2, 3))
    group, tensors = exchanges(), [torch.full((5,), float(rank)) for rank in range(4)]
    together(PRESENT, lambda rank: group[rank].run(1, [(transfer, tensors[rank])]))
    for rank in PRESENT:
        assert tensors[rank].div(4).tolist() == pytest.approx([5 / 3] * 5)
    assert tensors[1].tolist() == [1.0] * 5


def test_a_reduction_is_scaled_at_its_root_alone() -> None:
    transfer = Transfer("x", 2, (0, 1, 2, 3), collective=Collective.REDUCE, root=2)
    group, tensors = exchanges(), [torch.ones(2) for _ in range(4)]
    together(PRESENT, lambda rank: group[rank].run(1, [(transfer, tensors[rank])]))
    assert tensors[2].tolist() == pytest.approx([4.0, 4.0])
    assert tensors[0].tolist() == [1.0, 1.0]


def test_a_broadcast_is_not_scaled() -> None:
    transfer = Transfer("x", 2, (0, 1, 2, 3), collective=Collective.BROADCAST, root=3)
    group, tensors = exchanges(), [torch.full((2,), float(rank)) for rank in range(4)]
    together(PRESENT, lambda rank: group[rank].run(1, [(transfer, tensors[rank])]))
    assert tensors[0].tolist() == [3.0, 3.0]


def test_a_transfer_whose_members_are_all_there_is_left_alone() -> None:
    transfer = Transfer("x", 2, (0, 2))
    assert among(transfer, PRESENT) == transfer


def test_a_transfer_cannot_do_without_its_root() -> None:
    with pytest.raises(LonghaulError, match="needs rank 1"):
        among(Transfer("x", 2, (0, 1), collective=Collective.BROADCAST, root=1), PRESENT)
