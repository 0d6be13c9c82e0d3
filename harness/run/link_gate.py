"""The short link check before and after a run, each with one retry. In the runner."""

from __future__ import annotations

from harness.records.logs import Events
from netsim.emulated.network import LinkReport, Network
from netsim.errors import LinkError


def check_before(network: Network, wanted: bool, events: Events) -> LinkReport | None:
    """The short link check before a run, with one retry; a link outside tolerance stops the run."""
    if not wanted:
        return None
    report = network.check(short=True)
    if not report.passed:
        events.add("gate", passed=False, problems=report.problems())
        report = network.check(short=True)
    events.add("gate", passed=report.passed)
    if not report.passed:
        raise LinkError("; ".join(report.problems()))
    return report


def check_after(network: Network, wanted: bool, events: Events) -> LinkReport | None:
    """The same after a run; what it finds makes the run invalid, but the measurements stay."""
    if not wanted:
        return None
    report = network.check(short=True)
    if not report.passed:
        report = network.check(short=True)
    events.add("gate", passed=report.passed)
    return report
