"""How workers compute: on which clock, and what differs between sites. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal, Self

from pydantic import Field, model_validator

from netsim.documents import Document
from netsim.errors import InputError
from netsim.units import Share

DeviceName = Literal["cpu", "cuda", "auto"]

_ROUNDING = 1e-9  # of a share times a step


class SiteCompute(Document):
    """What one site has instead of the suite's settings.

    step_seconds: of its paced clock.   batch: sequences per worker and step.   local_steps: the share of the steps in
    which it trains, spread evenly from the first one on; it does nothing in the others.
    """

    step_seconds: float | None = Field(default=None, ge=1e-4, le=86_400)
    batch: int | None = Field(default=None, ge=1, le=100_000)
    local_steps: Share = Field(default=1.0, gt=0)

    def trains(self, step: int) -> bool:
        """Whether it trains in `step`, counted from 1. In n steps it trains ceil(n x local_steps) times."""
        return _steps(step, self.local_steps) > _steps(step - 1, self.local_steps)


def _steps(until: int, share: float) -> int:
    return ceil(until * share - _ROUNDING)


class ComputeSpec(Document):
    """`native`: as fast as this host. `paced`: every local step takes `step_seconds`, waiting for its slot.

    device: that workers train on; `auto` takes a GPU where the host has one.
    sites: by the topology's names, where sites are unlike.
    """

    mode: Literal["native", "paced"] = "native"
    step_seconds: float | None = Field(default=None, ge=1e-4, le=86_400)
    backward_share: float = Field(default=2 / 3, gt=0, lt=1)  # of a step's compute; forward is the rest
    device: DeviceName = "cpu"
    sites: dict[str, SiteCompute] = {}

    @model_validator(mode="after")
    def _slot(self) -> Self:
        if (self.step_seconds is None) == (self.mode == "paced"):
            raise ValueError("step_seconds with mode: paced, and only with it")
        if self.mode != "paced" and any(site.step_seconds is not None for site in self.sites.values()):
            raise ValueError("step_seconds of sites with mode: paced, and only with it")
        return self

    def of(self, site: str) -> SiteCompute:
        return self.sites.get(site, SiteCompute())

    def seconds_at(self, site: str) -> float | None:
        """A paced step of `site`; None on the native clock."""
        return self.of(site).step_seconds or self.step_seconds

    def longest_step(self, sites: Sequence[str]) -> float | None:
        """The paced step of the slowest site, which the others wait for; None on the native clock."""
        return None if self.step_seconds is None else max(self.seconds_at(site) or 0.0 for site in sites)


def check_sites(compute: ComputeSpec, sites: Sequence[str], where: str) -> None:
    """InputError for settings of a site that the topology does not have."""
    for name in compute.sites:
        if name not in sites:
            raise InputError.unknown(where, "compute.sites", name, sites, prefix="sites of the topology:")
