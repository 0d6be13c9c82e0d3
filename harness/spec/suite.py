"""Suites: what to run. A YAML file expands into cells, one for each method, topology and seed.

The file format is documented in docs/suites.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from algorithms.method import find, placed_errors
from harness.spec.compute import ComputeSpec
from harness.spec.faults import Fault, check_faults
from harness.spec.model_checks import check_rank, check_trainable
from harness.spec.presets import find_model
from harness.spec.resolved import ResolvedRun
from harness.spec.run_spec import Data, NetworkSpec, RunSpec, Train
from harness.spec.scaling import StandsFor, Target, check_network, entry_for, target_of
from harness.spec.scenario import Scenario, find_scenario, load_scenario
from netsim.documents import Document, Label, Name, located, read_yaml, validate
from netsim.errors import InputError
from netsim.library import find as find_shipped
from netsim.topology import find_topology, read_topology, stand_alone, subset_document, topology_from

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _MethodEntry(Document):
    label: Label | None = None
    method: str
    options: dict[str, Any] = {}
    train: dict[str, Any] = {}  # overrides for this method alone
    data: dict[str, Any] = {}


class SuiteFile(Document):
    """A suite as written; the format is described in docs/suites.md."""

    name: Name
    description: str = Field(default="", max_length=10_000)
    model: str | dict[str, Any] = "tiny"
    data: Data = Data()
    train: Train
    compute: ComputeSpec = ComputeSpec()
    network: NetworkSpec = NetworkSpec()
    faults: tuple[Fault, ...] = ()  # the same for every method
    stands_for: StandsFor | None = None
    methods: tuple[str | _MethodEntry, ...] = Field(min_length=1, max_length=1000)
    topologies: tuple[str | dict[str, Any], ...] = Field(min_length=1, max_length=1000)
    seeds: tuple[Seed, ...] = Field(default=(1,), min_length=1, max_length=1000)
    sites: int | None = Field(default=None, ge=1, le=64)  # only the first sites of every topology
    baseline: str | None = None  # label that the report compares with; default: the first method


@dataclass(frozen=True)
class Suite:
    """A loaded suite: its cells in running order, methods alternating (so they are paired by topology and seed)."""

    name: str
    description: str
    baseline: str
    cells: tuple[RunSpec, ...]


def find_suite(name: str) -> Path:
    """A suite by path or by its name in the library. InputError if there is none."""
    return find_shipped("suites", name)


@located()
def load_suite(path: Path) -> Suite:
    """The suite in a YAML file; everything in it is checked now, so that nothing fails halfway for a wrong word."""
    where = str(path)
    file = validate(SuiteFile, read_yaml(path), where)
    entries = [_entry(entry, path.parent) for entry in file.methods]
    labels = [entry.label or entry.method for entry in entries]
    if repeated := {label for label in labels if labels.count(label) > 1}:
        raise InputError(where, "methods", repeated.pop(), "labels that differ: give entries of one method a label")
    if len(set(file.seeds)) < len(file.seeds):
        raise InputError(where, "seeds", file.seeds, "each seed once")
    baseline = file.baseline or labels[0]
    if baseline not in labels:
        raise InputError.unknown(where, "baseline", baseline, labels, "one of the labels")
    return Suite(
        name=file.name,
        description=file.description,
        baseline=baseline,
        cells=tuple(_cells(file, entries, path)),
    )


def _entry(entry: str | _MethodEntry, folder: Path) -> _MethodEntry:
    """With a method's file found from the suite's folder, and the file's name as its label."""
    found = _MethodEntry(method=entry) if isinstance(entry, str) else entry
    if not found.method.endswith(".py"):
        return found
    file = (folder / found.method).resolve()
    return found.model_copy(update={"method": str(file), "label": found.label or file.stem})


