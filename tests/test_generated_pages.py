"""The generated pages of the documentation are what stored measurements give."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from longhaul.cli import build
from longhaul.commands.docs import kept_pages
from netsim.errors import InputError
from netsim.library import ROOT

SLOW = {"validation"}  # it predicts lossy runs, each from many draws


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in kept_pages()]
)
def test_a_page_is_reproduced_from_stored_data(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(build("docs"), ["docs", name, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert (tmp_path / f"{name}.md").read_text() == (ROOT / "docs" / f"{name}.md").read_text()
    for figure in (tmp_path / "figures").glob("*") if (tmp_path / "figures").is_dir() else ():
        assert (ROOT / "docs" / "figures" / figure.name).is_file()


def test_a_page_from_runs_needs_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longhaul.commands.docs.DATA", tmp_path)
    with pytest.raises(InputError, match="make figures"):
        CliRunner().invoke(build("docs"), ["docs", "quickstart"], catch_exceptions=False)


def test_a_page_that_nobody_knows_is_refused() -> None:
    done = CliRunner().invoke(build("docs"), ["docs", "accuraccy"])
    assert done.exit_code == 2
    assert "accuracy, claims" in done.output
