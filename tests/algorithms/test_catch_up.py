"""What a method says that catching up moves is what its workers move."""

from __future__ import annotations

from typing import Any

import pytest

from algorithms.shape import ModelShape
from tests.algorithms.training import DENSE, MOE, train

BOUND = {"sync_every": 2}
CASES: list[tuple[str, dict[str, Any], ModelShape]] = [
    ("ddp", {}, DENSE),
    ("diloco", BOUND, DENSE),
    ("streaming_diloco", BOUND, DENSE),
    ("photon", BOUND, DENSE),
    ("photon", {**BOUND, "aggregation": "ring", "server_optimizer": "fedadam"}, DENSE),
    ("lordo", BOUND, DENSE),
    ("lordo", {**BOUND, "variant": "local", "error_feedback": False}, DENSE),
    ("lowrank_ddp", {"send": "full"}, DENSE),
    ("lowrank_ddp", {"send": "projected"}, DENSE),
    ("desloc", {**BOUND, "outer_momentum": 0.5}, DENSE),
    ("local_adam", BOUND, DENSE),
    ("fomoe", {**BOUND, "replication": 2}, MOE),
    ("fomoe", {**BOUND, "replication": 2, "outer": "diloco"}, MOE),
    ("fomoe", {**BOUND, "replication": 4, "wire_dtype": "bf16"}, MOE),
]


@pytest.mark.parametrize(("name", "options", "shape"), CASES)
@pytest.mark.parametrize("behind", [(2,), (2, 3)])
def test_sizes_are_those_of_the_workers_state(
    name: str, options: dict[str, Any], shape: ModelShape, behind: tuple[int, ...]
) -> None:
    trained = train(name, options, shape, sites=4, steps=4, double=False)
    everyone = (0, 1, 2, 3)
    planned = trained.method.catch_up(shape, 4, 0, behind, everyone, trained.sites[0].worker.setup.seed)
    for rank, site in enumerate(trained.sites):
        mine = [transfer for transfer, _ in site.worker.catch_up(0, behind, everyone)]
        assert mine == [transfer for transfer in planned if rank in transfer.members]
