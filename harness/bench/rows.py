"""Files of benchmark results: one JSON object a line, appended as measurements finish."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsim.errors import InputError

_HOST = "host"
_IDENTITY = ("cpu", "cores", "kernel", "python", "versions")

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def append_row(results: Path, row: DataclassInstance) -> None:
    """One line more, flushed: a benchmark that is interrupted continues from the last whole line."""
    _append(results, asdict(row))


def stored_rows(results: Path | None) -> list[dict[str, Any]]:
    """The rows in `results`, in order; none if there is no such file. InputError for a line that is not JSON."""
    return [line for line in _lines(results) if _HOST not in line]


def stored_host(results: Path | None) -> dict[str, Any] | None:
    """The host that was written to `results` last (harness.records.environment.fingerprint); None without one."""
    hosts = [line[_HOST] for line in _lines(results) if _HOST in line]
    return hosts[-1] if hosts else None


def hosts_of(results: Path | None, chosen: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Each host of the rows that are chosen, once, in the order of the file."""
    return [host for host, _ in rows_by_host(results, chosen) if host]


def rows_by_host(
    results: Path | None, chosen: Callable[[dict[str, Any]], bool]
) -> list[tuple[dict[str, Any] | None, list[dict[str, Any]]]]:
    """The hosts of the rows that are chosen, each with its rows."""
    found: list[tuple[dict[str, Any] | None, list[dict[str, Any]]]] = []
    for host, line in _hosted(results):
        if not chosen(line):
            continue
        rows = next((rows for known, rows in found if known == host), None)
        if rows is None:
            found.append((host, rows := []))
        rows.append(line)
    return found


def _hosted(results: Path | None) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any]]]:
    """Each row with its host: the line about a host that stands last before it."""
    host = None
    for line in _lines(results):
        if _HOST in line:
            host = line[_HOST]
        else:
            yield host, line


def append_host(results: Path, host: dict[str, Any]) -> None:
    """A line that says where the following rows are measured; nothing if the last such line says the same."""
    kept = {name: host[name] for name in _IDENTITY if name in host}
    if stored_host(results) != kept:
        _append(results, {_HOST: kept})


def _append(results: Path, line: dict[str, Any]) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _lines(results: Path | None) -> list[dict[str, Any]]:
    if results is None or not results.exists():
        return []
    lines = results.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(str(results), "", str(error), "one JSON object a line") from None
