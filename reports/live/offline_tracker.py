"""The process that writes the runs of a suite with W&B or trackio: follows records until its stdin ends.

python -m reports.live.offline_tracker wandb|trackio FOLDER RUNS [ID ...]
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from netsim.errors import LonghaulError
from reports.live.offline_runs import trackio_runs, wandb_runs
from reports.live.run_writers import WRITING_SECONDS, RunWriters
from reports.live.suite_follower import SuiteFollower

_OPENED = {"wandb": wandb_runs, "trackio": trackio_runs}


def main(kind: str, folder: str, records: str, *ids: str) -> None:
    follower = SuiteFollower(Path(records), frozenset(ids) or None)
    with RunWriters(_OPENED[kind](Path(folder))) as writers:
        ended = False
        while True:
            try:
                follower.read()
                writers.write(follower.runs())
            except (LonghaulError, OSError) as error:  # a record that is being made, a disk that is full
                print(f"{kind}: {error}", file=sys.stderr)
            if ended:
                return
            ended = bool(select.select([sys.stdin], [], [], WRITING_SECONDS)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
