"""What failures cost a method: checkpoints and rollbacks of all sites, or the rounds of the site that failed.

*Rollback*, where the others cannot go on without the site that failed. With M the mean time between such failures,
checkpoints of d seconds every t seconds of work, and R seconds until all can train again, T seconds of work take

    M exp(R / M) (exp((t + d) / M) - 1) T / t

and the best t is sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d, or M where d >= 2M (Daly 2006, Future
Generation Computer Systems 22(3), 303-312; the first term is Young 1974, Communications of the ACM 17(9)).

*The others go on*, where a method has outer steps. A site that fails loses what it did since the last synchronisation,
is away for R and for the transfer of the state, and takes part again at the next synchronisation: on average a round of
L seconds and R. The share of the time for which a site takes part is 1 / (1 + (R + L) / M), with its own M; everyone
waits for the detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from harness.spec.failures import Failures
from netsim.simulated.fair_rates import Floats


@dataclass(frozen=True)
class FailureOverhead:
    """counts: sites by group.  needed: of them, those without which the others cannot go on.  mtbf: of a site of each
    group, seconds.  rounds: of the run.  state: bytes that a returning site receives.
    """

    failures: Failures
    counts: tuple[int, ...]
    needed: tuple[int, ...]
    mtbf: tuple[float, ...]
    rounds: float
    state: float = 0.0

    @property
    def mtbf_of_all(self) -> float:
        """Until any site fails, seconds."""
        return 1 / sum(count / each for count, each in zip(self.counts, self.mtbf, strict=True))

    @property
    def mtbf_of_needed(self) -> float:
        """Until a site fails without which the others cannot go on, seconds; inf where there is none."""
        often = sum(count / each for count, each in zip(self.needed, self.mtbf, strict=True))
        return 1 / often if often else inf

    @property
    def interval(self) -> float | None:
        """Seconds of work between checkpoints; None where there are none."""
        if not any(self.needed):
            return None
        return self.failures.interval or best_interval(self.failures.checkpoint, self.mtbf_of_needed)

    @property
    def rollback(self) -> float:
        """Seconds on top of each second of work for checkpoints and rollbacks."""
        if (interval := self.interval) is None:
            return 0.0
        away = self.failures.restart + self.failures.detection
        return rollback_stretch(interval, self.failures.checkpoint, away, self.mtbf_of_needed) - 1

    def seconds(self, total: Floats, goodput: Floats) -> Floats:
        """Seconds on top of `total` seconds without failures. goodput: bytes/s at which state reaches a site."""
        fail = self.failures
        absent = total / self.rounds + fail.restart + self.state / goodput
        groups = list(zip(self.counts, self.needed, self.mtbf, strict=True))
        others = sum(count - needed for count, needed, _ in groups)
        part = sum(needed + (count - needed) / (1 + absent / each) for count, needed, each in groups)
        waits = sum((count - needed) / each for count, needed, each in groups) * fail.detection if others else 0.0
        found: Floats = np.asarray(total * (sum(self.counts) / part * (1 + waits) + self.rollback - 1))
        return found


def best_interval(checkpoint: float, mtbf: float) -> float:
    """Daly's, seconds of work; checkpoints that cost nothing are written every second of a thousandth of the MTBF."""
    if checkpoint == 0:
        return mtbf / 1000
    if checkpoint >= 2 * mtbf:
        return mtbf
    half = checkpoint / (2 * mtbf)
    return sqrt(2 * checkpoint * mtbf) * (1 + sqrt(half) / 3 + half / 9) - checkpoint


def rollback_stretch(interval: float, checkpoint: float, restart: float, mtbf: float) -> float:
    """Daly's expected time for a second of work; inf where failures come too fast for any progress."""
    with np.errstate(over="ignore"):
        grown = np.exp(restart / mtbf) * np.expm1((interval + checkpoint) / mtbf)
    return float(mtbf * grown / interval)


def mtbf_of(failures: Failures, devices: Sequence[int]) -> tuple[float, ...]:
    """Of a site of each group, seconds."""
    return tuple(failures.mtbf(each) for each in devices)
