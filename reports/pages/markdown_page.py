"""A page of the documentation: Markdown with its figures, written in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.style.drawing import Drawing, write_images
from reports.style.tables import as_markdown, headed


@dataclass(frozen=True)
class MarkdownPage:
    """`<name>.md`, with `drawings` as figures/<drawing>.{png,svg} beside it."""

    name: str
    text: str
    drawings: tuple[Drawing, ...] = ()


def write_page(page: MarkdownPage, folder: Path) -> Path:
    """Write the page and its figures under `folder`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in page.drawings:
        write_images(drawing, folder / "figures")
    path = folder / f"{page.name}.md"
    path.write_text(page.text.rstrip("\n") + "\n", encoding="utf-8")
    return path


def picture(drawing: Drawing) -> str:
    """The figure with its caption, in Markdown."""
    image = f"![{as_markdown(drawing.title)}](figures/{drawing.name}.png)"
    return f"{image}\n\n{headed(drawing.title, drawing.caption)}\n"


def hosts_line(hosts: Sequence[Mapping[str, Any]]) -> str:
    """The line of the only host, or of all."""
    if len(hosts) < 2:
        return host_line(next(iter(hosts), None))
    return f"Hosts, of a part of the rows each: {'; '.join(host_line(host)[len('Host: ') : -1] for host in hosts)}."


def host_line(host: Mapping[str, Any] | None) -> str:
    """'Host: CPU, 2 cores, Linux 6.1, Python 3.11.7, torch 2.13.' of harness.records.environment.fingerprint."""
    if not host:
        return "Host: not recorded."
    versions = host.get("versions", {})
    parts = [
        host.get("cpu"),
        f"{host['cores']} cores" if "cores" in host else None,
        f"Linux {host['kernel']}" if "kernel" in host else None,
        f"Python {host['python']}" if "python" in host else None,
        f"torch {versions['torch']}" if "torch" in versions else None,
    ]
    return f"Host: {', '.join(str(part) for part in parts if part)}."
