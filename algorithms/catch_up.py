"""The transfer by which those who missed a synchronisation take over a state."""

from __future__ import annotations

from netsim.traffic import Collective, Transfer

CATCH_UP = "catch_up"  # how the names of transfers begin by which a worker that missed something catches up


def to_those_behind(name: str, elements: int, root: int, behind: tuple[int, ...]) -> Transfer:
    """`elements` numbers, whole, from `root` to those behind."""
    return Transfer(name, elements, tuple(sorted({root, *behind})), collective=Collective.BROADCAST, root=root)
