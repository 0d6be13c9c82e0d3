"""Everything that tables, figures and the page are made from: valid runs, in frames, with what they are compared to."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from reports.crossing import Crossing, crossing
from reports.frames import buckets_frame, curves_frame, memory_frame, runs_frame, steps_frame
from reports.predictions import Predictions
from reports.records import Collection, Stored
from reports.scaled_frame import standing_frame
from reports.statistics import Comparison, Convergence, Range, check_convergence, compare, ratio_range

ORDER = ("ddp", "diloco", "photon", "lordo", "fomoe", "lowrank_ddp", "local_adam", "desloc")


@dataclass(frozen=True)
class Level:
    """The loss that times are measured to: the reader's, the suite's target, or the lowest that all runs reached."""

    loss: float
    asked: bool
    missed_target: float | None = None  # the suite's, where no run reached it
    chosen: bool = False  # by the reader

    @property
    def words(self) -> str:
        kind = "the suite's target" if self.asked else "the lowest loss that every run reached"
        kind = "chosen for this report" if self.chosen else kind
        if self.missed_target is not None:
            kind += f"; no run reached the suite's target {self.missed_target:.3f}"
        return f"held-out loss {self.loss:.3f} ({kind})"


def natural(text: str) -> list[tuple[float, str]]:
    """A sort key by which 'r4' comes before 'r16'."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(float(part), "") if index % 2 else (-1.0, part) for index, part in enumerate(parts)]


