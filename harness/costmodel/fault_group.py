"""The state of a simulated run with faults: its workers, its view, what is under way, what was lost. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.costmodel.fault_terms import FaultModelInputs
from harness.elastic.views import View
from netsim.traffic import Transfer


@dataclass
class SimulatedWorker:
    """clock: seconds since training began. made: the steps in which it trained, that count so far."""

    clock: float = 0.0
    committed: int = 0
    made: list[int] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    died: float | None = None  # until that is noticed
    silent_until: float = 0.0  # the end of its last pause
    paused: int = 0  # the step of that pause
    back: float | None = None  # when it asks to be let in, if it is outside and will
    due: int | None = None  # the step from which it is let in; None: whenever it asks
    away: float = 0.0  # seconds for which it is away at least, where the others wait for it
    interrupted: bool = False  # in a step, when it was left out alive


@dataclass
class UnderWay:
    """A transfer that was released and is due after step `due`; released: when, by the last of its members."""

    due: int
    transfer: Transfer
    released: float


@dataclass
class SimulatedGroup:
    """Everything that the step model and the rendezvous model share.

    step: done by all members. parted: pairs that have excluded each other, the culprit second. sent: payload bytes of
    the steps that count so far. unnoticed: when the faults happened that nobody has noticed.
    """

    workers: list[SimulatedWorker]
    view: View
    step: int = 0
    cold: bool = True
    parted: list[tuple[int, int]] = field(default_factory=list)
    under_way: list[UnderWay] = field(default_factory=list)
    sent: dict[int, int] = field(default_factory=dict)
    unnoticed: list[float] = field(default_factory=list)
    lost: int = 0  # steps of single workers
    repeated: int = 0  # bytes
    caught_up: int = 0  # bytes
    detection: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    attempts: int = 0  # generations since the last step that all members finished
    abandoned: str = ""

    @classmethod
    def of(cls, inputs: FaultModelInputs) -> SimulatedGroup:
        """Before the first step."""
        sites = range(inputs.plan.sites)
        without_one = (tuple(rank for rank in sites if rank != lost) for lost in sites)
        fragile = inputs.after_loss == "rollback" or not all(map(inputs.survives, without_one))
        workers = [SimulatedWorker(checkpoints=[0] if fragile else []) for _ in sites]
        return cls(workers, View(generation=0, members=tuple(sites), source=0))

    @property
    def there(self) -> list[int]:
        """The members that live."""
        return [rank for rank in self.view.members if self.workers[rank].died is None]

    def clocks(self, ranks: Iterable[int]) -> list[float]:
        return [self.workers[rank].clock for rank in ranks]

    def deaths(self) -> list[float]:
        """When members died whose end is not noticed yet."""
        return [worker.died for worker in self.workers if worker.died is not None]

    def lose(self, worker: SimulatedWorker, after: int) -> None:
        """Whatever the worker did after a step was wasted."""
        self.lost += sum(step > after for step in worker.made)
        worker.made = [step for step in worker.made if step <= after]
