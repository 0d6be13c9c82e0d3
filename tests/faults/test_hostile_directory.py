"""A worker's directory belongs to its trainer: what stands in it is neither followed, nor waited for, nor trusted."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from harness.records.files import give_folder, open_to_read, remove, write_atomically
from harness.records.layout import RunDirectory
from harness.records.logs import read_worker_log, text_lines
from harness.records.run_record import write_json
from harness.run.fault_records import costs_of
from harness.spec.resolved import ResolvedRun
from harness.worker import checkpoint
from harness.worker.resume import truncate_log, valid_steps
from netsim.emulated.node.processes import launch
from netsim.emulated.program_output import logged_to
from netsim.emulated.substrates.launch import FIRST_USER
from netsim.errors import HostError, InputError, LonghaulError
from tests.faults.loopback import spec_of
from tests.faults.test_resume import owners

SECRET = "only the owner of the host may see or change this\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def untouched(victim: Path) -> bool:
    return victim.read_text() == SECRET and stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.worker(0).path.mkdir()
    return run.worker(0)


@pytest.mark.parametrize("name", ["job.json", ".job.json.part"])
def test_a_link_does_not_lead_the_job_elsewhere(worker: Any, victim: Path, name: str) -> None:
    (worker.path / name).symlink_to(victim)
    write_json(worker.job, {"rank": 0})
    assert untouched(victim)
    assert json.loads(worker.job.read_text()) == {"rank": 0}
    assert not worker.job.is_symlink()


@pytest.mark.parametrize("name", ["steps.jsonl", ".steps.jsonl.part"])
def test_a_link_does_not_lead_a_shortened_log_elsewhere(worker: Any, victim: Path, name: str) -> None:
    worker.steps.write_text('{"step": 1}\n{"step": 2}\n')
    (worker.path / name).unlink(missing_ok=True)
    (worker.path / name).symlink_to(victim)
    if name == "steps.jsonl":
        with pytest.raises(InputError, match="a link"):
            truncate_log(worker.steps, 1)
    else:
        truncate_log(worker.steps, 1)
        assert worker.steps.read_text() == '{"step": 1}\n'
    assert untouched(victim)


def test_a_folder_that_is_a_link_is_not_given_away(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o750)
    (tmp_path / "rank-0").symlink_to(tmp_path / "elsewhere")
    for attempt in (
        lambda: give_folder(tmp_path / "rank-0", None, 0o777),
        lambda: write_atomically(tmp_path / "rank-0" / "job.json", "x"),
        lambda: remove(tmp_path / "rank-0" / "victim"),
        lambda: open_to_read(tmp_path / "rank-0" / "steps.jsonl"),
    ):
        with pytest.raises((OSError, InputError)):
            attempt()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o750
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_output_of_a_link_is_not_copied(worker: Any, victim: Path) -> None:
    worker.log.symlink_to(victim)
    assert text_lines(worker.log) == []


def test_a_program_does_not_log_through_a_link(worker: Any, victim: Path) -> None:
    worker.log.symlink_to(victim)
    with pytest.raises(HostError, match="log.txt"), logged_to(worker.log, None):
        pass
    assert untouched(victim)


def test_a_program_does_not_log_into_a_file_of_another_name(worker: Any, victim: Path) -> None:
    worker.log.hardlink_to(victim)
    with pytest.raises(HostError, match="not a file of the program's own"), logged_to(worker.log, None):
        pass
    assert untouched(victim)


def test_a_site_cannot_see_or_change_the_record_of_another() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can start programs of other users")
    with tempfile.TemporaryDirectory(prefix="longhaul-test-") as name:
        run = RunDirectory(Path(name))
        run.path.chmod(0o755)
        for rank in (0, 1):
            give_folder(run.worker(rank).path, FIRST_USER + rank, 0o700)
        other, own = run.worker(0), run.worker(1)
        write_atomically(other.steps, SECRET)
        script = f"id -u; cat {other.steps}; echo spoilt > {other.steps}; ls {other.path}; echo > {run.result}"
        with logged_to(own.log, FIRST_USER + 1) as output_files:
            argv, env = ["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}
            done = launch(argv, env, output_files, FIRST_USER + 1, Path("/"))
        assert done.wait(20) != 0
        output = own.log.read_text()
        assert output.startswith(f"{FIRST_USER + 1}\n")
        assert output.lower().count("permission denied") == 4
        assert SECRET not in output
        assert other.steps.read_text() == SECRET
        assert own.log.stat().st_uid == FIRST_USER + 1


def test_a_pipe_is_not_waited_for(worker: Any, tmp_path: Path) -> None:
    for path in (worker.steps, worker.worker_log, worker.log):
        os.mkfifo(path)
    with pytest.raises(InputError, match="regular file"):
        truncate_log(worker.steps, 1)
    with pytest.raises(InputError, match="regular file"):
        read_worker_log(worker.worker_log)
    assert text_lines(worker.log) == []
    place = checkpoint.save(worker.checkpoints, 1, {}, {})
    (place / "manifest.json").unlink()
    os.mkfifo(place / "manifest.json")
    assert valid_steps(owners(spec_of(tmp_path, "ddp", {}), worker.path.parent)[0]) == set()


def test_a_file_belongs_to_the_owner_of_its_folder(worker: Any) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    give_folder(worker.path, 61_000, 0o700)
    write_json(worker.job, {"rank": 0})
    assert (worker.job.stat().st_uid, stat.S_IMODE(worker.job.stat().st_mode)) == (61_000, 0o644)


@pytest.mark.parametrize("line", ["[]", '"step"', "3", "null"])
def test_a_line_that_is_no_mapping_is_one_clear_error(worker: Any, line: str) -> None:
    worker.steps.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(InputError, match="line 2"):
        truncate_log(worker.steps, 1)
    with pytest.raises(InputError, match="line 2"):
        read_worker_log(worker.steps)


def test_a_full_disk_leaves_no_part_behind(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(worker.job, {"rank": 0})
    assert list(worker.path.iterdir()) == []


@pytest.mark.parametrize("line", ['{"step": 1}', '{"step": 1, "payload_bytes": "many"}', '{"payload_bytes": 5}'])
def test_nonsense_in_a_ledger_is_one_clear_error(worker: Any, tmp_path: Path, line: str) -> None:
    run = RunDirectory(worker.path.parent)
    resolved = ResolvedRun.of(spec_of(tmp_path, "ddp", {}))
    worker.ledger.write_text(f"{line}\n")
    with pytest.raises(LonghaulError, match="damaged"):
        costs_of(run, resolved, [], frozenset())


@pytest.mark.parametrize("line", ["{}", '{"when": "now", "kind": "crash"}', '{"when": 1.0, "kind": 3}'])
def test_nonsense_in_a_workers_log_is_one_clear_error(worker: Any, line: str) -> None:
    worker.worker_log.write_text(f"{line}\n")
    with pytest.raises(InputError, match="happened.jsonl"):
        read_worker_log(worker.worker_log)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_the_coordinators_output_is_read_as_its_users(tmp_path: Path) -> None:
    """Its file lies in the runner's folder and belongs to the user that it runs as."""
    path = tmp_path / "membership.log"
    path.write_text("generation 0\n")
    os.chown(path, 61_000, 61_000)
    assert text_lines(path) == []
    assert text_lines(path, 61_000) == ["generation 0"]
