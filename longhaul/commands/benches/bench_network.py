"""`longhaul bench wan|collectives`: accuracy of emulated links, and all-reduce against its bound."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.bench import all_reduce
from harness.bench.link_accuracy import RATES, RTTS, hosts_of_links, link_grid, measure_links, stored_links
from harness.bench.link_load import hosts_of_loads, measure_loads, measure_sites
from harness.bench.rows import stored_host
from harness.bench.torch_backends import NETWORKS, measure_backends
from harness.records.environment import fingerprint
from netsim.emulated.network import resolve
from netsim.units import parse_size
from reports.pages.all_reduce_page import TERMINAL_COLUMNS, backends_table, collectives_page, collectives_table
from reports.pages.link_accuracy_page import accuracy_page, accuracy_table
from reports.pages.link_load_tables import load_table, sites_table
from reports.pages.markdown_page import write_page
from reports.style.tables import Value
from reports.style.terminal import terminal_table

Engine = Annotated[str, typer.Option(help="auto, nfqueue or netem.")]
Only = Annotated[str, typer.Option(help="both, idle or loaded: with every core busy training.")]
Rtts = Annotated[list[str] | None, typer.Option(help="Like '50 ms'; may be repeated.")]
Results = Annotated[Path | None, typer.Option(help="JSON lines to continue from; new results are appended.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
PARTS = ("links", "load", "sites")
LOADS = {"both": [False, True], "idle": [False], "loaded": [True]}


def bench_wan(
    rate: Annotated[list[str] | None, typer.Option(help="Like '100 Mbit'; may be repeated.")] = None,
    rtt: Rtts = None,
    substrate: Annotated[list[str] | None, typer.Option(help="auto, netns or docker; may be repeated.")] = None,
    engine: Engine = "auto",
    only: Only = "both",
    part: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; may be repeated; all of them if not given.")
    ] = None,
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="A folder for accuracy.md and figures/accuracy.svg.")] = None,
    as_json: Json = False,
) -> None:
    """RTT, goodput, loss and jitter of emulated links against what was declared; links under load; many sites."""
    parts = part or list(PARTS)
    if unknown := next((one for one in parts if one not in PARTS), None):
        raise typer.BadParameter(f"{unknown!r}; allowed: {', '.join(PARTS)}", param_hint="--part")
    substrates = [resolve(name, engine).substrate for name in substrate or ["auto"]]
    engine = resolve(substrates[0], engine).engine
    points = [
        point
        for name, loaded in product(substrates, _loads(only) if "links" in parts else [])
        for point in link_grid(rate or RATES, rtt or RTTS, name, engine, loaded)
    ]
    say = Console(stderr=True, highlight=False).print
    rows = measure_links(points, results, say)
    loads = measure_loads(substrates if "load" in parts else [], engine, results, say)
    sites = measure_sites(substrates if "sites" in parts else [], engine, results, say)
    if out is not None:
        links = stored_links(results) or rows
        hosts, load_hosts = hosts_of_links(results) or [fingerprint()], hosts_of_loads(results) or [fingerprint()]
        write_page(accuracy_page(links, loads, sites, hosts, load_hosts), out)
    if as_json:
        found = {"rows": [asdict(row) for row in rows], "under_load": [asdict(row) for row in loads]}
        print(json.dumps({"host": fingerprint(), **found, "many_sites": [asdict(row) for row in sites]}))
        return
    for table in (accuracy_table(rows), load_table(loads), sites_table(sites)):
        if table.rows:
            Console().print(terminal_table(table))


def bench_collectives(
    sites: Annotated[
        list[int] | None, typer.Option(min=2, max=16, help="May be repeated; 4 and 8 if not given.")
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="Of the access links, like '100 Mbit'; may be repeated.")
    ] = None,
    rtt: Rtts = None,
    size: Annotated[str, typer.Option(help="Payload of one all-reduce.")] = "25 MB",
    substrate: Annotated[str, typer.Option(help="auto, netns or docker.")] = "auto",
    engine: Engine = "auto",
    only: Only = "both",
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="A folder for collectives.md and figures/collectives.svg.")] = None,
    as_json: Json = False,
) -> None:
    """All-reduce over the WAN against the alpha-beta bound, cold and warm, beside plain gloo; by both backends of
    torch.distributed, too.

    Exits with 1 if a network misses the target.
    """
    topologies = [
        all_reduce.star(count, one_rate, one_rtt)
        for count in sites or sorted(all_reduce.RATES)
        for one_rate, one_rtt in product(rate or _rates(count), rtt or all_reduce.RTTS)
    ]
    chosen = resolve(substrate, engine)
    say = Console(stderr=True, highlight=False).print
    rows = all_reduce.measure_all_reduces(
        topologies,
        _elements(size),
        loads=_loads(only),
        substrate=chosen.substrate,
        engine=chosen.engine,
        results=results,
        report=say,
    )
    asked = [(count, *network) for count in sites or [4] for network in product(rate or [], rtt or [])]
    backends = measure_backends(
        (asked or NETWORKS) if False in _loads(only) else (),
        4 * _elements(size),
        chosen.substrate,
        chosen.engine,
        results,
        say,
    )
    if out is not None:
        hosts = all_reduce.hosts_of_rows(results)
        host = stored_host(results) or fingerprint()
        write_page(collectives_page(rows, all_reduce.TARGET_PERCENT, host, hosts, backends), out)
    if as_json:
        found = {"rows": [asdict(row) for row in rows], "backends": [asdict(row) for row in backends]}
        print(json.dumps({"target_percent": all_reduce.TARGET_PERCENT, "host": fingerprint(), **found}))
    else:
        table = collectives_table(rows, all_reduce.TARGET_PERCENT)
        Console().print(terminal_table(table, TERMINAL_COLUMNS, _missed))
        if backends:
            Console().print(terminal_table(backends_table(backends)))
    if any(row.efficiency_percent < all_reduce.TARGET_PERCENT for row in rows):
        raise typer.Exit(1)


def _missed(row: dict[str, Value]) -> str:
    return "red" if float(row["efficiency"].raw or 0.0) < all_reduce.TARGET_PERCENT else ""


def _rates(sites: int) -> tuple[str, ...]:
    return all_reduce.RATES.get(sites, all_reduce.RATES[8])


def _loads(only: str) -> list[bool]:
    """Whether to measure with idle cores (False), with busy ones (True), or both, in this order."""
    if only not in LOADS:
        raise typer.BadParameter(f"{only!r}; allowed: {', '.join(LOADS)}", param_hint="--only")
    return LOADS[only]


def _elements(size: str) -> int:
    try:
        return parse_size(size) // 4
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--size") from None
