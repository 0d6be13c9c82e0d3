"""How often a scenario's machines fail, and what it takes to go on."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from netsim.documents import Document
from netsim.units import Duration


class Failures(Document):
    """Mean time between failures of one device, or of a site.  restart: from a failure until its site can train again.
    detection: how long everyone waits before the others go on.  checkpoint: how long training stands still to write
    one, where a method has to roll back.  interval: between checkpoints; by default the one with the least overhead.
    """

    device_mtbf: Duration | None = Field(default=None, gt=0)
    site_mtbf: Duration | None = Field(default=None, gt=0)
    restart: Duration
    detection: Duration = 0.0
    checkpoint: Duration
    interval: Duration | None = Field(default=None, gt=0)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.device_mtbf is None) == (self.site_mtbf is None):
            raise ValueError("one of device_mtbf and site_mtbf")
        return self

    def mtbf(self, devices: int) -> float:
        """Of a site of so many devices, seconds: failures of devices are independent of each other."""
        if self.site_mtbf is not None:
            return self.site_mtbf
        assert self.device_mtbf is not None
        return self.device_mtbf / devices
