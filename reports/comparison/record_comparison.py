"""Two sets of records, paired by suite, method, network and seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from netsim.errors import InputError
from reports.comparison.metrics import METRICS, Metric
from reports.comparison.setting_differences import SettingDifferences, setting_differences
from reports.inference.hierarchical import Estimate, nested_estimate
from reports.inference.power import detectable_effect
from reports.records import Stored, collect
from reports.study import Study

_KEYS = ["suite", "label", "topology", "seed"]


@dataclass(frozen=True)
class Change:
    """How one method changed from A to B by one metric, on one network, or on all (topology '').

    a, b: medians over the pairs. estimate: of the changes (differences, or logs of ratios), drawn by network and seed.
    detectable: the smallest change that so many pairs can see at their spread, with a power of 0.8; None below three.
    """

    suite: str
    label: str
    topology: str
    metric: Metric
    a: float
    b: float
    estimate: Estimate
    detectable: float | None

    @property
    def place(self) -> str:
        return self.topology or "all networks"


@dataclass(frozen=True)
class RecordComparison:
    """`changes`: by method and network. `overall`: by method. only_a, only_b: valid runs without a counterpart."""

    names: tuple[str, str]
    pairs: int
    changes: tuple[Change, ...]
    overall: tuple[Change, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    settings: SettingDifferences


def compare_records(a: Path, b: Path, names: tuple[str, str]) -> RecordComparison:
    """The valid runs under two directories. InputError if no run of one has a counterpart in the other."""
    studies = tuple(Study(collect([folder])) for folder in (a, b))
    frames = [_frame(study) for study in studies]
    pairs = frames[0].merge(frames[1], on=_KEYS, suffixes=("_a", "_b"))
    if pairs.empty:
        raise InputError(
            " and ".join(names), "", "no valid run of the same suite, method, network and seed in both", "at least one"
        )
    _add_times(pairs, studies[0], studies[1])
    keys = [set(map(tuple, frame[_KEYS].to_numpy().tolist())) for frame in frames]
    return RecordComparison(
        names,
        len(pairs),
        tuple(_changes(pairs, by_network=True)),
        tuple(_changes(pairs, by_network=False)),
        _listed(keys[0] - keys[1]),
        _listed(keys[1] - keys[0]),
        setting_differences(list(_runs(studies, pairs))),
    )


def _frame(study: Study) -> pd.DataFrame:
    """Valid runs by key; of several with the same key, as on two substrates, the last."""
    suites = [run.spec.suite for run in study.stored]
    valid = study.everything[study.everything["valid"]]
    frame = valid.assign(suite=[suites[int(run)] for run in valid["run"]])
    columns = [metric.column for metric in METRICS if metric.column in frame]
    return frame[[*_KEYS, "run", *columns]].drop_duplicates(_KEYS, keep="last")


def _add_times(pairs: pd.DataFrame, a: Study, b: Study) -> None:
    """Training time to the lowest loss that both sides reached in every pair of a suite, method and network."""
    lows = [study.curves.groupby("run")["loss"].min() for study in (a, b)]
    for side, low in zip("ab", lows, strict=True):
        pairs[f"low_{side}"] = [low.get(run, float("nan")) for run in pairs[f"run_{side}"]]
    level = pairs.groupby(_KEYS[:3])[["low_a", "low_b"]].transform("max").max(axis=1)
    for side, study in (("a", a), ("b", b)):
        found = [
            study.crossing_at(int(run), float(loss)) for run, loss in zip(pairs[f"run_{side}"], level, strict=True)
        ]
        pairs[f"seconds_to_level_{side}"] = [one.seconds if one is not None else float("nan") for one in found]


def _changes(pairs: pd.DataFrame, by_network: bool) -> Iterator[Change]:
    keys = _KEYS[:3] if by_network else _KEYS[:2]
    for key, mine in pairs.groupby(keys, sort=True):
        suite, label, topology = (*map(str, key), "")[:3]
        for metric in METRICS:
            a, b = (mine[f"{metric.column}_{side}"].to_numpy(dtype=float) for side in "ab")
            changes = np.array([metric.change(x, y) for x, y in zip(a, b, strict=True)])
            estimate = nested_estimate(
                [changes[(mine["topology"] == one).to_numpy()] for one in mine["topology"].unique()]
            )
            if estimate is None:
                continue
            kept = np.isfinite(changes)
            yield Change(
                suite,
                label,
                topology,
                metric,
                float(np.median(a[kept])),
                float(np.median(b[kept])),
                estimate,
                detectable_effect(changes.tolist()) if estimate.groups == 1 else None,
            )


def _runs(studies: tuple[Study, ...], pairs: pd.DataFrame) -> Iterator[tuple[Stored, Stored]]:
    for a, b in zip(pairs["run_a"], pairs["run_b"], strict=True):
        yield studies[0].stored[int(a)], studies[1].stored[int(b)]


def _listed(keys: set[tuple[object, ...]]) -> tuple[str, ...]:
    return tuple(
        f"{suite}: {label} on {topology}, seed {seed}" for suite, label, topology, seed in sorted(keys, key=str)
    )
