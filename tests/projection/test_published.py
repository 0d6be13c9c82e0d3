"""Tables that papers print, through the command that projects everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.costmodel.published import PublishedCell, agreement, measured_error, published_cells
from harness.spec.scenario import load_scenario
from longhaul.commands.validate import validate
from netsim.errors import InputError

PUBLISHED = sorted((Path(__file__).parents[2] / "scenarios" / "published").glob("*.yaml"))


@pytest.fixture(scope="module")
def cells() -> list[PublishedCell]:
    return [cell for path in PUBLISHED for cell in published_cells(load_scenario(path))]


def test_nine_of_ten_published_cells_agree_and_most_are_exact(cells: list[PublishedCell]) -> None:
    assert len(cells) >= 80
    assert agreement(cells) >= 0.95
    rates = [cell for cell in cells if cell.quantity.startswith("Gbit/s")]
    assert sum(cell.off == 0 for cell in rates) / len(rates) >= 0.7


@pytest.mark.parametrize(("label", "seconds"), [("server", 42.55), ("all to all", 31.91), ("ring", 15.96)])
def test_photons_three_aggregations(label: str, seconds: float, cells: list[PublishedCell]) -> None:
    (cell,) = [c for c in cells if c.label == label and c.quantity == "s per synchronisation"]
    assert cell.projected == pytest.approx(seconds, rel=1e-3)


def test_measurements_have_an_error_and_count_for_no_agreement(cells: list[PublishedCell]) -> None:
    """diloco-measured's synchronisations: what is left at 1 Gbit/s and H = 1 is 1 %."""
    measured = [cell for cell in cells if cell.measured]
    assert {cell.scenario for cell in measured} == {"diloco-measured-1g", "diloco-measured-50m"}
    error = measured_error(cells)
    assert error is not None
    assert error[0] < 15
    assert agreement(measured) == 1
    (first,) = [cell for cell in measured if cell.scenario == "diloco-measured-1g" and cell.label == "H=1"]
    assert abs(first.off) < 1.5


def test_the_command_prints_cells_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    path = PUBLISHED[0].parent / "photon-7b-aggregation.yaml"
    validate([path], published=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["agreement"] == 1
    assert document["cells"][0].keys() >= {"published", "projected", "off", "agrees"}
    validate([path], published=True)
    assert "42.55" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"source": "x", "sync_seconds": {"nobody": 1.0}}, "labels of methods"),
        ({"source": "x", "rate_gbit": {"ring": [1.0]}}, "grid"),
        ({"sync_seconds": {"ring": 1.0}}, "source"),
    ],
)
def test_a_bad_published_block_is_one_clear_error(block: dict[str, Any], message: str, tmp_path: Path) -> None:
    document = yaml.safe_load((PUBLISHED[0].parent / "photon-7b-aggregation.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump({**document, "published": block}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        published_cells(load_scenario(path))
