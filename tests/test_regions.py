"""Regions as sources of delays and rates."""

from pathlib import Path

import pytest

from netsim.errors import InputError
from netsim.topology import load_topology, read_topology, topology_from
from tests.topology_files import written


def test_regions_give_the_delays_that_are_not_stated() -> None:
    document = {
        "name": "regions",
        "defaults": {"up": "1 Gbit", "down": "1 Gbit"},
        "sites": {"a": {"region": "us-east"}, "b": {"region": "europe"}, "c": {"region": "europe"}},
        "links": [{"from": "a", "to": "c", "delay": "99 ms"}],
    }
    topology = topology_from(document, "here")
    assert topology.rtt("a", "b") == pytest.approx(0.084)
    assert topology.rtt("b", "c") == pytest.approx(0.002)
    assert topology.link("a", "c").delay == 0.099
    assert topology.link("c", "a").delay == pytest.approx(0.042)


def test_an_unknown_region_is_named_with_those_there_are() -> None:
    document = {
        "name": "regions",
        "defaults": {"up": "1 Gbit", "down": "1 Gbit"},
        "sites": {"a": {"region": "us-east"}, "b": {"region": "atlantis"}},
    }
    with pytest.raises(InputError, match=r"'atlantis'; allowed: .*europe"):
        topology_from(document, "here")


MATRIX = """\ufeff# round-trip times, ms
from,East US,West Europe,"Sydney, AU"
East US,,84,203
West Europe,82,1.5,258
"Sydney, AU",205 ms,-,
"""

OWN_REGIONS = """
name: own
regions: {file: matrix.csv, within: 2 ms}
defaults: {up: 1 Gbit, down: 1 Gbit}
sites:
  a: {region: East US}
  b: {region: West Europe}
  c: {region: "Sydney, AU"}
  d: {region: East US}
  e: {region: West Europe}
"""


def test_a_latency_matrix_gives_the_delays_of_its_regions(tmp_path: Path) -> None:
    """Each direction has half of its own round trip; what is given in one direction only holds for both."""
    written(tmp_path, "matrix.csv", MATRIX)
    document = read_topology(written(tmp_path, "own.yaml", OWN_REGIONS))
    (tmp_path / "matrix.csv").unlink()  # the document stands alone
    topology = topology_from(document, "elsewhere")
    assert topology.link("a", "b").delay == pytest.approx(0.042)
    assert topology.link("b", "a").delay == pytest.approx(0.041)
    assert topology.link("c", "b").delay == topology.link("b", "c").delay == pytest.approx(0.129)
    assert topology.link("a", "d").delay == pytest.approx(0.001)
    assert topology.link("b", "e").delay == pytest.approx(0.00075)


def test_a_record_keeps_only_the_regions_that_are_used(tmp_path: Path) -> None:
    written(tmp_path, "matrix.csv", MATRIX)
    text = OWN_REGIONS.replace('  c: {region: "Sydney, AU"}\n', "")
    document = read_topology(written(tmp_path, "own.yaml", text))
    assert set(document["regions"]["between"]) == set(document["regions"]["regions"]) == {"East US", "West Europe"}


def test_values_of_a_matrix_may_be_one_way(tmp_path: Path) -> None:
    written(tmp_path, "matrix.csv", MATRIX)
    text = OWN_REGIONS.replace("within: 2 ms", "within: 2 ms, values: one-way")
    assert load_topology(written(tmp_path, "own.yaml", text)).link("a", "b").delay == pytest.approx(0.084)


def test_a_table_with_rates_is_a_topology(tmp_path: Path) -> None:
    text = "region;up;down;Oslo (NO);Rome\nOslo (NO);1 Gbit;2 Gbit;;40\nRome;100 Mbit;100 Mbit;42;\n"
    topology = load_topology(written(tmp_path, "two cities.csv", text))
    assert topology.name == "two-cities"
    assert [(site.name, site.up, site.down) for site in topology.sites] == [("oslo-no", 1e9, 2e9), ("rome", 1e8, 1e8)]
    assert topology.rtt("oslo-no", "rome") == pytest.approx(0.041)


PLACES = """
name: places
regions:
  stretch: 1.5
  regions:
    london: {latitude: 51.5074, longitude: -0.1278, up: 1 Gbit, down: 2 Gbit}
    new-york: {latitude: 40.7128, longitude: -74.006}
    paris: {}
  between: {london: {paris: 8 ms}}
defaults: {up: 10 Mbit, down: 10 Mbit}
sites: {a: {region: london}, b: {region: new-york, up: 5 Mbit}}
"""


def test_coordinates_give_delays_and_regions_give_rates(tmp_path: Path) -> None:
    """London and New York are 5570 km apart, which light in fibre covers in 27.3 ms."""
    topology = load_topology(written(tmp_path, "places.yaml", PLACES))
    assert topology.link("a", "b").delay == pytest.approx(1.5 * 0.0273, rel=0.002)
    assert (topology.site("a").up, topology.site("a").down) == (1e9, 2e9)
    assert (topology.site("b").up, topology.site("b").down) == (5e6, 10e6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("new-york, up", "paris-2, up"), "did you mean 'paris'"),
        (("b: {region: new-york", "b: {region: paris}, c: {region: new-york"), "no delay from paris to new-york"),
        (("b: {region: new-york", "b: {region: london"), "no delay within london"),
        (("  stretch: 1.5\n", ""), "no delay from london to new-york"),
        (("latitude: 40.7128, ", ""), "latitude and longitude together"),
        (("latitude: 40.7128", "latitude: 91"), "less than or equal to 90"),
        (("stretch: 1.5", "stretch: 0.5"), "greater than or equal to 1"),
    ],
)
def test_a_wrong_region_is_one_error(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_topology(written(tmp_path, "places.yaml", PLACES.replace(*change)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no headings"),
        ("a,b,b\nb,1,2\n", "line 1: found 'b'; allowed: headings"),
        ("a,b,c\nb,1\n", "line 2: found 2 cells; allowed: 3"),
        ("a,b,c\nb,1,2\nb,1,2\n", "line 3: found 'b'"),
        ("a,b,c\nb,1,fast\n", "line 2: found 'fast'"),
        ("a,b,c\nb,1,-2\n", "line 2: found '-2'"),
        ("a,b,c\nb,1,1e400\n", "line 2: found '1e400'"),
        ("a,b,c\nb,1,2\nc,1,2\n", "no rate up; allowed: a column up"),
        ("a,up,down,b\nb,1 Gbit,fast,\n", "allowed: a non-negative number with a unit"),
        ("a,up,down,b\nB+,1 Gbit,1 Gbit,\nb-,1 Gbit,1 Gbit,\n", "regions of like names"),
    ],
)
def test_a_wrong_table_of_regions_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_topology(written(tmp_path, "matrix.csv", text))


def test_an_unknown_region_of_a_file_names_the_files(tmp_path: Path) -> None:
    written(tmp_path, "matrix.csv", MATRIX)
    text = OWN_REGIONS.replace("West Europe", "West Euorpe")
    with pytest.raises(InputError, match=r"sites.b.region: found 'West Euorpe'; did you mean 'West Europe'\? .*matrix"):
        load_topology(written(tmp_path, "own.yaml", text))
