"""The chaos matrix of docs/reliability.md: per disturbance how often, how long in parts of its bound, what broke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.bench.chaos.chaos_plan import ChaosOutcome, kinds_on
from harness.bench.chaos.chaos_report import ChaosReport
from reports.style.tables import Column, text_table

_WANTED = 200  # injections on each substrate


def chaos_section(report: ChaosReport) -> str:
    """Markdown; what has been done so far, which may be less than what is wanted."""
    substrates = sorted({outcome.substrate for outcome in report.outcomes})
    columns = [Column("process", "process", numeric=False), Column("disturbance", "disturbance", numeric=False)]
    for name in substrates:
        columns += [Column(f"{name} runs", f"{name}: runs"), Column(f"{name} ratio", "largest ratio")]
        columns += [Column(f"{name} ended", "outcomes", numeric=False)]
    possible = {name: set(kinds_on(name, report.abilities)) for name in substrates}
    rows = [
        (*kind, *(cell for name in substrates for cell in _cells(_of(report.outcomes, name, kind))))
        for kind in sorted(set().union(*possible.values()))
    ]
    return f"""## Chaos

{_summary(report, substrates)}

{text_table("chaos", "", "", columns, rows).markdown()}
Ratio: seconds from the disturbance until nothing of the run was left, over the bound above with the time to take the
network down; where the run is to complete, over what was left of it and what its fault is declared to cost. After each
run, before any sweep, no process, container, network, control group or directory is left. Of a run that completes,
and of the undisturbed run of its method, tokens committed and lost are those of all steps in the workers' logs, the
ledger's bytes are the plan's with what was repeated, at most where a site was absent, and members have the same
parameters in a checkpoint after a synchronisation, to the bit, experts included: three sites train, and each holds
every expert, with fomoe, too. A run that fails has no result to check.
Disturbances come while a run starts or trains, not at its end.

`longhaul bench chaos --seed {report.seed} --substrate SUBSTRATE --only NUMBER` does one again; what fails is shrunk and
printed.
{_broken(report)}"""


def _summary(report: ChaosReport, substrates: Sequence[str]) -> str:
    parts = []
    for name in substrates:
        found = [one for one in report.outcomes if one.substrate == name and one.state != "not reached"]
        kept = sum(not one.broken for one in found)
        over = sum(one.ratio > 1 for one in found)
        complete = sum(one.state == "complete" for one in found)
        tried = {(one.process, one.disturbance) for one in found}
        kinds = len(kinds_on(name, report.abilities))
        parts.append(
            f"{len(found)} of {_WANTED} on {name}, of {len(tried)} of the {kinds} kinds, "
            f"{complete} of them completed, {kept} with every invariant held, {over} above their bound"
        )
    return (
        "One random disturbance per run, over processes, stages and methods, from seed "
        f"{report.seed}, up to {report.at_once} runs side by side (`longhaul bench chaos`, which goes on from "
        f"`docs/chaos.json`): {'; '.join(parts)}. Runs whose stage never came are in the table, and not counted."
    )


def _of(outcomes: Sequence[ChaosOutcome], substrate: str, kind: tuple[str, str]) -> list[ChaosOutcome]:
    return [one for one in outcomes if one.substrate == substrate and (one.process, one.disturbance) == kind]


def _cells(outcomes: Sequence[ChaosOutcome]) -> tuple[str, str, str]:
    if not outcomes:
        return "0", "-", "-"
    states = Counter(one.state for one in outcomes)
    ended = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return str(len(outcomes)), f"{max(one.ratio for one in outcomes):.2f}", ended


def _broken(report: ChaosReport) -> str:
    lines = [
        f"- {one.substrate} {one.index} ({one.process}, {one.disturbance}, {one.stage}, {one.method}): "
        f"{'; '.join(one.broken) or f'{one.seconds:.1f} s, bound {one.bound:.0f} s'}"
        for one in report.outcomes
        if not one.passed
    ]
    return "\n".join(["\nNot kept:\n", *lines, ""]) if lines else ""
