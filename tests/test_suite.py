"""Suites: how a file expands into cells, and how wrong ones are refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.run.suite_runner import cells_of
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import RunSpec
from harness.spec.suite import load_suite
from longhaul.commands.preview import check_host
from netsim.errors import InputError

GOOD: dict[str, Any] = {
    "name": "small",
    "model": "tiny",
    "train": {"steps": 10, "batch": 2},
    "methods": ["ddp", {"method": "diloco", "label": "diloco H=5", "options": {"sync_every": 5}}],
    "topologies": ["lan", "transatlantic"],
    "seeds": [1, 2],
    "sites": 2,
}


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


def test_a_suite_is_a_grid_with_methods_alternating(tmp_path: Path) -> None:
    """A suite is the grid of seeds topologies and methods with methods alternating."""
    cells = load_suite(written(tmp_path)).cells
    assert [(cell.seed, cell.topology["name"], cell.label) for cell in cells[:4]] == [
        (1, "lan", "ddp"),
        (1, "lan", "diloco H=5"),
        (1, "transatlantic", "ddp"),
        (1, "transatlantic", "diloco H=5"),
    ]
    assert len(cells) == 8


def test_a_cell_reads_back_from_its_record_as_it_was(tmp_path: Path) -> None:
    for cell in load_suite(written(tmp_path)).cells:
        again = RunSpec.model_validate_json(cell.model_dump_json())
        assert again == cell
        assert again.run_id("code") == cell.run_id("code")


def test_the_run_id_follows_from_the_spec_and_the_code(tmp_path: Path) -> None:
    first, second = load_suite(written(tmp_path)).cells[:2]
    assert first.run_id("code") != second.run_id("code")
    assert first.run_id("code") != first.run_id("other code")
    longer = load_suite(written(tmp_path, train={"steps": 11, "batch": 2})).cells[0]
    assert first.run_id("code") != longer.run_id("code")


def test_sites_keeps_the_first_sites_of_a_topology(tmp_path: Path) -> None:
    topology = ResolvedRun.of(load_suite(written(tmp_path)).cells[2]).topology
    assert [site.name for site in topology.sites] == ["virginia", "ohio"]
    assert topology.rtt("virginia", "ohio") == pytest.approx(0.012)


def with_workers(workers: int, **fields: Any) -> dict[str, Any]:
    sites = {name: {"workers": workers} for name in ("a", "b", "c")}
    return {"name": "three", "defaults": {"up": "1 Gbit", "down": "1 Gbit", "delay": "1 ms"}, "sites": sites, **fields}


def test_workers_of_a_site_are_one_member_of_every_plan(tmp_path: Path) -> None:
    runs = [
        [ResolvedRun.of(cell) for cell in load_suite(written(tmp_path, topologies=[with_workers(count)])).cells]
        for count in (1, 3)
    ]
    assert [run.plan for run in runs[0]] == [run.plan for run in runs[1]]
    assert runs[1][0].members == (3, 3)


def test_faults_need_sites_of_one_worker(tmp_path: Path) -> None:
    crash = [{"kind": "crash", "site": "a", "step": 3}]
    load_suite(written(tmp_path, topologies=[with_workers(1)], faults=crash))
    with pytest.raises(InputError, match=r"sites\.a\.workers"):
        load_suite(written(tmp_path, topologies=[with_workers(2)], faults=crash))


def test_what_happens_to_other_sites_goes_with_them(tmp_path: Path) -> None:
    events = [
        {"at": "1 s", "set": {"between": ["a", "b"], "delay": "80 ms"}},
        {"at": "2 s", "set": {"between": ["a", "c"], "delay": "80 ms"}},
        {"at": "3 s", "partition": {"groups": [["a", "b"], ["c", "d"]]}},
        {"at": "4 s", "heal": "all"},
        {"at": "5 s", "partition": {"groups": [["a", "c"], ["b", "d"]]}},
        {"at": "6 s", "heal": "all"},
        {"from": "7 s", "to": "8 s", "pause": {"site": "d"}},
        {"from": "7 s", "to": "8 s", "pause": {"site": "b"}},
        {"from": "9 s", "to": "10 s", "traffic": {"from": "c", "to": "a", "rate": "1 Mbit"}},
    ]
    topology = {"name": "four", "defaults": {"up": "10 Mbit", "down": "10 Mbit", "rtt": "20 ms"}, "timeline": events}
    topology["sites"] = {name: {} for name in "abcd"}
    (cell, *_) = load_suite(written(tmp_path, topologies=[topology], sites=2)).cells
    kept = [events[0], {"at": "5 s", "partition": {"groups": [["a"], ["b"]]}}, events[5], events[7]]
    assert cell.topology["timeline"] == kept
    assert [site.name for site in ResolvedRun.of(cell).topology.sites] == ["a", "b"]


def test_a_method_entry_overrides_training_for_itself_alone(tmp_path: Path) -> None:
    methods = ["ddp", {"method": "ddp", "label": "small batch", "train": {"batch": 1}}]
    cells = load_suite(written(tmp_path, methods=methods)).cells
    assert [cell.train.batch for cell in cells[:2]] == [2, 1]
    assert [cell.train.steps for cell in cells[:2]] == [10, 10]


COHORT = {"method": "photon", "options": {"clients_per_round": 300}}
FOMOE = {"method": "fomoe", "options": {"replication": 9}}


def test_the_held_out_set_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    methods = ["ddp", {"method": "ddp", "label": "small batch", "train": {"batch": 1}}]
    train = {"steps": 10, "batch": 2, "evaluation_sequences": 6}
    cells = load_suite(written(tmp_path, methods=methods, train=train)).cells
    assert [cell.train.held_out_sequences for cell in cells[:2]] == [6, 6]


def test_evaluation_batches_keeps_its_old_meaning(tmp_path: Path) -> None:
    train = {"steps": 10, "batch": 2, "evaluation_batches": 3}
    cell = load_suite(written(tmp_path, train=train)).cells[0]
    assert cell.train.held_out_sequences == 6
    assert RunSpec.model_validate(cell.model_dump(mode="json")).train.held_out_sequences == 6


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"methods": ["dpp"]}, "methods.0.method", "ddp"),
        ({"methods": [{"method": "diloco", "options": {"sync_evry": 5}}]}, "methods.0.options.sync_evry", "sync_every"),
        ({"methods": ["ddp", "ddp"]}, "methods", "label"),
        ({"methods": []}, "methods", "at least 1"),
        ({"train": {"steps": 10, "bacth": 2}}, "train.bacth", "batch"),
        ({"train": {"steps": 0}}, "train.steps", "greater than or equal to 1"),
        ({"topologies": ["atlantis"]}, "", "transatlantic"),
        ({"model": "huge"}, "model", "tiny"),
        ({"model": {"like": "tiny", "width": 30}}, "model", "even multiple"),
        ({"sites": 9}, "sites", "at most the 4"),
        ({"baseline": "adam"}, "baseline", "ddp"),
        ({"compute": {"mode": "paced"}}, "compute", "step_seconds"),
        ({"data": {"source": "text"}}, "data", "path"),
        ({"data": {"source": "text", "path": "none.txt"}}, "data.path", "from the suite's folder"),
        ({"metods": ["ddp"]}, "metods", "methods"),
        ({"seeds": [10**30]}, "seeds.0", "less than 4294967296"),
        ({"seeds": [True]}, "seeds", "not true or false"),
        ({"seeds": [1, 2, 1]}, "seeds", "each seed once"),
        ({"train": {"steps": 10**30}}, "train.steps", "less than or equal to 1000000"),
        ({"train": {"steps": True}}, "train.steps", "not true or false"),
        ({"train": {"steps": 10, "optimizer": {"lr": float("inf")}}}, "train.optimizer.lr", "a finite number"),
        ({"compute": {"mode": "paced", "step_seconds": 1e308}}, "compute.step_seconds", "86400"),
        ({"methods": [{"method": "ddp", "label": ""}]}, "methods.0.label", "a letter or a digit"),
        ({"methods": [{"method": "ddp", "label": "a\nb"}]}, "methods.0.label", "control characters"),
        ({"model": "tiny-moe", "methods": [FOMOE]}, "methods.0.options.replication", "from 1 to the 2 sites"),
        ({"methods": [COHORT]}, "methods.0.options.clients_per_round", "at most the 2 sites"),
        ({"model": {"like": "tiny", "layers": 10**11}}, "model.layers", "10000"),
        ({"methods": [{"method": "lordo", "options": {"rank": 10**30}}]}, "methods.0.options.rank", "1000000000"),
        ({"methods": [{"method": "lordo", "options": {"rank": 10**4}}]}, "methods.0.rank", "at most the width"),
        ({"model": "deepseek-v3"}, "model.latent", "can be projected"),
        ({"faults": [{"kind": "pause", "lasts": "0 s"}]}, "faults.0.lasts", "greater than 0"),
        (
            {"train": {"steps": 10, "evaluation_batches": 2, "evaluation_sequences": 4}},
            "methods.0.train",
            "evaluation_sequences alone",
        ),
        (
            {"methods": ["lordo"], "train": {"steps": 10, "optimizer": {"name": "lion"}}},
            "train.optimizer.name",
            "adamw",
        ),
    ],
)
def test_a_wrong_suite_is_refused_with_field_and_allowed(
    tmp_path: Path, changes: dict[str, Any], field: str, allowed: str
) -> None:
    """A wrong suite is refused with its field and what is allowed."""
    with pytest.raises(InputError) as error:
        load_suite(written(tmp_path, **changes))
    assert error.value.field == field
    assert allowed in error.value.allowed


def test_a_path_to_data_is_found_from_the_suite(tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("lines")
    cell = load_suite(written(tmp_path, data={"source": "text", "path": "poems.txt"})).cells[0]
    assert cell.data.path == str(tmp_path / "poems.txt")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_suite(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_that_is_shipped_loads(path: Path) -> None:
    suite = load_suite(path)
    assert suite.name == path.stem
    assert suite.cells


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("{like: tiny, vocabulary: 100}", "allowed: tokens below the model's 100"),
        ("photon-7b", "4 workers that hold"),
    ],
)
def test_a_dry_run_checks_tokens_and_memory(tmp_path: Path, model: str, words: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(f"{{name: dry, model: {model}, train: {{steps: 2}}, methods: [diloco], topologies: [lan]}}")
    with pytest.raises(InputError, match=words):
        check_host(cells_of(load_suite(path), tmp_path, "auto", "auto"))
