"""The next view from the reports of members: who stays together, and whose state is taken over. Pure.

The coordinator process decides views in a run, the cost model in a prediction. Trainers receive them only, so that they
need not import a library of graphs, which would be a tenth of the time that they take to start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import networkx

from harness.elastic.views import Report, View


def decide(
    before: View,
    reports: Mapping[int, Report],
    waiting: Mapping[int, Report],
    after_loss: str,
    survives: Callable[[tuple[int, ...]], bool],
) -> View | None:
    """The next view; None when those who are there do not suffice.

    reports: of members; waiting: of workers in the waiting room. Members who suspect each other cannot stay together:
    the largest group stays in which nobody suspects another.
    """
    staying = _agreeing(reports)
    joining = tuple(sorted(set(waiting) - set(staying)))
    members = tuple(sorted({*staying, *joining}))
    if not survives(members):
        return None
    lost = tuple(sorted(set(before.members) - set(staying)))
    fields: dict[str, Any] = {"generation": before.generation + 1, "members": members, "lost": lost}
    if not staying or not survives(staying) or (lost and after_loss == "rollback"):
        # Back to the last step that everyone needed can restore. Who is there already need not wait for newcomers.
        needed = staying if staying and survives(staying) else members
        known = {**waiting, **reports}
        step = max(set.intersection(*(set(known[rank].checkpoints) for rank in needed)), default=None)
        if step is None:
            return None
        lagging = tuple(rank for rank in members if rank not in needed)
        fields |= {"step": step, "max_step": step, "committed": step, "rollback": step}
        return View(source=needed[0], lagging=lagging, **fields)
    committed = max(reports[rank].committed for rank in staying)
    source = next(rank for rank in staying if reports[rank].committed == committed)
    if lost and after_loss == "resync":
        lagging = tuple(rank for rank in members if rank != source)
    else:
        late = {rank for rank in staying if reports[rank].committed < committed}
        lagging = tuple(sorted({*joining, *late}))
    step = reports[source].step
    max_step = max(reports[rank].step for rank in staying if rank not in lagging)
    return View(source=source, lagging=lagging, step=step, max_step=max_step, committed=committed, **fields)


def _agreeing(reports: Mapping[int, Report]) -> tuple[int, ...]:
    """The largest set of ranks none of which suspects another.

    Of equal sets the one with the fewest ranks against which there is evidence: that a connection ended says nothing
    about who is at fault, a corrupt payload does. Then the one with the lowest ranks.
    """
    accused = {other for report in reports.values() for other in report.evidence}
    graph: networkx.Graph[int] = networkx.complete_graph(sorted(reports))
    for rank, report in reports.items():
        graph.remove_edges_from((rank, other) for other in set(report.suspects) - set(report.healed))
    groups = [tuple(sorted(group)) for group in networkx.find_cliques(graph)]
    return min(groups, key=lambda group: (-len(group), len(accused & set(group)), group), default=())
