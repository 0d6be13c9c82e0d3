"""What a method asks of the model and the sites that it trains on, and a run of what it can build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from algorithms.method import Method
from algorithms.shape import ModelShape
from harness.spec.compute import ComputeSpec, check_sites
from netsim.errors import InputError


def check_rank(method: Method[Any], shape: ModelShape, where: str) -> None:
    """InputError for a rank above the width, of which matrices of the model have no use."""
    rank = getattr(method.options, "rank", None)
    if isinstance(rank, int) and rank > shape.width:
        raise InputError(where, "rank", rank, f"at most the width of {shape.name}, {shape.width}")


def check_trainable(shape: ModelShape, where: str) -> None:
    """InputError for a shape that is projected but has no torch module here."""
    if field := shape.only_projected:
        allowed = "a model without it: such shapes can be projected (`longhaul project`), not trained here"
        raise InputError(where, f"model.{field}", getattr(shape, field), allowed)


def check_unlike(compute: ComputeSpec, method: Method[Any], sites: Sequence[str], faulty: bool, where: str) -> None:
    """InputError for unlike sites that the topology does not have, or that the method or declared faults rule out."""
    check_sites(compute, sites, where)
    if compute.device != "cpu" and method.cpu_only:
        allowed = f"cpu for {method.name}, which encodes its payloads there"
        raise InputError(where, "compute.device", compute.device, allowed)
    if compute.sites and faulty:
        # Whoever returns is let in at a step, and steps would have no common length.
        allowed = "no unlike sites in a run that declares faults"
        raise InputError(where, "compute.sites", sorted(compute.sites), allowed)
    if any(site.local_steps < 1 for site in compute.sites.values()) and not method.may_skip_steps:
        allowed = f"1 for {method.name}, which averages what every step computes"
        raise InputError(where, "compute.sites", "local_steps below 1", allowed)
