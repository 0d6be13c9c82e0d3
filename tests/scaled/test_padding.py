"""Fillers travel beside a method's transfers and change nothing of what it computes."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.exchange import local_group
from harness.records.run_record import Step, read_lines
from harness.spec.padding import filler_plan
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.worker.padded_exchange import PaddedExchange
from netsim.errors import InputError
from netsim.traffic import Collective, Plan, Recurrence, Transfer
from tests.faults import loopback
from tests.faults.test_resume import interrupted, losses
from tests.scaled.suites import TOPOLOGY, cell
from tests.test_trainer import train

EVERYONE = (0, 1)


def plan(*transfers: Transfer, every: int = 2) -> Plan:
    return Plan(2, 6, (Recurrence(transfers, every, every, 6),))


SMALL = plan(
    Transfer("update", 10, EVERYONE, collective=Collective.REDUCE, root=0),
    Transfer("model", 10, EVERYONE, collective=Collective.BROADCAST, root=0, phase=1),
)
LARGE = plan(
    Transfer("update", 1000, EVERYONE, collective=Collective.REDUCE, root=0),
    Transfer("model", 2000, EVERYONE, collective=Collective.BROADCAST, root=0, phase=1),
)


def test_fillers_are_what_is_missing_of_the_target() -> None:
    fillers = filler_plan(SMALL, LARGE, 0.1, "here")
    assert fillers.recurrences == (
        Recurrence(
            (
                Transfer("filler/0/0", 90, EVERYONE, collective=Collective.REDUCE, root=0),
                Transfer("filler/1/0", 190, EVERYONE, collective=Collective.BROADCAST, root=0, phase=1),
            ),
            2,
            2,
            6,
        ),
    )
    assert SMALL.padded(fillers).payload_bytes == 0.1 * LARGE.payload_bytes


def test_there_are_none_where_the_run_moves_as_much_by_itself() -> None:
    assert filler_plan(SMALL, SMALL, 1.0, "here").recurrences == ()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (plan(*LARGE.at(2), every=3), "update, model after step 2"),
        (plan(LARGE.at(2)[0]), "update, model after step 2"),
        (plan(LARGE.at(2)[0], replace(LARGE.at(2)[1], root=1)), "update, model after step 2"),
    ],
)
def test_plans_that_do_not_move_alike_are_refused(target: Plan, words: str) -> None:
    with pytest.raises(InputError) as error:
        filler_plan(SMALL, target, 0.1, "here")
    assert error.value.found == words


def test_a_transfer_carries_the_fillers_of_its_phase() -> None:
    """A transfer takes the fillers of its phase along and only those."""
    fillers, group = filler_plan(SMALL, LARGE, 0.1, "here"), local_group(2)
    after_phase: list[int] = []
    results: dict[int, list[float]] = {}

    def member(rank: int) -> None:
        exchange = PaddedExchange(group[rank], fillers)
        for step in (2, 4):
            for transfer in SMALL.at(step):
                tensor = torch.full((10,), float(rank + step))
                exchange.run(step, [(transfer, tensor)])
                results.setdefault(rank, []).append(float(tensor[0]))
                if rank == 0:
                    after_phase.append(group[rank].group_payload_bytes)

    threads = [threading.Thread(target=member, args=(rank,)) for rank in EVERYONE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: [5.0, 2.0, 9.0, 4.0], 1: [3.0, 2.0, 5.0, 4.0]}
    assert after_phase[-1] == 0.1 * LARGE.payload_bytes_until(4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def two_sites(folder: Path, label: str, **changes: Any) -> RunSpec:
    pair = {**TOPOLOGY, "sites": {"a": {}, "b": {}}}
    methods = [
        {"method": "ddp", "options": {"bucket_mb": 0.5}},
        {"method": "photon"},
        {"method": "streaming_diloco", "options": {"layers_per_fragment": 1}},
    ]
    server = {"method": "photon", "options": {"aggregation": "ps"}}
    streaming = {"method": "streaming_diloco", "options": {"sync_every": 3, "overlap": 1}}
    scenario = {"sites": 2, "methods": ["ddp", server, streaming]}
    train = {"steps": 5, "batch": 2, "warmup": 2, "evaluate_every": 5, "evaluation_sequences": 4, **changes}
    network = {"all_reduce": "direct"}  # a ring rounds elsewhere, and with two sites both are as cheap
    return cell(folder, label, scenario=scenario, methods=methods, topologies=[pair], train=train, network=network)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["ddp", "photon"])
def test_a_padded_run_moves_its_plan_and_learns_the_same(tmp_path: Path, cache: Path, label: str) -> None:
    """A padded run moves its plan to the byte and learns what it learns without."""
    spec = two_sites(tmp_path, label)
    summaries = train(spec, tmp_path / "run", cache)
    assert sum(summary.payload_bytes for summary in summaries) == ResolvedRun.of(spec).plan.payload_bytes
    lines = (tmp_path / "run" / "rank-0" / "ledger.jsonl").read_text().splitlines()
    assert any(json.loads(line)["transfer"].startswith("filler/") for line in lines)
    train(spec.model_copy(update={"stands_for": None}), tmp_path / "plain", cache)
    losses = [
        [step.loss for step in read_lines(tmp_path / name / "rank-0" / "steps.jsonl", Step)]
        for name in ("run", "plain")
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_resumed_padded_run_moves_the_uninterrupted_bytes(tmp_path: Path, cache: Path) -> None:
    """Streaming has transfers under way, and fillers beside them, when the checkpoint is made."""
    spec = two_sites(tmp_path, "streaming_diloco", checkpoint_every=2)
    before = loopback.train(spec, tmp_path / "whole", cache)
    interrupted(spec, tmp_path / "whole", tmp_path / "again", 2)
    after = loopback.train(spec, tmp_path / "again", cache, resume_from=2)
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")
    assert [s.payload_bytes for s in after] == [s.payload_bytes for s in before]
    assert sum(s.payload_bytes for s in after) == ResolvedRun.of(spec).plan.payload_bytes
