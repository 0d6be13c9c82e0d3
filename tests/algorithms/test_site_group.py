"""Several workers of a site are, to every method, one worker with as many times the batch."""

from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.exchange import local_group
from algorithms.site_group import SiteGroup
from tests.algorithms.test_bytes import CASES, EXPERTS
from tests.algorithms.training import DENSE, MOE, tokens, train

SITES, STEPS, MEMBERS = 4, 4, 2  # for every method the last of its cases


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    return tokens(DENSE, step, rank, batch=2 * MEMBERS)


@pytest.mark.parametrize(("name", "options"), dict(CASES + EXPERTS).items())
def test_workers_of_a_site_train_as_one(name: str, options: dict[str, Any]) -> None:
    """Losses and parameters equal those of one worker with the whole batch, to rounding; WAN bytes to the byte."""
    shape = MOE if name == "fomoe" else DENSE
    alone = train(name, options, shape, SITES, STEPS, data=batch, evaluate_at=(STEPS,))
    found = train(name, options, shape, SITES, STEPS, data=batch, evaluate_at=(STEPS,), members=MEMBERS)
    assert found.payload_bytes == alone.payload_bytes == alone.plan.payload_bytes
    for one, several in zip(alone.sites, found.sites, strict=True):
        torch.testing.assert_close(several.parameters, one.parameters, rtol=1e-7, atol=1e-9)
        assert several.losses == pytest.approx(one.losses, rel=1e-9)
        assert several.evaluations == pytest.approx(one.evaluations, rel=1e-9)
        assert several.memory == one.memory
    for rank, other in enumerate(found.others):
        assert torch.equal(other.parameters, found.sites[rank // (MEMBERS - 1)].parameters)


def test_a_gradient_that_one_worker_lacks_is_averaged() -> None:
    """An expert that only one of a site's workers has used gets half of that gradient; one that nobody used none."""
    parameters = [[torch.nn.Parameter(torch.zeros(2)) for _ in range(3)] for _ in range(2)]
    for own in parameters:
        own[0].grad = torch.ones(2)
    parameters[1][1].grad = torch.full((2,), 4.0)
    threads = [
        Thread(target=SiteGroup(exchange).average_gradients, args=(1, own))
        for exchange, own in zip(local_group(2), parameters, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in parameters:
        first, second, third = own
        assert first.grad is not None
        assert second.grad is not None
        assert first.grad.tolist() == [1, 1]
        assert second.grad.tolist() == [2, 2]
        assert third.grad is None
