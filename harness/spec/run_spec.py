"""The frozen description of one run: what spec.json holds, and what a suite expands into.

Whatever a run does follows from it (harness.spec.resolved), and the run's id is a hash of it and of the code that runs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from algorithms.loading import sources
from algorithms.own_model.module_shape import ModuleShape
from algorithms.settings import InnerOptimizer, LearningRateSchedule, ScheduleName
from algorithms.shape import ModelShape
from harness.spec.compute import ComputeSpec
from harness.spec.faults import Fault
from harness.spec.scaling import Target
from netsim.documents import Document

SCHEMA_VERSION = 1  # of records; whoever adds, renames or removes a key of one raises it


class Data(Document):
    """`stdlib`: Python's standard library as text; `text`: UTF-8 files; `jsonl`: one document a line, in `field`;
    `parquet`: the column `field` of Parquet files; `datasets`: of a folder that Hugging Face's `save_to_disk` wrote;
    `tokens`: .npy files, and .bin files with llm.c's header or without one, as nanoGPT's.

    path: a file or a directory.   val: the same for held-out text; without it a share of `path` is held out.
    tokenizer: a tokenizer.json for text; without one, bytes are tokens.
    """

    source: Literal["stdlib", "text", "jsonl", "parquet", "datasets", "tokens"] = "stdlib"
    path: str | None = None
    val: str | None = None
    field: str = "text"  # of a line of jsonl; a column of parquet and datasets, of text or of lists of tokens
    tokenizer: str | None = None
    token_type: Literal["uint16", "uint32"] = "uint16"  # of .bin files without a header
    partition: Literal["iid", "by_source", "dirichlet"] = "iid"
    alpha: float = Field(default=0.5, gt=0)  # Dirichlet concentration over sources
    held_out: float = Field(default=0.02, gt=0, lt=0.5)  # share of files kept for evaluation

    @model_validator(mode="after")
    def _path(self) -> Self:
        if (self.path is None) != (self.source == "stdlib"):
            raise ValueError("a path for every source but stdlib, which has none")
        if self.val is not None and self.path is None:
            raise ValueError("val together with path")
        if self.tokenizer is not None and self.source == "tokens":
            raise ValueError("tokenizer for text: source tokens has its numbers")
        return self


class Train(Document):
    """What every method of a suite has in common. `batch`: sequences per worker and step."""

    steps: int = Field(ge=1, le=1_000_000)
    batch: int = Field(default=8, ge=1, le=100_000)
    optimizer: InnerOptimizer = InnerOptimizer()
    warmup: int = Field(default=20, ge=1, le=10**9)
    schedule: ScheduleName = "cosine"  # of the learning rate, after the warm-up
    floor: float = Field(default=0.1, ge=0, le=1)  # end of the schedule, as a share of the peak
    decay: float = Field(default=0.1, ge=0, le=1)  # wsd: share of the steps at the end over which it falls
    balance_weight: float = Field(default=1e-3, ge=0, le=1e3)  # of the router's load-balance regulariser, for moe
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast of matrix products; weights stay fp32
    evaluate_every: int = Field(default=50, ge=1, le=10**9)
    evaluation_sequences: int = Field(default=64, ge=1, le=10**7)  # held-out sequences, over all workers together
    # Until 0.1: batches of `batch` sequences, so that methods of unlike batch met unlike text. Kept for one version.
    evaluation_batches: int | None = Field(default=None, ge=1, le=100_000)
    target_loss: float | None = Field(default=None, gt=0)
    stop_at_target: bool = False
    checkpoint_every: int = Field(default=0, ge=0, le=10**9)  # steps; 0: none

    @property
    def learning_rate(self) -> LearningRateSchedule:
        return LearningRateSchedule(self.optimizer.lr, self.warmup, self.steps, self.floor, self.schedule, self.decay)

    @property
    def held_out_sequences(self) -> int:
        """Sequences of the held-out set that every method is scored on."""
        if self.evaluation_batches is None:
            return self.evaluation_sequences
        return self.evaluation_batches * self.batch


class NetworkSpec(Document):
    substrate: Literal["auto", "netns", "docker", "compose"] = "auto"
    engine: Literal["auto", "nfqueue", "netem"] = "auto"
    all_reduce: Literal["auto", "direct", "ring", "ps"] = "auto"
    streams: int | None = Field(default=None, ge=1, le=64)  # TCP connections per pair; default from the topology
    timeout_seconds: float = Field(default=120.0, ge=0.1, le=86_400)  # longest wait for a peer
    gate: bool = True


class RunSpec(Document):
    """One cell, frozen and complete; stored as spec.json."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, lt=2**31)
    suite: str
    label: str  # how the report names this method with these options
    method: str
    options: dict[str, Any] = {}
    topology: dict[str, Any]  # the document, in its human units; what the run stands for has it, if it does
    seed: int
    model: ModuleShape | ModelShape  # in this order, for the first is a case of the second
    data: Data = Data()
    train: Train
    compute: ComputeSpec = ComputeSpec()
    network: NetworkSpec = NetworkSpec()
    faults: tuple[Fault, ...] = ()
    stands_for: Target | None = None

    @property
    def time_scale(self) -> float:
        """Seconds of what the run stands for, for one of the run; 1 for a run that stands for itself."""
        if self.stands_for is None:
            return 1.0
        assert self.compute.step_seconds is not None
        return self.stands_for.step_seconds / self.compute.step_seconds

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, by rank."""
        return tuple(self.topology["sites"])

    def batch(self, rank: int) -> int:
        """Sequences per worker and step at a site."""
        return self.compute.of(self.sites[rank]).batch or self.train.batch

    def joined_weight(self, rank: int) -> float:
        """A site's weight relative to that of a mean over sites, so that their mean gradient is that of the joined
        batch: 1 where all batches are equal."""
        batches = [self.batch(each) for each in range(len(self.sites))]
        return batches[rank] * len(batches) / sum(batches)

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return f"suite {self.suite}, methods.{self.label}"

    @property
    def method_name(self) -> str:
        """The method's name, or that of its file without folder and ending."""
        return PurePath(self.method).stem if self.method.endswith(".py") else self.method

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files of the user's that its processes import: its method's, its model's, and those beside them."""
        module = self.model.module.rpartition(":")[0] if isinstance(self.model, ModuleShape) else ""
        named = [Path(name) for name in (self.method, module) if name.endswith(".py")]
        return tuple(dict.fromkeys(file for name in named for file in sources(name)))

    def run_id(self, code: str) -> str:
        """`method-topology-seed-hash`; `code` identifies everything else that the run depends on."""
        document = self.model_dump(mode="json", exclude={"schema_version"})
        if self.stands_for is None:
            del document["stands_for"]  # so that ids do not depend on what a run does not have
        if not self.compute.sites:
            del document["compute"]["sites"]
        if self.compute.device == "cpu":
            del document["compute"]["device"]
        text = json.dumps([document, code], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        label = "".join(c if c.isalnum() else "-" for c in self.label.lower()).strip("-")
        return f"{label}-{self.topology['name']}-s{self.seed}-{digest}"
