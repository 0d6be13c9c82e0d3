"""`longhaul wan`: show a network, build it and probe its links, or keep it open for programs."""

from __future__ import annotations

import json
from math import inf

import typer
from rich.console import Console
from rich.table import Table

from longhaul.commands.wan_live import lifetime, links, programs
from longhaul.commands.wan_live.torchrun import torchrun
from longhaul.completion import topologies
from netsim.emulated.gate import LinkReport
from netsim.emulated.jitter import frame_spacing, mean_delay
from netsim.framing import goodput
from netsim.queue_kinds import Stated, kind_of, managed
from netsim.topology import GilbertElliott, Link, Topology, find_topology, load_topology
from netsim.units import show_duration, show_rate, show_size

app = typer.Typer(no_args_is_help=True)
app.command("up")(lifetime.up)
app.command("list")(lifetime.list_open)
app.command("down")(lifetime.down)
app.command("exec")(programs.execute)
app.command("shell")(programs.shell)
app.command("pcap")(programs.pcap)
app.command("set")(links.set_link)
app.command("stats")(links.stats)
app.command("torchrun")(torchrun)
_TOPOLOGY = typer.Argument(help="A topology file, or the name of one in the library.", autocompletion=topologies)
_JSON = typer.Option(False, "--json", help="Print one JSON document and nothing else.")


@app.command()
def show(
    topology: str = _TOPOLOGY,
    as_json: bool = _JSON,
) -> None:
    """The sites and directed links of a network, and what they can carry."""
    found = load_topology(find_topology(topology))
    if as_json:
        print(json.dumps(_document(found), indent=2))
        return
    console = Console()
    console.print(f"[bold]{found.name}[/bold]  {found.description}", highlight=False)
    if found.source:
        console.print(f"Source: {found.source.strip()}", highlight=False, style="dim")
    sites = Table("site", "up", "down", "workers")
    for site in found.sites:
        sites.add_row(site.name, show_rate(site.up), show_rate(site.down), str(site.workers))
    console.print(sites)
    pairs = Table("link", "delay", "RTT", "rate", "goodput", "jitter", "loss", "queue")
    for a, b in found.pairs():
        link, rate = found.link(a.name, b.name), found.rate(a.name, b.name)
        pairs.add_row(
            f"{a.name} -> {b.name}",
            show_duration(link.delay),
            show_duration(found.rtt(a.name, b.name)),
            show_rate(rate),
            show_rate(goodput(rate, found.transport.mtu)),
            _jitter(found, a.name, b.name),
            _loss(link),
            _queue(link.queue, found.queue(a.name, b.name)),
        )
    console.print(pairs)
    if found.core:
        core = Table("core link", "rate", "queue", "shared by")
        for shared in found.core:
            crossing = ", ".join(f"{a} -> {b}" for a, b in shared.pairs)
            core.add_row(shared.name, show_rate(shared.rate), _queue(shared.queue, found.core_queue(shared)), crossing)
        console.print(core)
    pinned = found.transport
    console.print(
        f"TCP: {pinned.congestion_control}, buffers up to {show_size(pinned.buffer)}, MTU {pinned.mtu}", highlight=False
    )


@app.command()
def check(
    topology: str = _TOPOLOGY,
    substrate: str = typer.Option("auto", help="auto, netns or docker."),
    engine: str = typer.Option("auto", help="auto, nfqueue or netem."),
    short: bool = typer.Option(False, "--short", help="The quick check that a run makes before and after itself."),
    as_json: bool = _JSON,
) -> None:
    """Builds the network and probes its links: RTT, jitter, goodput, loss, order. Exit code 1 outside tolerance."""
    from netsim.emulated.network import open_network
    from netsim.emulated.owner import scratch

    found = load_topology(find_topology(topology))
    with (
        scratch("wan-check") as directory,
        open_network(found, run_id="wan-check", directory=directory, substrate=substrate, engine=engine) as net,
    ):
        if not as_json:
            Console().print(f"{found.name} on {net.substrate}, engine {net.engine} ({net.reason})", highlight=False)
        report = net.check(short)
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print_report(report, Console())
    if not report.passed:
        raise typer.Exit(1)


