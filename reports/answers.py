"""The answer first: at each network, which method wins, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from netsim.units import show_duration, show_rate
from reports.statistics import Comparison, Range, summarise
from reports.study import Study
from reports.style.quantities import digits, show, show_p

_NOBODY = "no method"
TIE = 1.02  # times closer than this are called level
MOST_OVERRUNS = 0.1  # of paced slots; above it the host sets a run's pace, and times are not compared


@dataclass(frozen=True)
class Lowest:
    """The fastest method at the lowest loss that every run of every method reached, and its lead over the baseline."""

    loss: float
    fastest: str
    ratio: float | None


@dataclass(frozen=True)
class Ends:
    """The method with the lowest final loss, and how far above it the fastest method ends (nats per token)."""

    best: str
    loss: float
    fastest_above: float | None


@dataclass(frozen=True)
class Answer:
    """Rates in bit/s, times in seconds. `fastest` is None where no method's runs all reached the loss."""

    group: str
    topology: str
    place: str
    rate: float | None
    rtt: float | None
    loss: float | None
    baseline: str
    fastest: str | None
    seconds: float | None
    level_with: tuple[str, ...]  # methods that are within 2 % of the fastest
    rivals: tuple[str, ...]  # others that may be as fast, for all that the evaluations around the loss tell
    baseline_seconds: float | None
    speedup: Comparison | None
    speedup_range: Range | None  # between the evaluations around the loss
    upper_bound: tuple[str, ...]  # of the fastest and the baseline: below the loss at the first evaluation already
    waits: dict[str, tuple[float, float]]  # of the fastest and the baseline: exposed communication, wall time
    lowest: Lowest | None
    ends: Ends | None
    setting: str  # model, steps, step time, sites
    overrun: dict[str, float]  # methods whose paced slots overran too often, with the share
    not_reached: tuple[str, ...]
    fell_back: tuple[str, ...]  # methods that reached the loss and ended above it

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def network(self) -> str:
        """'100 Mbit/s, RTT up to 100 ms'."""
        rate = show_rate(self.rate) if self.rate is not None else "rate unknown"
        return f"{rate}, RTT up to {show_duration(self.rtt)}" if self.rtt is not None else rate

    @property
    def headline(self) -> str:
        if self.loss is None:
            return "no run was evaluated, so nothing can be compared"
        if self.overrun:
            return "no winner can be named: this host was too slow for the suite's step time"
        if self.fastest is None or self.seconds is None:
            return f"no method reached loss {self.loss:.3f} in all of its runs"
        bound = "at most " if self.fastest in self.upper_bound else ""
        seconds = f"{bound}{show(self.seconds, 's')}"
        if self.level_with:
            return f"{_listed((self.fastest, *self.level_with))} are level: loss {self.loss:.3f} in {seconds}"
        return f"{self.fastest} {'seems' if self.rivals else 'is'} fastest: loss {self.loss:.3f} in {seconds}"

    @property
    def evidence(self) -> str:
        """By how much, and how sure that is."""
        if self.overrun:
            shares = [f"{share:.0%} of {label}'s" for label, share in self.overrun.items()]
            return f"{_listed(tuple(shares))} paced steps took longer than their slot; raise compute.step_seconds"
        parts = []
        if self.fastest == self.baseline:
            parts.append("it is the baseline itself")
        elif self.speedup is not None and self.baseline_seconds is not None:
            parts.append(self._times_faster(self.speedup, self.baseline_seconds))
        elif self.fastest is not None and self.baseline in self.not_reached:
            parts.append(f"the baseline {self.baseline} did not reach it")
        elif self.fastest is not None and self.baseline_seconds is None:
            parts.append(f"the baseline {self.baseline} has no valid run here")
        if self.upper_bound and self.fastest is not None:
            parts.append(f"{_listed(self.upper_bound)} had reached it at the first evaluation: that time is a bound")
        if rivals := tuple(label for label in self.rivals if label != self.baseline):
            parts.append(f"{_listed(rivals)} may be as fast between the evaluations around the loss")
        others = tuple(label for label in self.not_reached if label != self.baseline or self.fastest is None)
        if others and self.fastest is not None:
            parts.append(f"not reached by every run of {_listed(others)}")
        if self.fell_back:
            parts.append(f"{_listed(self.fell_back)} reached it and ended above it")
        return "; ".join(parts)

    @property
    def brief(self) -> str:
        """The headline with the lead, for a line on a terminal."""
        if self.speedup is None or self.overrun or self.fastest is None:
            return self.headline
        bound = ", a bound" if self.upper_bound else ""
        return f"{self.headline}, {digits(self.speedup.ratio)} times as fast as {self.baseline}{bound}"

    @property
    def why(self) -> str:
        """Where the difference comes from: time spent waiting for the network, or else the steps."""
        if self.overrun or len(self.waits) < 2:
            return ""
        words = [f"{label} waits {show(a, 's')} of {show(b, 's')}" for label, (a, b) in self.waits.items()]
        waiting = f"over the whole run {', '.join(words)} for the network"
        fastest = self.waits.get(self.fastest or "", (0.0, 0.0))
        if self.fastest != self.baseline and fastest[0] > self.waits[self.baseline][0]:
            return f"{waiting}; {self.fastest} waits longer, and yet takes fewer or shorter steps to the loss"
        return waiting

    @property
    def elsewhere(self) -> str:
        """What holds at other losses, and at the end."""
        parts = []
        if (
            self.lowest is not None
            and self.loss is not None
            and not self.overrun
            and self.lowest.loss < self.loss - 5e-4
        ):
            who, ratio = self.lowest.fastest, self.lowest.ratio
            lead = f", {digits(ratio)} times as fast as {self.baseline}" if ratio is not None else ""
            parts.append(f"At loss {self.lowest.loss:.3f}, the lowest that all reach, {who} is fastest{lead}.")
        if self.ends is not None:
            above = self.ends.fastest_above
            behind = f"; {self.fastest} ends {above:.3f} higher" if above else ""
            parts.append(f"After all steps {self.ends.best} has the lowest loss, {self.ends.loss:.3f}{behind}.")
        return " ".join(parts)

    def _times_faster(self, found: Comparison, baseline_seconds: float) -> str:
        text = f"{digits(found.ratio)} times as fast as {self.baseline} ({show(baseline_seconds, 's')})"
        if self.speedup_range is not None:
            low, high = self.speedup_range.low, self.speedup_range.high
            upto = f"{digits(low)} to {digits(high)}" if isfinite(high) else f"at least {digits(low)}"
            text += f", {upto} between the evaluations around the loss"
            text += ", which 1 lies in: evaluate more often to be sure" if low <= 1 <= high else ""
        if found.low is not None and found.high is not None:
            text += f", 95 % interval over seeds {digits(found.low)} to {digits(found.high)}"
        seeds = f"{found.n} paired seed{'s' if found.n > 1 else ''}"
        return f"{text}, {seeds}" + (
            f", p = {show_p(found.p)}" if found.p is not None else ", so no interval over seeds"
        )


