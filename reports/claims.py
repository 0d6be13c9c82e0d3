"""Claims of the papers, held against runs: what was expected, what was found, and whether that reproduces it.

A file of claims names, for each, two labels, a metric and what should hold between them:

    claims:
      - claim: DiLoCo reaches the loss sooner than DDP across the Atlantic
        source: arXiv 2311.08105, table 2
        candidate: diloco                        # or {label: diloco, topology: transatlantic}
        reference: {label: ddp, topology: transatlantic}
        metric: time_to_loss
        expect: less                             # less, greater or equal
        ratio: 0.5                               # candidate / reference at most (less) or at least (greater) this
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from algorithms.method import ON_HOST
from netsim.documents import Document, located, read_yaml, validate
from netsim.units import Share
from reports.claim_runs import LOGGED, memory_column, memory_components
from reports.statistics import Comparison, compare
from reports.style.quantities import digits
from reports.style.tables import EMPTY, Column, Table, Value

_UNTIL_TARGET = ("training_time", "communication_time", "payload_bytes", "wire_bytes")
LOSSES = ("final_loss", "final_perplexity")
# These do not depend on the network, so seeds are the pairs.
_OF_THE_SEED = (*LOSSES, *LOGGED)

Verdict = Literal["reproduced", "not reproduced", "not testable at this size", "not trained"]


class Side(Document):
    """One side of a comparison; without a topology or suite, all that both sides have."""

    label: str
    topology: str | None = None
    suite: str | None = None


def _side(value: object) -> object:
    return {"label": value} if isinstance(value, str) else value


_SIDE_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})  # see _side


class Claim(Document):
    claim: str = Field(min_length=1, max_length=300)
    source: str = ""
    candidate: Annotated[Side, BeforeValidator(_side), _SIDE_SCHEMA]
    reference: Annotated[Side, BeforeValidator(_side), _SIDE_SCHEMA]
    metric: Literal[
        "final_loss",
        "final_perplexity",
        "time_to_loss",
        "training_time",
        "communication_time",
        "compute_utilisation",
        "payload_bytes",
        "wire_bytes",
        "memory_bytes",
        "routing_entropy",
        "ghost_share",
        "subspace_overlap",
    ]
    expect: Literal["less", "greater", "equal"]
    ratio: float | None = Field(default=None, gt=0)
    tolerance: Share = 0.02  # of equal
    # Of memory_bytes: only these components, or those that must lie on the accelerator or may lie in host memory.
    components: tuple[str, ...] = ()
    place: Literal["device", "host"] | None = None
    # Its ratio to the reference is printed beside.
    control: Annotated[Side, BeforeValidator(_side), _SIDE_SCHEMA] | None = None
    uncontrolled: str = ""  # why there is no control, or what takes its place
    shows: str = ""  # what can be seen of it at this size, in words
    untestable: str = ""  # why this host's runs cannot decide it
    note: str = ""  # what a reader of the verdict should know

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if (self.components or self.place) and self.metric != "memory_bytes":
            raise ValueError("components and place with metric: memory_bytes")
        if self.ratio is not None and self.expect == "equal":
            raise ValueError("ratio with expect: less or greater; equal has a tolerance")
        if self.control is not None and self.uncontrolled:
            raise ValueError("either control or uncontrolled")
        return self

    @property
    def words(self) -> str:
        """'at most 0.5', 'less than 1', 'within 2 % of 1'."""
        if self.expect == "equal":
            return f"within {self.tolerance:.2g} of 1"
        if self.ratio is None:
            return f"{self.expect} than 1"
        return f"at {'most' if self.expect == 'less' else 'least'} {self.ratio:g}"

    @property
    def exact(self) -> bool:
        """Whether its values follow from sizes alone, so that seeds do not differ."""
        to_a_loss = any(" to " in side.label for side in (self.candidate, self.reference))
        return self.metric == "memory_bytes" or (self.metric in ("payload_bytes", "wire_bytes") and not to_a_loss)


class ClaimsFile(Document):
    """Claims as written; the format is described in docs/reports.md."""

    claims: tuple[Claim, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Tested:
    """A claim and what the runs say. `found`: candidate over reference; `control`: the control over the reference."""

    claim: Claim
    found: Comparison | None
    verdict: Verdict
    note: str
    runs: tuple[int, ...]
    control: Comparison | None = None

    @property
    def sees(self) -> float | None:
        """The smallest difference, as a share, that so many pairs of this spread tell from none."""
        if self.found is None or self.found.low is None or self.found.high is None or self.found.low <= 0:
            return None
        return float((self.found.high / self.found.low) ** 0.5) - 1

    @property
    def power(self) -> str:
        """Which differences these runs can see, in words."""
        if self.sees is not None and self.found is not None:
            return f"differences from {100 * self.sees:.1f} %"
        if self.claim.exact:
            return "exact: one seed is enough"
        return "none: an interval takes three pairs" if self.found is not None else "none yet"


@located()
def load_claims(path: Path) -> tuple[Claim, ...]:
    return validate(ClaimsFile, read_yaml(path), str(path)).claims


def claims(runs: pd.DataFrame, listed: Sequence[Claim], suites: Mapping[str, str] | None = None) -> list[Tested]:
    """Every claim tested on valid runs.

    runs: see reports.claim_runs. suites: by label, the suite that trains it, for claims without runs.
    """
    tested = [replace(_test(runs, claim), control=_control(runs, claim)) for claim in listed]
    return [_with_command(one, suites or {}) for one in tested]


def _with_command(one: Tested, suites: Mapping[str, str]) -> Tested:
    """Of a claim that was not trained, which commands train it."""
    sides = [one.claim.candidate.label, one.claim.reference.label]
    named = sorted({suites[label] for label in sides if label in suites})
    if one.verdict != "not trained" or not named:
        return one
    return replace(one, note=f"{one.note}; {' and '.join(f'longhaul run {name}' for name in named)} trains them")


def _control(runs: pd.DataFrame, claim: Claim) -> Comparison | None:
    """What the control comes to, measured as the claim is."""
    if claim.control is None:
        return None
    return _test(runs, claim.model_copy(update={"candidate": claim.control, "control": None})).found


def _test(runs: pd.DataFrame, claim: Claim) -> Tested:
    candidate, reference = (_side_values(runs, side, claim) for side in (claim.candidate, claim.reference))
    pairs = _pairs(candidate, reference, claim)
    numbers = tuple(int(run) for run in [*candidate["run"], *reference["run"]])
    found = compare(pairs["candidate"].tolist(), pairs["reference"].tolist()) if len(pairs) else None
    if claim.untestable:
        return Tested(claim, found, "not testable at this size", claim.untestable, numbers)
    until = claim.metric in _UNTIL_TARGET
    late = [int(side["stopped_short"].sum()) if until else 0 for side in (candidate, reference)]
    if late[0]:
        note = f"{late[0]} of {len(candidate)} runs of {claim.candidate.label} did not reach their target loss"
        return Tested(claim, None, "not reproduced", note, numbers)
    if late[1]:
        note = f"{late[1]} of {len(reference)} runs of {claim.reference.label} did not reach their target loss"
        return Tested(claim, None, "not testable at this size", note, numbers)
    if found is None:
        missing = [
            side.label for side, had in ((claim.candidate, candidate), (claim.reference, reference)) if not len(had)
        ]
        if missing:
            return Tested(claim, None, "not trained", f"no valid runs of {' and '.join(missing)}", numbers)
        return Tested(claim, None, "not testable at this size", "no pair with the same seed has both values", numbers)
    verdict, note = judge(claim, found)
    return Tested(claim, found, verdict, note, numbers)


_PAST = "by the median; the 95 % interval reaches past the bound"


def judge(claim: Claim, found: Comparison) -> tuple[Verdict, str]:
    """The median must meet the bound; from three pairs on, the 95 % interval must also lie on the right side of 1.

    Of another bound than 1, the note says where the interval reaches past it: more seeds may overturn the verdict.
    """
    few = "" if found.low is not None else f"{found.n} pair{'s' if found.n > 1 else ''}, so no interval"
    if claim.expect == "equal":
        within = abs(found.ratio - 1) <= claim.tolerance
        past = any(end is not None and abs(end - 1) > claim.tolerance for end in (found.low, found.high))
        return ("reproduced" if within else "not reproduced"), (_PAST if within and past else few)
    less = claim.expect == "less"
    bound = claim.ratio if claim.ratio is not None else 1.0
    slack = 1e-9 * bound  # ratios went through logarithms
    meets = found.ratio <= bound + slack if less else found.ratio >= bound - slack
    if claim.ratio is None and abs(found.ratio - 1) <= slack:
        meets = False
    if not meets:
        right = found.ratio < 1 if less else found.ratio > 1
        return "not reproduced", "the direction holds, the size does not" if right else few
    if (
        found.low is not None
        and found.high is not None
        and (found.high >= 1 if less else found.low <= 1)
        and bound == 1
    ):
        return "not reproduced", "the 95 % interval has 1 in it"
    end = found.high if less else found.low
    past = end is not None and (end > bound + slack if less else end < bound - slack)
    return "reproduced", _PAST if past else few


def _side_values(runs: pd.DataFrame, side: Side, claim: Claim) -> pd.DataFrame:
    """The runs of one side, with the claim's metric in the column `value`."""
    mine = runs[runs["label"] == side.label]
    if side.topology is not None:
        mine = mine[mine["topology"] == side.topology]
    if side.suite is not None:
        mine = mine[mine["suite"] == side.suite]
    return mine.assign(value=_memory(mine, claim) if claim.components or claim.place else mine[claim.metric])


