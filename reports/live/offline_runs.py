"""Runs of W&B and of trackio, kept on this host alone.

Both libraries keep state by process, read where to write when they are imported, and print; trackio asks the Hugging
Face Hub for the user's name unless the Hub's library is offline. So they run in a process of their own
(reports.live.offline_tracker), in the environment that `offline_environment` gives.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reports.live.cell_follower import CellFollower
from reports.live.run_writers import RunWriter, safe_name, scalars
from reports.live.status import Point

CLOCK = "seconds"  # of training, logged with each step: another x-axis


def offline_environment(inherited: Mapping[str, str], folder: Path, cache: Path) -> dict[str, str]:
    """Of the tracker's process: no setting of the user's sends its runs elsewhere, and no token is there to be used."""
    kept = {key: value for key, value in inherited.items() if not key.startswith(("WANDB_", "TRACKIO_", "HF_"))}
    return kept | {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CACHE_DIR": str(cache),
        "TRACKIO_DIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache),
    }


class _WandbRun:
    """A directory `wandb/offline-run-TIME-ID`, which `wandb sync` can upload later."""

    def __init__(self, folder: Path, name: str, run: CellFollower) -> None:
        import wandb

        key = safe_name(name)
        for file in folder.glob(f"wandb/offline-run-*-{key}/run-{key}.wandb"):
            shutil.rmtree(file.parent)
        # Steps of the run and nothing else: no figures of the host, no list of packages, no code.
        settings: Any = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run: Any = wandb.init(
            project=safe_name(run.spec.suite),
            id=key,
            name=_title(run),
            group=_network(run),
            config=run.spec.model_dump(mode="json"),
            dir=str(folder),
            mode="offline",
            reinit="create_new",
            settings=settings,
        )

    def add(self, point: Point) -> None:
        self._run.log(scalars(point) | {CLOCK: point.clock}, step=point.step, commit=True)

    def flush(self) -> None:
        """The library writes by itself."""

    def close(self) -> None:
        self._run.finish()


class _TrackioRun:
    """Rows of the database of the suite, which `trackio show` serves on loopback."""

    def __init__(self, name: str, run: CellFollower) -> None:
        import trackio
        from trackio.run import Run

        # `trackio.init` would end the run before it, and may be led to a server by the environment.
        project, key = safe_name(run.spec.suite), safe_name(name)
        try:
            earlier = [old for old in trackio.Api().runs(project) if old.id == key]
        except ValueError:  # no such project yet
            earlier = []
        for old in earlier:
            old.delete()
        self._run: Any = Run(
            url=None,
            project=project,
            client=None,
            name=_title(run),
            run_id=key,
            group=_network(run),
            config=run.spec.model_dump(mode="json"),
        )

    def add(self, point: Point) -> None:
        self._run.log(scalars(point) | {CLOCK: point.clock}, step=point.step)

    def flush(self) -> None:
        """The library writes every half second."""

    def close(self) -> None:
        self._run.finish()


def wandb_runs(folder: Path) -> Callable[[str, CellFollower], RunWriter]:
    return lambda name, run: _WandbRun(folder, name, run)


def trackio_runs(folder: Path) -> Callable[[str, CellFollower], RunWriter]:
    """folder: what TRACKIO_DIR is in this process."""
    return lambda name, run: _TrackioRun(name, run)


def _title(run: CellFollower) -> str:
    return f"{run.spec.label} on {_network(run)}, seed {run.spec.seed}"


def _network(run: CellFollower) -> str:
    return str(run.spec.topology.get("name"))
