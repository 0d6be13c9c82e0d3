"""Round-trip times between regions of the world, so that a topology can name where its sites are."""

from __future__ import annotations

from functools import cache

from netsim.documents import Document, read_yaml, validate
from netsim.errors import InputError
from netsim.library import shipped
from netsim.units import Duration

FOLDER = shipped("topologies") / "regions"


class Matrix(Document):
    """Round-trip times, seconds. Each pair of regions is given once."""

    source: str
    within: Duration
    between: dict[str, dict[str, Duration]]

    def names(self) -> list[str]:
        return sorted({*self.between, *(name for row in self.between.values() for name in row)})

    def rtt(self, a: str, b: str) -> float:
        if a == b:
            return self.within
        there = self.between.get(a, {}).get(b)
        return there if there is not None else self.between[b][a]


@cache
def matrix(name: str = "world") -> Matrix:
    """The matrix in the library's file of that name."""
    path = FOLDER / f"{name}.yaml"
    return validate(Matrix, read_yaml(path), str(path))


def delay_between(a: str, b: str, where_a: str, where_b: str) -> float:
    """One-way delay between two regions, seconds: half of their round-trip time."""
    known = matrix().names()
    for name, where in ((a, where_a), (b, where_b)):
        if name not in known:
            raise InputError.unknown(where, "region", name, known)
    return matrix().rtt(a, b) / 2
