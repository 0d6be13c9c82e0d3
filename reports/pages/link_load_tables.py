"""The parts of docs/accuracy.md about links under load and networks of many sites."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from harness.bench.link_load import LoadedLink, ManySites
from reports.style.tables import Column, Table, text_table

_LOADS = {"tcp": "one TCP connection", "flood": "flood at 1.5 x rate", "small": "frames of 100 B at the rate"}
_LOAD_COLUMNS = (
    Column("where", "where", numeric=False),
    Column("load", "load", numeric=False),
    Column("rate", "rate", numeric=False),
    Column("rtt", "RTT", numeric=False),
    Column("queue", "queue", numeric=False),
    Column("median", "RTT under load", "ms"),
    Column("worst", "worst", "ms"),
    Column("most", "with a full queue", "ms"),
    Column("goodput", "goodput", "% of expected"),
    Column("packets", "packets/s"),
    Column("lost", "lost", numeric=False),
)
_SITE_COLUMNS = (
    Column("where", "where", numeric=False),
    Column("sites", "sites"),
    Column("open", "to set up", "s"),
    Column("check", "short check", "s"),
    Column("probed", "pairs probed"),
    Column("passed", "check", numeric=False),
    Column("rtt", "worst RTT error", "ms"),
    Column("goodput", "worst goodput error", "%"),
    Column("memory", "memory", "MB"),
    Column("busy", "CPU use", "%"),
)


def load_sections(loads: Sequence[LoadedLink], sites: Sequence[ManySites], host: str = "") -> list[str]:
    """Both sections in Markdown; nothing for what was not measured. host: where, but for the guest."""
    parts: list[str] = []
    if loads:
        parts += [
            "## Under load",
            "",
            "Echoes while one TCP connection (reno) or a flood of full frames fills the link from a to b. A flood",
            "keeps its queue full, so its RTT is that of a full queue; TCP fills at most that. Small packets:",
            "frames of 100 bytes at the link's full rate, none of which may be lost. *guest*: a stock Debian kernel",
            "in QEMU, in virtual time. The other rows were measured beside whatever else ran on the host, so single",
            "echoes may be late.",
            *([host] if host else []),
            "",
            _plain(load_table(loads)),
            *_envelopes(loads),
            "",
        ]
    if sites:
        where = sites[0].sites_point
        parts += [
            "## Many sites",
            "",
            f"Every site has {where.rate}/s, every pair an RTT of {where.rtt}. The short check probes every pair of up",
            "to eight sites; of more, every access link both ways and a sample. Memory: all processes of the",
            "network, shared pages counted once. CPU use: of the whole host; where it is 100 %, other programs had a",
            "share of it, and times and errors are upper bounds.",
            *([host] if host else []),
            "",
            _plain(sites_table(sites)),
        ]
    return parts


def _envelopes(loads: Sequence[LoadedLink]) -> list[str]:
    """Per engine and host: up to how many small packets a second were carried, and the fewest that were not."""
    groups: dict[str, list[LoadedLink]] = {}
    for row in loads:
        if row.sent:
            groups.setdefault(f"{row.load_point.substrate}, {row.load_point.engine}", []).append(row)
    return [f"- Packets per second, {where}: {_envelope(rows)}." for where, rows in groups.items()]


def _envelope(rows: Sequence[LoadedLink]) -> str:
    ordered = sorted(rows, key=lambda row: row.packets_per_second)
    well = list(takewhile(lambda row: row.carried, ordered))
    carried = well[-1].packets_per_second if well else 0.0
    beyond = ordered[len(well)].packets_per_second if len(well) < len(ordered) else None
    most = f"{carried:.0f} were carried without loss and within the short check's tolerance of the RTT"
    return most + ("; no more were tried" if beyond is None else f", {beyond:.0f} were not")


def _plain(table: Table) -> str:
    return Table(table.name, "", "", table.columns, table.rows).markdown()


def load_table(rows: Sequence[LoadedLink]) -> Table:
    """One row per link and load."""
    return text_table("under-load", "Links under load", "", _LOAD_COLUMNS, [_load_cells(row) for row in rows])


def sites_table(rows: Sequence[ManySites]) -> Table:
    """One row per network."""
    return text_table("many-sites", "Networks of many sites", "", _SITE_COLUMNS, [_site_cells(row) for row in rows])


def _load_cells(row: LoadedLink) -> tuple[str, ...]:
    point = row.load_point
    return (
        f"{point.substrate}, {point.engine}",
        _LOADS[point.load],
        point.rate,
        point.rtt,
        point.queue,
        f"{row.rtt_ms:.1f}",
        f"{row.rtt_ms_worst:.1f}",
        f"{row.rtt_ms_most:.1f}",
        "-" if row.goodput_share is None else f"{100 * row.goodput_share:.1f}",
        f"{row.packets_per_second:.0f}" if row.sent else "-",
        f"{row.lost} of {row.sent}" if row.sent else "-",
    )


def _site_cells(row: ManySites) -> tuple[str, ...]:
    point = row.sites_point
    return (
        f"{point.substrate}, {point.engine}",
        str(point.sites),
        f"{row.open_seconds:.1f}",
        f"{row.check_seconds:.1f}",
        str(row.probed),
        "passed" if row.passed else "failed",
        f"{row.rtt_error_ms:+.2f}",
        f"{100 * row.goodput_error:+.2f}",
        f"{row.memory_mb:.0f}",
        f"{row.host_busy_percent:.0f}",
    )
