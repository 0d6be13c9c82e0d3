"""What `longhaul bench chaos` does when, and what counts as kept: drawn from a seed, the same on every host. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from harness.bench.bounds import STAGES, TEARDOWN_SECONDS, bound_of
from harness.elastic.views import RETURN_SECONDS

SLOW_SECONDS = 1.5  # for which a slow process stands still
TIMEOUT_SECONDS = 20.0  # network.timeout_seconds of the suite
METHODS = ("ddp", "diloco", "photon", "lordo", "fomoe")
DECLARED = ("crash", "pause", "straggle", "corrupt", "short", "partition")
SIGNALLED = ("runner", "agent", "delay daemon", "prober", "coordinator", "trainer")
ONLY_ON = {"netns": ("switch",), "docker": ("container",)}


@dataclass(frozen=True)
class Injection:
    """One disturbance of one run. delay: seconds from the beginning of the stage.

    disturbance: a signal, slow (SIGSTOP and, a moment later, SIGCONT), disk full, clock step, or a declared fault.
    """

    process: str
    disturbance: str
    stage: str
    delay: float

    @property
    def declared(self) -> bool:
        return self.disturbance in DECLARED


@dataclass(frozen=True)
class ChaosSchedule:
    """The run that is disturbed, and how. seed and index find it again: `--seed SEED --only INDEX`."""

    seed: int
    index: int
    substrate: str
    method: str
    injections: tuple[Injection, ...]

    @property
    def survives(self) -> bool:
        """Whether the run is to complete: everything that happens is declared, or passes."""
        passing = ("slow", "clock step")
        return all(one.declared or one.disturbance in passing for one in self.injections)


@dataclass(frozen=True)
class ChaosOutcome:
    """What became of a schedule. seconds: from the last injection to the end of all that the runner had started.

    broken: the invariants that did not hold. state: of the run; "not reached" if it ended before its stage came.
    """

    index: int
    substrate: str
    method: str
    process: str
    disturbance: str
    stage: str
    state: str
    seconds: float
    bound: float
    broken: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def ratio(self) -> float:
        return self.seconds / self.bound

    @property
    def passed(self) -> bool:
        return not self.broken and self.ratio <= 1


def kinds_on(substrate: str, also: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Every pair of a process and what is done to it."""
    kinds = [("trainer", fault) for fault in DECLARED]
    for process in (*SIGNALLED, *ONLY_ON.get(substrate, ())):
        for disturbance in ("SIGKILL", "SIGSTOP", "slow"):
            if (process, disturbance) not in (("runner", "SIGSTOP"), ("container", "SIGSTOP"), ("container", "slow")):
                kinds.append((process, disturbance))
    return [*kinds, *(("runner", name) for name in also)]


def draw(seed: int, index: int, substrate: str, also: Sequence[str] = ()) -> ChaosSchedule:
    """ChaosSchedule number `index` of `seed`. also: "disk full" and "clock step", where this host can do them.

    Kinds take turns, so that each comes as often; method, stage and moment are random.
    """
    dice = random.Random(f"{seed}/{index}/{substrate}")
    kinds = kinds_on(substrate, also)
    order = random.Random(f"{seed}/{index // len(kinds)}/{substrate}").sample(kinds, len(kinds))
    process, disturbance = order[index % len(kinds)]
    stage = "training" if disturbance in (*DECLARED, "disk full") else dice.choice(STAGES[:2])
    one = Injection(process, disturbance, stage, round(dice.uniform(0.0, 1.5), 3))
    return ChaosSchedule(seed, index, substrate, dice.choice(METHODS), (one,))


def bound_seconds(schedule: ChaosSchedule, undisturbed: float) -> float:
    """From the last injection until nothing of the run is left. undisturbed: seconds that the method's run takes.

    A run that is to complete may take what is left of it, and as long as its faults are declared to cost.
    """
    total = TEARDOWN_SECONDS[schedule.substrate]
    for one in schedule.injections:
        if one.disturbance in ("SIGKILL", "SIGSTOP"):
            seconds = bound_of(one.process, one.disturbance, one.stage)
            total += seconds or 0.0
        elif one.disturbance == "slow":
            total += SLOW_SECONDS + undisturbed
        else:
            total += 2 * TIMEOUT_SECONDS + undisturbed
            if one.disturbance == "crash":  # whose trainer is started again while the others wait for it
                total += RETURN_SECONDS
    return total


def smaller(schedule: ChaosSchedule) -> Iterator[ChaosSchedule]:
    """Simpler schedules, the simplest first: fewer injections, no delay, the plainest method, the earliest stage."""
    many = schedule.injections
    if len(many) > 1:
        for left_out in range(len(many)):
            yield replace(schedule, injections=many[:left_out] + many[left_out + 1 :])
    if schedule.method != METHODS[0]:
        yield replace(schedule, method=METHODS[0])
    for place, one in enumerate(many):
        if one.delay:
            changed = replace(one, delay=0.0)
            yield replace(schedule, injections=(*many[:place], changed, *many[place + 1 :]))


def shrink(schedule: ChaosSchedule, fails: Callable[[ChaosSchedule], bool], most: int = 6) -> ChaosSchedule:
    """The simplest schedule found that still fails, after at most `most` trials."""
    tried = 0
    found = True
    while found and tried < most:
        found = False
        for candidate in smaller(schedule):
            if tried == most:
                break
            tried += 1
            if fails(candidate):
                schedule, found = candidate, True
                break
    return schedule
