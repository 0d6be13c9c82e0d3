"""Programs of others that ran over an emulated WAN: their table, their page where nothing else ran, and their story."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment

from harness.records.files import open_to_read
from harness.records.logs import read_entries
from harness.records.program_record import ProgramDirectory, ProgramRun, read_program
from netsim.errors import InputError
from netsim.units import show_duration, show_size
from reports.style.tables import Column, Table, text_table

_LARGEST_LOG = 1 << 20  # bytes read from the end of a log
_PAGE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Programs over emulated WANs</title>
<style>body{font:16px/1.5 system-ui;margin:2rem auto;max-width:75rem;padding:0 1rem}table{border-collapse:collapse}
td,th{border-bottom:1px solid #ccc;padding:.3rem .8rem;text-align:left}</style>
<h1>Programs over emulated WANs</h1>
{% for table in tables %}<h2>{{ table.title }}</h2><p>{{ table.caption }}</p>
<table><tr>{% for column in table.columns %}<th>{{ column.title }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for column in table.columns %}<td>{{ row[column.key].text }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endfor %}</html>
""")


def program_tables(programs: Sequence[ProgramRun]) -> list[Table]:
    """One row per program, and one per program and link; none where there are no programs."""
    if not programs:
        return []
    names = ("record", "command", "network", "sites", "substrate", "wall time", "bytes on the WAN", "outcome")
    columns = [Column(name.replace(" ", "_"), name, numeric=False) for name in names]
    caption = "Wall time is from the first start to the last end; bytes are counted with headers on all links."
    ends = ("record", "link", "sent", "packets", "dropped", "lost")
    link_columns = [Column(name, name, numeric=False) for name in ends]
    return [
        text_table("programs", "Programs", caption, columns, [_row(program) for program in programs]),
        text_table(
            "program-links",
            "Links of programs",
            "What each link carried while a program ran: bytes with headers; packets that a queue dropped, and that "
            "the link's loss took.",
            link_columns,
            [row for program in programs for row in _link_rows(program)],
        ),
    ]


def _row(program: ProgramRun) -> list[str]:
    spec, outcome = program.spec, program.outcome
    processes = f"{len(spec.sites)} x {spec.processes_per_site}"
    known = [program.directory.name, " ".join(spec.command), str(spec.topology.get("name")), processes]
    if outcome is None:
        return [*known, "", "", "", "unfinished"]
    state = "valid" if outcome.valid else f"invalid: {'; '.join(outcome.why_invalid)}"
    wall, sent = show_duration(outcome.wall_seconds), show_size(outcome.wan_bytes)
    return [*known, f"{outcome.substrate}/{outcome.engine}", wall, sent, state]


def _link_rows(program: ProgramRun) -> Iterator[list[str]]:
    for link in program.outcome.links if program.outcome else ():
        counts = [str(link.packets), str(link.drops), str(link.lost)]
        yield [program.directory.name, f"{link.source} -> {link.target}", show_size(link.bytes), *counts]


def programs_page(programs: Sequence[ProgramRun]) -> str:
    """A page of the tables alone, where no method was run."""
    return _PAGE.render(tables=program_tables(programs))


def program_story(directory: Path, log_lines: int) -> list[str]:
    """The story of one program for a terminal. Raises InputError for a damaged record."""
    program = read_program(directory)
    files, spec, outcome = ProgramDirectory(directory), program.spec, program.outcome
    lines = [f"torchrun {' '.join(spec.command)} on {spec.topology.get('name')}: {len(spec.sites)} sites"]
    if outcome is None:
        lines.append("failed or unfinished: it has no outcome.json")
    else:
        state = "valid" if outcome.valid else "INVALID"
        sent = show_size(outcome.wan_bytes)
        lines.append(f"{state}: {show_duration(outcome.wall_seconds)} on {outcome.substrate}, {sent} over the WAN")
        lines += [f"invalid because: {why}" for why in outcome.why_invalid]
        lines += ["", "links", *("  " + ", ".join(row[1:3]) for row in _link_rows(program))]
    lines += ["", "events (seconds since the network was asked for)"]
    lines += [f"{event.pop('at', '?')!s:>9}  {json.dumps(event)}" for event in read_entries(files.events)]
    for site in spec.sites:
        code = outcome.exit_codes.get(site) if outcome else None
        lines += ["", f"{site}: exit code {'unknown' if code is None else code}; log: {files.log(site)}"]
        lines += [f"  | {line}" for line in log_tail(files.log(site), log_lines)]
    return lines


def log_tail(path: Path, count: int) -> list[str]:
    """The last lines of a log that are not blank, of what its last MiB holds; none where there is no such file."""
    try:
        with open_to_read(path) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LARGEST_LOG))
            text = file.read().decode(errors="replace")
    except (OSError, InputError):
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-count:] if count else []
