"""The largest model that a deadline leaves time for: what planners ask as "what can we train in 30 days"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log

from algorithms.shape import ModelShape
from harness.costmodel.planning.planning_questions import DAY
from harness.costmodel.projection import Projected, Variant, project
from harness.spec.scenario import MethodEntry, Scenario
from netsim.simulated.link_model import LinkModel

MOST_LAYERS = 1 << 12


@dataclass(frozen=True)
class LargestInTime:
    """The deepest model of the scenario's width; layers: 0 where not even one does.  limited_by: what one layer more
    would break.  elasticity: per cent of parameters per per cent of the deadline, memory aside.
    """

    label: str
    layers: int
    parameters: int
    tokens: int
    days: float | None
    limited_by: str
    elasticity: float | None


def largest_in_time(scenario: Scenario, link_model: LinkModel) -> Iterator[LargestInTime]:
    """For each method, with the scenario's tokens, or its tokens per parameter of the model in question."""
    assert scenario.deadline is not None
    for entry in scenario.methods:
        search, label = _Search(scenario, entry, link_model), entry.label or entry.method
        layers = search.deepest()
        limited_by = (
            "" if layers == MOST_LAYERS else "time" if search.seconds(layers + 1) > scenario.deadline else "memory"
        )
        if not layers:
            yield LargestInTime(label, 0, 0, 0, None, limited_by, None)
            continue
        at, days = search.at(layers), search.seconds(layers) / DAY
        yield LargestInTime(label, layers, at.parameters, at.tokens, days, limited_by, search.elasticity(layers))


class _Search:
    def __init__(self, scenario: Scenario, entry: MethodEntry, link_model: LinkModel) -> None:
        self.scenario, self.entry, self.link_model = scenario, entry, link_model
        self.known: dict[int, Projected] = {}

    def at(self, layers: int) -> Projected:
        if layers not in self.known:
            scenario, entry = self.scenario, self.entry
            shape = ModelShape.model_validate({**scenario.shape_of(entry).model_dump(), "layers": layers})
            steps = entry.steps or scenario.steps
            if scenario.tokens_per_parameter is not None and entry.steps is None:
                per_step = (entry.batch or scenario.batch) * shape.sequence
                steps = ceil(scenario.tokens_per_parameter * shape.count() / per_step)
            changed = entry.model_copy(update={"model": shape})
            self.known[layers] = project(scenario, Variant(changed, scenario.sites), steps)
        return self.known[layers]

    def seconds(self, layers: int) -> float:
        return float(self.at(layers).spent_at_base(self.scenario, self.link_model).total)

    def suffices(self, layers: int) -> bool:
        return self.at(layers).fits and self.seconds(layers) <= (self.scenario.deadline or 0.0)

    def deepest(self) -> int:
        """Time and memory never fall as layers are added."""
        low, high = 0, MOST_LAYERS + 1  # `low` suffices (0: nothing), `high` does not
        tried = min(self.scenario.shape_of(self.entry).layers, MOST_LAYERS)
        while high - low > 1:
            low, high = (tried, high) if self.suffices(tried) else (low, tried)
            tried = min(2 * low, high - 1) if high > MOST_LAYERS else (low + high) // 2
        return low

    def elasticity(self, layers: int) -> float | None:
        low, high = max(1, round(0.9 * layers)), round(1.1 * layers) + 1
        sizes = log(self.at(high).parameters / self.at(low).parameters)
        return sizes / log(self.seconds(high) / self.seconds(low))
