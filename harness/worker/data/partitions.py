"""Dividing text among sites: from pieces of many sequences to the site of each.

iid         pieces shuffled and dealt so that all sites get the same amount
by_source   a source goes to one site as a whole, the largest first, each to the site that has least so far
dirichlet   each source is divided in proportions drawn from Dirichlet(alpha) (Hsu et al. 2019, arXiv 1909.06335)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.spec.run_spec import Data
from harness.worker.data.sources import TextFile
from harness.worker.data.tokens import Tokens
from netsim.errors import InputError

DRAWS = 100  # of Dirichlet proportions, until every site has enough


@dataclass(frozen=True)
class TextPiece:
    group: str
    tokens: Tokens


def pieces(files: Sequence[TextFile], length: int) -> list[TextPiece]:
    """Files cut into pieces of at most `length` tokens."""
    cuts = [(file, start) for file in files for start in range(0, len(file.tokens), length)]
    return [TextPiece(file.group, file.tokens[start : start + length]) for file, start in cuts]


def divide(data: Data, parts: Sequence[TextPiece], sites: int, least: int, seed: int) -> list[list[TextPiece]]:
    """The pieces of each site, at least `least` tokens each. Raises InputError when the text does not suffice."""
    rng = np.random.default_rng([abs(seed), int(seed < 0), sites])
    if data.partition == "by_source":
        groups = {part.group for part in parts}
        if len(groups) < sites:
            allowed = f"at most as many sites as sources ({len(groups)}), or another partition"
            raise InputError("data", "partition", f"by_source for {sites} sites", allowed)
    for _ in range(DRAWS if data.partition == "dirichlet" else 1):
        if data.partition == "iid":
            places = iid(parts, sites, rng)
        elif data.partition == "by_source":
            places = by_source(parts, sites)
        else:
            places = dirichlet(parts, sites, data.alpha, rng)
        shards: list[list[TextPiece]] = [[] for _ in range(sites)]
        for part, place in zip(parts, places, strict=True):
            shards[place].append(part)
        smallest = min(tokens_in(shard) for shard in shards)
        if smallest >= least:
            return shards
    allowed = f"at least {least} tokens for each of {sites} sites: more text, fewer sites or a shorter sequence"
    found = f"{data.partition}: {smallest} tokens for one site"
    raise InputError("data", "partition", found, f"{allowed}{_advice(data)}")


def iid(parts: Sequence[TextPiece], sites: int, rng: np.random.Generator) -> list[int]:
    return _deal([[i] for i in rng.permutation(len(parts)).tolist()], parts, sites)


def by_source(parts: Sequence[TextPiece], sites: int) -> list[int]:
    groups = _groups(parts)
    largest_first = sorted(groups, key=lambda name: (-sum(len(parts[i].tokens) for i in groups[name]), name))
    return _deal([groups[name] for name in largest_first], parts, sites)


def dirichlet(parts: Sequence[TextPiece], sites: int, alpha: float, rng: np.random.Generator) -> list[int]:
    places = [0] * len(parts)
    for _, members in sorted(_groups(parts).items()):
        bounds = rng.dirichlet([alpha] * sites).cumsum()
        shuffled = rng.permutation(members).tolist()
        sizes = np.array([len(parts[i].tokens) for i in shuffled])
        middles = (sizes.cumsum() - sizes / 2) / sizes.sum()
        for i, place in zip(shuffled, np.searchsorted(bounds, middles).tolist(), strict=True):
            places[i] = min(place, sites - 1)
    return places


def tokens_in(parts: Sequence[TextPiece]) -> int:
    return sum(len(part.tokens) for part in parts)


def _deal(bundles: Sequence[Sequence[int]], parts: Sequence[TextPiece], sites: int) -> list[int]:
    """Bundle after bundle to the site that has least so far."""
    places = [0] * len(parts)
    heap = [(0, site) for site in range(sites)]
    for bundle in bundles:
        size, site = heapq.heappop(heap)
        for i in bundle:
            places[i] = site
        heapq.heappush(heap, (size + sum(len(parts[i].tokens) for i in bundle), site))
    return places


def _groups(parts: Sequence[TextPiece]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, part in enumerate(parts):
        found.setdefault(part.group, []).append(i)
    return found


def _advice(data: Data) -> str:
    return "" if data.partition == "iid" else ", or partition iid" + (" or a larger alpha" * (data.alpha < 1))
