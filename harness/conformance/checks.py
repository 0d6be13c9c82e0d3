"""What is checked of a method, and what its author has to do where it does not hold."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from algorithms.method import Method, Options, find
from algorithms.shape import ModelShape
from harness.conformance.trial import DENSE, MOE, SEED, SITES, STEPS, TrialWorker, in_memory, over_tcp, train
from netsim.errors import InputError
from netsim.traffic import Algorithm, Plan


@dataclass(frozen=True)
class Check:
    """One thing that holds, or does not: then `found` says what was found and what to do about it."""

    name: str
    passed: bool
    found: str = ""


@dataclass(frozen=True)
class Subject:
    """A method with what its runs left: in memory, and over TCP on loopback."""

    method: Method[Any]
    shape: ModelShape
    plan: Plan
    local: list[TrialWorker]
    tcp: list[TrialWorker]


def check_method(name: str, options: dict[str, Any] | None = None, documentation: str = "") -> list[Check]:
    """All checks of a method: a name, or the path of a file.

    options: without them, short periods for a short run.   documentation: text that may describe options, beside the
    method's file.   Raises InputError for a file that is none or defines no method.
    """
    method = find(name, _short(name) if options is None else options, name)
    try:
        return [documented(method, documentation), *check_training(method, _shape(method))]
    except Exception as error:
        return [documented(method, documentation), Check("runs", False, _where(error, type(method)))]


def check_training(method: Method[Any], shape: ModelShape) -> list[Check]:
    """Whether short runs of `method` on a model of `shape` hold to what it states."""
    try:
        plan = method.plan(shape, SITES, STEPS, SEED)
        with in_memory(SITES) as exchanges:
            local = train(method, shape, exchanges, plan)
        with over_tcp(SITES) as exchanges:
            tcp = train(method, shape, exchanges, plan)
    except Exception as error:
        return [Check("runs", False, _where(error, type(method)))]
    subject = Subject(method, shape, plan, local, tcp)
    kept: list[tuple[str, Callable[[Subject], str]]] = [
        ("ledger equals plan", ledger),
        ("memory equals counted tensors", memory),
        ("state survives a checkpoint", checkpoint),
        ("same losses on two networks", networks),
        ("one evaluation for all", evaluation),
        ("catching up moves what is planned", catching_up),
    ]
    checks = [Check("runs", True)]
    for title, check in kept:
        try:
            found = check(subject)
        except Exception as error:
            found = _where(error, type(method))
        checks.append(Check(title, not found, found))
    return checks


def _short(name: str) -> dict[str, Any]:
    """Periods that end several times in a short run."""
    fields = type(find(name, {}, name)).Options.model_fields
    return {key: 3 for key in ("sync_every", "refresh_every") if key in fields}


def _shape(method: Method[Any]) -> ModelShape:
    """The dense model, or the one with experts for methods that need them."""
    try:
        method.plan(DENSE, SITES, STEPS, SEED)
    except InputError:
        return MOE
    return DENSE


def documented(method: Method[Any], text: str) -> Check:
    """A formula or description on top of the file, and a word on every option: there, at its line, or in `text`."""
    title = "documented"
    module = inspect.getmodule(type(method))
    source = inspect.getsource(module) if module is not None else ""
    above = (module.__doc__ if module is not None else "") or ""
    if not above.strip():
        return Check(title, False, "the file has no docstring: state the formula and its source on top")
    if not method.summary.strip():
        return Check(title, False, "summary is empty: one line for lists of methods")
    if re.fullmatch(r"[a-z][a-z0-9_]*", method.name) is None:
        return Check(title, False, f"name {method.name!r}: lower-case letters, digits and underscores")
    words, silent = above + text, []
    for option, field in method.Options.model_fields.items():
        line = re.search(rf"^\s+{option}\s*:[^\n]*#|#[^\n]*\n\s+{option}\s*:", source, re.MULTILINE)
        if not (option in Options.model_fields or line or field.description or re.search(rf"\b{option}\b", words)):
            silent.append(option)
    if silent:
        found = f"nothing is said of {', '.join(silent)}: describe options in the docstring or at their lines"
        return Check(title, False, found)
    return Check(title, True)


def ledger(subject: Subject) -> str:
    """Every rank hands to the network what the plan says, transfer by transfer; the plan's total is their sum."""
    plan = subject.plan
    total = 0
    for rank, worker in enumerate(subject.tcp):
        planned: dict[tuple[int, str], int] = {}
        for step in plan.sync_steps():
            for transfer in plan.at(step):
                if size := transfer.sent_by(rank, Algorithm.DIRECT):
                    key = step, transfer.name
                    planned[key] = planned.get(key, 0) + size
        sent = {key: size for key, size in worker.sent.items() if size}
        total += sum(sent.values())
        for key in sorted({*planned, *sent}):
            if planned.get(key, 0) != sent.get(key, 0):
                step, name = key
                return (
                    f"rank {rank}, step {step}, transfer {name!r}: planned {planned.get(key, 0)} bytes, sent "
                    f"{sent.get(key, 0)}; synchronise must carry out exactly plan.at(step)"
                )
    if total != plan.payload_bytes:
        return f"the plan states {plan.payload_bytes} bytes, its steps sum to {total}"
    return ""


