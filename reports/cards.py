"""Cards: what the runs were made of, as found in their records. What differs between runs is shown as differing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from netsim.topology import Topology
from netsim.units import show_rate, show_size
from reports.frames import links_frame
from reports.study import Study
from reports.style.quantities import digits
from reports.style.tables import EMPTY, Column, Table, Value


@dataclass(frozen=True)
class CardEntry:
    """One line of a card. `differs`: the runs do not agree."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(self.values) > 1


_DIGEST = re.compile(r"[0-9a-f]{16,}$")
_LONGEST = 120  # characters of a value that a card has room for


def environment_card(study: Study) -> list[CardEntry]:
    """Longer entries, like the queueing disciplines of every node, are left to each run's environment.json."""
    left_out = ("code", "modules")
    entries = _card({name: v for name, v in run.environment.items() if name not in left_out} for run in study.stored)
    return [*entries, *_code_entries(study)]


def modules_card(study: Study) -> list[CardEntry]:
    """The hash of each module that ran, under its own name."""
    found: dict[str, dict[str, None]] = {}
    for run in study.stored:
        modules = run.environment.get("modules")
        for name, digest in modules.items() if isinstance(modules, dict) else ():
            found.setdefault(str(name), {})[str(digest)[:12]] = None
    return [CardEntry(name, tuple(digests)) for name, digests in sorted(found.items())]


def _code_entries(study: Study) -> list[CardEntry]:
    """The hash of the code that ran, by method: it covers the method's own modules, so methods always differ."""
    found: dict[str, dict[str, None]] = {}
    for run in study.stored:
        if (code := run.environment.get("code")) is not None:
            found.setdefault(run.result.algorithm, {})[str(code)[:12]] = None
    return [CardEntry(f"code of {method}", tuple(codes)) for method, codes in found.items()]


def workload_cards(study: Study) -> dict[str, list[CardEntry]]:
    """By group: model, data, training and compute as the suites asked for them."""
    return {
        group: _card(
            {
                name: part.model_dump(mode="json", by_alias=True, exclude_unset=True)
                for name, part in (
                    ("model", run.spec.model),
                    ("data", run.spec.data),
                    ("train", run.spec.train),
                    ("compute", run.spec.compute),
                    ("network", run.spec.network),
                )
            }
            for run in study.stored
            if run.group == group
        )
        for group in study.groups
    }


def options_table(study: Study) -> Table:
    """What stands behind each label."""
    columns = (
        Column("label", "label", numeric=False),
        Column("method", "method", numeric=False),
        Column("options", "options set by the suite; the rest are defaults", numeric=False),
    )
    rows = []
    for group in study.groups:
        for label in study.labels:
            cells = [run.spec for run in study.stored if run.group == group and run.spec.label == label]
            if cells:
                name = label if len(study.groups) == 1 else f"{group}: {label}"
                entries = _card(cell.options for cell in cells)
                shown = ", ".join(f"{entry.name}: {' | '.join(entry.values)}" for entry in entries) or "defaults"
                rows.append({"label": Value(label, name), "method": Value(cells[0].method, cells[0].method)})
                rows[-1]["options"] = Value(shown, shown)
    return Table("options", "Methods as configured", "", columns, tuple(rows))


def _card(documents: Iterable[Mapping[str, Any]]) -> list[CardEntry]:
    found: dict[str, dict[str, None]] = {}
    for document in documents:
        for name, value in _flat(document):
            found.setdefault(name, {})[value] = None
    return [CardEntry(name, tuple(values)) for name, values in found.items()]


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in document.items():
        word = "each node" if prefix.endswith("nodes › ") else str(key).replace("_", " ")
        name = f"{prefix.removesuffix('nodes › ')}{word}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} › ")
        elif value is not None and value != []:
            shown = ", ".join(_text(item) for item in value) if isinstance(value, list) else _text(value)
            if _DIGEST.match(shown):
                shown = shown[:12]
            if len(shown) <= _LONGEST:
                yield name, shown


