"""LaTeX source: text that cannot break it, tables that fit the page, and the document around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap

from jinja2 import Environment, StrictUndefined

from reports.style.drawing import DOUBLE, SINGLE, Drawing
from reports.style.tables import EMPTY, Table, as_latex

MOST_ROWS = 40  # of a table on one page
_HEADING = 13  # characters on a line of a heading
_TEMPLATE = Path(__file__).with_name("main.tex.jinja")
# What pdflatex has no glyph for by itself, in words that it has.
_SYMBOLS = {
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≈": r"\ensuremath{\approx}",
    "≠": r"\ensuremath{\neq}",
    "−": r"\ensuremath{-}",
    "→": r"\ensuremath{\rightarrow}",
    "∞": r"\ensuremath{\infty}",
    "\u202f": r"\,",
    "\u2009": r"\,",
    "≡": r"\ensuremath{\equiv}",
    "Δ": r"\ensuremath{\Delta}",
    "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
    "γ": r"\ensuremath{\gamma}",
    "τ": r"\ensuremath{\tau}",
    "ω": r"\ensuremath{\omega}",
    "σ": r"\ensuremath{\sigma}",
    "μ": r"\ensuremath{\mu}",
}
_FIRST_FOREIGN = 0x180  # below are Latin letters and signs that every LaTeX knows in UTF-8


def unicode_declarations(texts: Iterable[str]) -> str:
    """\\DeclareUnicodeCharacter for every character in `texts` that pdflatex would stop at.

    One without a translation is set as its code in a box: the document compiles, and the reader sees what is missing.
    """
    found = sorted({c for text in texts for c in text if ord(c) >= _FIRST_FOREIGN or c in _SYMBOLS})
    lines = []
    for character in found:
        code = f"{ord(character):04X}"
        shown = _SYMBOLS.get(character, rf"\fbox{{\scriptsize\texttt{{{code}}}}}")
        if character not in "–—‘“”…":  # known to LaTeX
            lines.append(rf"\DeclareUnicodeCharacter{{{code}}}{{{shown}}}")
    return "\n".join(lines)


def table_parts(table: Table) -> list[Table]:
    """The table, in parts that fit a page each."""
    starts = range(0, len(table.rows), MOST_ROWS)
    if len(starts) <= 1:
        return [table]
    return [
        replace(
            table,
            name=f"{table.name}-{number}" if number else table.name,
            caption=table.caption if not number else "Continued.",
            rows=table.rows[start : start + MOST_ROWS],
            extra=(),
        )
        for number, start in enumerate(starts)
    ]


def table_source(table: Table) -> str:
    """The table in a box that is made smaller where it is wider than the text; empty columns are left out."""
    kept = [column for column in table.columns if any(row[column.key].text != EMPTY.text for row in table.rows)]
    lines = replace(table, columns=tuple(kept)).latex().splitlines()
    heading = lines.index(r"\toprule") + 1
    cells = lines[heading].removesuffix(r" \\").split(" & ")
    lines[heading] = " & ".join(_stacked(cell) for cell in cells) + r" \\"
    text = "\n".join(lines) + "\n"
    text = text.replace(r"\begin{tabular}", "\\begin{fittotext}\n\\begin{tabular}")
    return text.replace(r"\end{tabular}", "\\end{tabular}\n\\end{fittotext}")


def _stacked(heading: str) -> str:
    """A long heading on several lines, so that numbers and not words set a column's width."""
    lines = wrap(heading, _HEADING, break_long_words=False, break_on_hyphens=False)
    stack = r" \\ ".join(lines)
    return heading if len(lines) < 2 else rf"\shortstack{{{stack}}}"


def figure_source(drawing: Drawing) -> str:
    """The figure at the width of a column, or at its share of the text's, so that letters have one size in all."""
    wide = drawing.figure.get_figwidth()
    kind, width = ("figure*", rf"{min(1.0, wide / DOUBLE):.3g}\textwidth")
    if wide <= SINGLE + 0.01:
        kind, width = ("figure", r"\columnwidth")
    caption = as_latex(f"{drawing.title}. {' '.join(drawing.caption.split())}")
    return (
        f"\\begin{{{kind}}}\n\\centering\n\\includegraphics[width={width}]{{figures/{drawing.name}}}\n"
        f"\\caption{{{caption}}}\n\\label{{fig:{drawing.name}}}\n\\end{{{kind}}}\n"
    )


def main_source(title: str, scope: str, sections: Sequence[tuple[str, Sequence[str]]], texts: Sequence[str]) -> str:
    """main.tex. sections: by title, the files that each inputs, without their ending. texts: of these files."""
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # LaTeX, not HTML: every text is escaped by as_latex
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    title, scope = as_latex(title), as_latex(scope)
    return template.render(
        title=title,
        scope=scope,
        sections=[(as_latex(name), files) for name, files in sections],
        declarations=unicode_declarations([title, scope, *texts]),
    )


def file_name(name: str) -> str:
    """A file name that LaTeX can input."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)