def memory(subject: Subject) -> str:
    """Predicted, counted by the worker, and found in its tensors: three times the same number."""
    for rank, worker in enumerate(subject.local):
        predicted = subject.method.memory(subject.shape, subject.plan.sites, rank, SEED)
        if predicted != worker.memory:
            return f"rank {rank}: Method.memory says {predicted}, Worker.memory counts {worker.memory}"
        under_way = _under_way(subject.plan, rank)
        stated = sum(predicted.values())
        if not stated <= worker.held <= stated + under_way:
            return (
                f"rank {rank}: memory states {stated} bytes, its tensors hold {worker.held}"
                + (f" (of which up to {under_way} are under way)" if under_way else "")
                + "; count every tensor of the parameters' size that stays between steps"
            )
    return ""


def _under_way(plan: Plan, rank: int) -> int:
    """Bytes of transfers whose results are still to come after the last step, or have just been used."""
    return sum(
        4 * transfer.rows(rank) * transfer.elements
        for step in range(max(1, plan.steps - 2 * _most(plan)), plan.steps + 1)
        for transfer in plan.at(step)
        if transfer.overlap and rank in transfer.members
    )


def _most(plan: Plan) -> int:
    return max((t.overlap for r in plan.recurrences for t in r.transfers), default=0)


def checkpoint(subject: Subject) -> str:
    """A run that stops halfway and goes on from states ends with the same bits."""
    with in_memory(subject.plan.sites) as exchanges:
        resumed = train(subject.method, subject.shape, exchanges, subject.plan, resume_at=STEPS // 2 + 1)
    for rank, (one, other) in enumerate(zip(subject.local, resumed, strict=True)):
        if one.state.keys() != other.state.keys():
            return f"rank {rank}: a resumed run differs in the entries {sorted(one.state.keys() ^ other.state.keys())}"
        if not torch.equal(one.parameters, other.parameters) or one.evaluation != other.evaluation:
            return f"rank {rank}: a resumed run ends with other parameters; state() and load() leave something out"
        differing = [name for name in one.state if not torch.equal(one.state[name], other.state[name])]
        if differing:
            return f"rank {rank}: a resumed run ends with another {', '.join(differing)}"
    return ""


def networks(subject: Subject) -> str:
    """In memory and over TCP a run ends with the same bits."""
    for rank, (one, other) in enumerate(zip(subject.local, subject.tcp, strict=True)):
        if not torch.equal(one.parameters, other.parameters):
            return f"rank {rank}: parameters differ in memory and over TCP; only plan, data and seed may decide them"
    return ""


def evaluation(subject: Subject) -> str:
    """All workers evaluate one model, and its loss is a number; workers that never meet have models of their own."""
    losses = {worker.evaluation for worker in subject.local}
    if not all(loss == loss and abs(loss) < float("inf") for loss in losses):
        return f"losses {sorted(losses)} after {STEPS} steps"
    if len(losses) > 1 and subject.plan.payload_bytes:
        return f"workers evaluate models of their own (losses {sorted(losses)}); evaluation() must yield one for all"
    return ""


def catching_up(subject: Subject) -> str:
    """Where a site may be lost, what it takes over later is what the method has planned for that."""
    method, shape, sites = subject.method, subject.shape, subject.plan.sites
    present, behind = tuple(range(sites)), (sites - 1,)
    if not method.survives(shape, sites, present[:-1], SEED):
        return ""
    planned = {t.name: t.elements for t in method.catch_up(shape, sites, 0, behind, present, SEED)}
    for worker in (subject.local[0], subject.local[-1]):
        for transfer, flat in worker.worker.catch_up(0, behind, present):
            if planned.get(transfer.name) != flat.numel():
                return (
                    f"{transfer.name!r} moves {flat.numel()} numbers, Method.catch_up plans "
                    f"{planned.get(transfer.name)}; Method.shared counts what Worker.shared holds"
                )
    return ""


def _where(error: Exception, kind: type) -> str:
    """An error with the line of the method's file that it passed through."""
    source, line, trace = inspect.getsourcefile(kind), None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == source:
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f"{source}, line {line}: " if line else ""
    return f"{place}{type(error).__name__}: {error}"


def lines(checks: list[Check]) -> Iterator[str]:
    for check in checks:
        yield f"{'ok  ' if check.passed else 'FAIL'} {check.name}" + (f": {check.found}" if check.found else "")
