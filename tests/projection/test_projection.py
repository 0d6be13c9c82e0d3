"""Rows, answers, files and commands of `longhaul project`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algorithms.method import find
from harness.costmodel.calibration import Error
from harness.costmodel.planning.answer_tables import answers
from harness.costmodel.projected_row import ProjectedRow, base_rows
from harness.costmodel.projection import Variant, link_model_of, project, variants
from harness.costmodel.projection_rows import rows_of
from harness.costmodel.sites.site_memory import activation_bytes
from harness.spec.presets import find_model
from harness.spec.scenario import Scenario, load_scenario
from longhaul.commands.project import project as command
from netsim.errors import InputError
from netsim.simulated.link_model import LinkModel
from reports.projection.projection_figures import round_profile
from tests.projection.records import calibration
from tests.projection.test_scenario import write

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FIELDS = {
    "algorithm", "model", "parameters", "sites", "rate_gbit", "rtt_ms", "steps", "syncs", "payload_bytes_per_worker",
    "compute_seconds", "communication_seconds", "total_seconds", "compute_utilisation", "memory_bytes_per_worker",
    "memory", "extrapolated", "error_band",
}  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> Scenario:
    return load_scenario(
        write(
            tmp_path,
            methods=[
                "ddp",
                "diloco",
                {"method": "photon", "options": {"aggregation": "allreduce"}},
                "lordo",
                {"method": "fomoe", "options": {"replication": 2, "outer": "diloco"}},
                "streaming_diloco",
            ],
            sweep={
                "rate": ["10 Mbit", "1 Gbit"], "rtt": ["1 ms", "200 ms"], "sites": [2, 8], "sync_every": [10, 100],
                "replication": [1, 3, 4], "rank": [8],
            },
        )
    )  # fmt: skip


def every_row(scenario: Scenario) -> list[ProjectedRow]:
    return [row for variant in variants(scenario) for row in rows_of(scenario, variant, None)]


def test_rows_have_the_agreed_fields_and_add_up(small: Scenario) -> None:
    rows = every_row(small)
    for row in rows:
        assert row.to_json().keys() >= FIELDS
        assert row.total_seconds == pytest.approx(row.compute_seconds + row.communication_seconds)
        assert row.compute_utilisation == pytest.approx(row.compute_seconds / row.total_seconds)
        assert row.memory_bytes_per_worker == sum(row.memory.values())
        assert row.error_band.low_seconds <= row.total_seconds <= row.error_band.high_seconds
    assert len(base_rows(rows, small)) == len(small.methods)
    assert len(rows) % 9 == 0  # three rates by three RTTs for every variant


def test_axes_vary_only_methods_that_have_them(small: Scenario) -> None:
    varied = {(variant.entry.label, variant.axis) for variant in variants(small)}
    assert ("fomoe", "replication") in varied
    assert ("lordo", "rank") in varied
    assert ("diloco", "sync_every") in varied
    assert not {("ddp", "sync_every"), ("diloco", "replication"), ("photon", "rank")} & varied


def test_impossible_replication_has_no_rows_in_a_sweep(small: Scenario) -> None:
    """A replication that is impossible has no rows in a sweep and is an error at the base."""
    assert {row.replication for row in every_row(small) if row.algorithm == "fomoe"} == {1, 2, 3, 4}
    entry = small.methods[4].model_copy(update={"options": {"replication": 5}})
    assert rows_of(small, Variant(entry, 4, "replication"), None) == []
    with pytest.raises(InputError):
        rows_of(small, Variant(entry, 4), None)


def test_payload_and_state_are_those_of_the_method(small: Scenario) -> None:
    for row in base_rows(every_row(small), small):
        entry = next(entry for entry in small.methods if entry.label == row.label)
        method = find(entry.method, entry.options, "test")
        plan = method.plan(small.model, 4, small.steps)
        assert row.payload_bytes_per_worker == plan.payload_bytes / 4
        assert row.syncs == len(list(plan.sync_steps()))
        for component, size in method.memory(small.model, 4).items():
            assert row.memory[component] == size


def test_the_closed_form_and_simpy_agree_on_every_method(small: Scenario) -> None:
    for entry in small.methods:
        variant = Variant(entry, 4)
        closed = base_rows(rows_of(small, variant, None), small)[0]
        (simulated,) = rows_of(small, variant, None, exact=True)
        # Exposed communication of fragments that overlap is where the closed form approximates.
        assert simulated.total_seconds == pytest.approx(closed.total_seconds, rel=0.02), entry.label
        assert simulated.evaluator.startswith("simulated")


def test_time_never_grows_with_rate_and_never_shrinks_with_rtt(small: Scenario) -> None:
    rates, rtts = np.logspace(6, 11, 40), np.full(40, 0.05)
    for entry in small.methods:
        projected = project(small, Variant(entry, 4))
        over_rate = np.add(*projected.seconds(rates, rtts, LinkModel()))
        over_rtt = np.add(*projected.seconds(np.full(40, 1e8), np.linspace(0, 1, 40), LinkModel()))
        assert (np.diff(over_rate) <= 1e-9).all()
        assert (np.diff(over_rtt) >= -1e-9).all()


def test_a_topology_goes_through_simpy(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, network={"topology": "transatlantic"}, methods=["ddp", "diloco"]))
    rows = every_row(scenario)
    assert [row.label for row in rows] == ["ddp", "diloco"]
    assert all(row.evaluator.startswith("simulated") for row in rows)
    assert rows[1].total_seconds < rows[0].total_seconds
    assert answers(scenario, rows, None).to_json().keys() == {"largest_model"}


def test_a_topologys_band_is_what_its_ends_take(tmp_path: Path) -> None:
    """A coarse simulation's ratio instead of two more whole ones: on unequal links, a tenth wider and narrower."""
    off = {"rate": "10 %", "reason": "a test"}
    network = {"topology": "transatlantic"}
    scenario = load_scenario(write(tmp_path, network=network, methods=["ddp", "diloco"], uncertainty=off))
    assert scenario.topology is not None
    ends = [replace(scenario, topology=scenario.topology.scaled(rates=scale)) for scale in (1.1, 0.9)]
    for row, low, high in zip(*(every_row(one) for one in (scenario, *ends)), strict=True):
        assert row.error_band.low_seconds == pytest.approx(low.total_seconds, rel=1e-3)
        assert row.error_band.high_seconds == pytest.approx(high.total_seconds, rel=1e-3)
        assert low.total_seconds < row.total_seconds < high.total_seconds


