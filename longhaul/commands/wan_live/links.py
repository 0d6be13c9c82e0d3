"""`longhaul wan set` and `stats`: the links of an open network, changed and counted while it is used."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from longhaul.commands.wan_live.lifetime import JSON, NAME, duration
from netsim.emulated.held.client import HeldNetwork, find_held
from netsim.emulated.traffic_counts import TrafficCounts, link_rates, prometheus_text
from netsim.errors import InputError
from netsim.units import show_rate, show_size


def set_link(
    place: Annotated[
        str,
        typer.Argument(metavar="LINK", help="A:B for the link between two sites, or a site for its access link."),
    ],
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE...",
            help="delay, rtt, rate, loss, jitter, duplicate or queue of a link, as in a topology file; up or down of "
            "a site. null: none.",
        ),
    ],
    one_way: Annotated[bool, typer.Option("--one-way", help="Only from A to B.")] = False,
    name: Annotated[str, NAME] = "",
) -> None:
    """Change a link or a site's rates at once; what is not named stays."""
    network = find_held(name)
    network.change({**_place(place, one_way), **dict(_value(text) for text in values)})
    network.verify()
    print(f"{place}: {', '.join(values)}")


def stats(
    name: Annotated[str, NAME] = "",
    over: Annotated[str, typer.Option(help="Rates are means over this time.")] = "1s",
    every: Annotated[str, typer.Option(help="Go on: a line of JSON each so often, until interrupted.")] = "",
    output: Annotated[Path | None, typer.Option("--out", "-o", help="The file for those lines.")] = None,
    as_json: Annotated[bool, JSON] = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Counters in the Prometheus text format.")] = False,
) -> None:
    """Rates, queues, drops and losses of every link."""
    network = find_held(name)
    if prometheus:
        print(prometheus_text(network.traffic(), network.name), end="")
    elif every:
        _series(network, _seconds("--every", every), output)
    else:
        before = network.traffic()
        time.sleep(_seconds("--over", over))
        after = network.traffic()
        if as_json:
            rates = [vars(rate) for rate in link_rates(before, after)]
            print(json.dumps({"network": network.name, "rates": rates, "counts": after.to_json()}, indent=2))
        else:
            Console().print(traffic_table(before, after))


def traffic_table(before: TrafficCounts, after: TrafficCounts) -> Table:
    """One row per directed link: rates between the two readings, and counts since the network was opened."""
    table = Table("link", "rate", "packets/s", "queue", "sent", "dropped", "lost")
    counts = {(link.source, link.target): link for link in after.links}
    for rate in link_rates(before, after):
        count = counts[rate.source, rate.target]
        table.add_row(
            f"{rate.source} -> {rate.target}",
            show_rate(rate.bit_per_second),
            f"{rate.packets_per_second:.0f}",
            show_size(count.queue_bytes),
            show_size(count.bytes),
            str(count.drops),
            str(count.lost),
        )
    for downlink in after.downlinks:
        queue, sent = show_size(downlink.queue_bytes), show_size(downlink.bytes)
        table.add_row(f"downlink of {downlink.site}", "", "", queue, sent, str(downlink.drops), "")
    return table


def _series(network: HeldNetwork, seconds: float, output: Path | None) -> None:
    """Until interrupted, or until the network ends: one reading per line."""
    with output.open("a", encoding="utf-8") if output else nullcontext() as file:
        due = time.monotonic()
        while True:
            line = json.dumps({"when": round(time.time(), 3), **network.traffic().to_json()})
            print(line, file=file, flush=True)
            due += seconds
            time.sleep(max(0.0, due - time.monotonic()))


def _place(text: str, one_way: bool) -> dict[str, Any]:
    ends = text.split(":")
    if len(ends) == 1 and not one_way:
        return {"site": text}
    if len(ends) != 2 or not all(ends):
        raise InputError("wan set", "LINK", text, "A:B for two sites, or one site")
    return {"from": ends[0], "to": ends[1]} if one_way else {"between": ends}


def _value(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise InputError("wan set", "", text, "NAME=VALUE, like delay=80ms")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError("wan set", key, value, "a value as in a topology file") from None


def _seconds(option: str, text: str) -> float:
    seconds = duration(option, text)
    if seconds <= 0:
        raise InputError(option, "", text, "a duration above zero")
    return seconds