def _text(value: object) -> str:
    """A float in at most six digits: 0.30000000000000004 is 0.3."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class NetworkCard:
    """One network: what it is, and its probes over all runs on it, valid or not. `table`: None without probes."""

    place: str
    description: str
    source: str
    about: list[CardEntry]
    verdict: str
    passed: bool
    table: Table | None


_LINK_COLUMNS = (
    Column("link", "link", numeric=False),
    Column("rtt_asked", "RTT asked", "ms"),
    Column("rtt", "RTT found, median", "ms"),
    Column("rtt_worst", "furthest off", "ms"),
    Column("rate", "rate asked", "Mbit/s"),
    Column("expected", "goodput expected", "Mbit/s"),
    Column("goodput", "goodput found, median", "Mbit/s"),
    Column("goodput_worst", "furthest off", "%"),
    Column("loss_asked", "loss asked", "%"),
    Column("loss", "loss found", "%"),
    Column("passed", "probes passed"),
)


def network_cards(study: Study) -> list[NetworkCard]:
    """One for each network; goodput is compared with what framing leaves of the rate."""
    links = links_frame(study.stored).merge(study.everything[["run", "group", "topology"]], on="run")
    cards = []
    for place in study.places:
        topology = next(r.topology for r in study.stored if (r.group, r.topology.name) == place)
        mine = links[(links["group"] == place[0]) & (links["topology"] == place[1])]
        pairs = mine.groupby(["source", "target"]).ngroups
        keys = ["source", "target", "rate_mbit_asked"]  # scaled runs have networks of their own under one name
        rows = tuple(_link_row(name, probes) for name, probes in mine.groupby(keys, sort=False, dropna=False))
        failed = int((~mine["passed"].astype(bool)).sum())
        name = study.place_name(*place)
        table = Table(f"links-{'-'.join(place)}", name, "", _LINK_COLUMNS, rows) if rows else None
        verdict = _verdict(pairs, len(mine), mine["run"].nunique(), failed) if rows else "not probed"
        words, source = (" ".join(text.split()) for text in (topology.description, topology.source))
        cards.append(NetworkCard(name, words, source, _about(topology), verdict, not failed, table))
    return cards


def _verdict(links: int, probes: int, runs: int, failed: int) -> str:
    outcome = "all within tolerance" if not failed else f"{failed} outside tolerance"
    return f"{links} directed links, {probes} probes in {runs} run{'s' if runs > 1 else ''}: {outcome}"


def _about(topology: Topology) -> list[CardEntry]:
    """Sites with their access rates, and TCP as pinned."""
    entries = []
    for site in topology.sites:
        workers = f", {site.workers} workers" if site.workers > 1 else ""
        entries.append(CardEntry(site.name, (f"{show_rate(site.up)} up, {show_rate(site.down)} down{workers}",)))
    tcp = topology.transport
    entries.append(CardEntry("TCP", (f"{tcp.congestion_control}, buffers {show_size(tcp.buffer)}, MTU {tcp.mtu} B",)))
    return entries


def _link_row(name: Any, probes: pd.DataFrame) -> dict[str, Value]:
    source, target, _ = name
    rtt_off = (probes["rtt_ms"] - probes["rtt_ms_asked"]).astype(float)
    goodput_off = ((probes["goodput_mbit"] / probes["goodput_mbit_expected"] - 1) * 100).astype(float)
    passed, total = int(probes["passed"].sum()), len(probes)
    return {
        "link": Value(f"{source} -> {target}", f"{source} →\u00a0{target}"),
        "rtt_asked": _middle(probes["rtt_ms_asked"]),
        "rtt": _middle(probes["rtt_ms"]),
        "rtt_worst": _furthest(rtt_off),
        "rate": _middle(probes["rate_mbit_asked"]),
        "expected": _middle(probes["goodput_mbit_expected"]),
        "goodput": _middle(probes["goodput_mbit"]),
        "goodput_worst": _furthest(goodput_off),
        "loss_asked": _middle(probes["loss_asked"].astype(float) * 100),
        "loss": _middle(probes["loss"].astype(float) * 100),
        "passed": Value(passed / total, f"{passed} of {total}"),
    }


def _middle(values: pd.Series) -> Value:
    known = values.dropna().astype(float)
    return Value(float(known.median()), digits(float(known.median()))) if len(known) else EMPTY


def _furthest(values: pd.Series) -> Value:
    """The largest in magnitude, with its sign."""
    known = values.dropna()
    if not len(known):
        return EMPTY
    worst = float(known.iloc[int(known.abs().argmax())])
    return Value(worst, f"{worst:+.2f}")
