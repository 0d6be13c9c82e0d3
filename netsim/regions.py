"""Delays between regions, so that a topology can name where its sites are: the world's, or those of one's own file.

A file of regions is YAML with the fields of `RegionTable`, or a table (CSV) with a row per region: its name first, then
its `latitude`, `longitude`, `up` and `down` where there are such columns, and under every other heading the round-trip
time to the region of that name in milliseconds. A blank cell says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from netsim.documents import Document, read_yaml, validate
from netsim.errors import InputError, Phrase
from netsim.library import shipped
from netsim.text_files import parse_number, read_rows
from netsim.units import Delay, Rate

WORLD = shipped("topologies") / "regions" / "world.yaml"
TABLES = (".csv", ".tsv")
MOST_REGIONS = 2000
EARTH_RADIUS = 6371.0088e3  # metres, the mean of IUGG
FIBRE_SPEED = 299_792_458 / 1.4682  # m/s; group index of Corning SMF-28 Ultra at 1550 nm (its data sheet)
_TABLE = "a table of regions: names in the first row and the first column, round-trip times in ms"
_PLACE = ("latitude", "longitude", "up", "down")
_BLANK = ("", "-")


class Region(Document):
    """A place: degrees, and rates of the access links of sites there that state none."""

    latitude: float | None = Field(default=None, ge=-90, le=90)
    longitude: float | None = Field(default=None, ge=-180, le=180)
    up: Rate | None = None
    down: Rate | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("latitude and longitude together, or neither")
        return self


def _allow_file(schema: dict[str, Any]) -> None:
    schema["properties"]["file"] = {"type": "string"}


class RegionTable(Document):
    """Delays between regions, seconds.

    values: whether `between` and `within` are round-trip times or one-way delays. between: what is given for one
    direction only holds for both. within: between two sites of a region. stretch: a path's length over that of the
    great circle, for pairs of regions with coordinates that `between` lacks; light in fibre gives their delay.
    """

    model_config = ConfigDict(json_schema_extra=_allow_file)

    source: str = ""
    values: Literal["rtt", "one-way"] = "rtt"
    within: Delay | None = None
    stretch: float | None = Field(default=None, ge=1, le=10)
    regions: dict[str, Region] = {}
    between: dict[str, dict[str, Delay]] = {}

    def names(self) -> list[str]:
        return sorted({*self.regions, *self.between, *(name for row in self.between.values() for name in row)})

    def delay(self, a: str, b: str) -> float | None:
        """One way from `a` to `b`, seconds; None where the table does not say."""
        stated = self.between.get(a, {}).get(b, self.between.get(b, {}).get(a))
        if stated is None and a == b:
            stated = self.within
        if stated is not None:
            return stated / 2 if self.values == "rtt" else stated
        distance = self._distance(a, b)
        return None if distance is None or a == b or self.stretch is None else distance * self.stretch / FIBRE_SPEED

    def _distance(self, a: str, b: str) -> float | None:
        """Along the great circle, metres, by the haversine formula; None without coordinates."""
        places = [(place.latitude, place.longitude) for name in (a, b) if (place := self.regions.get(name))]
        degrees = [value for place in places for value in place if value is not None]
        if len(degrees) < 4:
            return None
        north, east, other_north, other_east = map(math.radians, degrees)
        half = math.sin((other_north - north) / 2) ** 2
        half += math.cos(north) * math.cos(other_north) * math.sin((other_east - east) / 2) ** 2
        return 2 * EARTH_RADIUS * math.asin(min(1.0, math.sqrt(half)))


@cache
def world() -> RegionTable:
    """The library's regions, which hold where a topology names no others."""
    return validate(RegionTable, read_yaml(WORLD), str(WORLD))


def delay_between(table: RegionTable, a: str, b: str, where_a: str, where_b: str) -> float:
    """One-way delay between two regions, seconds. Raises InputError for what the table lacks."""
    known = table.names()
    for name, where in ((a, where_a), (b, where_b)):
        if name not in known:
            raise InputError.unknown(where, "region", name, known)
    if (delay := table.delay(a, b)) is None:
        lacking = f"no delay within {a}" if a == b else f"no delay from {a} to {b}"
        allowed = (
            "a value on the table's diagonal, or `within`"
            if a == b
            else "a value in one of both directions, or coordinates of both regions with `stretch`"
        )
        raise InputError(where_b, "region", Phrase(lacking), f"{allowed}; or a delay of the link")
    return delay


