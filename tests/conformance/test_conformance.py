"""Our own methods conform; each of six broken ones is caught, by the check that is there for it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from algorithms.loading import module_from
from algorithms.method import find, names
from harness.conformance.checks import check_method
from harness.records.code_hash import code_hash
from harness.spec.suite import load_suite
from longhaul.catalogue import catalogue
from longhaul.cli import build
from netsim.errors import InputError

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")

GOOD = '''
"""Averaging: local AdamW for H steps (sync_every), then x = mean_m x_m, with a slow copy."""

import torch
from pydantic import Field

from algorithms.inner import flatten
from algorithms.method import Method, Options
from algorithms.outer_worker import OuterWorker
from algorithms.periodic import periodic
from netsim.traffic import Plan, Transfer


class AveragingOptions(Options):
    sync_every: int = Field(default=8, ge=1)
    momentum: float = 0.5  # of the slow copy


class Averaging(Method[AveragingOptions]):
    name = "averaging"
    summary = "local AdamW, plain averages with momentum"
    Options = AveragingOptions

    def plan(self, shape, sites, steps, seed=0):
        transfer = Transfer("delta", shape.count(), tuple(range(sites)), self.options.wire_dtype)
        return Plan(sites, steps, periodic((transfer,), self.options.sync_every, steps))

    def memory(self, shape, sites, rank=0, seed=0):
        size = 4 * shape.count()
        found = {"weights": size, "gradients": size, "inner_moments": self.moment_bytes(shape)}
        return {**found, "outer_parameters": size, "outer_momentum": size}

    def worker(self, setup):
        return AveragingWorker(self, setup)


class AveragingWorker(OuterWorker):
    def __init__(self, method, setup):
        super().__init__(setup, "outer_momentum")
        self.options = method.options

    @torch.no_grad()
    def synchronise(self, step, lr):
        for transfer in self.setup.plan.at(step):
            delta = self.outer - flatten(self.parameters)
            self.setup.exchange.run(step, [(transfer, delta)])
            momentum = self.kept["outer_momentum"].mul_(self.options.momentum).add_(delta.div_(len(transfer.members)))
            self.outer.sub_(momentum)
            self.restart()


METHOD = Averaging
'''

# What breaks it: text to replace, its replacement, the check that fails, and what it says.
BROKEN = {
    "sends more than it plans": (
        "            self.setup.exchange.run(step, [(transfer, delta)])\n",
        "            self.setup.exchange.run(step, [(transfer, delta.clone())])\n"
        "            self.setup.exchange.run(step, [(Transfer('more', transfer.elements, transfer.members), delta)])\n",
        "ledger equals plan",
        "'more': planned 0 bytes",
    ),
    "states less memory than it holds": (
        "        self.options = method.options\n",
        "        self.options = method.options\n        self.hidden = [torch.zeros_like(self.outer)]\n",
        "memory equals counted tensors",
        "count every tensor",
    ),
    "leaves its momentum out of the state": (
        "    @torch.no_grad()\n",
        "    def state(self):\n"
        "        return {k: v for k, v in super().state().items() if k != 'outer_momentum'}\n\n"
        "    def load(self, state):\n"
        "        super().load({**state, 'outer_momentum': torch.zeros_like(self.outer)})\n\n"
        "    @torch.no_grad()\n",
        "state survives a checkpoint",
        "state() and load() leave something out",
    ),
    "depends on the network": (
        "            self.outer.sub_(momentum)\n",
        "            self.outer.sub_(momentum, alpha=1.0 if hasattr(self.setup.exchange, 'ledger') else 0.9)\n",
        "same losses on two networks",
        "differ in memory and over TCP",
    ),
    "evaluates what each worker has": (
        "    @torch.no_grad()\n",
        "    def evaluation(self):\n"
        "        import contextlib\n"
        "        self.parameters[0].data[0] += self.setup.rank\n"
        "        return contextlib.nullcontext(self.setup.model)\n\n"
        "    @torch.no_grad()\n",
        "one evaluation for all",
        "must yield one for all",
    ),
    "says nothing of an option": (
        "    momentum: float = 0.5  # of the slow copy\n",
        "    damping: float = 0.5\n    momentum: float = 0.5  # of the slow copy\n",
        "documented",
        "nothing is said of damping",
    ),
}


def written(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "averaging.py"
    source = textwrap.dedent(GOOD).lstrip()
    assert old in source
    path.write_text(source.replace(old, new) if old else source)
    return path


@pytest.mark.parametrize("name", names())
def test_our_own_methods_conform(name: str) -> None:
    failed = [check for check in check_method(name, documentation=DOCUMENTATION) if not check.passed]
    assert failed == []


def test_a_method_in_a_file_of_its_own_conforms(tmp_path: Path) -> None:
    checks = check_method(str(written(tmp_path)))
    assert [check for check in checks if not check.passed] == []
    assert len(checks) == 8


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_method_fails_by_the_check_for_it(case: str, tmp_path: Path) -> None:
    old, new, check, said = BROKEN[case]
    found = {result.name: result for result in check_method(str(written(tmp_path, old, new)))}
    assert not found[check].passed
    assert said in found[check].found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("METHOD = Averaging\n", "", "METHOD = YourMethod"),
        ('    summary = "local AdamW, plain averages with momentum"\n', "", "without summary"),
        (
            "import torch\n",
            "import torch\nimport nothing_of_this_name\n",
            "line 4: found ModuleNotFoundError: No module named",
        ),
        ("    Options = AveragingOptions\n", "    Options = AveragingOptions\n    )\n", "line 22"),
    ],
)
def test_a_file_that_is_no_method_is_refused_with_its_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        find(str(written(tmp_path, old, new)), {}, "suite.yaml")
    assert said in str(error.value)


def test_an_error_in_a_worker_names_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "delta = self.outer -", "delta = self.inner -")
    failed = [check for check in check_method(str(path)) if not check.passed]
    line = path.read_text().splitlines().index("            delta = self.inner - flatten(self.parameters)") + 1
    assert f"averaging.py, line {line}: AttributeError" in failed[0].found


def test_a_suite_names_a_method_by_its_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    suite = {
        "name": "mine",
        "model": "tiny",
        "train": {"steps": 10, "batch": 2},
        "methods": ["ddp", {"method": "averaging.py", "options": {"sync_every": 5}}],
        "topologies": ["lan"],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    cell = load_suite(tmp_path / "suite.yaml").cells[1]
    assert (cell.method, cell.label, cell.method_name) == (str(path), "averaging", "averaging")
    before = code_hash(cell.method)
    code_hash.cache_clear()
    path.write_text(path.read_text() + "\n# changed\n")
    assert code_hash(cell.method) != before


def test_a_method_of_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "averaging_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: averaging-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[longhaul.methods]\naveraging = averaging:Averaging\n")
    written(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("averaging", {"sync_every": 2}, "test").options.sync_every == 2


def test_the_command_exits_with_1_where_a_check_fails(tmp_path: Path) -> None:
    old, new, check, _ = BROKEN["says nothing of an option"]
    path = written(tmp_path, old, new)
    done = CliRunner().invoke(build("method"), ["method", "check", str(path), "--json"])
    assert done.exit_code == 1
    assert [found["name"] for found in json.loads(done.stdout) if not found["passed"]] == [check]


def test_a_file_is_imported_once_for_each_content(tmp_path: Path) -> None:
    path = written(tmp_path)
    first = module_from(path, "test")
    assert module_from(path, "test") is first
    path.write_text(path.read_text() + "\n# changed\n")
    assert module_from(path, "test") is not first


def test_methods_of_the_folder_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside ours; one that cannot be imported says so, and does not break the list."""
    (tmp_path / "averaging.py").write_text(GOOD)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\nMETHOD = 1\n")
    (tmp_path / "other.py").write_text("raise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path)
    found = {entry["name"]: entry for entry in catalogue("methods")}
    assert found["averaging.py"] == {
        "name": "averaging.py",
        "from": "file",
        "description": "local AdamW, plain averages with momentum",
    }
    assert "broken.py, line 1" in str(found["broken.py"]["description"])
    assert "other.py" not in found
    assert found["diloco"]["from"] == "longhaul"


@pytest.mark.parametrize("name", names())
def test_every_number_among_the_options_has_a_bound(name: str) -> None:
    for option, field in type(find(name, {}, "test")).Options.model_fields.items():
        if field.annotation in (int, float, int | None, float | None):
            assert any(hasattr(bound, "le") or hasattr(bound, "lt") for bound in field.metadata), option
