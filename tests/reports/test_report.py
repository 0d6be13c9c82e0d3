"""A report is whole or not there, escapes what it quotes, and every number leads to the run that made it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from longhaul.cli import build
from netsim.errors import InputError
from reports.answers import answers, overview
from reports.build import build_report
from reports.manifest import MANIFEST
from reports.records import collect
from reports.study import Study
from tests.reports.conftest import NASTY, Built
from tests.reports.made_up import Network, RecordedRun, rewrite


class Page(HTMLParser):
    """Ids, links and table cells of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.scripts += tag == "script"
        if found.get("id"):
            self.ids.append(str(found["id"]))
        self.links += [str(found[key]) for key in ("href", "src", "xlink:href") if found.get(key)]


def test_every_figure_is_there_in_every_format(built: Built) -> None:
    wanted = {"loss-time", "loss-tokens", "loss-bytes", "time-to-loss", "where-time-went", "round", "utilisation-rate"}
    wanted |= {"speedup-rate", "speedup-rtt", "fastest-map", "memory", "prediction", "method-metrics"}
    assert wanted <= set(built.document["figures"])
    for name in built.document["figures"]:
        for ending in ("png", "pdf", "svg", "csv"):
            assert (built.out / "figures" / f"{name}.{ending}").stat().st_size > 100
        ElementTree.parse(built.out / "figures" / f"{name}.svg")
        words = (built.out / "figures" / f"{name}.md").read_text()
        assert f"]({name}.png)" in words
        assert "<script>" not in words


