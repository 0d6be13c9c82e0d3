"""Spoilt documents: shipped suites, topologies and scenarios, mutated by a seed. Each must be read or refused.

Anything but acceptance or an InputError is wrong: a traceback would have reached the user.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from harness.records.run_record import Result, Step
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from netsim.documents import read_yaml, validate
from netsim.errors import InputError
from netsim.library import ROOT
from netsim.topology import topology_from

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 2**70, "", "x" * 5000, "../../etc/passwd", "!!python/object",
    "10 parsecs", "-5 ms", "\x00", "<script>", [], {}, [[]], {"a": {"b": []}}, ["a", "a"], {1: 2},
)  # fmt: skip


@dataclass
class Tried:
    total: int = 0
    refused: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)  # what went otherwise


def try_inputs(count: int, seed: int) -> Tried:
    """`count` mutations, spread over the kinds of document."""
    dice, tried = random.Random(seed), Tried()
    samples = _samples()
    for number in range(count):
        kind, document, read = samples[number % len(samples)]
        spoilt = mutated(document, dice)
        tried.total += 1
        tried.by_kind[kind] = tried.by_kind.get(kind, 0) + 1
        try:
            read(spoilt)
        except InputError:
            tried.refused += 1
        except Exception as error:  # whatever it is, it is what this looks for
            tried.wrong.append(f"{kind}: {type(error).__name__}: {str(error)[:200]}")
    return tried


def mutated(document: Any, dice: random.Random) -> Any:
    """One to three changes at random places: a value replaced, removed, repeated or put elsewhere."""
    found = deepcopy(document)
    for _ in range(dice.randint(1, 3)):
        places = list(_places(found))
        if not places:
            return dice.choice(STRANGE)
        holder, key = dice.choice(places)
        change = dice.randrange(4)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[dice.choice(("", "extra", "nam", str(key).upper()))] = holder[key]
        elif change == 2:
            other, other_key = dice.choice(places)
            holder[key] = deepcopy(other[other_key])
        else:
            holder[key] = deepcopy(dice.choice(STRANGE))
    return found


def _places(node: Any) -> list[tuple[Any, Any]]:
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, value in inside:
        found += [(node, key), *_places(value)]
    return found


def _samples() -> list[tuple[str, Any, Callable[[Any], object]]]:
    suites = [read_yaml(path) for path in sorted((ROOT / "suites").glob("*.yaml"))]
    topologies = [read_yaml(path) for path in sorted((ROOT / "topologies").glob("*.yaml"))]
    found: list[tuple[str, Any, Callable[[Any], object]]] = []
    found += [("suite", document, _read_suite) for document in suites]
    found += [("topology", document, partial(_read_topology)) for document in topologies]
    spec = load_suite(ROOT / "suites" / "quickstart.yaml").cells[0].model_dump(mode="json")
    found += [("record: spec", spec, partial(_validated, RunSpec))]
    step = Step(step=1, clock=1.0, lr=1e-3, tokens=8, seconds={"data": 0.1}, payload_bytes=0).model_dump(mode="json")
    found += [("record: step", step, partial(_validated, Step))]
    found += [("record: result", {"id": "x", "seconds": {}, "valid": True}, partial(_validated, Result))]
    return found


def _validated(kind: Any, document: Any) -> object:
    return validate(kind, document, "record")


def _read_topology(document: Any) -> object:
    return topology_from(document, "topology")


def _read_suite(document: Any) -> object:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.yaml"
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        return load_suite(path)
