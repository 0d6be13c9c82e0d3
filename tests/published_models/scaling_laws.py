"""Idealised wall-clock time of Scaling Laws for DiLoCo (arXiv 2503.09799, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """bandwidth in bit/s, latency in seconds."""

    bandwidth: float
    latency: float


HIGH = Network(400e9, 1e-4)  # also inside a data centre
MEDIUM = Network(100e9, 1e-3)
LOW = Network(10e9, 1e-2)


@dataclass(frozen=True)
class Training:
    """parameters N; tokens D; batch B in tokens; chips R of `flops` effective FLOP/s each; bits per parameter sent."""

    parameters: float
    tokens: float
    batch: float
    chips: float
    flops: float = 300e12  # between a TPU v5e and a v6e at half their peaks
    bits: float = 16

    @property
    def steps(self) -> float:
        return self.tokens / self.batch

    @property
    def compute_seconds(self) -> float:
        """6 N D / (R Q)."""
        return 6 * self.parameters * self.tokens / (self.chips * self.flops)

    def all_reduce(self, network: Network, replicas: float = 1.0) -> float:
        """(2 N / W) (1 - M / R) + latency: a ring among the R / M chips of each of M replicas; M = 1 for all chips."""
        size = 2 * self.parameters * self.bits / network.bandwidth
        return size * (1 - replicas / self.chips) + network.latency


def data_parallel_seconds(training: Training, across: Network) -> float:
    """Communication of data-parallel training whose all-reduce crosses data centres at every step."""
    return training.all_reduce(across) * training.steps


def diloco_seconds(training: Training, across: Network, replicas: int, every: int, within: Network = HIGH) -> float:
    """Communication of DiLoCo. M = 1: data-parallel, plus an outer step every H. M >= 2: inside at every step, across
    every H. Streaming DiLoCo takes as long in total."""
    if replicas == 1:
        return training.all_reduce(across) * training.steps * (1 + 1 / every)
    inner = training.all_reduce(within, replicas) * training.steps
    return inner + training.all_reduce(across) * training.steps / every
