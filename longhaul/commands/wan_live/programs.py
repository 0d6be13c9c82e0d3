"""`longhaul wan exec`, `shell` and `pcap`: programs in the nodes of an open network, and what passes their links."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from longhaul.commands.wan_live.lifetime import NAME
from longhaul.commands.wan_live.terminal import in_terminal
from longhaul.networks import program_environment, site_addresses
from netsim.emulated.held.client import HeldNetwork, find_held
from netsim.errors import InputError

_SITE = typer.Argument(help="A site of the network.", show_default=False)
_COLOURS = (36, 33, 32, 35, 34, 31)  # of a terminal, for the names of sites


def execute(
    words: Annotated[
        list[str], typer.Argument(metavar="[SITE] -- COMMAND...", help="A site, and what to run there after `--`.")
    ],
    everywhere: Annotated[bool, typer.Option("--all", help="At every site, each line under its site's name.")] = False,
    directory: Annotated[Path | None, typer.Option("--dir", help="Where it starts; by default here.")] = None,
    name: Annotated[str, NAME] = "",
) -> None:
    """Run a program at a site, or at all. `@SITE` in its arguments is that site's address. Its exit code is ours."""
    network = find_held(name)
    if everywhere:
        raise typer.Exit(_at_all(network, words, directory))
    if len(words) < 2:
        raise InputError("wan exec", "", " ".join(words), "a site and a command: longhaul wan exec SITE -- COMMAND")
    site, argv = words[0], words[1:]
    network.site(site)
    status = network.execute(
        site,
        site_addresses(network, argv),
        program_environment(network, site),
        directory=_start(network, directory),
    )
    raise typer.Exit(_exit_code(status))


def shell(
    site: Annotated[str, _SITE],
    command: Annotated[list[str] | None, typer.Argument(help="By default $SHELL, else /bin/sh.")] = None,
    name: Annotated[str, NAME] = "",
) -> None:
    """Open a shell at a site."""
    network = find_held(name)
    network.site(site)
    if not sys.stdin.isatty():
        raise InputError("wan shell", "", "no terminal", "a terminal; programs without one run by `longhaul wan exec`")
    argv = site_addresses(network, command) if command else [os.environ.get("SHELL", "/bin/sh")]
    env = {**program_environment(network, site), "PS1": f"[{site}] \\w \\$ "}

    def run(end: int) -> int:
        ends = (end, end, end)
        return network.execute(site, argv, env, ends, directory=_start(network, None), terminal=True)

    raise typer.Exit(_exit_code(in_terminal(run)))


def pcap(
    site: Annotated[str, _SITE],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; by default standard output.", show_default=False)
    ] = None,
    kept: Annotated[int, typer.Option("--snap", min=14, max=65535, help="Bytes kept of each packet.")] = 65535,
    name: Annotated[str, NAME] = "",
) -> None:
    """Write what passes wan0 of a site in pcap form, until interrupted; for tcpdump -r and Wireshark."""
    network = find_held(name)
    network.site(site)
    if output is None:
        if sys.stdout.isatty():
            raise InputError(
                "wan pcap", "--out", "a terminal", "a file, or a pipe: longhaul wan pcap SITE | tcpdump -r -"
            )
        network.capture(site, 1, kept)
        return
    with output.open("wb") as file, suppress(KeyboardInterrupt):
        network.capture(site, file.fileno(), kept)
    print(f"{output}: {output.stat().st_size} bytes", file=sys.stderr)


def _at_all(network: HeldNetwork, words: list[str], directory: Path | None) -> int:
    """At every site at once; the first exit code that is not 0, in the order of the sites."""
    statuses: dict[str, int] = {}
    width = max(len(site.site) for site in network.sites)
    writing = threading.Lock()

    def work(index: int, site: str) -> None:
        reader, writer = os.pipe()
        printing = threading.Thread(target=_print_lines, args=(reader, f"{site:{width}}", index, writing))
        printing.start()
        try:
            with Path(os.devnull).open("rb") as null:
                statuses[site] = network.execute(
                    site,
                    site_addresses(network, words),
                    program_environment(network, site),
                    (null.fileno(), writer, writer),
                    directory=_start(network, directory),
                )
        except Exception as error:
            statuses[site] = 1
            os.write(writer, f"{error}\n".encode())
        finally:
            os.close(writer)
            printing.join()

    threads = [
        threading.Thread(target=work, args=(index, site.site), daemon=True) for index, site in enumerate(network.sites)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next((code for site in network.sites if (code := _exit_code(statuses[site.site]))), 0)


def _print_lines(reader: int, site: str, index: int, writing: threading.Lock) -> None:
    """Every line of a site as soon as it is whole, with the site's name before it."""
    before = f"\x1b[{_COLOURS[index % len(_COLOURS)]}m{site}\x1b[0m" if sys.stdout.isatty() else site
    with os.fdopen(reader, "r", errors="replace") as lines:
        for line in lines:
            with writing:
                print(f"{before} | {line}", end="" if line.endswith("\n") else "\n", flush=True)


def _start(network: HeldNetwork, directory: Path | None) -> Path | None:
    """Where a program starts: as asked, else here, or in a container that may not see it, in the node's own folder."""
    if directory is not None:
        return directory.absolute()
    here = Path.cwd()
    seen = network.substrate == "netns" or any(here.is_relative_to(folder) for folder in network.visible)
    return here if seen else None


def _exit_code(status: int) -> int:
    """As a shell gives it: 128 and the signal for a program that one ended."""
    return status if status >= 0 else 128 - status