def test_figures_have_the_width_of_a_column(built: Built) -> None:
    for path in (built.out / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert float(root.attrib["width"].removesuffix("pt")) in (3.5 * 72, 7 * 72)


def test_the_page_asks_nothing_of_the_network(built: Built) -> None:
    links = Page(built.page).links
    assert not [link for link in links if urlparse(link).scheme not in ("", "data")]
    assert not re.findall(r"@import|url\(\s*['\"]?http", built.page)


def test_every_link_of_the_page_leads_somewhere(built: Built) -> None:
    page = Page(built.page)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        elif not link.startswith("data:"):
            assert (built.out / unquote(link)).exists(), link


def test_ids_are_unique_although_figures_come_from_one_program(built: Built) -> None:
    ids = Page(built.page).ids
    assert len(ids) == len(set(ids))


def test_what_a_record_says_is_text_and_never_markup(built: Built) -> None:
    page = Page(built.page)
    assert page.scripts == 5  # uPlot; ours and its data, for the first screen and for the rest
    assert "<b>a</b>" not in built.page
    assert "&lt;b&gt;a&lt;/b&gt; link" in built.page
    assert NASTY in re.sub(
        r"&lt;|&gt;|&amp;|&#34;", lambda m: {"&lt;": "<", "&gt;": ">", "&amp;": "&", "&#34;": '"'}[m[0]], built.page
    )
    assert r"\textbackslash{}end\{table\}" in (built.out / "tables" / "methods.tex").read_text()
    assert "<script>" not in (built.out / "tables" / "methods.md").read_text()


def test_the_page_says_which_runs_are_left_out_and_why(built: Built) -> None:
    assert "2 runs are left out: 1 invalid, 1 unfinished" in built.page
    assert [run["state"] for run in built.document["excluded"]] == ["invalid", "unfinished"]
    assert "no result was written" in built.page


def test_tables_have_raw_numbers_in_csv_and_units_in_latex(built: Built) -> None:
    with (built.out / "tables" / "methods.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 + 1
    diloco = next(row for row in rows if row["label"] == "diloco" and row["topology"] == "r20-d100")
    assert float(diloco["payload_bytes_per_worker"]) == 2 * 1.5 * 4 * 850_000
    assert float(diloco["speedup"]) > 5
    assert diloco["speedup_pairs"] == "3"
    latex = (built.out / "tables" / "methods.tex").read_text()
    assert r"\toprule" in latex
    assert "payload / worker (MB)" in latex
    assert latex.count(r"\\") == len(rows) + 1


def test_json_has_null_and_never_nan(built: Built) -> None:
    text = (built.out / "report.json").read_text()
    assert "NaN" not in text
    assert {answer["fastest"] for answer in built.document["answers"]} == {"diloco"}


@pytest.mark.slow
def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    RecordedRun(steps=20).write(tmp_path / "runs")
    out = tmp_path / "report"
    build_report([tmp_path / "runs"], out, parquet=True)
    (out / "notes.txt").write_text("mine")
    (out / "figures" / "mine.png").write_text("mine")
    build_report([tmp_path / "runs"], out)
    assert (out / "notes.txt").read_text() == (out / "figures" / "mine.png").read_text() == "mine"
    assert not (out / "steps.parquet").exists()  # of the older report alone
    with pytest.raises(InputError, match="not a report"):
        build_report([tmp_path / "runs"], tmp_path / "runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "runs"]


def test_a_folder_with_somebodys_report_json_is_kept(tmp_path: Path) -> None:
    RecordedRun(steps=20).write(tmp_path / "runs")
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "report.json").write_text("{}")
    (out / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a report"):
        build_report([tmp_path / "runs"], out)
    assert {path.name for path in out.iterdir()} == {"report.json", "chapter.tex"}


@pytest.mark.parametrize("listed", [["../precious"], ["/etc/passwd"], "all", [1], ["link/precious"]])
def test_a_forged_manifest_deletes_nothing(tmp_path: Path, listed: object) -> None:
    RecordedRun(steps=20).write(tmp_path / "runs")
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("mine")
    (out / "link").symlink_to(tmp_path)
    (out / MANIFEST).write_text(json.dumps({"files": listed}))
    with pytest.raises(InputError, match="manifest"):
        build_report([tmp_path / "runs"], out)
    assert precious.read_text() == "mine"


def test_a_file_of_the_users_that_is_in_the_way_is_an_error(built: Built, tmp_path: Path) -> None:
    RecordedRun(steps=20).write(tmp_path / "runs")
    out = tmp_path / "report"
    shutil.copytree(built.out, out)
    (out / "steps.parquet").write_text("mine")
    with pytest.raises(InputError, match="no report wrote"):
        build_report([tmp_path / "runs"], out, parquet=True)
    assert (out / "steps.parquet").read_text() == "mine"


def test_a_record_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path / "runs")
    (run / "rank-1" / "steps.jsonl").write_text("not json\n")
    with pytest.raises(InputError, match="line 1"):
        build_report([tmp_path / "runs"], tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_suite_of_invalid_runs_still_has_a_page(tmp_path: Path) -> None:
    """A suite whose runs are all invalid still has a page that says so."""
    RecordedRun(steps=20, valid=False, why_invalid=("a reason",)).write(tmp_path / "runs")
    document = build_report([tmp_path / "runs"], tmp_path / "report")
    assert document["answers"] == []
    assert "a reason" in (tmp_path / "report" / "index.html").read_text()


def test_a_diverged_run_has_no_loss_and_breaks_nothing(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path / "runs")
    RecordedRun("ddp", "ddp", steps=20).write(tmp_path / "runs")
    rewrite(run / "result.json", final_loss=float("nan"))
    for path in run.glob("rank-*/steps.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [line | ({"evaluation_loss": float("nan")} if "evaluation_loss" in line else {}) for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    document = build_report([tmp_path / "runs"], tmp_path / "report")
    rows = {row["label"]: row for row in document["tables"]["methods"]}
    assert rows["diloco"]["final_loss"] is None
    assert rows["diloco"]["seconds_to_level"] is None
    assert document["answers"][0]["fastest"] == "ddp"


def test_the_command_prints_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And, without --out, writes the report to report/ under the suite's name."""
    monkeypatch.chdir(tmp_path)
    run = RecordedRun(steps=20).write(tmp_path / "runs with spaces")
    done = CliRunner().invoke(build("report"), ["report", str(run.parent), "--no-predict", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["valid_runs"] == 1
    assert Path(document["page"]).parent == Path("report") / RecordedRun().suite


def test_bad_records_exit_with_2(tmp_path: Path) -> None:
    run = RecordedRun(steps=20).write(tmp_path / "runs with spaces")
    rewrite(run / "result.json", tokens="many")
    command = [sys.executable, "-m", "longhaul", "report", str(run.parent), "--out", str(tmp_path / "out")]
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "tokens" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_importing_the_command_brings_neither_torch_nor_pandas() -> None:
    code = "import sys, longhaul.commands.report; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    code += "\nimport reports.build; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["set()", "False"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "odd",
    [
        RecordedRun("ddp", "ddp", Network("alone", sites=1), steps=20),
        RecordedRun("ddp", "ddp", steps=20, every=100),
        RecordedRun("_方法 🚀 $x", "diloco", steps=20),
        RecordedRun(
            "ddp", "ddp", steps=20, changes={"wall_seconds": 0.0, "memory_bytes": {}, "predicted_memory_bytes": {}}
        ),
    ],
    ids=["one site", "never evaluated", "a label that fonts lack", "no time and no memory"],
)
def test_an_odd_run_has_a_page_all_the_same(tmp_path: Path, odd: RecordedRun) -> None:
    odd.write(tmp_path / "runs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = build_report([tmp_path / "runs"], tmp_path / "report")
    assert document["valid_runs"] == 1
    assert len(document["answers"]) == 1


def test_a_terminal_gets_the_answer_in_one_line(built: Built) -> None:
    """Of several networks who won on how many; of a single one who won, and by how much."""
    assert built.document["overview"].startswith("Fastest to the loss, of 4 networks: ")
    for answer in built.document["answers"]:
        assert answer["brief"].startswith(answer["headline"])
        assert len(answer["brief"]) <= 120
    assert any("times as fast as ddp" in answer["brief"] for answer in built.document["answers"])


def test_a_lead_that_evaluations_leave_open_is_no_fact(built: Built) -> None:
    found = [
        answer for answer in answers(Study(collect([built.runs]))) if answer.speedup_range and not answer.level_with
    ]
    assert " is fastest" in replace(found[0], rivals=()).headline
    open_lead = replace(found[0], rivals=(found[0].baseline, "photon"))
    assert " seems fastest" in open_lead.headline
    assert "photon may be as fast between the evaluations" in open_lead.evidence
    both = [replace(found[0], rivals=()), open_lead]
    assert "another may be as fast" not in overview(both[:1] * 2)
    assert "another may be as fast on 1)" in overview(both)
    assert "another may be as fast on each)" in overview(both[1:] * 2)


def test_a_rival_is_one_that_evaluations_leave_open(tmp_path: Path) -> None:
    """photon and diloco reach the loss between the same two evaluations, ddp long after them."""
    for label, speed in {"ddp": 1.0, "photon": 1.0, "diloco": 0.95}.items():
        RecordedRun(label, label, steps=80, speed=speed, target=2.6).write(tmp_path)
    (answer,) = answers(Study(collect([tmp_path])))
    assert (answer.fastest, answer.rivals) == ("photon", ("diloco",))
    assert answer.headline.startswith("photon seems fastest")


def test_a_page_is_ascii_and_its_scripts_have_no_references(built: Built) -> None:
    """Browsers decode it faster; within a script, a reference would be shown as it stands."""
    page = (built.out / "index.html").read_bytes()
    assert page.isascii()
    raw = re.findall(r"<(?:script|style)\b.*?</(?:script|style)>", page.decode(), re.DOTALL)
    assert len(raw) >= 4
    assert not any("&#" in text for text in raw)
    assert r'"\u2264 ' in page.decode()  # of the ranking