@dataclass(frozen=True)
class Study:
    """`loss`: what times are measured to, instead of the suites' targets."""

    collection: Collection
    predictions: Predictions | None = None
    loss: float | None = None

    @property
    def stored(self) -> tuple[Stored, ...]:
        return self.collection.runs

    @cached_property
    def everything(self) -> pd.DataFrame:
        """All finished runs, those that are not valid included: for the list of runs only."""
        return runs_frame(self.stored)

    @cached_property
    def steps(self) -> pd.DataFrame:
        steps = steps_frame(self.stored)
        return steps[steps["run"].isin(self._valid)]

    def logged(self, metric: str) -> pd.DataFrame:
        """What methods log of themselves: run, step and value, the mean over layers, for each worker that logged it."""
        columns = [name for name in self.steps.columns if name.split("/")[0] == f"metric.{metric}"]
        return self.steps[["run", "step"]].assign(value=self.steps[columns].mean(axis=1)).dropna()

    @cached_property
    def _valid(self) -> list[int]:
        return [int(run) for run in self.everything.loc[self.everything["valid"], "run"]]

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Held-out loss of valid runs, with group, label, topology and seed."""
        names = self.everything[["run", "group", "label", "topology", "seed"]]
        return names.merge(curves_frame(self.steps), on="run")

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Valid runs with `seconds_to_level`: training clock to the group's level, NaN where it is not reached.

        seconds_to_level_low, seconds_to_level_high: the evaluations around it. at_first: it is an upper bound.
        """
        valid = self.everything[self.everything["valid"]].copy()
        found = [
            self.crossing_of(int(row["run"]), self.levels.get(str(row["group"]))) for row in valid.to_dict("records")
        ]
        valid["seconds_to_level"] = [one.seconds if one else float("nan") for one in found]
        valid["seconds_to_level_low"] = [one.low if one else float("nan") for one in found]
        valid["seconds_to_level_high"] = [one.high if one else float("nan") for one in found]
        valid["at_first"] = [one is not None and one.at_first for one in found]
        return valid.reset_index(drop=True)

    @cached_property
    def buckets(self) -> pd.DataFrame:
        return self._named(buckets_frame(self.stored))

    @cached_property
    def memory(self) -> pd.DataFrame:
        return self._named(memory_frame(self.stored))

    @cached_property
    def standing(self) -> pd.DataFrame:
        """Valid runs that stand for something (reports.scaled_frame)."""
        return self._named(standing_frame(self.stored))

    def _named(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self.runs[["run", "group", "label", "topology", "seed"]].merge(frame, on="run")

    # --- names, in the order in which everything lists them -----------------------------------------------------------

    @cached_property
    def groups(self) -> list[str]:
        return sorted(self.everything["group"].unique())

    @cached_property
    def labels(self) -> list[str]:
        """Baselines first, then by method, then by name."""
        pairs = self.everything[["label", "algorithm"]].drop_duplicates().to_dict("records")
        first = set(self.collection.baselines.values())

        def place(pair: Mapping[Hashable, str]) -> tuple[bool, int, list[tuple[float, str]]]:
            known = ORDER.index(pair["algorithm"]) if pair["algorithm"] in ORDER else len(ORDER)
            return pair["label"] not in first, known, natural(pair["label"])

        return list(dict.fromkeys(str(pair["label"]) for pair in sorted(pairs, key=place)))

    def topologies(self, group: str) -> list[str]:
        """Slowest network last."""
        mine = self.everything[self.everything["group"] == group].drop_duplicates("topology")
        ordered = mine.sort_values(["rate", "rtt", "topology"], ascending=[False, True, True])
        return [str(name) for name in ordered["topology"]]

    @cached_property
    def places(self) -> list[tuple[str, str]]:
        """Every (group, topology)."""
        return [(group, topology) for group in self.groups for topology in self.topologies(group)]

    def place_name(self, group: str, topology: str) -> str:
        return topology if len(self.groups) == 1 else f"{group}: {topology}"

    def at(self, group: str, topology: str | None = None, label: str | None = None) -> pd.DataFrame:
        """Valid runs of one group, and of one topology and label where given."""
        mine = self.runs[self.runs["group"] == group]
        if topology is not None:
            mine = mine[mine["topology"] == topology]
        return mine if label is None else mine[mine["label"] == label]

    # --- comparisons --------------------------------------------------------------------------------------------------

    @cached_property
    def levels(self) -> dict[str, Level]:
        """By group; a group without evaluations has none."""
        found: dict[str, Level] = {}
        for group in self.groups:
            if self.loss is not None:
                found[group] = Level(self.loss, asked=False, chosen=True)
                continue
            mine = self.everything[self.everything["valid"] & (self.everything["group"] == group)]
            targets = mine["target_loss"].dropna()
            if len(targets) and self._reached(mine, float(targets.min())):
                found[group] = Level(float(targets.min()), asked=True)
                continue
            curves = self.curves[self.curves["group"] == group]
            best = curves.groupby("run")["loss"].min()
            best = best[np.isfinite(best)]
            if len(best):
                found[group] = Level(float(best.max()), False, float(targets.min()) if len(targets) else None)
        return found

    def _reached(self, runs: pd.DataFrame, loss: float) -> bool:
        """Whether any of `runs` reached `loss` at an evaluation."""
        return any(self.crossing_at(int(run), loss) is not None for run in runs["run"])

    def crossing_of(self, run: int, level: Level | None) -> Crossing | None:
        """When a run reaches a level; None if it does not, or there is none."""
        return None if level is None else self.crossing_at(run, level.loss)

    def crossing_at(self, run: int, loss: float) -> Crossing | None:
        """When a run reaches a loss."""
        clock, losses = self._curve_of.get(run, ([], []))
        return crossing(clock, losses, loss)

    @cached_property
    def _curve_of(self) -> dict[int, tuple[list[float], list[float]]]:
        ordered = self.curves.sort_values(["run", "step"])
        return {
            int(str(run)): (mine["seconds"].tolist(), mine["loss"].tolist()) for run, mine in ordered.groupby("run")
        }

    def against_baseline(self, group: str, topology: str, label: str, column: str) -> Comparison | None:
        """`column` of the baseline over that of `label`, paired by seed: above 1 where the baseline has more."""
        baseline = self.collection.baselines[group]
        pairs = self._pairs(self.at(group, topology, baseline), self.at(group, topology, label), column)
        return compare(pairs["reference"].tolist(), pairs["candidate"].tolist()) if len(pairs) else None

    def speedup_range(self, group: str, topology: str, label: str, over: str | None = None) -> Range | None:
        """Bounds of the speed-up to the level that follow from the evaluations around it, medians over seeds.

        over: the method that is compared with, by default the baseline.
        """
        reference = self.at(group, topology, over or self.collection.baselines[group])
        ends = ["seed", "seconds_to_level_low", "seconds_to_level_high"]
        pairs = reference[ends].merge(self.at(group, topology, label)[ends], on="seed").dropna()
        sides = [list(zip(pairs[f"{ends[1]}_{s}"], pairs[f"{ends[2]}_{s}"], strict=True)) for s in ("x", "y")]
        return ratio_range(*sides)

    def convergence(self, group: str, label: str) -> Convergence:
        """Final losses against the baseline's. One pair for each seed: another network is no new evidence."""
        baseline = self.collection.baselines[group]
        reference, candidate = (self._by_seed(self.at(group, label=name)) for name in (baseline, label))
        pairs = self._pairs(reference, candidate, "final_loss", ["seed", "tokens"])
        return check_convergence(pairs["reference"].tolist(), pairs["candidate"].tolist())

    @staticmethod
    def _by_seed(runs: pd.DataFrame) -> pd.DataFrame:
        return runs.groupby(["seed", "tokens"], as_index=False)[["final_loss"]].median()

    @staticmethod
    def _pairs(
        reference: pd.DataFrame, candidate: pd.DataFrame, column: str, keys: list[str] | None = None
    ) -> pd.DataFrame:
        keys = keys or ["seed"]
        left = reference.groupby(keys, as_index=False)[[column]].median().rename(columns={column: "reference"})
        right = candidate.groupby(keys, as_index=False)[[column]].median().rename(columns={column: "candidate"})
        return left.merge(right, on=keys).dropna()
