"""Records are read with care: what is wrong is named with its file and field, and no path leaves a run's directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness.records.archive import read_runs
from harness.records.run_record import Step, read_lines
from harness.records.step_columns import read_step_columns
from harness.spec.run_spec import SCHEMA_VERSION
from netsim.errors import InputError
from reports.build import build_report
from reports.records import collect
from tests.reports.made_up import RecordedRun, rewrite

BROKEN = (
    ('"step":4', '"step":-4'),
    ('"tokens":4096', '"tokens":18446744073709551616'),
    ('"compute":0.06', '"compute":-1'),
    ('"compute"', '"resting"'),
    ('"lr":0.001', '"lr":true'),
    ('"payload_bytes":0', '"payload_bytes":0,"committed":99999999999999999999'),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return RecordedRun(steps=20).write(tmp_path / "runs")


def read_everything(folder: Path) -> None:
    for stored in collect([folder]).runs:
        list(stored.all_steps())


def problem(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_everything(folder)
    return caught.value


def test_all_steps_of_all_workers_are_read(run: Path) -> None:
    (stored,) = collect([run.parent]).runs
    steps = list(stored.all_steps())
    assert [rank for rank, _ in steps] == sorted([0, 1, 2, 3] * 20)
    assert stored.topology.rtt("a", "b") == pytest.approx(0.08)


def test_columns_hold_what_the_lines_say(run: Path) -> None:
    """One value of each column against the models; a diverged loss, a bucket and a metric that only one line has."""
    path = run / "rank-0" / "steps.jsonl"
    first, *rest = path.read_text().splitlines()
    odd = {**json.loads(first), "loss": None, "evaluation_loss": float("nan"), "metrics": {"entropy": 0.5}}
    odd["seconds"]["checkpoint"] = 2.0
    path.write_text("\n".join([json.dumps(odd), *rest]))  # the last line has no end
    (stored,) = collect([run.parent]).runs
    columns, steps = stored.logged[0], list(stored.steps(0))
    assert columns.whole["tokens"].tolist() == [step.tokens for step in steps]
    assert columns.numbers["clock"].tolist() == [step.clock for step in steps]
    assert columns.seconds["checkpoint"].tolist() == [2.0] + 19 * [0.0]
    assert np.isnan(columns.numbers["loss"]).tolist() == [True] + 19 * [False]
    assert columns.metrics["entropy"][0] == 0.5
    assert np.isnan(columns.metrics["entropy"][1:]).all()


@pytest.mark.parametrize("text", ["{}", '{"step": 1', "", "7", '{"step": true}', '{"step": 1e400}', "[[{", "\x00"])
def test_columns_refuse_what_the_models_refuse(run: Path, text: str) -> None:
    """In the same words, for the same line."""
    path = run / "rank-0" / "steps.jsonl"
    lines = path.read_text().splitlines()
    for wrong in (text, *(lines[3].replace(old, new) for old, new in BROKEN)):
        path.write_text("\n".join([*lines[:3], wrong, *lines[4:]]) + "\n")
        errors = []
        for read in (lambda: read_step_columns(path, 1), lambda: list(read_lines(path, Step, 1))):
            with pytest.raises(InputError) as caught:
                read()
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
        assert "line 4" in errors[0]


def test_columns_read_what_only_the_models_admit(run: Path) -> None:
    """A number in quotes, and a key of a newer schema: strict reading refuses them, the models do not."""
    path = run / "rank-0" / "steps.jsonl"
    path.write_text(path.read_text().replace('"tokens":2048', '"tokens":"2048","invented":1'))
    assert read_step_columns(path, SCHEMA_VERSION + 1).whole["tokens"][1] == 2048


def test_keys_that_a_newer_schema_added_are_passed_over(run: Path) -> None:
    train = {**json.loads((run / "spec.json").read_text())["train"], "invented_later": 1}
    rewrite(run / "spec.json", schema_version=SCHEMA_VERSION + 1, train=train)
    rewrite(run / "result.json", schema_version=SCHEMA_VERSION + 1, invented_later={"a": 1})
    assert len(collect([run.parent]).runs) == 1


@pytest.mark.parametrize("name", ["spec.json", "result.json"])
def test_unknown_keys_of_this_schema_are_refused(run: Path, name: str) -> None:
    rewrite(run / name, invented={"a": 1})
    assert "invented" in str(problem(run.parent))


def test_a_newer_schema_excuses_no_wrong_value(run: Path) -> None:
    rewrite(run / "result.json", schema_version=SCHEMA_VERSION + 1, invented_later=1, wall_seconds=-1.0)
    assert problem(run.parent).field == "wall_seconds"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wall_seconds", -1.0),
        ("communication_seconds", float("nan")),
        ("startup_seconds", 1e300),
        ("seconds", {"idling": 1.0}),
        ("sites", 3),
        ("id", "../.."),
        ("id", "a/b"),
        ("tokens", -1),
        ("memory_bytes", {"weights": -1}),
        ("slot_overruns", 2**70),
        ("steps", 10**6),
        ("schema_version", 0),
    ],
)
def test_values_out_of_bounds_are_refused(run: Path, field: str, value: object) -> None:
    rewrite(run / "result.json", **{field: value})
    assert problem(run.parent).field.startswith(field)


def test_one_bad_record_hides_no_good_one(run: Path, tmp_path: Path) -> None:
    bad = [RecordedRun(seed=seed, steps=20).write(run.parent) for seed in (2, 3, 4)]
    (bad[0] / "result.json").write_text('{"id": "')
    rewrite(bad[1] / "spec.json", seed="one")
    (bad[2] / "rank-1" / "steps.jsonl").write_text("[]\n")
    found = collect([run.parent])
    assert [stored.directory for stored in found.runs] == [run]
    assert [one.directory for one in found.unreadable] == bad
    document = build_report([run.parent], tmp_path / "report")
    assert [entry["state"] for entry in document["excluded"]] == ["unreadable"] * 3
    assert "unreadable: " in (tmp_path / "report" / "index.html").read_text()
    named: list[InputError] = []
    assert [one.directory for one in read_runs([run.parent], named.append)] == [run, bad[2]]  # steps are not compared
    assert len(named) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"baseline": 3}', '{"baseline": "none of these"}'])
def test_a_damaged_description_of_the_suite_hides_no_run(run: Path, text: str) -> None:
    (run.parent / "suite.json").write_text(text)
    assert collect([run.parent]).baselines == {"made-up": "diloco"}


def test_a_pipe_or_a_device_is_not_waited_for(run: Path) -> None:
    for path in (run / "rank-0" / "steps.jsonl", run / "links.json"):
        path.unlink()
        os.mkfifo(path)
        assert "regular file" in str(problem(run.parent))


def test_a_file_of_another_user_is_refused(run: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(run, 1000, 1000)
    os.chown(run / "result.json", 1001, 1001)
    assert "a file of user 1001" in str(problem(run.parent))


def test_a_wrong_field_is_named_with_its_file(run: Path) -> None:
    rewrite(run / "result.json", wall_seconds="soon")
    found = problem(run.parent)
    assert (found.field, found.found) == ("wall_seconds", "soon")
    assert found.where.endswith("result.json")


def test_a_file_that_is_not_json_is_named(run: Path) -> None:
    (run / "links.json").write_text("{")
    assert problem(run.parent).where.endswith("links.json")


def test_a_broken_line_of_steps_is_named_by_its_number(run: Path) -> None:
    with (run / "rank-2" / "steps.jsonl").open("a") as file:
        file.write('{"step": 21}\n')
    found = problem(run.parent)
    assert found.field.startswith("line 21")
    assert "rank-2" in found.where


def test_a_link_out_of_the_run_is_not_followed(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not show this")
    (run / "rank-0" / "steps.jsonl").unlink()
    (run / "rank-0" / "steps.jsonl").symlink_to(secret)
    found = problem(run.parent)
    assert "a link" in str(found)
    assert "do not show" not in str(found)


def test_a_result_of_another_method_than_its_spec_is_refused(run: Path) -> None:
    rewrite(run / "result.json", label="ddp")
    assert problem(run.parent).field == "label"


def test_an_absurd_number_of_sites_is_refused_early(run: Path) -> None:
    """An absurd number of sites is refused before it costs anything."""
    rewrite(run / "result.json", sites=10**9)
    assert problem(run.parent).field == "sites"


def test_a_directory_without_runs_is_refused(tmp_path: Path) -> None:
    assert "at least one finished run" in str(problem(tmp_path))
    assert "no such directory" in str(problem(tmp_path / "missing"))


def test_an_unfinished_run_is_listed_with_its_reason(run: Path) -> None:
    """An unfinished run is listed with the reason that its runner left."""
    failed = RecordedRun(label="photon", method="photon", steps=20).write(run.parent)
    (failed / "result.json").unlink()
    (failed / "failure.json").write_text(json.dumps({"reason": "link a -> b: no answer"}))
    found = collect([run.parent])
    assert [run.spec.label for run in found.unfinished] == ["photon"]
    assert found.unfinished[0].reason == "link a -> b: no answer"


def test_the_same_run_named_twice_counts_once(run: Path) -> None:
    assert len(collect([run.parent, run, run.parent.parent]).runs) == 1


def test_the_same_suite_run_twice_is_two_groups(tmp_path: Path) -> None:
    for place in ("before", "after"):
        RecordedRun(steps=20).write(tmp_path / place)
    groups = {stored.group for stored in collect([tmp_path / "before", tmp_path / "after"]).runs}
    assert groups == {"made-up (before)", "made-up (after)"}


def test_the_baseline_is_the_suites_own_or_ddp_or_given(tmp_path: Path) -> None:
    """The baseline is the suites own or ddp or the one asked for."""
    for label in ("ddp", "diloco", "photon"):
        RecordedRun(label=label, method=label, steps=20).write(tmp_path)
    assert collect([tmp_path]).baselines == {"made-up": "ddp"}
    assert collect([tmp_path], "photon").baselines == {"made-up": "photon"}
    (tmp_path / "suite.json").write_text(json.dumps({"baseline": "diloco"}))
    assert collect([tmp_path]).baselines == {"made-up": "diloco"}
    with pytest.raises(InputError, match="one of the labels ddp, diloco, photon"):
        collect([tmp_path], "lordo")


def test_an_older_record_of_the_same_cell_is_history(tmp_path: Path) -> None:
    old, new = RecordedRun(steps=20).write(tmp_path / "a"), RecordedRun(steps=40).write(tmp_path / "b")
    old = old.rename(tmp_path / "b" / "older")
    os.utime(old / "result.json", (1, 1))
    found = collect([tmp_path / "b"])
    assert [run.directory for run in found.runs] == [new]
    assert found.superseded == 1


def test_a_failed_attempt_counts_only_if_it_is_the_newest(tmp_path: Path) -> None:
    done, failed = RecordedRun(steps=20).write(tmp_path / "a"), RecordedRun(steps=20).write(tmp_path / "b")
    failed = failed.rename(tmp_path / "a" / "failed")
    (failed / "result.json").unlink()
    os.utime(failed / "spec.json", (1, 1))
    assert collect([tmp_path / "a"]).unfinished == ()
    os.utime(done / "result.json", (0, 0))
    assert len(collect([tmp_path / "a"]).unfinished) == 1


def test_one_suite_on_two_substrates_is_two_groups(tmp_path: Path) -> None:
    RecordedRun(steps=20).write(tmp_path)
    other = RecordedRun(steps=20, changes={"substrate": "docker"}).write(tmp_path / "elsewhere")
    other.rename(tmp_path / "on-docker")
    groups = {stored.group for stored in collect([tmp_path]).runs}
    assert groups == {"made-up on netns/nfqueue", "made-up on docker/nfqueue"}