@pytest.mark.slow
def test_answers_are_consistent_with_the_rows(small: Scenario) -> None:
    rows = every_row(small)
    found = answers(small, rows, None)
    for entry, needed in zip(small.methods, (found.bandwidth_for_utilisation or ()), strict=True):
        rates = [rate for rate in needed.rate_gbit.values() if rate is not None]
        assert rates == sorted(rates)
        if not rates:  # a step shorter than its delays: no rate is enough
            continue
        projected = project(small, Variant(entry, 4))
        at = projected.utilisation(np.array([rates[0] * 1e9 * 1.001]), np.array([0.04]), LinkModel())
        assert at[0] >= 0.5
    for row in found.break_even_period or ():
        assert row.break_even_sync_every is None or row.break_even_sync_every >= 1
    for model in found.largest_model:
        assert model.memory_bytes is None or model.memory_bytes <= model.site_memory_bytes
    sensitive = {(row.label, row.input): row.elasticity for row in (found.sensitivities or ())}
    assert sensitive["ddp", "rate"] <= 0 <= sensitive["ddp", "rtt"]
    assert sensitive["diloco", "achieved FLOP/s"] < 0


@pytest.mark.slow
def test_the_largest_model_fits_and_one_more_layer_does_not(small: Scenario) -> None:
    """By the same memory as the rows have, buffers of a synchronisation included."""
    for answer, entry in zip(answers(small, [], None).largest_model, small.methods, strict=True):
        if answer.layers < 1 << 12:
            for layers in (answer.layers, answer.layers + 1):
                shape = type(small.model).model_validate({**small.model.model_dump(), "layers": layers})
                changed = replace(small, methods=(entry.model_copy(update={"model": shape}),))
                memory = sum(project(changed, Variant(changed.methods[0], small.sites)).memory.values())
                assert (memory <= answer.site_memory_bytes) == (layers == answer.layers), answer