def answers(study: Study) -> list[Answer]:
    """One for each network with a valid run."""
    return [_answer(study, group, topology) for group, topology in study.places if len(study.at(group, topology))]


def overview(found: Sequence[Answer]) -> str:
    """Who is fastest on how many networks, and by how much at most; nothing for a single one."""
    if len(found) < 2:
        return ""
    wins: dict[str, list[Answer]] = {}
    for answer in found:
        name = answer.fastest if answer.fastest is not None and not answer.overrun else _NOBODY
        wins.setdefault(name, []).append(answer)
    words = []
    for name, won in sorted(wins.items(), key=lambda item: -len(item[1])):
        ratios = sorted(answer.speedup.ratio for answer in won if name != _NOBODY and answer.speedup is not None)
        facts = []
        if ratios:
            low, high = digits(ratios[0]), digits(ratios[-1])
            facts.append(f"{low if low == high else f'{low} to {high}'} times as fast as {won[0].baseline}")
        if open_leads := sum(bool(answer.rivals or answer.level_with) for answer in won):
            facts.append(f"another may be as fast on {open_leads if open_leads < len(won) else 'each'}")
        words.append(f"{name} on {len(won)}" + (f" ({'; '.join(facts)})" if facts else ""))
    return f"Fastest to the loss, of {len(found)} networks: {', '.join(words)}."


