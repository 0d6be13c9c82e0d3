"""What a worker is connected to: the WAN, the control network, and the other workers of its site. In the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TextIO

import torch
from torch import Tensor

from algorithms.exchange import Exchange
from algorithms.site_group import SiteGroup
from harness.transport.wan_exchange import WanExchange
from harness.worker.connect import connect_control, connect_local, connect_wan
from harness.worker.job import Job
from netsim.topology import Topology
from netsim.traffic import Transfer, WireType


@dataclass(frozen=True)
class SiteConnection:
    """wan, control: of the site's leader, None at its other workers.   local: None at a site of one worker."""

    wan: WanExchange | None
    control: WanExchange | None
    local: WanExchange | None

    @property
    def site(self) -> SiteGroup | None:
        return None if self.local is None else SiteGroup(self.local)

    @property
    def waited_seconds(self) -> float:
        """For which this worker has been blocked so far."""
        return sum(each.waited_seconds for each in (self.wan, self.local) if each is not None)

    @property
    def payload_bytes(self) -> int:
        """Sent over the WAN."""
        return 0 if self.wan is None else self.wan.ledger.total

    def sum(self, name: str, step: int, values: Tensor) -> None:
        """Sum `values` (fp64) over all workers of all sites, in place. Raises PeerError."""
        if self.site is not None:
            self.site.sum(step, name, values)
        if self.control is not None:
            sum_over(self.control, name, step, tuple(range(self.control.world)), values)
        if self.site is not None:
            self.site.pass_on(step, f"{name}/total", values)

    def barrier(self, name: str, step: int) -> None:
        """Wait until all workers have come. Raises PeerError."""
        self.sum(name, step, torch.zeros(1, dtype=torch.float64))


@contextmanager
def connect_site(
    job: Job, topology: Topology, ready_at: Callable[[Transfer], float], ledger: TextIO
) -> Iterator[SiteConnection]:
    """All of a worker's connections, closed at the end. Raises PeerError and HostError."""
    with ExitStack() as stack:
        local = stack.enter_context(connect_local(job)) if job.site_workers > 1 else None
        if job.leads:
            wan = stack.enter_context(connect_wan(job, topology, ready_at, ledger))
            yield SiteConnection(wan, stack.enter_context(connect_control(job)), local)
        else:
            yield SiteConnection(None, None, local)


def sum_over(control: Exchange, name: str, step: int, members: tuple[int, ...], values: Tensor) -> None:
    """Sum `values` over `members`, in place. Raises PeerError."""
    control.run(step, [(Transfer(name, values.numel(), members, WireType.FP64), values)])


def barrier(control: Exchange, name: str, step: int, members: tuple[int, ...]) -> None:
    """Wait until all `members` have come. Raises PeerError."""
    sum_over(control, name, step, members, torch.zeros(1, dtype=torch.float64))
