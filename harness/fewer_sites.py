"""A topology's document with some of its sites: of links and events, what concerns these alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any


def only(document: dict[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """`document`, which has been checked, without the sites that are not in `kept`."""
    found = {
        **document,
        "sites": {name: entry for name, entry in document["sites"].items() if name in kept},
        "links": [link for link in document.get("links", []) if _named(link) <= set(kept)],
    }
    if "timeline" in document:
        found["timeline"] = list(_events(document["timeline"], set(kept)))
    return found


def _events(events: list[dict[str, Any]], kept: set[str]) -> Iterator[dict[str, Any]]:
    """A partition keeps the groups that still have sites; one that parts nobody goes, and what heals it with it."""
    parted = False
    for event in events:
        if "partition" in event:
            groups = [[name for name in group if name in kept] for group in event["partition"]["groups"]]
            groups = [group for group in groups if group]
            parted = parted or len(groups) > 1
            if len(groups) > 1:
                yield {**event, "partition": {**event["partition"], "groups": groups}}
        elif "heal" in event:
            if parted:
                yield event
        elif all(_named(what) <= kept for what in event.values() if isinstance(what, dict)):
            yield event


def _named(entry: dict[str, Any]) -> set[str]:
    """The sites that a link or an event is about."""
    return set(entry.get("between", ())) | {entry[key] for key in ("from", "to", "site") if key in entry}
