"""The steps of one worker: those that count, and those whose results no state holds any more. In the trainer process.

rank-N/steps.jsonl   steps that count so far
rank-N/lost.jsonl    steps that were given up; with `interrupted`, one whose synchronisation failed and was undone
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TextIO

from harness.records.layout import WorkerDirectory
from harness.records.run_record import Step, read_lines
from harness.worker.resume import truncate_log


@dataclass(frozen=True)
class EarlierLife:
    """What the processes before this one left. Tokens and payload bytes up to `committed`, and of all that they did."""

    committed: int = 0  # the last synchronised step
    tokens: int = 0
    payload_bytes: int = 0
    all_tokens: int = 0
    all_payload_bytes: int = 0


class StepLog:
    """Appends to steps.jsonl, and moves steps that were given up to lost.jsonl."""

    def __init__(self, files: WorkerDirectory) -> None:
        self._steps, self._lost = files.steps, files.lost_steps
        self._file: TextIO | None = None

    @property
    def file(self) -> TextIO:
        """Where the next record goes."""
        if self._file is None:
            self._file = self._steps.open("a", encoding="utf-8")
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def give_up_after(self, step: int) -> None:
        """Every step after `step` was wasted."""
        self.close()
        self._move(truncate_log(self._steps, step))

    def give_up_interrupted(self, step: int, tokens: int) -> None:
        """`step` was computed, was never done because its synchronisation failed, and was undone.

        tokens: cumulative, with those of this step.
        """
        self._move([{"step": step, "tokens": tokens, "interrupted": True}])

    def tokens(self) -> int:
        """Tokens of all steps that count."""
        last = 0
        for line in read_lines(self._steps, Step):
            last = line.tokens
        return last

    def give_up_uncommitted(self) -> EarlierLife:
        """Leave what earlier processes of this worker had synchronised."""
        self.close()
        lines = truncate_log(self._steps, -1)
        committed = max((line.get("committed") or 0 for line in lines), default=0)
        kept = [line for line in lines if line["step"] <= committed]
        self._steps.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self._move(lines[len(kept) :])
        if not lines:
            return EarlierLife()
        own = kept[-1] if kept else {"tokens": 0, "payload_bytes": 0}
        return EarlierLife(
            committed, own["tokens"], own["payload_bytes"], lines[-1]["tokens"], lines[-1]["payload_bytes"]
        )

    def _move(self, lines: Iterable[dict[str, Any]]) -> None:
        with self._lost.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
