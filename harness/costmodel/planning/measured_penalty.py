"""What a method's tokens were worth in the runs of a suite: from held-out losses, against a baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.records.archive import read_runs
from harness.records.run_record import Run
from netsim.errors import InputError
from netsim.simulated.fair_rates import Floats

_LEVELS = 20  # losses at which two curves are compared

Curve = tuple[Floats, Floats]  # tokens of all workers, ascending; held-out loss, nats per token


def measured_token_factor(folder: Path, label: str, baseline: str, where: str) -> float:
    """How many times as many tokens runs of `label` took as runs of `baseline` for the same held-out loss: the
    geometric mean over losses that both reached, and over seeds. InputError if there is nothing to compare.
    """
    runs = [run for run in read_runs([folder]) if run.result.valid]
    by_seed = [{run.result.seed: run for run in runs if run.result.label == name} for name in (label, baseline)]
    shared = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not shared:
        found = ", ".join(sorted({run.result.label for run in runs})) or "no valid run"
        raise InputError(where, "runs", found, f"valid runs of {label} and {baseline} with the same seed")
    ratios = [token_ratio(_curve(by_seed[0][seed]), _curve(by_seed[1][seed])) for seed in shared]
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        raise InputError(where, "runs", "curves without a common loss", "two held-out losses that both methods reach")
    return float(np.exp(np.mean(np.log(known))))


def token_ratio(curve: Curve, baseline: Curve) -> float | None:
    """Tokens of `curve` over those of `baseline` at equal losses, the geometric mean; None without a common range.

    Only where both still fall: each is followed by its lowest loss so far, and tokens are interpolated on a logarithmic
    scale.
    """
    falling = [(np.log(tokens), np.minimum.accumulate(loss)) for tokens, loss in (curve, baseline)]
    high = min(float(loss[0]) for _, loss in falling)
    low = max(float(loss[-1]) for _, loss in falling)
    if low >= high:
        return None
    levels = np.linspace(high, low, _LEVELS)
    logs = [np.interp(levels, loss[::-1], tokens[::-1]) for tokens, loss in falling]
    return float(np.exp(np.mean(logs[0] - logs[1])))


def _curve(run: Run) -> Curve:
    steps: Sequence[tuple[int, float]] = [
        (step.tokens * run.result.sites, step.evaluation_loss)
        for step in run.steps()
        if step.evaluation_loss is not None and step.tokens
    ]
    tokens, losses = zip(*steps, strict=True) if steps else ((1,), (np.inf,))
    return np.array(tokens, dtype=float), np.array(losses, dtype=float)
