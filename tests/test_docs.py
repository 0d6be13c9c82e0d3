"""The documents are true: their commands run, their files load, their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.spec.suite import load_suite
from netsim.topology import load_topology

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVE_AS = re.compile(r"[Ss]ave this as `([\w./-]+)`")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, body, the prose since the block before) of every fenced block."""
    text, found, end = page.read_text(encoding="utf-8"), [], 0
    for match in BLOCK.finditer(text):
        found.append((match[1], match[2], text[end : match.start()]))
        end = match.end()
    return found


def commands(body: str) -> list[list[str]]:
    lines = body.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def run_page(page: Path, folder: Path, tree: Path) -> None:
    """Writes the files that the page says to save and runs its `bash` blocks, in order. `sh` blocks take minutes."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "120"}
    for language, body, prose in blocks(page):
        if name := SAVE_AS.search(prose.split("\n\n")[-2] if prose.endswith("\n\n") else prose):
            target = (tree if name[1].startswith("algorithms/") else folder) / name[1]
            target.write_text(body, encoding="utf-8")
        elif language == "bash":
            for command in commands(body):
                assert command[0] == "longhaul", command
                argv = [sys.executable, "-m", "longhaul", *command[1:]]
                done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the program, so that a page may add a file to it."""
    copy = tmp_path / "program"
    for package in ("netsim", "algorithms", "harness", "reports", "topologies"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to build network namespaces")


@pytest.mark.root
@needs_root
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tutorial_does_what_it_says(tmp_path: Path, tree: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    run_page(ROOT / "docs" / "tutorial.md", folder, tree)
    assert (folder / "report" / "first" / "index.html").stat().st_size > 10_000


@pytest.mark.root
@needs_root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sixth_method_is_one_file_of_less_than_a_hundred_lines(tmp_path: Path, tree: Path) -> None:
    page = ROOT / "docs" / "add-a-method.md"
    method = next(body for language, body, _ in blocks(page) if language == "python")
    assert len(method.splitlines()) < 100
    suite = next(body for language, body, _ in blocks(page) if language == "yaml")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mine.yaml").write_text(suite)
    run_page(page, folder, tree)
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    argv = [sys.executable, "-m", "longhaul", "run", "mine.yaml", "--substrate", "netns", "--json"]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"algorithm": "slowmo"' in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_documents_is_one_that_exists(page: Path) -> None:
    """The options of commands that take minutes are checked against the command's own help."""
    for language, body, _ in blocks(page):
        if language not in ("bash", "sh"):
            continue
        for command in commands(body):
            if command[0] != "longhaul":
                continue
            words = [word for word in command[1:] if not word.startswith("-")]
            nested = words[:2] if words[:1] in (["wan"], ["bench"]) else words[:1]
            argv = [sys.executable, "-m", "longhaul", *nested, "--help"]
            environment = {**os.environ, "COLUMNS": "200"}
            shown = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert shown.returncode == 0, f"{command}: {shown.stderr}"
            for option in (word.split("=")[0] for word in command if word.startswith("--")):
                assert option in shown.stdout, f"{page.name}: {command} has no option {option}"


def test_the_suite_in_the_page_about_suites_loads(tmp_path: Path) -> None:
    body = next(body for language, body, _ in blocks(ROOT / "docs" / "suites.md") if language == "yaml")
    assert yaml.safe_load(body)["name"] == "mine"
    (tmp_path / "mine.yaml").write_text(body)
    assert len(load_suite(tmp_path / "mine.yaml").cells) == 8


def test_the_examples_in_the_page_about_topologies_load(tmp_path: Path) -> None:
    parts = [body for language, body, _ in blocks(ROOT / "docs" / "topologies.md") if language == "yaml"]
    (tmp_path / "page.yaml").write_text("".join(parts))
    (tmp_path / "cell.trace").write_text("1\n2\n40\n")
    for name in ("lte.txt", "rtt.csv"):
        (tmp_path / name).write_text("0 20\n90 30\n")
    table = next(body for language, body, _ in blocks(ROOT / "docs" / "topologies.md") if language == "csv")
    (tmp_path / "azure.csv").write_text(table)
    topology = load_topology(tmp_path / "page.yaml")
    assert len(topology.sites) == 3
    assert len(topology.timeline.events) == 12
    assert topology.link("virginia", "paris").delay == 0.042


def test_every_shipped_suite_and_topology_is_documented() -> None:
    """Every shipped suite and topology is named in the documents."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for folder in ("suites", "topologies", "scenarios"):
        missing = [path.stem for path in (ROOT / folder).glob("*.yaml") if path.stem not in text]
        assert not missing, f"{folder}: {missing}"
