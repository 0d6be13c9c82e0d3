"""Calibration files: the cost model's constants, where they come from, and where they hold.

`longhaul calibrate` writes them; nothing else makes such numbers. Without one the model runs on first principles
(line rate x framing, propagation delay) and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from harness.records.files import write_atomically
from harness.spec.run_spec import RunSpec
from netsim.documents import Document, located, read_yaml, validate
from netsim.simulated.link_model import LinkModel

FIRST_PRINCIPLES = "first principles"


class Span(Document):
    """A closed interval."""

    low: float
    high: float

    def covers(self, value: float) -> bool:
        """A thousandth of slack, so that an end that was printed still belongs."""
        return self.low * 0.999 <= value <= self.high * 1.001

    @classmethod
    def over(cls, values: Iterable[float]) -> Span:
        found = list(values)
        return cls(low=min(found), high=max(found))


class Domain(Document):
    """Ranges that the runs of the fit spanned: line rates (bit/s), RTTs (s), sites, bytes of a transfer."""

    rate: Span
    rtt: Span
    sites: Span
    transfer_bytes: Span

    def covers(self, rates: Span, rtts: Span, sites: int, transfers: Span) -> bool:
        pairs = ((self.rate, rates), (self.rtt, rtts), (self.transfer_bytes, transfers))
        return self.sites.covers(sites) and all(
            own.covers(other.low) and own.covers(other.high) for own, other in pairs
        )


class Constants(Document):
    """What was fitted; see `netsim.simulated.link_model.LinkModel` for the meanings and units."""

    efficiency: float = Field(default=1.0, gt=0, le=1.2)
    message_seconds: float = Field(default=0.0, ge=0)
    transfer_seconds: float = Field(default=0.0, ge=0)
    byte_seconds: float = Field(default=0.0, ge=0)
    host_bandwidth: float | None = Field(default=None, gt=0)
    cold_start: bool = True


class NativeStep(Document):
    """Measured computation of one local step of one worker on the calibrated host, with its neighbours at work."""

    method: str
    model: str
    batch: int
    sites: int
    seconds: float = Field(gt=0)
    spread: float = Field(ge=0)  # standard deviation over mean
    fitted_from: tuple[str, ...] = ()  # ids of the runs

    @property
    def measured(self) -> tuple[str, str, int, int]:
        """What its length depends on."""
        return self.method, self.model, self.batch, self.sites


class Recovery(Document):
    """What going on after a loss takes on the calibrated host: medians over the losses of some runs.

    meeting_seconds: for members to agree through the store and to go on, beyond what follows from the plan, the network
    and the waits of the membership.  start_seconds: from when a crashed worker may come back until it asks to be let
    in.  checkpoint_seconds_per_byte: for a worker to write its state down.
    """

    meeting_seconds: float = Field(ge=0)
    start_seconds: float = Field(default=0.0, ge=0)
    checkpoint_seconds_per_byte: float = Field(default=0.0, ge=0)
    source: str
    fitted_from: tuple[str, ...] = ()  # ids of the runs


class Error(Document):
    """Absolute relative error of predicted wall time."""

    mean: float
    max: float
    runs: int


class Calibration(Document):
    """A calibration file."""

    name: str
    source: str  # how the numbers came about, in words
    fitted_from: tuple[str, ...]  # ids of the runs
    substrates: tuple[str, ...]
    environment: dict[str, Any] = {}
    constants: Constants
    step_overhead_seconds: float = Field(default=0.0, ge=0)  # of a paced step, on top of its slot
    evaluation_seconds_per_flop: dict[str, float] = {}  # by method; forward FLOPs of all workers; "" for any other
    native_steps: tuple[NativeStep, ...] = ()
    recovery: Recovery | None = None
    domain: Domain
    error: Error  # on the runs of the fit
    held_out: Error | None = None  # of exposed communication, on runs that the fit did not see

    @property
    def seen(self) -> frozenset[str]:
        """Ids of all runs that something here was fitted to."""
        steps = (run for step in self.native_steps for run in step.fitted_from)
        return frozenset((*self.fitted_from, *steps, *(self.recovery.fitted_from if self.recovery else ())))

    def with_native_steps(self, steps: Iterable[NativeStep]) -> Calibration:
        """With these steps, in place of those that were measured of the same."""
        known = {step.measured: step for step in (*self.native_steps, *steps)}
        return self.model_copy(update={"native_steps": tuple(known[key] for key in sorted(known))})

    @property
    def link_model(self) -> LinkModel:
        return LinkModel(**self.constants.model_dump())

    @property
    def machines_of_their_own(self) -> LinkModel:
        """The same for sites that do not share a host."""
        return LinkModel(**{**self.constants.model_dump(), "host_bandwidth": None})

    def native_step(self, spec: RunSpec, sites: int) -> NativeStep | None:
        """The measured step of such a cell."""
        key = (spec.method, spec.model.name, spec.train.batch, sites)
        found = (step for step in self.native_steps if step.measured == key)
        return next(found, None)


@located()
def load_calibration(path: Path) -> Calibration:
    """A calibration file; an InputError says what is wrong with it."""
    return validate(Calibration, read_yaml(path), str(path))


def save_calibration(calibration: Calibration, path: Path) -> None:
    """As YAML, atomically."""
    text = "# Written by `longhaul calibrate`. Seconds, bytes, bit/s.\n" + yaml.safe_dump(
        calibration.model_dump(mode="json"), sort_keys=False, width=110
    )
    write_atomically(path, text)
