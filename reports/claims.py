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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from algorithms.method import ON_HOST
from netsim.documents import Document, located, read_yaml, validate
from netsim.units import Share
from reports.statistics import Comparison, compare
from reports.study import Study
from reports.style.quantities import digits
from reports.style.tables import EMPTY, Column, Table, Value

# Name in the file -> column of the runs frame. The first two do not depend on the network, so seeds are the pairs.
_COLUMNS = {
    "final_loss": "final_loss",
    "final_perplexity": "final_perplexity",
    "time_to_loss": "seconds_to_level",
    "training_time": "training_seconds",
    "communication_time": "communication_seconds",
    "compute_utilisation": "compute_utilisation",
    "payload_bytes": "payload_bytes_per_worker",
    "wire_bytes": "wire_bytes_per_worker",
    "memory_bytes": "memory_bytes",
}
_UNTIL_TARGET = ("training_time", "communication_time", "payload_bytes", "wire_bytes")
# What methods log of themselves: mean over layers, workers and the second half of the run's steps.
_LOGGED = ("routing_entropy", "ghost_share", "subspace_overlap")
_OF_THE_SEED = ("final_loss", "final_perplexity", *_LOGGED)

Verdict = Literal["reproduced", "not reproduced", "not testable at this size"]


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
    shows: str = ""  # what can be seen of it at this size, in words
    untestable: str = ""  # why this host's runs cannot decide it
    note: str = ""  # what a reader of the verdict should know

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if (self.components or self.place) and self.metric != "memory_bytes":
            raise ValueError("components and place with metric: memory_bytes")
        if self.ratio is not None and self.expect == "equal":
            raise ValueError("ratio with expect: less or greater; equal has a tolerance")
        return self

    @property
    def words(self) -> str:
        """'at most 0.5', 'less than 1', 'within 2 % of 1'."""
        if self.expect == "equal":
            return f"within {self.tolerance:.2g} of 1"
        if self.ratio is None:
            return f"{self.expect} than 1"
        return f"at {'most' if self.expect == 'less' else 'least'} {self.ratio:g}"


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


@located()
def load_claims(path: Path) -> tuple[Claim, ...]:
    return validate(ClaimsFile, read_yaml(path), str(path)).claims


def claims(study: Study, listed: Sequence[Claim]) -> list[Tested]:
    """Every claim tested on valid runs."""
    return [replace(_test(study, claim), control=_control(study, claim)) for claim in listed]


def _control(study: Study, claim: Claim) -> Comparison | None:
    """What the control comes to, measured as the claim is."""
    if claim.control is None:
        return None
    return _test(study, claim.model_copy(update={"candidate": claim.control, "control": None})).found


def _test(study: Study, claim: Claim) -> Tested:
    candidate, reference = _runs(study, claim.candidate), _runs(study, claim.reference)
    if claim.metric in _LOGGED:
        candidate, reference = (_with_logged(study, side, claim.metric) for side in (candidate, reference))
    if claim.components or claim.place:
        candidate, reference = (_with_memory(study, side, claim) for side in (candidate, reference))
    pairs = _pairs(candidate, reference, claim)
    runs = tuple(int(run) for run in [*candidate["run"], *reference["run"]])
    found = compare(pairs["candidate"].tolist(), pairs["reference"].tolist()) if len(pairs) else None
    if claim.untestable:
        return Tested(claim, found, "not testable at this size", claim.untestable, runs)
    late = (
        [_stopped_short(study, side).sum() for side in (candidate, reference)]
        if claim.metric in _UNTIL_TARGET
        else [0, 0]
    )
    if late[0]:
        note = f"{late[0]} of {len(candidate)} runs of {claim.candidate.label} did not reach their target loss"
        return Tested(claim, None, "not reproduced", note, runs)
    if late[1]:
        note = f"{late[1]} of {len(reference)} runs of {claim.reference.label} did not reach their target loss"
        return Tested(claim, None, "not testable at this size", note, runs)
    if found is None:
        missing = [
            side.label for side, had in ((claim.candidate, candidate), (claim.reference, reference)) if not len(had)
        ]
        note = f"no valid runs of {' and '.join(missing)}" if missing else "no pair with the same seed has both values"
        return Tested(claim, None, "not testable at this size", note, runs)
    verdict, note = judge(claim, found)
    return Tested(claim, found, verdict, note, runs)


def judge(claim: Claim, found: Comparison) -> tuple[Verdict, str]:
    """The median must meet the bound; from three pairs on, the 95 % interval must also lie on the right side of 1."""
    few = "" if found.low is not None else f"{found.n} pair{'s' if found.n > 1 else ''}, so no interval"
    if claim.expect == "equal":
        return ("reproduced" if abs(found.ratio - 1) <= claim.tolerance else "not reproduced"), few
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
    return "reproduced", few


def _stopped_short(study: Study, runs: pd.DataFrame) -> pd.Series:
    """Runs that should have ended at a target loss and did not reach it: what they took is not what it takes."""
    wanted = [study.stored[int(run)].spec.train.stop_at_target for run in runs["run"]]
    return runs["time_to_target_seconds"].isna() & pd.Series(wanted, index=runs.index, dtype=bool)


def _runs(study: Study, side: Side) -> pd.DataFrame:
    runs = study.runs[study.runs["label"] == side.label]
    if side.topology is not None:
        runs = runs[runs["topology"] == side.topology]
    if side.suite is not None:
        runs = runs[[study.stored[int(run)].spec.suite == side.suite for run in runs["run"]]]
    return runs


def _with_logged(study: Study, runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Runs with what their methods logged of themselves as a column; empty where they log no such thing."""
    found = study.logged(metric)
    last = study.steps.groupby("run")["step"].max()
    late = found[found["step"] > found["run"].map(last) / 2]
    return runs.merge(late.groupby("run")["value"].mean().rename(metric), on="run", how="left")


def _with_memory(study: Study, runs: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Runs with the memory of the claim's components and place alone; empty where a run has none of them."""
    memory = study.memory
    if claim.components:
        memory = memory[memory["component"].isin(claim.components)]
    if claim.place is not None:
        memory = memory[memory["component"].isin(ON_HOST) == (claim.place == "host")]
    return runs.drop(columns="memory_bytes").merge(
        memory.groupby("run")["bytes"].sum().rename("memory_bytes"), on="run", how="left"
    )


def _pairs(candidate: pd.DataFrame, reference: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Values of both sides for each seed, and for each network where both sides are on any."""
    column = _COLUMNS.get(claim.metric, claim.metric)
    given = claim.candidate.topology is not None or claim.reference.topology is not None
    keys = ["seed"] if given or claim.metric in _OF_THE_SEED else ["topology", "seed"]
    sides = [
        side.groupby(keys, as_index=False)[[column]].median().rename(columns={column: name})
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
        Column("sees", "sees differences from"),
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
                "sees": EMPTY if one.sees is None else Value(one.sees, f"{100 * one.sees:.1f} %"),
                "verdict": Value(one.verdict, words),
            }
        )
    caption = (
        "Ratio of the two methods' values over runs paired by seed: median, in brackets its 95 % bootstrap interval. "
    )
    caption += (
        "A claim is reproduced where the median meets it and, from three pairs on, the interval does not reach 1."
    )
    caption += " A control takes the candidate's place beside the same reference. "
    caption += "Differences are seen from half the interval's width on."
    return Table("claims", "Claims, held against these runs", caption, columns, tuple(rows))


def _control_value(one: Tested) -> Value:
    if one.claim.control is None or one.control is None:
        return EMPTY
    return Value(one.control.ratio, f"{one.claim.control.label}: {digits(one.control.ratio)}")
