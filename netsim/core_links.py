"""Links inside a WAN that several pairs of sites share, besides the access links."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from netsim.documents import Document, Name
from netsim.errors import InputError
from netsim.queue_kinds import Queue, Stated
from netsim.units import Rate

Pair = tuple[str, str]


@dataclass(frozen=True)
class CoreLink:
    """One direction of a link: everything that these directed pairs of sites send shares `rate`, bit/s.

    queue: ahead of it, bytes (int), seconds at its rate (float), or more; None: default.
    """

    name: str
    rate: float
    pairs: tuple[Pair, ...]
    queue: Stated = None


class CoreEntry(Document):
    """As written. between: two groups of sites; each direction from one to the other has the rate for itself."""

    name: Name
    rate: Rate = Field(gt=0)
    queue: Queue | None = None
    between: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    source: tuple[str, ...] | None = Field(default=None, alias="from")
    target: tuple[str, ...] | None = Field(default=None, alias="to")
    pairs: tuple[Pair, ...] | None = None

    @model_validator(mode="after")
    def _form(self) -> Self:
        forms = (self.between is not None, self.source is not None, self.pairs is not None)
        if sum(forms) != 1 or (self.source is None) != (self.target is None):
            raise ValueError("one of between: [[a, b], [c, d]], from: [a, b] with to: [c, d], and pairs: [[a, c]]")
        return self

    def directions(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """The name of each direction, and its pairs."""
        if self.pairs is not None:
            yield self.name, self.pairs
            return
        one, other = self.between or (self.source or (), self.target or ())
        yield self.name, tuple((a, b) for a in one for b in other)
        if self.between is not None:
            yield f"{self.name} back", tuple((b, a) for b in other for a in one)


def core_links(entries: Sequence[CoreEntry], sites: Collection[str], where: str) -> tuple[CoreLink, ...]:
    """Every direction of every entry. Raises InputError for unknown sites and for what is said twice."""
    found: list[CoreLink] = []
    for index, entry in enumerate(entries):
        place = f"core.{index}"
        for name, pairs in entry.directions():
            if unknown := sorted({site for pair in pairs for site in pair} - set(sites)):
                raise InputError.unknown(where, place, unknown[0], sites, "sites of this file:")
            if not pairs or any(a == b for a, b in pairs) or len(set(pairs)) < len(pairs):
                raise InputError(where, place, entry.name, "pairs of different sites, each once")
            if name in {link.name for link in found}:
                raise InputError(where, f"{place}.name", name, "a name that no other core link has")
            found.append(CoreLink(name, entry.rate, pairs, entry.queue))
    return tuple(found)


def subset_core(entries: Sequence[dict[str, Any]], kept: Collection[str]) -> list[dict[str, Any]]:
    """The entries of a document among the sites in `kept`; one that joins none of them goes."""
    found = []
    for entry in entries:
        if "pairs" in entry:
            pairs = [pair for pair in entry["pairs"] if set(pair) <= set(kept)]
            changed, groups = {"pairs": pairs}, [pairs]
        elif "between" in entry:
            groups = [[site for site in group if site in kept] for group in entry["between"]]
            changed = {"between": groups}
        else:
            groups = [[site for site in entry[end] if site in kept] for end in ("from", "to")]
            changed = dict(zip(("from", "to"), groups, strict=True))
        if all(groups):
            found.append({**entry, **changed})
    return found
