"""The workers of one site: a data-parallel group that is one member of the WAN's exchange. In the trainer.

What papers call a worker is a place with fast links inside: an island of devices in DiLoCo (arXiv 2311.08105), a client
with its own cluster in Photon (arXiv 2411.02908), a data centre in FoMoE. So the W workers of a site train on one batch
together: each takes its share of it, and gradients are averaged inside the site before the method sees them. All of
them hold the method's whole state and update it alike. The first one, the leader, speaks for the site on the WAN; what
it receives it passes on inside the site.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from algorithms.exchange import Exchange, Handle
from algorithms.inner import flatten
from netsim.traffic import Collective, Transfer, WireType


class SiteGroup:
    """`local` connects the workers of the site, over a network of its own; the leader has rank 0 in it."""

    def __init__(self, local: Exchange) -> None:
        self._local = local

    @property
    def size(self) -> int:
        return self._local.world

    @property
    def is_leader(self) -> bool:
        return self._local.rank == 0

    def start_sum(self, step: int, name: str, values: Tensor) -> Handle:
        """Begin to replace `values` by their sum over the site's workers, exactly. Raises PeerError when waited for."""
        wire = WireType.FP64 if values.dtype == torch.float64 else WireType.FP32
        return self._local.start(step, Transfer(f"site/{name}", values.numel(), self._everyone, wire), values)

    def sum(self, step: int, name: str, values: Tensor) -> None:
        """Replace `values` by their sum over the site's workers."""
        self.start_sum(step, name, values).wait()

    def mean(self, step: int, name: str, value: float) -> float:
        """Over the site's workers."""
        found = torch.tensor([value], dtype=torch.float64)
        self.sum(step, name, found)
        return found.item() / self.size

    @torch.no_grad()
    def average_gradients(self, step: int, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients of the site's whole batch, which is W times a worker's. A parameter that nobody used has none."""
        chosen = list(parameters)
        used = torch.tensor([p.grad is not None for p in chosen], dtype=chosen[0].dtype)
        flat = flatten([*(torch.zeros_like(p) if p.grad is None else p.grad for p in chosen), used])
        self.sum(step, "gradients", flat)
        *parts, counts = torch.split(flat, [*(p.numel() for p in chosen), len(chosen)])
        for parameter, part, count in zip(chosen, parts, counts.tolist(), strict=True):
            parameter.grad = part.div_(self.size).view_as(parameter) if count else None

    def pass_on(self, step: int, name: str, values: Tensor) -> None:
        """The leader's `values`, as they are, to the others; all wait until they have them."""
        data = values.detach().view(-1).view(torch.uint8)
        transfer = Transfer(f"site/{name}", data.numel(), self._everyone, WireType.UINT8, Collective.BROADCAST, root=0)
        self._local.run(step, [(transfer, data)])

    @property
    def _everyone(self) -> tuple[int, ...]:
        return tuple(range(self.size))


class SiteExchange:
    """An exchange among sites, for one of a site's workers: the leader carries it out, the others get the result.

    exchange: the leader's; None at the others, whose tensors hold what the leader's do before a transfer.
    """

    def __init__(self, site: SiteGroup, exchange: Exchange | None, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self._site, self._exchange = site, exchange

    def start(self, step: int, transfer: Transfer, tensor: Tensor) -> Handle:
        """As `Exchange.start`."""
        under_way = None if self._exchange is None else self._exchange.start(step, transfer, tensor)
        return _PassedOn(self._site, step, transfer, tensor, under_way)

    def run(self, step: int, transfers: Sequence[tuple[Transfer, Tensor]]) -> None:
        """Start all, then wait for all."""
        for handle in [self.start(step, transfer, tensor) for transfer, tensor in transfers]:
            handle.wait()


class _PassedOn:
    def __init__(
        self, site: SiteGroup, step: int, transfer: Transfer, tensor: Tensor, under_way: Handle | None
    ) -> None:
        self._site, self._step, self._transfer, self._tensor = site, step, transfer, tensor
        self._under_way = under_way
        self._done = False

    def wait(self) -> None:
        if self._done:
            return
        if self._under_way is not None:
            self._under_way.wait()
        self._site.pass_on(self._step, f"{self._transfer.name}/{self._transfer.phase}", self._tensor)
        self._done = True
