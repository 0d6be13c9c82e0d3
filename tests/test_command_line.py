"""The command line: light to start, with names proposed, and one clear message for what is wrong."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from longhaul import cli

HEAVY = ("torch", "pandas", "matplotlib", "scipy", "docker")
LOADED = """
import runpy, sys
sys.argv = ["longhaul", *sys.argv[1:]]
try:
    runpy.run_module("longhaul")
except SystemExit:
    pass
print(*(name for name in {heavy} if name in sys.modules), file=sys.stderr)
"""


def longhaul(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "longhaul", *arguments]
    wide = {"COLUMNS": "300", "_TYPER_COMPLETE_TESTING": "1", **environment}
    return subprocess.run(argv, cwd=folder, env={**os.environ, **wide}, capture_output=True, text=True, check=False)


def in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Exit code, standard output and error of `longhaul ARGUMENTS`, without another interpreter's start."""
    monkeypatch.setattr(sys, "argv", ["longhaul", *arguments])
    monkeypatch.setattr(cli, "interrupt_once", lambda: None)  # signals are pytest's own here, and may be ignored
    monkeypatch.setattr(cli, "interrupted", lambda: False)
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["project", "--help"],
        ["report", "--help"],
        ["wan", "--help"],
        ["calibrate", "--help"],
        ["list", "methods"],
        ["wan", "show", "transatlantic"],
    ],
    ids=" ".join,
)
def test_help_loads_no_heavy_package(arguments: list[str]) -> None:
    argv = [sys.executable, "-c", LOADED.format(heavy=HEAVY), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    assert done.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    assert longhaul("--version").stdout == f"longhaul {metadata.version('longhaul-bench')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_every_shell(shell: str) -> None:
    assert (
        "_LONGHAUL_COMPLETE"
        in longhaul("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    )


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("longhaul ru", "run"),
        ("longhaul run --dr", "--dry-run"),
        ("longhaul run quick", "quickstart"),
        ("longhaul project photon", "photon-7b"),
        ("longhaul wan show six", "six-regions"),
        ("longhaul list dev", "devices"),
    ],
)
def test_completion_knows_commands_options_and_names(typed: str, proposed: str) -> None:
    environment = {"_LONGHAUL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": typed}
    argv = [sys.executable, "-c", "import sys; sys.argv[0] = 'longhaul'; from longhaul.cli import main; main()"]
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert proposed in done.stdout


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rnu", "quickstart"], "run"),
        (["run", "quickstart", "--dryrun"], "--dry-run"),
        (["run", "quikstart"], "quickstart"),
        (["run", "suites/quickstart.yml"], "quickstart"),
        (["project", "photon-7"], "photon-7b"),
        (["wan", "show", "transatlantc"], "transatlantic"),
        (["list", "topologys"], "topologies"),
        (["schemas", "siute"], "suite"),
    ],
    ids=" ".join,
)
def test_a_misspelt_name_gets_the_nearest_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    meant: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = in_this_process(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert meant in err
    assert list(tmp_path.iterdir()) == []


SUITE = """name: mine
methods:
- ddp
- method: diloco
  options:
    sync_evry: 5
topologies: [lan]
train: {steps: 3}
"""


def test_a_misspelt_key_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE)
    done = longhaul("run", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "bad input mine.yaml, line 6: methods.1.options.sync_evry: found the key 'sync_evry'; did you mean"
        " 'sync_every'? allowed: only drop_probability, inner_optimizer, outer_lr, outer_momentum, pretrain_steps,"
        " sync_every, wire_dtype, worker_weights\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_misspelt_runs_get_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    done = longhaul("report", "runs/quikstart", folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'quickstart'?" in done.stderr
