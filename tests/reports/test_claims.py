"""A claim is reproduced, not reproduced, or not testable at this size; and the table says which and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.spec.suite import load_suite
from netsim.errors import InputError
from reports.claim_runs import claim_runs, load_claim_runs, merged, store_claim_runs
from reports.claims import Claim, Verdict, claims, claims_table, judge, load_claims
from reports.pages.claims_page import SUITES
from reports.records import collect
from reports.statistics import Comparison
from reports.study import Study
from tests.reports.made_up import Network, RecordedRun, write_grid

DDP_ON_WAN = {"label": "ddp", "topology": "wan"}


def claim(**fields: Any) -> Claim:
    given = {"claim": "a claim", "candidate": "diloco", "reference": "ddp", "metric": "time_to_loss", "expect": "less"}
    return Claim.model_validate({**given, **fields})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("runs")
    write_grid(folder, networks=(Network("lan", 1e9, 0.0004), Network("wan", 100e6, 0.08)), seeds=(1, 2, 3), steps=40)
    RecordedRun("photon", "photon", Network("wan", 100e6, 0.08), seed=1, steps=40, speed=0.7).write(folder)
    return Study(collect([folder]))


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, "reproduced"),
        ({"expect": "greater"}, "not reproduced"),
        ({"ratio": 0.9}, "reproduced"),
        ({"ratio": 0.01}, "not reproduced"),
        ({"metric": "payload_bytes", "ratio": 0.05}, "reproduced"),
        ({"metric": "memory_bytes", "expect": "greater", "ratio": 1.5}, "reproduced"),
        ({"metric": "memory_bytes", "expect": "equal"}, "not reproduced"),
        ({"metric": "memory_bytes", "expect": "equal", "components": ["weights", "gradients"]}, "reproduced"),
        ({"metric": "memory_bytes", "expect": "equal", "place": "device"}, "reproduced"),
        ({"metric": "memory_bytes", "expect": "less", "place": "host"}, "not testable at this size"),
        ({"metric": "final_loss", "expect": "equal", "tolerance": "5 %"}, "reproduced"),
        (
            {"candidate": {"label": "ddp", "topology": "lan"}, "reference": {"label": "ddp", "topology": "wan"}},
            "reproduced",
        ),
        ({"untestable": "it needs 125M parameters"}, "not testable at this size"),
        ({"candidate": "fomoe"}, "not trained"),
        ({"candidate": {"label": "diloco", "suite": "another"}}, "not trained"),
    ],
)
def test_claims_are_judged_by_the_runs(study: Study, fields: dict[str, Any], verdict: Verdict) -> None:
    (found,) = claims(claim_runs(study), [claim(**fields)])
    assert found.verdict == verdict, found


def test_a_claim_shows_its_control_and_its_power(study: Study) -> None:
    """A control and what the pairs can see stand beside the claim."""
    (found,) = claims(claim_runs(study), [claim(control="ddp", shows="a direction, no size")])
    assert found.control is not None
    assert found.control.ratio == pytest.approx(1)
    assert found.sees is not None
    assert found.sees >= 0
    (row,) = claims_table([found]).rows
    assert row["control"].text == "ddp: 1.00"
    assert row["verdict"].text.endswith("a direction, no size")
    assert row["sees"].text.startswith("differences from ")
    (one,) = claims(claim_runs(study), [claim(candidate={"label": "photon", "topology": "wan"}, reference=DDP_ON_WAN)])
    assert one.power == "none: an interval takes three pairs"
    (exact,) = claims(claim_runs(study), [claim(metric="memory_bytes", candidate="fomoe", uncontrolled="sizes decide")])
    assert exact.power == "exact: one seed is enough"
    assert claims_table([exact]).rows[0]["control"].text == "sizes decide"


def test_components_belong_to_memory() -> None:
    with pytest.raises(ValueError, match="memory_bytes"):
        claim(components=["weights"])


def test_pairs_are_by_network_for_time_and_by_seed_for_loss(study: Study) -> None:
    """Pairs are networks and seeds for time but seeds alone for loss."""
    timed, trained = claims(claim_runs(study), [claim(), claim(metric="final_loss")])
    assert timed.found is not None
    assert trained.found is not None
    assert (timed.found.n, trained.found.n) == (6, 3)


def test_one_pair_can_reproduce_a_claim_and_says_that_it_is_one() -> None:
    assert judge(claim(), Comparison(0.5, None, None, None, 1)) == ("reproduced", "1 pair, so no interval")


def test_an_interval_reaching_one_reproduces_no_direction() -> None:
    """An interval that reaches one does not reproduce a direction."""
    assert judge(claim(), Comparison(0.95, 0.8, 1.1, 0.3, 5)) == ("not reproduced", "the 95 % interval has 1 in it")


def test_the_right_direction_of_the_wrong_size_is_told_apart() -> None:
    found = judge(claim(ratio=0.1), Comparison(0.5, 0.4, 0.6, 0.1, 5))
    assert found == ("not reproduced", "the direction holds, the size does not")


@pytest.mark.parametrize(
    "fields", [{"ratio": 1.01}, {"ratio": 0.97, "expect": "greater"}, {"expect": "equal", "tolerance": 0.02}]
)
def test_an_interval_past_the_bound_is_said(fields: dict[str, Any]) -> None:
    verdict, note = judge(claim(**fields), Comparison(1.0, 0.96, 1.03, 0.5, 3))
    assert (verdict, note) == ("reproduced", "by the median; the 95 % interval reaches past the bound")
    assert judge(claim(**fields), Comparison(1.0, 0.99, 1.005, 0.5, 3)) == ("reproduced", "")


def test_the_table_gives_ratio_spread_and_verdict(study: Study) -> None:
    listed = [claim(source="arXiv 2311.08105"), claim(candidate="fomoe")]
    table = claims_table(claims(claim_runs(study), listed, {"fomoe": "claims-moe"}))
    text = table.markdown()
    assert "| a claim | arXiv 2311.08105 | time to loss: diloco / ddp | less than 1 |" in text
    assert "not trained: no valid runs of fomoe; longhaul run claims-moe trains them" in text


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("claims: []", "claims"),
        ("claims: [{claim: a, candidate: x, reference: y, metric: speed, expect: less}]", "claims.0.metric"),
        ("claims: [{claim: a, candidate: x, reference: y, metric: final_loss, expects: less}]", "claims.0"),
        ("claims: [{claim: a, candidate: x, reference: y, metric: final_loss, expect: equal, ratio: 2}]", "claims.0"),
    ],
)
def test_a_wrong_file_of_claims_is_refused_by_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_claims(path)
    assert caught.value.field.startswith(field)
    assert caught.value.where == str(path)


def test_bytes_to_a_loss_that_was_not_reached_prove_nothing(tmp_path: Path) -> None:
    RecordedRun("ddp", "ddp", steps=40, target=3.2, stop_at_target=True).write(tmp_path)
    RecordedRun("slow", "diloco", steps=40, target=3.2, stop_at_target=True, speed=0.3).write(tmp_path)
    study = Study(collect([tmp_path]))
    missed, unknown = claims(
        claim_runs(study),
        [
            claim(candidate="slow", metric="payload_bytes"),
            claim(candidate="ddp", reference="slow", metric="payload_bytes"),
        ],
    )
    assert (missed.verdict, missed.note) == ("not reproduced", "1 of 1 runs of slow did not reach their target loss")
    assert unknown.verdict == "not testable at this size"


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9, "reproduced"), (0.99, "not reproduced")])
def test_what_methods_log_of_themselves_can_be_claimed(tmp_path: Path, ratio: float, verdict: Verdict) -> None:
    for label, first in (("partial", 0.5), ("whole", 0.6)):
        layers = {"routing_entropy/0": first, "routing_entropy/1": 0.4}  # 0.45 and 0.5 on average
        RecordedRun(label, "fomoe", metrics=layers).write(tmp_path)
    asked = claim(candidate="partial", reference="whole", metric="routing_entropy", expect="greater", ratio=ratio)
    (found,) = claims(claim_runs(Study(collect([tmp_path]))), [asked])
    assert found.found is not None
    assert found.found.ratio == pytest.approx(0.9)
    assert found.verdict == verdict


def test_stored_runs_are_judged_as_the_runs_are(study: Study, tmp_path: Path) -> None:
    asked = [claim(), claim(metric="memory_bytes", place="device", expect="equal"), claim(metric="final_loss")]
    store_claim_runs(claim_runs(study), tmp_path / "runs.jsonl")
    stored = claims(load_claim_runs(tmp_path / "runs.jsonl"), asked)
    assert [(one.found, one.verdict) for one in stored] == [
        (one.found, one.verdict) for one in claims(claim_runs(study), asked)
    ]


def test_a_cell_that_ran_again_takes_its_old_place(study: Study) -> None:
    runs = claim_runs(study)
    again = runs.head(1).assign(final_loss=1.0)
    both = merged(runs, again)
    assert len(both) == len(runs)
    assert (both["final_loss"] == 1.0).sum() == 1


@pytest.mark.parametrize("text", ["{", '{"suite": "claims"}\n'])
def test_stored_runs_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "runs.jsonl").write_text(text)
    with pytest.raises(InputError, match="runs.jsonl"):
        load_claim_runs(tmp_path / "runs.jsonl")


def test_every_claim_compares_labels_that_its_suites_have() -> None:
    root = Path(__file__).parents[2]
    cells = [load_suite(root / "suites" / f"{name}.yaml").cells for name in SUITES]
    labels = {cell.label for suite in cells for cell in suite}
    for listed in load_claims(root / "docs" / "claims.yaml"):
        for side in (listed.candidate, listed.reference, listed.control):
            assert side is None or side.label in labels, listed.claim


def test_every_published_claim_is_controlled_and_says_its_scope() -> None:
    """A control, or why there is none; and what this size can show of it."""
    for listed in load_claims(Path(__file__).parents[2] / "docs" / "claims.yaml"):
        assert (listed.control is None) != (not listed.uncontrolled), listed.claim
        assert listed.shows, listed.claim
