"""What each method does when sites fail: real trainers and a real store, over loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.bench.chaos.chaos_checks import steps_trained
from harness.records.layout import RunDirectory
from harness.records.run_record import Result
from tests.faults.loopback import run_through, spec_of

pytestmark = pytest.mark.timeout(600)

Events = list[dict[str, Any]]
BATCH = 2 * 128  # tokens of a step of one worker


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def go_through(
    tmp_path: Path,
    cache: Path,
    method: str,
    options: dict[str, Any],
    faults: Events,
    steps: int,
    sites: int = 3,
    timeout: float = 120,
    **fields: Any,
) -> tuple[Result, Events]:
    model = "tiny-moe" if method == "fomoe" else "tiny"
    spec = spec_of(
        tmp_path,
        method,
        options,
        sites=sites,
        model=model,
        faults=faults,
        train={"steps": steps, "checkpoint_every": 4},
        network={"timeout_seconds": timeout},
        **fields,
    )
    result, events = run_through(spec, tmp_path / "run", cache)
    assert result.valid, result.why_invalid
    assert result.steps == steps
    assert result.final_loss is not None
    if method != "streaming_diloco":  # whose source goes on from the step in which it was interrupted
        counted = (result.tokens_committed or 0) + (result.tokens_lost or 0)
        assert counted == steps_trained(RunDirectory(tmp_path / "run")) * BATCH
    return result, events


def of_kind(events: Events, kind: str) -> Events:
    return [event for event in events if event["kind"] == kind]


def test_diloco_continues_with_survivors_at_the_next_sync(tmp_path: Path, cache: Path) -> None:
    """Diloco goes on with the survivors from the next synchronisation."""
    faults = [{"kind": "crash", "site": "c", "step": 6}]
    result, events = go_through(tmp_path, cache, "diloco", {"sync_every": 4}, faults, 12)
    assert {event["step"] for event in of_kind(events, "detected")} == {7}
    assert all(event["members"] == [0, 1] for event in of_kind(events, "reformed"))
    assert result.tokens == 2 * 12 * BATCH + 4 * BATCH  # of the lost site only the round that was synchronised
    assert result.tokens_lost in (2 * BATCH, 3 * BATCH)  # its step 5; step 8, made twice by whoever had begun it
    assert result.bytes_caught_up == 0


@pytest.mark.slow
def test_ddp_rolls_back_with_the_surviving_sites(tmp_path: Path, cache: Path) -> None:
    """Ddp goes back to the last checkpoint with the sites that are there."""
    faults = [{"kind": "crash", "site": "c", "step": 7}]
    result, events = go_through(tmp_path, cache, "ddp", {}, faults, 10)
    assert {(event["site"], event["step"]) for event in of_kind(events, "rolled back")} == {("a", 4), ("b", 4)}
    assert result.bytes_repeated
    assert result.generations == 2
    assert result.tokens == (2 * 10 + 4) * BATCH  # of the lost site, too, only what came before the checkpoint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("diloco", {"sync_every": 4}),
        ("ddp", {}),
        ("lordo", {"sync_every": 4}),
        ("streaming_diloco", {"sync_every": 4}),
        ("fomoe", {"sync_every": 4, "replication": 2, "outer": "diloco"}),
    ],
)
def test_a_site_that_comes_back_catches_up_from_its_peers(
    tmp_path: Path, cache: Path, method: str, options: dict[str, Any]
) -> None:
    """At the first synchronisation of the paced clock from step 10 on, however long its program takes to start.

    One method of each policy; that every method moves its whole state is tests/algorithms/test_catch_up.py's to show.
    """
    faults: Events = [{"kind": "crash", "site": "b", "step": 6, "back_after": "0.4 s"}]
    sites = 4 if method == "fomoe" else 3
    compute = {"mode": "paced", "step_seconds": 0.1}
    result, events = go_through(tmp_path, cache, method, options, faults, 20, sites, compute=compute)
    assert result.absences is not None
    assert [(absence.site, absence.to_step in range(10, 14)) for absence in result.absences] == [("b", True)]
    is_back(result, events, method, sites, 20)


@pytest.mark.slow
@pytest.mark.timing
def test_without_a_paced_clock_a_site_returns_when_it_can(tmp_path: Path, cache: Path) -> None:
    """The straggler keeps the run going long enough for the site to be back before its end."""
    faults: Events = [
        {"kind": "crash", "site": "b", "step": 6, "back_after": "0 s"},
        {"kind": "straggle", "site": "a", "step": 9, "until": 300, "factor": 1.5},
    ]
    result, events = go_through(tmp_path, cache, "diloco", {"sync_every": 4}, faults, 160)
    is_back(result, events, "diloco", 3, 160)


def is_back(result: Result, events: Events, method: str, sites: int, steps: int) -> None:
    """Site b caught up, all are members again, and what was trained without b is all that is missing."""
    caught_up = of_kind(events, "caught up")
    assert "b" in {event["site"] for event in caught_up}
    assert result.bytes_caught_up
    last = of_kind(events, "reformed")[-1]
    assert last["members"] == list(range(sites))
    if method != "streaming_diloco":  # whose others take over one worker's state after a loss
        kept = 5 if method == "lordo" else 4  # the last synchronisation or checkpoint; LoRDO's first step is warm-up
        away = max(event["step"] for event in caught_up if event["site"] == "b") - kept
        assert result.tokens == (sites * steps - away) * BATCH
    assert not [event for event in of_kind(events, "detected") if "did not come" in event["reason"]]


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [120, 4])
def test_photon_awaits_its_server_but_not_a_client(tmp_path: Path, cache: Path, timeout: float) -> None:
    """Photon waits for its server and goes on without a client, also if a restart takes longer than the timeout."""
    faults: Events = [
        {"kind": "crash", "site": "a", "step": 10, "back_after": "0 s"},
        {"kind": "crash", "site": "c", "step": 22},
    ]
    options = {"sync_every": 4, "server_optimizer": "nesterov"}
    _, events = go_through(tmp_path, cache, "photon", options, faults, 32, timeout=timeout)
    assert {event["step"] for event in of_kind(events, "rolled back")} == {8}
    assert of_kind(events, "reformed")[-1]["members"] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "site"), [("corrupt", "a"), ("corrupt", "b"), ("short", "a")])
def test_a_site_that_sends_damage_is_left_out_and_let_in_again(
    tmp_path: Path, cache: Path, kind: str, site: str
) -> None:
    """Also the lowest rank, which a tie would favour."""
    faults: Events = [{"kind": kind, "site": site, "step": 6}]
    result, events = go_through(tmp_path, cache, "diloco", {"sync_every": 4}, faults, 60)
    assert [event["site"] for event in of_kind(events, "left out")] == [site]
    (caught_up,) = of_kind(events, "caught up")
    assert caught_up["site"] == site
    assert result.tokens == (3 * 60 - (caught_up["step"] - 4)) * BATCH
    assert of_kind(events, "reformed")[-1]["members"] == [0, 1, 2]
