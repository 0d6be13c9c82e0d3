"""What would a method of your own send? Its plan needs sizes alone: no torch, no network, no training.

    python examples/own_plan.py

Here: DiLoCo between pairs of sites, with all sites averaged only every fourth time. docs/add-a-method.md has what else
a method needs before it can train.
"""

from longhaul import Plan, Transfer
from netsim.traffic import Recurrence, WireType

ELEMENTS, SITES, STEPS, EVERY = 124_000_000, 8, 4_000, 100


def paired(every: int, rounds: int) -> Plan:
    """After `every` steps neighbours are averaged; every `rounds`-th time all of them are."""
    pairs = [(rank, rank + 1) for rank in range(0, SITES, 2)]
    near = tuple(Transfer(f"pair-{a}", ELEMENTS, (a, b), WireType.BF16) for a, b in pairs)
    far = (Transfer("all", ELEMENTS, tuple(range(SITES)), WireType.BF16),)
    recurrences = [Recurrence(near, every * rounds, every * place, STEPS) for place in range(1, rounds)]
    return Plan(SITES, STEPS, (*recurrences, Recurrence(far, every * rounds, every * rounds, STEPS)))


def diloco(every: int) -> Plan:
    """All sites are averaged after `every` steps."""
    everyone = Transfer("all", ELEMENTS, tuple(range(SITES)), WireType.BF16)
    return Plan(SITES, STEPS, (Recurrence((everyone,), every, every, STEPS),))


for name, plan in {"diloco": diloco(EVERY), "paired": paired(EVERY, rounds=4)}.items():
    largest = max(sum(transfer.payload_bytes for transfer in plan.at(step)) for step in plan.sync_steps())
    print(f"{name}: {len(list(plan.sync_steps()))} synchronisations")
    print(f"  {plan.payload_bytes_per_worker / 1e9:.2f} GB per worker in the whole run")
    print(f"  {largest / 1e9:.2f} GB at once at most, all workers together")

first = paired(EVERY, rounds=4)
for step in list(first.sync_steps())[:4]:
    print(f"step {step}: {', '.join(transfer.name for transfer in first.at(step))}")
