"""A folder for a paper: nothing in a record breaks its LaTeX, and it compiles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from reports.paper.latex import MOST_ROWS, table_parts, table_source, unicode_declarations
from reports.paper.paper_folder import write_paper
from reports.paper.published_figures import published_beside_measured
from reports.paper.published_values import published_values
from reports.records import collect
from reports.study import Study
from reports.style.drawing import report_style
from reports.style.tables import Column, as_latex, text_table
from tests.reports.made_up import Network, RecordedRun, write_grid

NASTY = "{a} & $x_1$ \\end{table} % #1 ~^ 东京 ≤"


def papers_records(folder: Path) -> Path:
    """Every method of the papers, FoMoE with full and with half replication, and a label that is markup."""
    network = Network("wan", 50e6)
    write_grid(folder, ("ddp", "photon", "lowrank_ddp", "lordo"), (network,), (1, 2), steps=40)
    for replication in (2, 4):
        options = {"replication": replication}
        RecordedRun(f"fomoe {replication}", "fomoe", network, steps=40, options=options, speed=0.9).write(folder)
    RecordedRun(NASTY, "diloco", network, steps=40).write(folder)
    return folder


def test_published_values_are_those_of_the_papers() -> None:
    """Photon: 147.9 h against 95.6 h; FoMoE's Table 6, K = 32."""
    values = published_values()
    assert values.photon.hours["ddp"].total == pytest.approx(147.9)
    assert values.photon.hours["photon"].total == pytest.approx(95.6)
    assert values.fomoe.perplexity[8][4] == 114.69


def test_measured_stands_beside_published(tmp_path: Path) -> None:
    study = Study(collect([papers_records(tmp_path)]))
    with report_style():
        drawn = {drawing.name: drawing for drawing in published_beside_measured(study)}
    assert set(drawn) == {"published-photon", "published-fomoe", "published-lordo"}
    for drawing in drawn.values():
        assert set(drawing.data["source"]) == {"published", "measured"}
        assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["published", "measured"]
        assert "arXiv:2" in drawing.caption
    fomoe = drawn["published-fomoe"].data
    assert set(fomoe.loc[fomoe["source"] == "measured", "share"]) == {0.5, 1.0}
    assert (fomoe.loc[fomoe["share"] == 1.0, "ratio"] == 1.0).all()


def test_suites_without_the_papers_methods_have_no_such_figure(tmp_path: Path) -> None:
    write_grid(tmp_path, ("ddp", "diloco"), seeds=(1,), steps=20)
    with report_style():
        assert published_beside_measured(Study(collect([tmp_path]))) == []


def test_characters_that_stop_pdflatex_are_declared() -> None:
    found = unicode_declarations(["a ≤ b", "München – 东"])
    assert r"\DeclareUnicodeCharacter{2264}{\ensuremath{\leq}}" in found
    assert r"\DeclareUnicodeCharacter{4E1C}{\fbox{\scriptsize\texttt{4E1C}}}" in found
    assert len(found.splitlines()) == 2
    assert as_latex("50% & $x_1$") == r"50\% \& \$x\_1\$"


def test_long_tables_are_split_and_empty_columns_left_out() -> None:
    columns = [Column("a", "a heading of several words"), Column("b", "empty")]
    table = text_table("long", "Long", "Caption.", columns, [(str(number), "–") for number in range(MOST_ROWS + 1)])
    first, second = table_parts(table)
    assert (len(first.rows), len(second.rows), second.name) == (MOST_ROWS, 1, "long-1")
    source = table_source(second)
    assert "empty" not in source
    assert r"\shortstack{a heading of \\ several words}" in source


@pytest.mark.slow
def test_the_document_compiles(tmp_path: Path) -> None:
    engine = next((name for name in ("pdflatex", "xelatex", "lualatex", "tectonic") if shutil.which(name)), None)
    main = write_paper([papers_records(tmp_path / "runs")], tmp_path / "paper", predict=False)
    names = {path.name for path in (tmp_path / "paper" / "tables").iterdir()}
    assert {"methods.tex", "memory.tex"} <= names
    assert main.read_text().count(r"\input{") == len(list(tmp_path.glob("paper/*/*.tex")))
    assert {path.suffix for path in (tmp_path / "paper" / "figures").iterdir()} == {".pdf", ".tex", ".csv"}
    if engine is None:
        pytest.skip("no TeX engine: pdflatex, xelatex, lualatex or tectonic")
    options = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run([engine, *options, main.name], cwd=main.parent, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (main.parent / "main.pdf").stat().st_size > 10_000
