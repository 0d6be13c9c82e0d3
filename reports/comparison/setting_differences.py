"""What differs between paired runs beside their results: settings, environment, code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.records import Stored

# Of the environment: what is told apart elsewhere, or is as long as a network's nodes are many.
_NOT_ENVIRONMENT = ("git", "code", "modules", "data", "network.nodes", "schema_version")
_LONGEST = 60  # characters of a value


@dataclass(frozen=True)
class Difference:
    """A field that differs in `pairs` pairs; a, b: its values there, joined where there are several."""

    field: str
    a: str
    b: str
    pairs: int


@dataclass(frozen=True)
class CodeDifference:
    """The code that a method's runs executed. modules: that differ, where both records list them."""

    label: str
    a: str
    b: str
    modules: tuple[str, ...] | None


@dataclass(frozen=True)
class SettingDifferences:
    """Of all pairs. commits: of each side, with `+` where the tree had changes that were not committed."""

    environment: tuple[Difference, ...]
    settings: tuple[Difference, ...]
    code: tuple[CodeDifference, ...]
    commits: tuple[str, str]

    @property
    def none(self) -> bool:
        return not (self.environment or self.settings or self.code)


def setting_differences(pairs: Sequence[tuple[Stored, Stored]]) -> SettingDifferences:
    environments = [(_environment(a), _environment(b)) for a, b in pairs]
    settings = [(_flat(a.spec.model_dump(mode="json")), _flat(b.spec.model_dump(mode="json"))) for a, b in pairs]
    return SettingDifferences(
        _differences(environments),
        _differences(settings),
        _code(pairs),
        (_commits([a for a, _ in pairs]), _commits([b for _, b in pairs])),
    )


def _environment(run: Stored) -> dict[str, str]:
    flat = _flat(run.environment)
    return {k: v for k, v in flat.items() if not any(k == one or k.startswith(f"{one}.") for one in _NOT_ENVIRONMENT)}


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every leaf by its dotted path, as JSON; lists are leaves."""
    found: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            found[f"{prefix}{key}"] = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return found


def _differences(pairs: Sequence[tuple[Mapping[str, str], Mapping[str, str]]]) -> tuple[Difference, ...]:
    found: dict[str, tuple[dict[str, None], dict[str, None], int]] = {}
    for a, b in pairs:
        for field in {*a, *b}:
            values = a.get(field, "none"), b.get(field, "none")
            if values[0] != values[1]:
                mine, other, count = found.get(field, ({}, {}, 0))
                found[field] = (mine | {values[0]: None}, other | {values[1]: None}, count + 1)
    return tuple(Difference(f, ", ".join(a), ", ".join(b), n) for f, (a, b, n) in sorted(found.items()))


def _code(pairs: Sequence[tuple[Stored, Stored]]) -> tuple[CodeDifference, ...]:
    found: dict[str, CodeDifference] = {}
    for a, b in pairs:
        mine, other = (str(run.environment.get("code", "unknown")) for run in (a, b))
        if mine != other:
            found[a.spec.label] = CodeDifference(a.spec.label, mine, other, _modules(a, b))
    return tuple(found[label] for label in sorted(found))


def _modules(a: Stored, b: Stored) -> tuple[str, ...] | None:
    mine, other = (run.environment.get("modules") for run in (a, b))
    if not isinstance(mine, dict) or not isinstance(other, dict):
        return None
    return tuple(sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name)))


def _commits(runs: Sequence[Stored]) -> str:
    found = dict.fromkeys(_commit(run.environment.get("git")) for run in runs)
    return ", ".join(found)


def _commit(git: Any) -> str:
    if not isinstance(git, dict) or not isinstance(git.get("commit"), str):
        return "no commit"
    return str(git["commit"])[:12] + ("+" if git.get("dirty") else "")
