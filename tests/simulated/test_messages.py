"""Collectives as messages: they move what the traffic model says, member by member."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netsim.simulated.messages import Messages, messages_for
from netsim.traffic import Algorithm, Collective, Transfer, WireType

TRANSFER = Transfer("x", 10_001, (0, 2, 3, 7), root=3)


def sent(messages: Messages, members: int) -> list[float]:
    return [float(messages.size[(messages.source == i) & (messages.target != i)].sum()) for i in range(members)]


@pytest.mark.parametrize("wire", [WireType.FP32, WireType.INT8, WireType.FP4])
@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT, Algorithm.RING, Algorithm.PS])
@pytest.mark.parametrize("pieces", [1, 3])
def test_an_all_reduce_sends_what_each_member_is_said_to_send(
    algorithm: Algorithm, wire: WireType, pieces: int
) -> None:
    transfer = replace(TRANSFER, algorithm=algorithm, wire=wire)
    messages = messages_for(transfer, algorithm, pieces)
    assert sent(messages, 4) == [transfer.sent_by(rank) for rank in transfer.members]
    assert messages.payload == transfer.payload_bytes


@pytest.mark.parametrize("collective", [Collective.REDUCE, Collective.BROADCAST, Collective.GATHER])
def test_a_rooted_collective_sends_the_planned_bytes(collective: Collective) -> None:
    """A rooted collective sends what each member is said to send."""
    transfer = replace(TRANSFER, collective=collective)
    messages = messages_for(transfer, Algorithm.AUTO, 1)
    assert sent(messages, 4) == [transfer.sent_by(rank) for rank in transfer.members]


@pytest.mark.parametrize("collective", [Collective.ALL_GATHER, Collective.REDUCE_SCATTER, Collective.ALL_TO_ALL])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_symmetric_collective_sends_the_planned_bytes(collective: Collective, pieces: int) -> None:
    """A symmetric collective sends what each member is said to send."""
    transfer = replace(TRANSFER, collective=collective, root=None)
    messages = messages_for(transfer, transfer.carried_out_by, pieces)
    assert sent(messages, 4) == [transfer.sent_by(rank) for rank in transfer.members]
    assert messages.payload == transfer.payload_bytes
    left, happened = messages.needs.copy(), list(range(4))
    for node in happened:
        for into in messages.into[messages.after == node]:
            left[into] -= 1
            if left[into] == 0:
                happened.append(int(into))
    assert set(range(4, 8)) <= set(happened)  # every member has its result


@pytest.mark.parametrize("algorithm", [Algorithm.DIRECT, Algorithm.RING, Algorithm.PS])
def test_every_node_is_reached_once_its_members_are_ready(algorithm: Algorithm) -> None:
    messages = messages_for(replace(TRANSFER, algorithm=algorithm), algorithm, 2)
    left, happened = messages.needs.copy(), list(range(messages.members))
    for node in happened:
        for into in messages.into[messages.after == node]:
            left[into] -= 1
            if left[into] == 0:
                happened.append(int(into))
    needed = np.flatnonzero(messages.needs).tolist()  # a parameter server has sums at one member only
    assert sorted(happened) == [*range(messages.members), *needed]
