"""Cells that run, as lines for a terminal of a given width."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from netsim.units import show_duration, show_size
from reports.live.status import COMPLETE, FAILED, INVALID, SILENT, TRAINING, UNREADABLE, WAITING, CellStatus, LiveStatus
from reports.style.terminal import printable

_STYLE = {COMPLETE: "green", INVALID: "yellow", FAILED: "red", UNREADABLE: "red", SILENT: "yellow", WAITING: "dim"}
_SMALLEST_TITLE = 16


def fitted(title: str, state: str, width: int) -> str:
    """`title: state` in at most `width` columns; the title gives way in its middle before the state is cut."""
    room = max(_SMALLEST_TITLE, width - len(state) - 2)
    if len(title) > room:
        head = (room - 1) // 2
        title = f"{title[:head]}…{title[len(title) - (room - 1 - head) :]}"
    return f"{title}: {state}"[:width]


def position(cell: CellStatus) -> str:
    """How far a cell is, in few words."""
    if cell.stage != TRAINING or not cell.step:
        return cell.stage
    loss = "-" if cell.loss is None else f"{cell.loss:.3f}"
    used = "" if cell.utilisation is None else f", CU {cell.utilisation:.0%}"
    left = "" if cell.seconds_left is None else f", {_short(cell.seconds_left)} left"
    return f"step {cell.step}/{cell.steps}, loss {loss}{used}{left}"


def event_line(cell: CellStatus, number: int, count: int) -> str:
    """One event of a cell: a stage that was reached, or how far it is."""
    reason = f": {cell.reason}" if cell.reason else ""
    facts = ""
    if cell.stage == COMPLETE and cell.clock is not None:
        loss = "-" if cell.loss is None else f"{cell.loss:.3f}"
        facts = f"  {show_duration(cell.clock)}, loss {loss}, {show_size(_sent(cell))} sent"
    return printable(f"[{number}/{count}] {cell.title}: {position(cell)}{facts}{reason}")


def summary_line(status: LiveStatus) -> str:
    left = "" if status.seconds_left is None else f", about {_short(status.seconds_left)} left"
    return f"{status.done} of {len(status.cells)} cells done{left if not status.finished else ''}"


def status_table(status: LiveStatus, width: int, height: int) -> Table:
    """All cells, a line each, within `width` columns; of many the ones around those under way that fit `height`."""
    table = Table(box=None, show_header=False, padding=0, width=width)
    table.add_column(no_wrap=True, overflow="ellipsis")
    first, last = _window(status, max(3, height - 3))
    if first:
        table.add_row(Text(f"{first} earlier cells", style="dim"))
    for number, cell in enumerate(status.cells[first:last], start=first + 1):
        state = position(cell) if not cell.final else _final(cell)
        text = fitted(printable(f"[{number}/{len(status.cells)}] {cell.title}"), state, width)
        table.add_row(Text(text, style=_STYLE.get(cell.stage, "")))
        if cell.reason and cell.stage in (FAILED, INVALID, SILENT, UNREADABLE):
            table.add_row(Text(f"    {printable(cell.reason)}"[:width]))
    if last < len(status.cells):
        table.add_row(Text(f"{len(status.cells) - last} further cells", style="dim"))
    table.add_row(Text(summary_line(status), style="bold"))
    return table


def _window(status: LiveStatus, most: int) -> tuple[int, int]:
    count = len(status.cells)
    if count <= most:
        return 0, count
    busy = next((place for place, cell in enumerate(status.cells) if not cell.final), count - 1)
    first = min(max(0, busy - most // 2), count - most)
    return first, first + most


def _final(cell: CellStatus) -> str:
    if cell.stage != COMPLETE or cell.clock is None:
        return cell.stage
    loss = "-" if cell.loss is None else f"{cell.loss:.3f}"
    return f"{cell.stage}  {_short(cell.clock)}, loss {loss}"


def _sent(cell: CellStatus) -> int:
    return sum(uplink.payload_bytes for uplink in cell.uplinks)


def _short(seconds: float) -> str:
    """Of a time that is an estimate: no more digits than it deserves."""
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"
