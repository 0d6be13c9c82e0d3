"""Chaos: schedules follow from the seed, what fails is shrunk, and real runs keep the bounds and the invariants."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from harness.bench.bounds import STAGES, bounds
from harness.bench.chaos.chaos_plan import (
    METHODS,
    ChaosOutcome,
    ChaosSchedule,
    Injection,
    bound_seconds,
    draw,
    shrink,
    smaller,
)
from harness.bench.chaos.chaos_report import ChaosReport, load_chaos, store_chaos
from harness.bench.chaos.chaos_runner import DisturbedRunner
from harness.bench.chaos.chaos_runs import Chaos, suite_of
from harness.bench.run_processes import owned_processes
from harness.elastic.views import RETURN_SECONDS
from harness.spec.resolved import ResolvedRun
from harness.spec.suite import load_suite
from harness.worker.checkpoint import KEPT
from longhaul.commands.benches.bench_chaos import said
from longhaul.commands.benches.bench_soak import LONGHAUL
from netsim.emulated.owner import VARIABLE, Owner, boot, runtime_root, start_time
from reports.pages.chaos_section import chaos_section
from tests.emulated.networks import need

KILLED = Injection("agent", "SIGKILL", "training", 0.5)
STOPPED = Injection("delay daemon", "SIGSTOP", "start", 0.25)


@pytest.mark.parametrize("substrate", ["netns", "docker"])
def test_schedules_follow_from_the_seed_alone(substrate: str) -> None:
    drawn = [draw(7, index, substrate, ["disk full"]) for index in range(60)]
    assert drawn == [draw(7, index, substrate, ["disk full"]) for index in range(60)]
    assert drawn != [draw(8, index, substrate, ["disk full"]) for index in range(60)]


@pytest.mark.parametrize("substrate", ["netns", "docker"])
def test_every_kind_comes_before_any_comes_twice(substrate: str) -> None:
    drawn = [draw(1, index, substrate).injections[0] for index in range(80)]
    kinds = [(one.process, one.disturbance) for one in drawn]
    number = len(set(kinds))
    assert len(set(kinds[:number])) == number
    for process in ("runner", "agent", "delay daemon", "prober", "coordinator", "trainer"):
        assert (process, "SIGKILL") in kinds


def test_every_signalled_pair_has_a_bound() -> None:
    table = {(bound.process, bound.disturbance, bound.stage) for bound in bounds()}
    for substrate in ("netns", "docker"):
        for index in range(80):
            (one,) = draw(3, index, substrate).injections
            if one.disturbance in ("SIGKILL", "SIGSTOP"):
                assert (one.process, one.disturbance, one.stage) in table
                assert bound_seconds(draw(3, index, substrate), 10.0) > 10
    assert {stage for _, _, stage in table} == set(STAGES)


def test_a_crash_may_take_as_long_as_a_site_is_waited_for() -> None:
    """The trainer is started again, and the others wait for it as docs/reliability.md says."""
    crash, pause = (
        ChaosSchedule(1, 0, "netns", "lordo", (Injection("trainer", kind, "training", 0.0),))
        for kind in ("crash", "pause")
    )
    assert bound_seconds(crash, 10.0) == bound_seconds(pause, 10.0) + RETURN_SECONDS


@pytest.mark.parametrize("method", METHODS)
def test_a_kept_checkpoint_follows_a_synchronisation(tmp_path: Path, method: str) -> None:
    """Otherwise members could not be compared."""
    (path := tmp_path / "chaos.yaml").write_text(yaml.safe_dump(suite_of(ChaosSchedule(1, 0, "netns", method, ()))))
    (spec,) = load_suite(path).cells
    every, plan = spec.train.checkpoint_every, ResolvedRun.of(spec).plan
    last = range(every, spec.train.steps, every)[-KEPT:]
    assert any(plan.at(step) for step in last)


def test_a_failing_schedule_is_shrunk_to_what_fails() -> None:
    big = ChaosSchedule(1, 2, "netns", "fomoe", (STOPPED, KILLED))
    small = shrink(big, lambda schedule: any(one.process == "agent" for one in schedule.injections), most=20)
    assert small.method == "ddp"
    assert small.injections == (replace(KILLED, delay=0.0),)
    assert list(smaller(small)) == []


def test_shrinking_keeps_to_its_number_of_trials() -> None:
    tried: list[ChaosSchedule] = []

    def passes(schedule: ChaosSchedule) -> bool:
        tried.append(schedule)
        return False

    shrink(ChaosSchedule(1, 2, "netns", "fomoe", (STOPPED, KILLED)), passes, most=3)
    assert len(tried) == 3


def test_outcomes_are_read_as_they_were_stored(tmp_path: Path) -> None:
    outcome = ChaosOutcome(
        3, "netns", "ddp", "agent", "SIGKILL", "training", "failed", 4.0, 16.0, ["a process is left"]
    )
    report = ChaosReport(1, ["disk full"], undisturbed={"netns/ddp": 12.0}).adding(outcome)
    store_chaos(report, tmp_path / "chaos.json")
    assert load_chaos(tmp_path / "chaos.json") == report
    assert not outcome.passed
    assert replace(outcome, broken=[]).passed
    assert not replace(outcome, broken=[], seconds=17.0).passed
    assert said(outcome) == "3: agent, SIGKILL, training, ddp: failed after 4.0 of 16 s; a process is left"


def test_the_page_shows_what_did_not_hold() -> None:
    done = ChaosOutcome(3, "netns", "ddp", "agent", "SIGKILL", "training", "failed", 4.0, 16.0)
    wrong = replace(done, index=4, method="fomoe", broken=["a process is left"])
    text = chaos_section(ChaosReport(1, [], [done, wrong]))
    unreached = replace(done, index=5, state="not reached")
    assert "2 of 200 on netns, of 1" in chaos_section(ChaosReport(1, [], [done, wrong, unreached]))
    assert "2 of 200 on netns, of 1 of the 26 kinds, 0 of them completed" in text
    assert "1 with every invariant held, 0 above their bound" in text
    assert "| agent | SIGSTOP | 0 | - | - |" in text
    assert "| agent | SIGKILL | 2 | 0.25 | 2 failed |" in text
    assert "- netns 4 (agent, SIGKILL, training, fomoe): a process is left" in text


DEAF = 'trap "" TERM; touch "$0"; while :; do sleep 0.1; done'


@pytest.mark.parametrize("stopped", [False, True])
def test_a_runner_is_ended_with_what_it_started(tmp_path: Path, stopped: bool) -> None:
    """Also one that does not answer to SIGTERM, and one that stands still; and a child that its owner outlives."""
    ready = tmp_path / "ready"
    runner = DisturbedRunner(["sh", "-c", DEAF, str(ready)], os.environ, tmp_path, "netns")
    while not ready.exists():
        time.sleep(0.01)
    started = subprocess.Popen(["sleep", "60"], env={**os.environ, VARIABLE: str(runner.owner)})
    if stopped:
        runner.send_signal(signal.SIGSTOP)
    runner.end(patience=0.2)
    assert start_time(runner.pid) is None
    assert started.wait(5) == -signal.SIGKILL


def test_it_is_known_how_a_runner_ended(tmp_path: Path) -> None:
    runner = DisturbedRunner(["sh", "-c", "sleep 0.2; echo done; exit 7"], os.environ, tmp_path, "netns")
    assert runner.wait(10) == 7
    runner.end()
    assert (tmp_path / "said").read_text() == "done\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a numbering of processes")
def test_runners_take_each_other_for_strangers(tmp_path: Path) -> None:
    """A sweep of one leaves alone what another, dead one has left, until that has been checked."""
    runner = DisturbedRunner(["sh", "-c", "sleep 60; exit 0"], os.environ, tmp_path, "netns")
    try:
        runner.send_signal(signal.SIGKILL)
        assert runner.wait(10) == -signal.SIGKILL
        assert runner.owner.boot != boot()
        assert runner.owner.alive
    finally:
        runner.end(patience=0.2)


def agent_owner(bench: int) -> Owner | None:
    """Whom the agents of a bench's run belong to, as soon as there are any."""
    for process in psutil.Process(bench).children(recursive=True):
        with suppress(psutil.Error):
            if (owner := Owner.parse(process.environ().get(VARIABLE, ""))) is not None:
                return owner
    return None


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_ended_bench_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM, as from a time limit, while the agents of its first run are there."""
    need("netns")
    (temporary := tmp_path / "tmp").mkdir(mode=0o755)
    arguments = ["bench", "chaos", "--substrate", "netns", "--injections", "1", "--state", str(tmp_path / "chaos.json")]
    bench = subprocess.Popen([*LONGHAUL, *arguments], env={**os.environ, "TMPDIR": str(temporary)})
    try:
        owner = None
        while owner is None or len(owned_processes(owner)) < 3:
            assert bench.poll() is None
            owner = agent_owner(bench.pid)
            time.sleep(0.2)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(60) == 130
    finally:
        bench.kill()
    assert owned_processes(owner) == []
    assert list(runtime_root().glob(f"{owner}.*")) == []
    assert [one.name for one in temporary.iterdir() if one.name.startswith("longhaul-chaos-")] == []


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("substrate", ["netns", pytest.param("docker", marks=pytest.mark.docker)])
def test_real_runs_keep_bounds_and_invariants(tmp_path: Path, substrate: str) -> None:
    """A run that loses a site as declared, and one whose coordinator is killed, side by side."""
    need(substrate)
    tmp_path.chmod(0o755)
    chaos = Chaos(LONGHAUL, tmp_path, {f"{substrate}/diloco": 60.0})
    injections = Injection("trainer", "crash", "training", 0.0), Injection("coordinator", "SIGKILL", "training", 0.0)
    schedules = [ChaosSchedule(1, index, substrate, "diloco", (one,)) for index, one in enumerate(injections)]
    with ThreadPoolExecutor(2) as pool:
        declared, killed = pool.map(chaos.carry_out, schedules)
    assert (declared.state, declared.broken) == ("complete", []), declared
    assert (killed.state, killed.broken) == ("failed", []), killed
    assert killed.reason == "training failed: the coordinator was killed by SIGKILL"
    assert max(declared.ratio, killed.ratio) <= 1