def _answer(study: Study, group: str, topology: str) -> Answer:
    network = study.at(group, topology).iloc[0]
    baseline = study.collection.baselines[group]
    times: dict[str, float] = {}
    missed = []
    for label in study.labels:
        runs = study.at(group, topology, label)
        found = summarise(runs["seconds_to_level"].tolist())
        if found is not None:
            times[label] = found.median
        elif len(runs):
            missed.append(label)
    fastest = min(times, key=lambda label: times[label], default=None)
    level = study.levels.get(group)
    close = [label for label in times if fastest and label != fastest and times[label] < TIE * times[fastest]]
    rivals = [
        label
        for label in times
        if fastest and label != fastest and label not in close
        if (lead := study.speedup_range(group, topology, fastest, over=label)) is not None and lead.low <= 1
    ]
    compared = spread = None
    if fastest is not None and fastest != baseline and baseline in times:
        compared = study.against_baseline(group, topology, fastest, "seconds_to_level")
        spread = study.speedup_range(group, topology, fastest)
    pair = tuple(dict.fromkeys(label for label in (baseline, fastest) if label in times))
    return Answer(
        group=group,
        topology=topology,
        place=study.place_name(group, topology),
        rate=_number(network["rate"]),
        rtt=_number(network["rtt"]),
        loss=level.loss if level else None,
        baseline=baseline,
        fastest=fastest,
        seconds=times.get(fastest) if fastest else None,
        level_with=tuple(close),
        rivals=tuple(rivals),
        baseline_seconds=times.get(baseline),
        speedup=compared,
        speedup_range=spread,
        upper_bound=tuple(label for label in pair if study.at(group, topology, label)["at_first"].any()),
        waits={label: _waits(study, group, topology, label) for label in pair},
        lowest=_lowest(study, group, topology, baseline),
        ends=_ends(study, group, topology, fastest),
        setting=_setting(study, group, topology),
        overrun=_overrun(study, group, topology),
        not_reached=tuple(missed),
        fell_back=tuple(label for label in times if level and _final_loss(study, group, topology, label) > level.loss),
    )


def _waits(study: Study, group: str, topology: str, label: str) -> tuple[float, float]:
    """Medians of exposed communication and training time, seconds."""
    runs = study.at(group, topology, label)
    return float(runs["communication_seconds"].median()), float(runs["training_seconds"].median())


def _overrun(study: Study, group: str, topology: str) -> dict[str, float]:
    shares = study.at(group, topology).groupby("label", sort=False)["overrun_share"].max()
    return {str(label): float(share) for label, share in shares.items() if share > MOST_OVERRUNS}


def _lowest(study: Study, group: str, topology: str, baseline: str) -> Lowest | None:
    curves = study.curves[(study.curves["group"] == group) & (study.curves["topology"] == topology)]
    lowest = curves.groupby("run")["loss"].min()
    if not len(lowest) or not np.isfinite(lowest).all():
        return None
    loss = float(lowest.max())
    times: dict[str, float] = {}
    for label in study.labels:
        found = [study.crossing_at(int(run), loss) for run in study.at(group, topology, label)["run"]]
        if found:
            times[label] = float(np.median([one.seconds if one else np.nan for one in found]))
    fastest = min(times, key=lambda label: times[label])
    ratio = times[baseline] / times[fastest] if baseline in times and baseline != fastest and times[fastest] else None
    return Lowest(loss, fastest, ratio)


def _ends(study: Study, group: str, topology: str, fastest: str | None) -> Ends | None:
    losses = {label: _final_loss(study, group, topology, label) for label in study.labels}
    losses = {label: loss for label, loss in losses.items() if isfinite(loss)}
    if len(losses) < 2:
        return None
    best = min(losses, key=lambda label: losses[label])
    above = losses[fastest] - losses[best] if fastest in losses and fastest != best else None
    return Ends(best, losses[best], above)


def _setting(study: Study, group: str, topology: str) -> str:
    """'tiny-moe, 4 sites, 100 steps of 250 ms, 1 seed'; what differs between runs is listed."""
    runs = study.at(group, topology)
    slots = sorted({study.stored[int(run)].spec.compute.step_seconds or 0.0 for run in runs["run"]})
    paced = f" of {' or '.join(show_duration(slot) for slot in slots)}" if all(slots) else ", unpaced"
    sites, steps = (" or ".join(str(n) for n in sorted(set(runs[name]))) for name in ("sites", "steps"))
    seeds = runs["seed"].nunique()
    models = " or ".join(sorted(set(runs["model"])))
    return f"{models}, {sites} sites, {steps} steps{paced}, {seeds} seed{'s' if seeds > 1 else ''}"


def _final_loss(study: Study, group: str, topology: str, label: str) -> float:
    return float(study.at(group, topology, label)["final_loss"].median())


def _number(value: object) -> float | None:
    number = float(str(value)) if value is not None else None
    return None if number is None or number != number else number


def _listed(names: tuple[str, ...]) -> str:
    """At most four names."""
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
