"""What every page that is written from a template has: the environment, the style, and data for its scripts."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from reports.style.drawing import colour_variables

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_TEMPLATES = Path(__file__).parent.parent / "templates"
_STYLE = _TEMPLATES / "page.css"


def page_template(path: Path) -> Template:
    """The template in a file, which may include those of `reports/templates`, such as the head of a page with scripts.

    Whatever it is given is escaped, unless it is marked up already.
    """
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(path.read_text(encoding="utf-8"))


def page_bytes(page: str) -> bytes:
    """The file of a page in ASCII, other characters as references.

    One character of more than 8 bits makes a browser keep the text around it in 16, which more than doubles the time to
    decode it.
    """
    return page.encode("ascii", "xmlcharrefreplace")


def page_css(*before: Path) -> Markup:
    """The style of our pages, after the style sheets `before`; in ASCII, for references mean nothing in it."""
    css = "".join(path.read_text(encoding="utf-8") for path in (*before, _STYLE)) + colour_variables()
    return Markup(_NOT_ASCII.sub(lambda match: f"\\{ord(match[0]):06x}", css))


def page_scripts(*paths: Path) -> Markup:
    """Scripts in strict mode, one after the other; in ASCII like the style: all else stands in strings or comments."""
    text = '"use strict";\n' + "".join(path.read_text(encoding="utf-8") for path in paths)
    return Markup(_NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text))


def script_json(data: object) -> Markup:
    """JSON that no markup can break out of. Values of dataclasses are mappings."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), default=asdict)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
