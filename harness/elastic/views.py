"""Who takes part in a generation, and from what state it starts: the reports of members, and views. Plain data.

A view is one generation's membership (as in group membership and view synchrony). `harness.elastic.decision` makes it.
"""

from __future__ import annotations

from pydantic import Field

from netsim.documents import Document

POLL_SECONDS = 0.05
GRACE_SECONDS = 2.0  # for members whom nobody reaches to report nevertheless
RETURN_SECONDS = 120.0  # for a site that is declared to return to be ready once it is due: its program starts
MAX_GENERATIONS = 20  # without a step in between, after which a worker gives up


class Report(Document):
    """What a member brings to a rendezvous. `committed`: the last step whose synchronisation it has the result of."""

    rank: int
    step: int  # done, whole
    committed: int
    interrupted: bool = False  # in the step after `step`
    restarts: int = 0  # of its process
    suspects: tuple[int, ...] = ()  # whom it could not reach or must not trust
    evidence: tuple[int, ...] = ()  # those of them who sent it what no sound peer sends
    healed: tuple[int, ...] = ()  # those of them whom it can reach again
    checkpoints: tuple[int, ...] = ()  # steps that it can restore


class View(Document):
    """One generation. `lagging` members take over the state of `source`, which has done `step`.

    Between two synchronisations members may be some steps apart; `max_step` is the last step that any has done.
    """

    generation: int
    members: tuple[int, ...]
    source: int
    lagging: tuple[int, ...] = ()
    step: int = 0
    max_step: int = 0
    committed: int = 0
    rollback: int | None = None  # the members that are not lagging restore this checkpoint first
    lost: tuple[int, ...] = ()  # members before, not any more
    returns: dict[int, int] = Field(default_factory=dict)  # absent ranks, and the step from which each is let in
    abandoned: str = ""  # why the run cannot continue