def expand_regions(stated: object, folder: Path, sites: Mapping[str, str], where: str) -> object:
    """`regions` of a topology with the file that it names read, and without the regions that are not used.

    stated: a file (relative to `folder`), a mapping that may have `file` besides fields of a `RegionTable`, which win
    over the file's, or what makes no sense, which is left as it is. sites: the region of each that has one.
    """
    if isinstance(stated, str):
        stated = {"file": stated}
    if not isinstance(stated, dict) or "file" not in stated:
        return stated
    own = {key: value for key, value in stated.items() if key != "file"}
    path = folder / str(stated["file"])
    document = _merged(read_regions(path), own)
    table = validate(RegionTable, document, str(path))
    known, used = table.names(), set(sites.values())
    if unknown := next((site for site, region in sites.items() if region not in known), None):
        raise InputError.unknown(where, f"sites.{unknown}.region", sites[unknown], known, f"regions of {path.name}:")
    found = {**document}
    found["regions"] = {name: entry for name, entry in document.get("regions", {}).items() if name in used}
    found["between"] = {
        name: kept
        for name, row in document.get("between", {}).items()
        if name in used and (kept := {other: value for other, value in row.items() if other in used})
    }
    return found


def _merged(document: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`document` with what `own` states over it, down to the single value of a mapping."""
    found = {**document}
    for key, value in own.items():
        below = document.get(key)
        found[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def read_regions(path: Path) -> dict[str, Any]:
    """The document in a file of regions, YAML or a table."""
    return _read_table(path) if path.suffix.lower() in TABLES else read_yaml(path)


def _read_table(path: Path) -> dict[str, Any]:
    rows = read_rows(path, _TABLE)
    if not rows or len(rows[0][1]) < 2:
        raise InputError(str(path), "", Phrase("no headings"), _TABLE)
    headings = [name.lower() if name.lower() in _PLACE else name for name in rows[0][1][1:]]
    places: dict[str, dict[str, Any]] = {}
    between: dict[str, dict[str, str]] = {}
    if len(set(headings)) < len(headings) or not all(headings):
        repeated = next((name for name in headings if headings.count(name) > 1), "")
        raise InputError(str(path), f"line {rows[0][0]}", repeated, "headings that are names of regions, each once")
    for number, cells in rows[1:]:
        where, name = f"line {number}", cells[0]
        if len(cells) != len(headings) + 1:
            raise InputError(
                str(path), where, Phrase(f"{len(cells)} cells"), f"{len(headings) + 1}, as many as headings"
            )
        if not name or name in places:
            raise InputError(str(path), where, name, "the name of a region, each once")
        given = [(key, cell) for key, cell in zip(headings, cells[1:], strict=True) if cell not in _BLANK]
        described = {key: cell for key, cell in given if key in _PLACE}
        places[name] = {key: _degrees(cell, path, where) if "itude" in key else cell for key, cell in described.items()}
        between[name] = {key: _milliseconds(cell, path, where) for key, cell in given if key not in _PLACE}
    if len(places) > MOST_REGIONS:
        raise InputError(str(path), "", Phrase(f"{len(places)} regions"), f"at most {MOST_REGIONS}")
    return {"source": f"imported from {path.name}", "regions": places, "between": between}


def _degrees(cell: str, path: Path, where: str) -> float:
    if (number := parse_number(cell.removeprefix("-"))) is None:
        raise InputError(str(path), where, cell[:40], "degrees as a number: north and east are above zero")
    return -number if cell.startswith("-") else number


def _milliseconds(cell: str, path: Path, where: str) -> str:
    text = cell.removesuffix("ms").rstrip()
    if (number := parse_number(text)) is None:
        raise InputError(str(path), where, cell[:40], "milliseconds as a number, or nothing")
    return f"{number!r} ms"
