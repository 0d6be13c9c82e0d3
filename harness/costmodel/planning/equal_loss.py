"""Time to equal loss: what a method's tokens are worth against data parallelism's.

*Loss.* Scaling Laws for DiLoCo (arXiv 2503.09799, NeurIPS version) fits the loss after 20 tokens per parameter of a
model of N parameters as L = A N^a, for data parallelism and for M = 1, 2, 4, 8 replicas; between them ln L is
interpolated in ln M, beyond 8 it grows as M^0.0116, as in the joint fit. The fit holds for 35e6 to 2.4e9 parameters
and a period of 30 steps.

*Tokens.* A loss that is higher by a share r is made up for by more tokens, by the law of Hoffmann et al. 2022 (arXiv
2203.15556, section 3.3), L(N, D) = 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28: the D' with (1 + r) L(N, D') = L(N, D).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from harness.costmodel.planning.measured_penalty import measured_token_factor
from harness.costmodel.planning.planning_questions import DAY
from harness.costmodel.projected_row import ProjectedRow
from harness.spec.quality import OwnPenalty
from harness.spec.scenario import Scenario
from netsim.errors import InputError

DATA_PARALLEL = (18.129, -0.0953)
REPLICAS = {1: (18.363, -0.0961), 2: (18.768, -0.0969), 4: (19.762, -0.0992), 8: (21.051, -0.1018)}
BEYOND = 0.0116  # exponent of M in the joint fit
FITTED_PARAMETERS, FITTED_PERIOD, FITTED_TOKENS = (35e6, 2.4e9), 30, 20.0
FLOOR, OF_PARAMETERS, OF_TOKENS = 1.69, (406.4, 0.34), (410.7, 0.28)
SOURCE = "arXiv 2503.09799 for the loss, 2203.15556 for tokens"


@dataclass(frozen=True)
class EqualLoss:
    """loss_percent: above data parallelism's after the same tokens.  token_factor: tokens for data parallelism's loss,
    over its tokens; None where no number of tokens suffices, or no law is known.  days: for that loss.  outside: of
    what the law was fitted to.
    """

    label: str
    loss_percent: float | None
    token_factor: float | None
    days: float | None
    outside: str
    source: str


def loss_of(parameters: float, replicas: int | None) -> float:
    """Nats per token after 20 tokens per parameter; replicas: DiLoCo's, None for data parallelism."""
    if replicas is None:
        return _power(DATA_PARALLEL, parameters)
    known = sorted(REPLICAS)
    if replicas >= known[-1]:
        return _power(REPLICAS[known[-1]], parameters) * float((replicas / known[-1]) ** BEYOND)
    low = max(m for m in known if m <= replicas)
    high = min(m for m in known if m > replicas)
    share = log(replicas / low) / log(high / low)
    below, above = (log(_power(REPLICAS[m], parameters)) for m in (low, high))
    return exp(below + share * (above - below))


def tokens_for(loss_above: float, parameters: float, tokens: float) -> float | None:
    """How many times as many tokens make up for a loss that is higher by a share; None where none do."""
    scale, exponent = OF_TOKENS
    base = FLOOR + OF_PARAMETERS[0] / parameters ** OF_PARAMETERS[1]
    left = (base + scale / tokens**exponent) / (1 + loss_above) - base
    return None if left <= 0 else float((scale / left) ** (1 / exponent) / tokens)


def law_of(parameters: float, sites: int, tokens: float) -> tuple[float, float | None]:
    """Of DiLoCo: by which share its loss is above data parallelism's, and how many times the tokens make up for it."""
    above = loss_of(parameters, sites) / loss_of(parameters, None) - 1
    return above, tokens_for(above, parameters, tokens)


def follows_law(scenario: Scenario, label: str, algorithm: str) -> bool:
    """Whether what the method's tokens are worth follows from the published law."""
    quality = scenario.quality
    return quality is not None and quality.law != "none" and algorithm == "diloco" and label not in quality.own


def equal_losses(scenario: Scenario, rows: Sequence[ProjectedRow]) -> Iterator[EqualLoss]:
    """For each method at its base that trains the scenario's model. rows: those of the base."""
    assert scenario.quality is not None
    labels = [row.label for row in rows]
    if unknown := sorted(scenario.quality.own.keys() - labels):
        raise InputError.unknown(scenario.where, "quality.own", unknown[0], labels)
    same = [row for row in rows if row.model == scenario.model.name]
    if not same:
        return
    reference = reference_of(same)
    for row in same:
        per_token = row.total_seconds / row.tokens

        def entry(
            above: float | None,
            factor: float | None,
            outside: str,
            source: str,
            row: ProjectedRow = row,
            all_tokens: float = per_token * reference.tokens,
        ) -> EqualLoss:
            days = None if factor is None else factor * all_tokens / DAY
            return EqualLoss(row.label, None if above is None else 100 * above, factor, days, outside, source)

        if (own := scenario.quality.own.get(row.label)) is not None:
            above, factor = _own(scenario, own, row, reference)
            yield entry(above, factor, "", own.source)
        elif row is reference:
            yield entry(0.0, 1.0, "", "what the others are compared with")
        elif follows_law(scenario, row.label, row.algorithm):
            above, factor = law_of(row.parameters, row.sites, reference.tokens)
            yield entry(above, factor, _outside(row, reference), SOURCE)
        else:
            yield entry(None, None, "", "no law is known: state one under quality.own")


def reference_of(rows: Sequence[ProjectedRow]) -> ProjectedRow:
    """What the others are compared with: data parallelism, or the first method."""
    return next((row for row in rows if row.algorithm == "ddp"), rows[0])


def _own(
    scenario: Scenario, own: OwnPenalty, row: ProjectedRow, reference: ProjectedRow
) -> tuple[float | None, float | None]:
    if own.tokens is not None:
        return None, own.tokens
    if own.loss is not None:
        return own.loss, tokens_for(own.loss, row.parameters, reference.tokens)
    assert own.runs is not None
    folder = Path(scenario.where).parent / own.runs
    return None, measured_token_factor(folder, row.label, reference.label, f"{scenario.where}: quality.own.{row.label}")


def _outside(row: ProjectedRow, reference: ProjectedRow) -> str:
    low, high = FITTED_PARAMETERS
    reasons = {
        "parameters": not low <= row.parameters <= high,
        "sites": row.sites > max(REPLICAS),
        "period": row.sync_every != FITTED_PERIOD,
        "tokens per parameter": not 0.9 <= reference.tokens / row.parameters / FITTED_TOKENS <= 1.1,
    }
    return ", ".join(name for name, is_outside in reasons.items() if is_outside)


def _power(fit: tuple[float, float], parameters: float) -> float:
    return float(fit[0] * parameters ** fit[1])