def print_report(report: LinkReport, console: Console) -> None:
    """The links as a table, then every excess in words."""
    table = Table("link", "RTT (expected) ms", "goodput (expected) Mbit/s", "loss (expected) %", "")
    for link in report.links:
        found = "no answer" if link.rtt_ms is None else f"{link.rtt_ms:.2f}"
        table.add_row(
            f"{link.source} -> {link.target}",
            f"{found} ({link.rtt_ms_expected:g})",
            f"{link.goodput_mbit:.2f} ({link.goodput_mbit_expected:.2f})",
            f"{link.loss * 100:.3g} ({link.loss_asked * 100:.3g})",
            "[green]ok[/green]" if link.passed else "[red]off[/red]",
        )
    console.print(table)
    for problem in report.problems():
        console.print(f"[red]off[/red] {problem}", highlight=False)
    if unjudged := sum(bool(link.not_judged) for link in report.links):
        console.print(f"{unjudged} links are too short for the probes to show whether their RTT is too short")
    if report.inferred:
        others, unlike = sum(report.inferred.values()), report.inferred.get("", 0)
        console.print(
            f"{len(report.links)} pairs probed (seed {report.seed}): every access link each way, pairs that differ, a "
            f"sample; {others - unlike} others inferred from pairs of their class, {unlike} from access links alone",
            highlight=False,
        )
    console.print("passed" if report.passed else "failed")


def _jitter(topology: Topology, source: str, target: str) -> str:
    link = topology.link(source, target)
    if link.jitter is None:
        return "-"
    kind = f"{show_duration(link.jitter.spread)} {link.jitter.distribution}"
    if link.jitter.reorder:
        return f"{kind}, reorders; mean delay {show_duration(mean_delay(link, inf))}"
    loaded = mean_delay(link, frame_spacing(topology, source, target))
    return f"{kind}; mean delay {show_duration(mean_delay(link, inf))}, saturated {show_duration(loaded)}"


def _queue(stated: Stated, room: int) -> str:
    kind = managed(stated)
    return show_size(room) + ("" if kind is None else f", {kind.kind}" + (" with ECN" if kind.ecn else ""))


def _loss(link: Link) -> str:
    if not link.mean_loss:
        return "-"
    return f"{link.mean_loss:.2%}" + (" in bursts" if isinstance(link.loss, GilbertElliott) else "")


def _document(topology: Topology) -> dict[str, object]:
    mtu = topology.transport.mtu
    return {
        "name": topology.name,
        "description": topology.description,
        "source": topology.source,
        "transport": topology.transport.model_dump(),
        "sites": [
            {"name": site.name, "up_bit_per_second": site.up, "down_bit_per_second": site.down, "workers": site.workers}
            for site in topology.sites
        ],
        "links": [
            {
                "source": a.name,
                "target": b.name,
                "delay_seconds": topology.link(a.name, b.name).delay,
                "rtt_seconds": topology.rtt(a.name, b.name),
                "rate_bit_per_second": topology.rate(a.name, b.name),
                "goodput_bit_per_second": goodput(topology.rate(a.name, b.name), mtu),
                "loss": topology.link(a.name, b.name).mean_loss,
                "mean_delay_seconds": mean_delay(topology.link(a.name, b.name), inf),
                "mean_delay_seconds_saturated": mean_delay(
                    topology.link(a.name, b.name), frame_spacing(topology, a.name, b.name)
                ),
                "jitter": (jitter := topology.link(a.name, b.name).jitter) and jitter.model_dump(),
                "duplicate": topology.link(a.name, b.name).duplicate,
                "queue_bytes": topology.queue(a.name, b.name),
                "queue_kind": kind_of(topology.link(a.name, b.name).queue),
            }
            for a, b in topology.pairs()
        ],
        "core": [
            {
                "name": link.name,
                "rate_bit_per_second": link.rate,
                "queue_bytes": topology.core_queue(link),
                "queue_kind": kind_of(link.queue),
                "pairs": [list(pair) for pair in link.pairs],
            }
            for link in topology.core
        ],
    }
