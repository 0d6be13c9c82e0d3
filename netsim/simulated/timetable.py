"""Which recurrences of a plan each step carries out together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsim.simulated.fair_rates import Ints
from netsim.traffic import Plan, Recurrence

_BITS = 62  # of a word


@dataclass(frozen=True, eq=False)
class Timetable:
    """steps: those with a transfer, ascending.  kind_of_step: of each, the place in `kinds` of the recurrences (by
    index) that it carries out.
    """

    kinds: tuple[tuple[int, ...], ...]
    steps: Ints
    kind_of_step: Ints

    @classmethod
    def of(cls, plan: Plan) -> Timetable:
        """A bit per recurrence that repeats; those that happen once, of which there may be thousands, one by one."""
        repeating = [(i, r, np.arange(r.first, min(r.last, plan.steps) + 1, r.every)) for i, r in _several(plan)]
        steps = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(at for _, _, at in repeating)]))
        kind = np.zeros(len(steps), dtype=np.int64)
        for start in range(0, len(repeating), _BITS):
            bits = np.zeros(len(steps), dtype=np.int64)
            for bit, (_, _, at) in enumerate(repeating[start : start + _BITS]):
                bits[np.searchsorted(steps, at)] |= 1 << bit
            values, place = np.unique(bits, return_inverse=True)
            _, kind = np.unique(kind * len(values) + place, return_inverse=True)
        examples = steps[np.unique(kind, return_index=True)[1]].tolist()
        kinds = {tuple(i for i, r, _ in repeating if r.happens_at(step)): n for n, step in enumerate(examples)}
        once: dict[int, list[int]] = {}
        for index, r in enumerate(plan.recurrences):
            if r.count == 1 and r.first <= plan.steps:
                once.setdefault(r.first, []).append(index)
        if not once:
            return cls(tuple(kinds), steps, kind)
        known, by_step = tuple(kinds), dict(zip(steps.tolist(), kind.tolist(), strict=True))
        for step, indices in once.items():
            regular = known[by_step[step]] if step in by_step else ()
            by_step[step] = kinds.setdefault(tuple(sorted((*regular, *indices))), len(kinds))
        steps = np.array(sorted(by_step), dtype=np.int64)
        return cls(tuple(kinds), steps, np.array([by_step[step] for step in steps.tolist()], dtype=np.int64))

    def counts(self) -> list[tuple[tuple[int, ...], int]]:
        """The kinds in the order in which they first come, with how many steps there are of each."""
        places, first, counts = np.unique(self.kind_of_step, return_index=True, return_counts=True)
        return [(self.kinds[places[at]], int(counts[at])) for at in np.argsort(first)]


def _several(plan: Plan) -> list[tuple[int, Recurrence]]:
    return [(index, r) for index, r in enumerate(plan.recurrences) if r.count > 1]