@pytest.mark.parametrize(("model", "low", "high"), [("photon-7b", 1.31, 1.335), ("llama-70b", 1.31, 1.335)])
def test_full_recomputation_costs_about_a_third(model: str, low: float, high: float, tmp_path: Path) -> None:
    """Megatron-LM measured 29 to 32 % (arXiv 2205.05198, table 5), against a baseline with selective recomputation."""
    seconds = []
    for recompute in ("none", "full"):
        site = {"device": "h100", "devices": 64, "recompute": recompute}
        scenario = load_scenario(write(tmp_path, model=model, site=site, methods=["ddp"]))
        projected = project(scenario, Variant(scenario.methods[0], scenario.sites))
        seconds.append(projected.step_seconds)
        assert projected.backward_share == pytest.approx(2 / 3 if recompute == "none" else 3 / 4, abs=0.003)
    assert low < seconds[1] / seconds[0] < high


def test_shared_keys_take_less_memory_than_own_ones(tmp_path: Path) -> None:
    shape = find_model("llama-2-70b", "test")
    own = shape.model_copy(update={"key_value_heads": None})
    saved = activation_bytes(own, 1, "none") - activation_bytes(shape, 1, "none")
    assert saved == shape.sequence * shape.layers * 2 * 2 * (8192 - 1024)


def test_selective_recomputation_saves_what_it_costs() -> None:
    """Megatron-LM's 175B (arXiv 2205.05198, section 5): scores are 70 % of a layer's activations, for 2.7 % of FLOPs.
    Without dropout masks, of which they count one byte per score, the share is smaller."""
    shape = find_model("gpt-3", "test")
    kept = activation_bytes(shape, 1, "none", attention="plain") - activation_bytes(
        shape, 1, "selective", None, "plain"
    )
    assert kept == shape.sequence * shape.layers * 4 * 96 * 2048
    assert shape.layers * shape.score_flops_per_token / 3 / shape.flops_per_token() == pytest.approx(0.009, abs=0.0005)


def test_a_stated_step_time_replaces_the_one_that_flops_give(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, step_seconds="250 ms", methods=["ddp", "diloco"]))
    for entry in scenario.methods:
        assert project(scenario, Variant(entry, 4)).step_seconds == 0.25
    assert project(scenario, Variant(scenario.methods[0], 8)).step_seconds == 0.125  # half of the batch each


def test_without_framing_a_link_carries_its_rate(tmp_path: Path) -> None:
    times = []
    for framing in (True, False):
        network = {"rate": "1 Mbit", "rtt": "0 ms", "framing": framing}
        scenario = load_scenario(write(tmp_path, network=network, methods=["diloco"]))
        (row,) = rows_of(scenario, Variant(scenario.methods[0], 4), None)
        times.append(row.communication_seconds)
    assert times[0] / times[1] == pytest.approx(1514 / 1448)


def test_the_last_synchronisation_is_counted_or_not(tmp_path: Path) -> None:
    """N rounds have N synchronisations in a run, and N - 1 in papers; DDP exchanges every step's gradients."""
    syncs = {}
    for final in (True, False):
        scenario = load_scenario(write(tmp_path, final_sync=final, methods=["ddp", "diloco", "streaming_diloco"]))
        syncs[final] = [project(scenario, Variant(entry, 4)).load.syncs for entry in scenario.methods]
    assert syncs[True][:2] == [1000, 20]
    assert syncs[False][:2] == [1000, 19]
    assert syncs[True][2] - syncs[False][2] == 1


def test_a_rank_above_the_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most the width"):
        load_scenario(write(tmp_path, methods=[{"method": "lordo", "options": {"rank": 100_000}}]))
    scenario = load_scenario(write(tmp_path, methods=["lordo"], sweep={"rank": [8, 100_000]}))
    assert {row.rank for row in every_row(scenario)} == {8, None}


def test_bands_are_widened_by_what_the_fit_did_not_see(small: Scenario) -> None:
    known = calibration().model_copy(update={"held_out": Error(mean=0.04, max=0.1, runs=9)})
    variant = Variant(small.methods[1], 4)
    (plain,) = base_rows(rows_of(small, variant, None), small)
    (wide,) = base_rows(rows_of(small, variant, known), small)
    assert wide.error_band.high_seconds == pytest.approx(
        plain.error_band.high_seconds + 0.1 * plain.communication_seconds
    )


