"""The page of the public names, docs/api.md, written from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import longhaul

HEAD = """# The Python interface

`import longhaul` gives the names below; it loads no torch until one of them needs it. This page is written from the
docstrings by `longhaul docs api`. A `Source` is a `str` or a path. Scripts that use the names are in
[examples](../examples/README.md).
"""
_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Example):$")
_ITEM = re.compile(r"^    (\w+): (.*)$")
_FIELD = re.compile(r"^([a-z_]+): (.*)$")  # of a class


def api_page() -> str:
    """The Markdown of docs/api.md."""
    return "\n".join([HEAD, *(line for name in public_names() for line in _entry(name))]).rstrip() + "\n"


def public_names() -> list[str]:
    """The names of `longhaul` that the page describes: functions, then classes."""
    public = [name for name in longhaul.__all__ if not name.startswith("_")]
    return sorted(public, key=lambda name: (inspect.isclass(getattr(longhaul, name)), name))


def _entry(name: str) -> Iterator[str]:
    what = getattr(longhaul, name)
    yield from (f"## `{name}`", "")
    if inspect.isclass(what):
        yield from _formatted(inspect.getdoc(what) or "")
        yield from _members(what)
    else:
        yield from ("```python", f"longhaul.{name}{_signature(what)}", "```", "")
        yield from _formatted(inspect.getdoc(what) or "")


def _signature(function: Callable[..., Any]) -> str:
    """On one line if it fits, else with a parameter on each."""
    signature = inspect.signature(inspect.unwrap(function))
    line = _unquoted(signature)
    if len(line) <= 90:
        return line
    head, _, end = line.rpartition(") -> ")
    parameters = ["*" if part is None else part for part in _parameters(signature)]
    return "(\n" + "".join(f"    {part},\n" for part in parameters) + f") -> {end}" if head else line


def _parameters(signature: inspect.Signature) -> Iterator[str | None]:
    """Each parameter as it is written; None for the bare star before those that must be named."""
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            starred = True
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield None
        yield _unquoted(parameter)


def _unquoted(shown: object) -> str:
    """A signature without the quotes around its annotations."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(shown))


def _formatted(text: str) -> Iterator[str]:
    """A docstring as Markdown: sections get a bold head, items a bullet, examples a block."""
    section = ""
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if match := _SECTION.match(line):
            section = match[1]
            if section != "Example":
                yield from (f"**{section}**", "")
        elif section == "Example" and line.strip():
            block.append(line.removeprefix("    ").replace("  # doctest: +SKIP", ""))
        elif section == "Example" and block:
            yield from ("```python", *block, "```", "")
            block = []
        elif item := (_ITEM if section in ("Args", "Raises") else _FIELD).match(line):
            yield f"- `{item[1]}`: {item[2]}"
        else:
            yield f"  {line.strip()}" if section in ("Args", "Raises") and line.strip() else line.strip()


def _members(kind: type) -> Iterator[str]:
    """The public methods and properties that the class itself defines, one line each."""
    for name, member in vars(kind).items():
        if name.startswith("_") or not (isinstance(member, property) or inspect.isroutine(member)):
            continue
        parameters = "" if isinstance(member, property) else _unquoted(_without_self(member))
        meaning = " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())
        yield f"- `{name}{parameters}`" + (f": {meaning}" if meaning else "")
    yield ""


def _without_self(method: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(inspect.unwrap(method))
    return signature.replace(parameters=[p for name, p in signature.parameters.items() if name != "self"])
