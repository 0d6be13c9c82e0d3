"""The papers' published values, read from published.yaml."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from netsim.documents import Document, read_yaml, validate

_FILE = Path(__file__).with_name("published.yaml")
Positive = Annotated[float, Field(gt=0)]


class PublishedSource(Document):
    citation: str
    source: str


class PhotonHours(Document):
    compute: Positive
    communication: Positive

    @property
    def total(self) -> float:
        return self.compute + self.communication


class PhotonPublished(PublishedSource):
    """hours: of each method, split."""

    hours: dict[str, PhotonHours]


class LordoPublished(PublishedSource):
    """Ratios to low-rank DDP."""

    perplexity_ratio_at_most: Positive
    bytes_ratio: Positive


class FomoePublished(PublishedSource):
    """perplexity: by the number of workers, then by how many hold each expert."""

    perplexity: dict[int, dict[int, Positive]]


class PublishedValues(Document):
    photon: PhotonPublished
    lordo: LordoPublished
    fomoe: FomoePublished


@cache
def published_values() -> PublishedValues:
    return validate(PublishedValues, read_yaml(_FILE), str(_FILE))
