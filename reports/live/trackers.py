"""Which trackers may go along with a suite, and the process in which W&B and trackio write."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from netsim.errors import InputError, Phrase
from reports.live.offline_runs import offline_environment

_ENDING_SECONDS = 60.0  # to write what is left; both libraries wait up to 30 s for their own threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trackers:
    """Where each tracker writes; None: it does not. InputError if a package is not installed."""

    tensorboard: Path | None = None
    wandb: Path | None = None
    trackio: Path | None = None

    def __post_init__(self) -> None:
        for package in ("tensorboard", "wandb", "trackio"):
            if getattr(self, package) is not None and find_spec(package) is None:
                raise InputError(
                    f"--{package}",
                    "",
                    Phrase(f"no package {package} in this environment"),
                    f"with it: pip install 'longhaul-bench[{package}]'",
                )

    @property
    def offline(self) -> dict[str, Path]:
        """Folders of the trackers that write in a process of their own, by package."""
        chosen = {"wandb": self.wandb, "trackio": self.trackio}
        return {package: folder for package, folder in chosen.items() if folder is not None}


@contextmanager
def tracked_offline(package: str, folder: Path, records: Path, ids: Iterable[str] = ()) -> Iterator[None]:
    """Until the block ends, and once more then, a process writes the steps of `records`; of the runs `ids` if given."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "reports.live.offline_tracker", package, str(folder.absolute()), str(records)]
    with tempfile.TemporaryDirectory(prefix="longhaul-tracker-") as cache:
        process = subprocess.Popen(
            [*command, *ids],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # both libraries print there
            env=offline_environment(os.environ, folder.absolute(), Path(cache)),
            start_new_session=True,  # Ctrl-C ends the suite; then this, once it has written the rest
        )
        try:
            yield
        finally:
            try:
                process.communicate(timeout=_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode:  # of no run: the suite goes on
                _log.warning("%s: its process ended with %d, and steps may be missing", package, process.returncode)
