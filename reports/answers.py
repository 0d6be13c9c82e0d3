"""The answer first: at each network, which method wins, and by how much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from netsim.units import show_duration, show_rate
from reports.statistics import Comparison, summarise
from reports.study import Study
from reports.style.quantities import digits, show, show_p

TIE = 1.02  # times closer than this are called level


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
    baseline_seconds: float | None
    speedup: Comparison | None
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
        if self.fastest is None or self.seconds is None:
            return f"no method reached loss {self.loss:.3f} in all of its runs"
        seconds = show(self.seconds, "s")
        if self.level_with:
            return f"{_listed((self.fastest, *self.level_with))} are level: loss {self.loss:.3f} in {seconds}"
        return f"{self.fastest} is fastest: loss {self.loss:.3f} in {seconds}"

    @property
    def evidence(self) -> str:
        parts = []
        if self.fastest == self.baseline:
            parts.append("it is the baseline itself")
        elif self.speedup is not None and self.baseline_seconds is not None:
            parts.append(self._times_faster(self.speedup, self.baseline_seconds))
        elif self.fastest is not None and self.baseline in self.not_reached:
            parts.append(f"the baseline {self.baseline} did not reach it")
        others = tuple(label for label in self.not_reached if label != self.baseline or self.fastest is None)
        if others and self.fastest is not None:
            parts.append(f"not reached by every run of {_listed(others)}")
        if self.fell_back:
            parts.append(f"{_listed(self.fell_back)} reached it and ended above it")
        return "; ".join(parts)

    def _times_faster(self, found: Comparison, baseline_seconds: float) -> str:
        text = f"{digits(found.ratio)} times as fast as {self.baseline} ({show(baseline_seconds, 's')})"
        if found.low is not None and found.high is not None:
            text += f", 95 % interval {digits(found.low)} to {digits(found.high)}"
        seeds = f"{found.n} paired seed{'s' if found.n > 1 else ''}"
        return f"{text}, {seeds}" + (f", p = {show_p(found.p)}" if found.p is not None else ", so no interval")


def answers(study: Study) -> list[Answer]:
    """One for each network with a valid run."""
    return [_answer(study, group, topology) for group, topology in study.places if len(study.at(group, topology))]


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
    compared = None
    if fastest is not None and fastest != baseline and baseline in times:
        compared = study.against_baseline(group, topology, fastest, "seconds_to_level")
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
        baseline_seconds=times.get(baseline),
        speedup=compared,
        not_reached=tuple(missed),
        fell_back=tuple(label for label in times if level and _final_loss(study, group, topology, label) > level.loss),
    )


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
