"""The command line. A command is imported when it is called, so that none pays for the imports of another.

Exit codes: 0 done; 1 it ran, and something failed or is outside tolerance; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from longhaul.interrupts import INTERRUPTED, interrupt_once, interrupted
from netsim.errors import InputError, LonghaulError

COMMANDS = {
    "doctor": ("longhaul.commands.doctor:doctor", "What this host can do, and what each missing piece would enable."),
    "wan": ("longhaul.commands.wan:app", "Show a network, probe its links, or keep it open for anybody's programs."),
    "run": ("longhaul.commands.run:run", "Run the grid of a suite; complete cells are reused."),
    "report": ("longhaul.commands.report:report", "Tables, figures and one offline page from stored runs."),
    "watch": ("longhaul.commands.sharing.watch:watch", "A suite while it runs: cells, losses, links, time left."),
    "show": ("longhaul.commands.show:show", "The story of one run: outcome, events, logs."),
    "archive": ("longhaul.commands.sharing.archive:archive", "Records and their report in one file."),
    "compare": ("longhaul.commands.sharing.compare:compare", "Two sets of records beside each other."),
    "docs": ("longhaul.commands.docs:docs", "Write the generated pages of the documentation."),
    "calibrate": ("longhaul.commands.calibrate:calibrate", "Fit the cost model's constants to stored runs."),
    "validate": ("longhaul.commands.validate:validate", "Predicted against measured, for runs not calibrated on."),
    "project": ("longhaul.commands.project:project", "The cost model at scale."),
    "list": ("longhaul.commands.list:list_shipped", "What is shipped, by name: suites, topologies, methods, ..."),
    "schemas": ("longhaul.commands.schemas:schemas", "JSON Schemas of documents and records, for editors."),
    "method": ("longhaul.commands.method:app", "Check that a method, ours or your own, holds to what it states."),
    "bench": ("longhaul.commands.bench:app", "Our own benchmarks."),
    "clean": ("longhaul.commands.clean:clean", "Remove what a killed run left behind."),
}


def build(wanted: str | None, completion: bool = False) -> typer.Typer:
    """The application with the command `wanted` in full, and the others by their summaries alone.

    completion: whether it also has the options that set up the shell's completion.
    """
    app = typer.Typer(
        name="longhaul",
        help="Low-communication training over an emulated WAN: measured, compared, projected.",
        add_completion=completion,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_version)
    for name, (target, summary) in COMMANDS.items():
        found = _load(target) if name == wanted else _summarised(summary)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=summary)
        else:
            app.command(name)(found)
    return app


def _version(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        print(f"longhaul {metadata.version('longhaul-bench')}")
        raise typer.Exit


def _load(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(import_module(module), attribute)


def _summarised(summary: str) -> Callable[[], None]:
    def command() -> None:
        raise AssertionError("a command that was not called is only listed")

    command.__doc__ = summary
    return command


def main() -> None:
    interrupt_once()
    console = Console(stderr=True, highlight=False)
    words = os.environ.get("_TYPER_COMPLETE_ARGS", "").split() or sys.argv
    wanted = next((word for word in words[1:] if not word.startswith("-")), None)
    try:
        build(wanted, completion=True)(prog_name="longhaul")
    except (KeyboardInterrupt, SystemExit):
        if interrupted():
            sys.exit(INTERRUPTED)
        raise
    except InputError as error:
        console.print(f"[red]bad input[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except LonghaulError as error:
        console.print(f"[red]failed[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except OSError as error:  # a disk that is full or not to be written
        console.print(f"[red]failed[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