def _cells(file: SuiteFile, entries: list[_MethodEntry], path: Path) -> Iterator[RunSpec]:
    where = str(path)
    model, scenario = find_model(file.model, where, path.parent), _scenario(file, path)
    check_trainable(model, where)
    for seed in file.seeds:
        for place, topology in enumerate(file.topologies):
            document = _topology_document(topology, file.sites, path, f"topologies.{place}")
            if scenario is not None:
                check_network(topology_from(document, where), scenario, where)
            for index, entry in enumerate(entries):
                at = f"methods.{index}"
                train = _train(file, entry, where, f"{at}.train")
                method = find(entry.method, entry.options, f"{where}: {at}", train.optimizer)
                check_rank(method, model, f"{where}: {at}")
                options, target = _standing(file, entry, scenario, f"{where}: {at}")
                data = _placed(validate(Data, {**_given(file.data), **entry.data}, where, f"{at}.data"), path)
                check_faults(file.faults, list(document["sites"]), train.steps, where)
                cell = RunSpec(
                    suite=file.name,
                    label=entry.label or entry.method,
                    method=entry.method,
                    options=options,
                    topology=document,
                    seed=seed,
                    model=model,
                    data=data,
                    train=train,
                    compute=file.compute,
                    network=file.network,
                    faults=file.faults,
                    stands_for=target,
                )
                with placed_errors(method, f"{where}: {at}"):
                    if target is None:
                        method.view(model, len(document["sites"]), 0, seed)  # that its sites can have it
                    ResolvedRun.of(cell, where=f"{where}: {at}")  # whatever cannot be resolved is refused now
                yield cell


def _train(file: SuiteFile, entry: _MethodEntry, where: str, field: str) -> Train:
    """The suite's training settings with those of one entry over them."""
    given = {**_given(file.train), **entry.train}
    if {"evaluation_sequences", "evaluation_batches"} <= given.keys():
        allowed = "evaluation_sequences alone: evaluation_batches is its old spelling, in batches"
        raise InputError(where, field, "both", allowed)
    return validate(Train, given, where, field)


def _scenario(file: SuiteFile, path: Path) -> Scenario | None:
    """What the suite's runs stand for, if for anything but themselves."""
    if file.stands_for is None:
        return None
    if file.compute.mode != "paced":
        allowed = "paced together with stands_for: a slot stands for a step"
        raise InputError(str(path), "compute.mode", file.compute.mode, allowed)
    if file.compute.sites:
        raise InputError(
            str(path), "compute.sites", sorted(file.compute.sites), "no unlike sites together with stands_for"
        )
    if file.faults:
        raise InputError(str(path), "faults", f"{len(file.faults)} of them", "none together with stands_for")
    return load_scenario(find_scenario(file.stands_for.scenario, path.parent))


def _standing(
    file: SuiteFile, entry: _MethodEntry, scenario: Scenario | None, where: str
) -> tuple[dict[str, Any], Target | None]:
    """The options of the runs, and what they stand for, whose options hold where the suite's entry has none."""
    if scenario is None or file.stands_for is None:
        return entry.options, None
    found = entry_for(scenario, entry.label or entry.method, entry.method, where)
    return {**found.options, **entry.options}, target_of(scenario, found, file.stands_for.bytes)


def _placed(data: Data, suite: Path) -> Data:
    """With its paths found from the suite's folder."""
    found = {}
    for field, given in (("path", data.path), ("val", data.val), ("tokenizer", data.tokenizer)):
        if given is not None:
            path = suite.parent / given
            if not path.exists():
                allowed = "a file or directory, absolute or from the suite's folder"
                raise InputError(str(suite), f"data.{field}", given, allowed)
            found[field] = str(path)
    return data.model_copy(update=found)


def _given(document: Document) -> dict[str, Any]:
    return document.model_dump(exclude_unset=True)


def _topology_document(entry: str | dict[str, Any], sites: int | None, path: Path, at: str) -> dict[str, Any]:
    """The topology as a document that stands alone, checked; `sites` keeps only the first ones."""
    if isinstance(entry, str):
        file = find_topology(entry, path.parent)
        document, where = read_topology(file), str(file)
    else:
        where = f"{path}: {at}"
        document = stand_alone(entry, path.parent, where)
    topology = topology_from(document, where)
    if sites is None or sites == len(topology.sites):
        return document
    if sites > len(topology.sites):
        raise InputError(str(path), "sites", sites, f"at most the {len(topology.sites)} sites of {topology.name}")
    return subset_document(document, [site.name for site in topology.sites[:sites]])
