"""The short link check before and after a run, each with one retry, and the delay daemons meanwhile. In the runner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.records.logs import Events
from netsim.emulated.network import LinkReport, Network
from netsim.emulated.overload import crowding, overloads
from netsim.emulated.traffic_counts import handled
from netsim.errors import LinkError


@dataclass
class CheckedLinks:
    """What is known of a run's links. before, after: None if not checked. overloads: of the daemons meanwhile.

    crowding: what the daemons could not carry, though it need not have been sent.
    """

    wanted: bool
    before: LinkReport | None = None
    after: LinkReport | None = None
    overloads: list[str] = field(default_factory=list)
    crowding: list[str] = field(default_factory=list)

    def problems(self) -> tuple[str, ...]:
        """Why the run is invalid, as far as its links are concerned."""
        after = self.after.problems() if self.after else []
        return (*(self.overloads if self.wanted else ()), *(f"after the run: {problem}" for problem in after))

    def marks(self) -> tuple[str, ...]:
        """What a reader should know of a run that may be valid: where links are not judged, their overloads too."""
        return (*self.crowding, *(() if self.wanted else self.overloads))

    def to_json(self) -> dict[str, Any]:
        before, after = (report and report.to_json() for report in (self.before, self.after))
        return {"before": before, "after": after, "overloads": self.overloads}


@contextmanager
def checked_links(network: Network, wanted: bool, events: Events) -> Iterator[CheckedLinks]:
    """Links before and after what happens inside, the latter once that has ended well; no reports if not `wanted`.

    A link outside tolerance stops a run before it begins (LinkError). What the check after it finds, and a delay daemon
    that did not keep up meanwhile, make the run invalid, but the measurements stay; if not `wanted`, they mark it.
    """
    checked, opened = CheckedLinks(wanted), network.traffic()
    if wanted:
        checked.before = _checked_twice(network, events)
        if not checked.before.passed:
            raise LinkError("; ".join(checked.before.problems()))
    began = network.traffic()
    checked.crowding = crowding(handled(opened, began), network.full_packet_rates(), len(os.sched_getaffinity(0)))
    yield checked
    checked.overloads = overloads(began, network.traffic())
    if checked.overloads:
        events.add("overload", problems=checked.overloads)
    if wanted:
        checked.after = _checked_twice(network, events)


def _checked_twice(network: Network, events: Events) -> LinkReport:
    """The second report where the first one failed."""
    report = network.check(short=True)
    if not report.passed:
        events.add("gate", passed=False, problems=report.problems())
        report = network.check(short=True)
    events.add("gate", passed=report.passed)
    return report