def test_rows_without_calibration_are_extrapolated(small: Scenario) -> None:
    """Without calibration every row is extrapolated and says first principles."""
    assert all(row.extrapolated and row.basis == "first principles" for row in every_row(small))


def test_a_calibration_bounds_what_is_not_extrapolated(small: Scenario) -> None:
    """A calibration is used and bounds what is not extrapolated."""
    known = calibration(efficiency=0.5, host_bandwidth=1e6)
    assert link_model_of(known).host_bandwidth is None  # sites have machines of their own
    variant = Variant(small.methods[1], 4)
    (plain,) = base_rows(rows_of(small, variant, None), small)
    (halved,) = base_rows(rows_of(small, variant, known), small)
    assert not halved.extrapolated
    assert halved.communication_seconds > 1.5 * plain.communication_seconds


def test_merging_buckets_keeps_their_bytes(small: Scenario) -> None:
    plan = find("ddp", {"bucket_mb": 0.01}, "test").plan(find_model("small", "test"), 4, 10)
    few = plan.merged(8)
    assert len(few.recurrences[0].transfers) <= 8 < len(plan.recurrences[0].transfers)
    assert few.payload_bytes == plan.payload_bytes
    assert few.recurrences[0].transfers[-1].ready == 1


def test_dense_activations_match_the_published_formula() -> None:
    """Activations of a dense layer are the published formula without scores and masks."""
    # Korthikanti et al.: 34 s b h; without dropout masks (attention, projection, MLP: 3 x s b h) and with the GeLU's
    # input kept: 16 d + 4 x 4 d = 32 bytes per token and layer, plus fp32 logits.
    shape = find_model("photon-125m", "test")
    per_token = 12 * 32 * 768 + 4 * 50368
    assert activation_bytes(shape, 2, "none") == 2 * 2048 * per_token
    assert activation_bytes(shape, 2, "full") < activation_bytes(shape, 2, "none")


def test_memory_peaks_at_the_turn_and_holds_buffers_in_syncs() -> None:
    """Memory over a round peaks at the turn and holds buffers while it synchronises."""
    points = round_profile(persistent=10, activations=5, buffers=2, step_seconds=3, sync_seconds=4)
    assert points == [(0, 10), (pytest.approx(1.0), 15), (3, 10), (3, 12), (7, 12), (7, 10)]


def test_photons_scenario_is_its_published_pair() -> None:
    """Photons scenario is its published pair up to framing latency and overlap."""
    scenario = load_scenario(SCENARIOS / "photon-7b.yaml")
    rows = {
        row.label: row
        for e in scenario.methods[:2]
        for row in base_rows(rows_of(scenario, Variant(e, 4), None), scenario)
    }
    assert rows["photon"].total_seconds / 3600 == pytest.approx(95.6, rel=0.005)
    assert rows["ddp"].compute_seconds / 3600 == pytest.approx(50.7, rel=0.005)
    # 97.2 h of communication, 4.6 % more with framing, less what a backward pass of 5.6 s a step hides.
    hidden = 21_900 * rows["ddp"].step_seconds * 2 / 3 / 3600
    exposed = rows["ddp"].communication_seconds / 3600
    assert exposed == pytest.approx(97.2 * 1514 / 1448 - hidden, rel=0.02)


@pytest.mark.slow
def test_the_command_prints_one_json_document(
    tmp_path: Path, small: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints one json document and writes tables and figures."""
    command(small.where, out=tmp_path / "out", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["scenario"] == "small"
    assert document["rows"][0].keys() >= FIELDS
    names = {Path(path).name for path in document["files"]}
    assert names >= {"small.csv", "small.json", "small.md", "small-time.svg", "small-time.png", "small-fastest.svg"}
    assert all((tmp_path / "out" / name).stat().st_size for name in names)


@pytest.mark.slow
def test_the_command_prints_tables(small: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    command(small.where, simulate=True)
    printed = capsys.readouterr().out
    assert "streaming" in printed
    assert "first principles" in printed
    for column in ("least access rate for a compute utilisation (Gbit/s)", "sync every for 90 % utilisation (steps)"):
        assert column in printed  # whole, though not a terminal
