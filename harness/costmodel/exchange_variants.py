"""A method's plan as a paper's model has it, where that differs from what a worker executes.

Each variant is an explicit input of a scenario: layers released and waited for one by one, an all-reduce carried out in
another way, a last synchronisation that is not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from algorithms.method import Method
from algorithms.shape import ModelShape
from netsim.traffic import Algorithm, Collective, Plan, Recurrence, Transfer


def without_last_sync(plan: Plan) -> Plan:
    """Without the synchronisation after the last step: N - 1 for N rounds, as papers count. Every step's gradients
    are still exchanged."""
    kept = []
    for r in plan.recurrences:
        if r.every == 1 and r.count > 1:
            kept.append(r)
        elif r.happens_at(plan.steps):
            kept.append(replace(r, last=plan.steps - 1))
        else:
            kept.append(r)
    return replace(plan, recurrences=tuple(r for r in kept if r.count))


def layerwise(plan: Plan, method: Method[Any], shape: ModelShape) -> Plan:
    """Transfers of whole layers, each released when its weight gradient ends and waited for before its forward pass.

    Douillard et al. 2025 (arXiv 2501.18512, section 3.2): a step is 3 L - 1 operations of equal length, L of them
    forward; going back, every layer has one for its activations (but for the first layer) and one for its weights. What
    lies outside the layers goes with the first one.
    """
    sizes: defaultdict[int, int] = defaultdict(int)
    for parameter in shape.parameters:
        sizes[parameter.layer or 0] += parameter.elements
    fragments = getattr(method, "fragments", None)
    parts: list[Mapping[int, int]] = []
    for indices in fragments(shape) if fragments is not None else []:
        part: defaultdict[int, int] = defaultdict(int)
        for index in indices:
            part[shape.parameters[index].layer or 0] += shape.parameters[index].elements
        parts.append(part)

    def split(r: Recurrence) -> Recurrence:
        if sum(t.elements for t in r.transfers) == shape.count() and all(t.ready < 1 for t in r.transfers[:-1]):
            return replace(r, transfers=_by_layer(r.transfers[-1], sizes, shape.layers))  # buckets of all gradients
        found: list[Transfer] = []
        for t in r.transfers:
            if t.elements == shape.count():
                found += _by_layer(t, sizes, shape.layers)
            elif t.part[0] == "fragment" and t.part[1] is not None:
                found += _by_layer(t, parts[t.part[1]], shape.layers)
            else:
                found.append(t)
        return replace(r, transfers=tuple(found))

    return replace(plan, recurrences=tuple(split(r) for r in plan.recurrences))


def _by_layer(transfer: Transfer, sizes: Mapping[int, int], layers: int) -> tuple[Transfer, ...]:
    """From the last layer to the first."""
    return tuple(
        replace(
            transfer,
            name=f"{transfer.name}/layer-{layer}",
            elements=sizes[layer],
            ready=(2 * (layers - layer) - (layer == 0)) / (2 * layers - 1),
            due=layer / layers,
        )
        for layer in sorted(sizes, reverse=True)
        if sizes[layer]
    )


def layerwise_backward_share(layers: int) -> float:
    """Of a step, in the chain of operations above."""
    return (2 * layers - 1) / (3 * layers - 1)


def carried_by(plan: Plan, how: str) -> Plan:
    """All-reduces carried out in another way than the method leaves open.

    direct, ring: the algorithms that executors have.  all_to_all: every site sends its whole tensor to every other one,
    (n - 1) S over every link.  server: through a server that does not train and has a link of its own, whose downlink
    and uplink each carry n S, the results a piece behind the contributions; it is the rank after the last.
    """
    kinds: dict[str, Callable[[Transfer, int], tuple[Transfer, ...]]] = {
        "direct": lambda t, _: (replace(t, algorithm=Algorithm.DIRECT),),
        "ring": lambda t, _: (replace(t, algorithm=Algorithm.RING),),
        "all_to_all": _all_to_all,
        "server": _through_server,
    }

    def changed(r: Recurrence) -> Recurrence:
        found: list[Transfer] = []
        for t in r.transfers:
            found += kinds[how](t, plan.sites) if t.collective is Collective.ALL_REDUCE else (t,)
        return replace(r, transfers=tuple(found))

    sites = plan.sites + (how == "server")
    return replace(plan, sites=sites, recurrences=tuple(changed(r) for r in plan.recurrences))


def _all_to_all(transfer: Transfer, _: int) -> tuple[Transfer, ...]:
    return tuple(
        replace(transfer, name=f"{transfer.name}/from-{rank}", collective=Collective.BROADCAST, root=rank)
        for rank in transfer.members
    )


def _through_server(transfer: Transfer, server: int) -> tuple[Transfer, ...]:
    return (replace(transfer, members=(*transfer.members, server), algorithm=Algorithm.PS, root=server),)