def _memory(runs: pd.DataFrame, claim: Claim) -> pd.Series:
    """Bytes of the claim's components and place alone; empty where a run has none of them."""
    components = claim.components or tuple(memory_components(runs))
    if claim.place is not None:
        components = tuple(one for one in components if (one in ON_HOST) == (claim.place == "host"))
    return runs.reindex(columns=[memory_column(one) for one in components]).sum(axis=1, min_count=1)


def _pairs(candidate: pd.DataFrame, reference: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Values of both sides for each seed, and for each network where both sides are on any."""
    given = claim.candidate.topology is not None or claim.reference.topology is not None
    keys = ["seed"] if given or claim.metric in _OF_THE_SEED else ["topology", "seed"]
    sides = [
        side.groupby(keys, as_index=False)[["value"]].median().rename(columns={"value": name})
        for side, name in ((candidate, "candidate"), (reference, "reference"))
    ]
    return sides[0].merge(sides[1], on=keys).replace([np.inf, -np.inf], np.nan).dropna()


def claims_table(tested: Sequence[Tested]) -> Table:
    columns = (
        Column("claim", "claim", numeric=False),
        Column("source", "source", numeric=False),
        Column("metric", "metric", numeric=False),
        Column("expected", "expected ratio", numeric=False),
        Column("found", "found"),
        Column("control", "control", numeric=False),
        Column("n", "pairs"),
        Column("sees", "power", numeric=False),
        Column("verdict", "verdict", numeric=False),
    )
    rows = []
    for one in tested:
        found, claim = one.found, one.claim
        ratio, count = EMPTY, EMPTY
        if found is not None:
            spread = (
                f"[{digits(found.low)}, {digits(found.high)}]"
                if found.low is not None and found.high is not None
                else ""
            )
            ratio = Value(found.ratio, digits(found.ratio), spread, one.runs)
            count = Value(found.n, str(found.n))
        words = f"{one.verdict}: {one.note}" if one.note else one.verdict
        for more in (claim.note, claim.shows):
            words = f"{words}. {more}" if more else words
        what = [claim.metric.replace("_", " "), *claim.components, *([f"on the {claim.place}"] if claim.place else [])]
        metric = f"{', '.join(what)}: {claim.candidate.label} / {claim.reference.label}"
        rows.append(
            {
                "claim": Value(claim.claim, claim.claim),
                "source": Value(claim.source, claim.source or "–"),
                "metric": Value(claim.metric, metric),
                "expected": Value(claim.words, claim.words),
                "found": ratio,
                "control": _control_value(one),
                "n": count,
                "sees": Value(one.sees, one.power),
                "verdict": Value(one.verdict, words),
            }
        )
    caption = (
        "Ratio of the two methods' values over runs paired by seed: median, in brackets its 95 % bootstrap interval. "
    )
    caption += (
        "A claim is reproduced where the median meets it and, from three pairs on, the interval does not reach 1; "
        "where the interval reaches past another bound than 1, the verdict says so."
    )
    caption += " A control takes the candidate's place beside the same reference. "
    caption += (
        "Power: the smallest difference that so many pairs of this spread tell from none, half the interval's width."
    )
    return Table("claims", "Claims, held against these runs", caption, columns, tuple(rows))


def _control_value(one: Tested) -> Value:
    if one.claim.control is None:
        return Value(None, one.claim.uncontrolled) if one.claim.uncontrolled else EMPTY
    if one.control is None:
        return Value(None, f"{one.claim.control.label}: not trained")
    return Value(one.control.ratio, f"{one.claim.control.label}: {digits(one.control.ratio)}")
