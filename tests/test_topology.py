"""Topology files: what they mean, and how wrong ones are refused."""

import json
from pathlib import Path

import pytest

from netsim.errors import InputError
from netsim.library import shipped
from netsim.topology import (
    GilbertElliott,
    find_topology,
    load_topology,
    read_topology,
    subset_document,
    topology_from,
)

GOOD = """
name: pair
defaults: {up: 10 Mbit, down: 20 Mbit, loss: 0.1 %}
sites: {a: {}, b: {up: 5 Mbit}, c: {}}
links:
  - {between: [a, b], delay: 10 ms, rate: 4 Mbit}
  - {from: a, to: c, delay: 30 ms}
  - {from: c, to: a, rtt: 40 ms, loss: {to_bad: 0.01, to_good: 0.5}}
  - {between: [b, c], delay: 1 ms}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "topology.yaml"
    path.write_text(text)
    return path


def test_a_pair_is_as_fast_as_its_narrowest_part(tmp_path: Path) -> None:
    topology = load_topology(written(tmp_path, GOOD))
    assert topology.rate("a", "b") == 4e6
    assert topology.rate("b", "c") == 5e6
    assert topology.rate("a", "c") == 10e6


def test_delay_is_one_way_and_directed(tmp_path: Path) -> None:
    topology = load_topology(written(tmp_path, GOOD))
    assert topology.link("a", "c").delay == pytest.approx(0.030)
    assert topology.link("c", "a").delay == pytest.approx(0.020)
    assert topology.rtt("a", "c") == pytest.approx(0.050)


def test_one_impairment_of_a_pair_keeps_the_other_defaults(tmp_path: Path) -> None:
    """Setting one impairment of a pair keeps the defaults of the others."""
    topology = load_topology(written(tmp_path, GOOD))
    assert topology.link("a", "b").loss == 0.001
    assert topology.link("c", "a").loss == GilbertElliott.model_validate({"to_bad": 0.01, "to_good": 0.5})
    assert topology.link("c", "a").mean_loss == pytest.approx(0.01 / 0.51)


def test_the_first_sites_keep_the_links_between_them(tmp_path: Path) -> None:
    topology = topology_from(subset_document(read_topology(written(tmp_path, GOOD)), ["a", "b"]), "test")
    assert [site.name for site in topology.sites] == ["a", "b"]
    assert {(link.source, link.target) for link in topology.links} == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        (("up: 10 Mbit", "up: -10 Mbit"), "defaults.up", "-10 Mbit"),
        (("up: 10 Mbit", "up: 10"), "defaults.up", "10"),
        (("  - {between: [b, c], delay: 1 ms}", ""), "links", "no delay for the pair b -> c"),
        (("from: a, to: c", "from: a, to: d"), "links.1", "d"),
        (("{between: [b, c], delay: 1 ms}", "{between: [b, b], delay: 1 ms}"), "links.3", "b -> b"),
        (("from: c, to: a, rtt: 40 ms", "from: c, to: a, rtt: 40 ms, delay: 2 ms"), "links.2", "rtt"),
        (("name: pair", "name: pair\nnmae: pair"), "nmae", "nmae"),
        (("sites: {a: {}", "sites: {A B: {}"), "sites.A B", "A B"),
        (("sites: {a: {}", "sites: {a: {wrkers: 2}"), "sites.a.wrkers", "wrkers"),
        (("loss: 0.1 %", "loss: 101 %"), "defaults.loss", "101 %"),
        (("delay: 10 ms", "delay: 1e9 s"), "links.0.delay", "1e9 s"),
        (("rtt: 40 ms", "rtt: 1e400 s"), "links.2.rtt", "1e400 s"),
        (("up: 5 Mbit", "up: 1e-9 bit"), "sites.b.up", "1e-9 bit"),
        (("up: 5 Mbit", "up: 1e400 bit"), "sites.b.up", "1e400 bit"),
        (("name: pair", "name: pair\ntransport: {buffer: 1e400 B}"), "transport.buffer", "1e400 B"),
        (("loss: 0.1 %", "loss: true"), "defaults.loss", "True"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(
    tmp_path: Path, change: tuple[str, str], field: str, found: str
) -> None:
    """A wrong file is refused with file field and what was found."""
    assert change[0] in GOOD
    path = written(tmp_path, GOOD.replace(*change))
    with pytest.raises(InputError) as error:
        load_topology(path)
    assert str(path) in str(error.value)
    assert error.value.field.startswith(field)
    assert found in str(error.value)


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3.*'name' given twice"):
        load_topology(written(tmp_path, "name: pair\nsites: {a: {}}\nname: other\n"))


def test_an_unknown_name_lists_the_library() -> None:
    with pytest.raises(InputError, match="transatlantic"):
        find_topology("atlantis")


@pytest.mark.parametrize("path", sorted(shipped("topologies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_topology_is_named_as_its_file(path: Path) -> None:
    """Every topology of the library loads and is named as its file."""
    topology = load_topology(path)
    assert topology.name == path.stem
    assert topology.description
    assert len(topology.links) == len(topology.sites) * (len(topology.sites) - 1)


@pytest.mark.parametrize("name", ["six-regions", "transatlantic"])
def test_a_document_stands_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of the emulated network does not see the library's regions."""
    path = find_topology(name)
    document = read_topology(path)
    expected = topology_from(document, str(path))
    monkeypatch.setattr("netsim.topology.world", lambda: pytest.fail("the library was read again"))
    assert topology_from(json.loads(json.dumps(document)), "record") == expected
