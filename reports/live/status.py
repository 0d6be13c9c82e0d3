"""What is known of a suite while it runs: frozen values, made by reports.live.suite_follower."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reports.style.palette import series_styles

# Stages of a cell in their order; the last four are final.
WAITING, PREPARING, CHECKING, STARTING, TRAINING, CHECKING_AFTER, SILENT, COMPLETE, INVALID, FAILED, UNREADABLE = (
    "waiting",
    "preparing",
    "checking links",
    "starting",
    "training",
    "checking links again",
    "no sign of life",
    "complete",
    "invalid",
    "failed",
    "unreadable",
)
FINAL = (COMPLETE, INVALID, FAILED, UNREADABLE)


@dataclass(frozen=True)
class Point:
    """One step of worker 0. `clock`: seconds since training began. `bytes`: payload that it has sent so far."""

    step: int
    clock: float
    loss: float | None
    evaluation_loss: float | None
    bytes: int


@dataclass(frozen=True)
class Uplink:
    """The WAN link out of a site: payload bytes so far, and bit/s, mean since training began."""

    site: str
    payload_bytes: int
    rate: float | None


@dataclass(frozen=True)
class GateOutcome:
    """One check of the links. `at`: seconds since the cell began."""

    at: float
    passed: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CellStatus:
    """One cell. `curve`: held-out loss where it was evaluated, else the training loss of worker 0."""

    id: str
    suite: str
    label: str
    method: str
    topology: str
    seed: int
    stage: str
    steps: int
    step: int = 0
    loss: float | None = None  # the last of the curve's kind
    utilisation: float | None = None  # share of the time so far that was not spent waiting for the network
    clock: float | None = None  # seconds of training
    seconds_left: float | None = None
    uplinks: tuple[Uplink, ...] = ()
    gates: tuple[GateOutcome, ...] = ()
    curve: tuple[Point, ...] = ()
    held_out: bool = False  # what the curve is of
    faults: int = 0  # that were injected
    reason: str = ""  # why it failed or is invalid

    @property
    def final(self) -> bool:
        return self.stage in FINAL

    @property
    def under_way(self) -> bool:
        return not self.final and self.stage != WAITING

    @property
    def title(self) -> str:
        return f"{self.label} on {self.topology}, seed {self.seed}"


@dataclass(frozen=True)
class LiveStatus:
    """Every cell that is known of, in running order. `seconds_left`: of all that are not final; None if unknown."""

    cells: tuple[CellStatus, ...]
    seconds_left: float | None

    @property
    def done(self) -> int:
        return sum(cell.final for cell in self.cells)

    @property
    def finished(self) -> bool:
        return bool(self.cells) and self.done == len(self.cells)

    def json(self) -> dict[str, Any]:
        """As the page reads it."""
        labels = list(dict.fromkeys(cell.label for cell in self.cells))
        styles = series_styles(labels, {cell.label: cell.method for cell in self.cells})
        colours = {label: {"light": look.colour, "dark": look.dark} for label, look in styles.items()}
        return asdict(self) | {"done": self.done, "finished": self.finished, "colours": colours}


def thinned(points: tuple[Point, ...], most: int = 200) -> tuple[Point, ...]:
    """At most `most` of the points, the first and the last among them."""
    if len(points) <= most:
        return points
    return tuple(points[round(place * (len(points) - 1) / (most - 1))] for place in range(most))
