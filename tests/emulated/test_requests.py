"""The agent's interface: every request and answer survives its way through JSON, and unknown ones are refused."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from netsim.emulated.node import requests
from netsim.emulated.node.probes import ProbeStream
from netsim.emulated.node.requests import AgentAnswer, NodeRequest, ProbeRequest, read_request
from netsim.emulated.plan import Impairment, NodePlan, Peer

PEER = Peer("b", "10.0.0.2", "02:00:00:00:00:01", 8e6, 8e6, 151_400, Impairment(0.01), Impairment(0.02))
PLAN = NodePlan("a", "10.0.0.1", 16, "10.1.0.1", 16, "nfqueue", 1500, 8e6, 1e9, 1000, 250, False, peers=(PEER,))
SENT: list[NodeRequest | ProbeRequest] = [
    requests.NameInterfaces("10.0.0.1", "10.1.0.1"),
    requests.Shape(PLAN, pin=True),
    requests.Reshape(PLAN),
    requests.CheckHealth(),
    requests.ReadFacts(),
    requests.ReadCounters(),
    requests.Echo(("10.0.0.2",), 3, 0.01, 1.0),
    requests.SendStream(ProbeStream(1, "udp", "10.0.0.1", "10.0.0.2", 0.3, 1472)),
    requests.ReadStream(1, 0.25, finish=True),
    requests.SendTraffic("10.0.0.2", 8e6, 1.0, 1500),
    requests.StopTraffic(),
    requests.ReadCrossBytes(),
    requests.StartProgram(("/bin/true",), {"A": "b"}, "/", True),
    requests.StartCapture(96),
    requests.ReadTraffic(),
    requests.PollProgram(7),
    requests.WaitForProgram(7),
    requests.SignalProgram(7, 9),
    requests.SignalAllPrograms(9),
]
ANSWERS: list[AgentAnswer] = [
    requests.Done(),
    requests.Mismatches(("a",)),
    requests.Shaped((), (requests.HelperGreeting("prober", 7, "fifo 10"),)),
    requests.RoundTrips((((1.0, 0.05), (2.0, None)),)),
    requests.StreamReceived(1e6, 3, 4, 5, None),
    requests.Signalled((7, 8)),
]


@pytest.mark.parametrize("request_", SENT, ids=lambda one: type(one).__name__)
def test_a_request_arrives_as_it_was_sent(request_: NodeRequest | ProbeRequest) -> None:
    line = json.dumps({"id": 5, **request_.to_json()})
    # JSON has no tuples: what arrives as a list is compared by what it says.
    number, found = read_request(json.loads(line))
    assert (number, type(found)) == (5, type(request_))
    assert json.dumps(found.to_json()) == json.dumps(request_.to_json())


def test_every_kind_of_request_is_covered_here() -> None:
    assert {type(one) for one in SENT} == {*get_args(NodeRequest), *get_args(ProbeRequest)}


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda one: type(one).__name__)
def test_an_answer_arrives_as_it_was_given(answer: AgentAnswer) -> None:
    assert type(answer).from_json(json.loads(json.dumps(answer.to_json()))) == answer


@pytest.mark.parametrize("line", [{"id": 1, "do": "Shapes"}, {"id": 1, "do": "PollProgram", "programme": 7}])
def test_a_request_that_is_none_is_refused(line: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        read_request(line)
