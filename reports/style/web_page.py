"""What every page that is written from a template has: the environment, the style, and data for its scripts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from reports.style.drawing import colour_variables

_TEMPLATES = Path(__file__).parent.parent / "templates"
_STYLE = _TEMPLATES / "page.css"


def page_template(path: Path) -> Template:
    """The template in a file, which may include those of `reports/templates`, such as the head of a page with scripts.

    Whatever it is given is escaped, unless it is marked up already.
    """
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(path.read_text(encoding="utf-8"))


def page_css(*before: Path) -> Markup:
    """The style of our pages, after the style sheets `before`."""
    return Markup("".join(path.read_text(encoding="utf-8") for path in (*before, _STYLE)) + colour_variables())


def page_scripts(*paths: Path) -> Markup:
    """Scripts in strict mode, one after the other."""
    return Markup('"use strict";\n' + "".join(path.read_text(encoding="utf-8") for path in paths))


def script_json(data: object) -> Markup:
    """JSON that no markup can break out of. Values of dataclasses are mappings."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), default=asdict)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
