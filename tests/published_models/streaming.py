"""Compute utilisation as Streaming DiLoCo models it (arXiv 2501.18512, section 3.2 and its supplement).

A step is a chain of layer operations of equal length: forward through all layers, backward with an activation gradient
(none for the first layer) and then a weight gradient per layer. A layer's reduction is released when its weight
gradient ends, and travels over one serial link between two replicas, without latency; the layer's forward pass of step
s + 1 + overlap waits for the reduction released in step s.

The paper's table is on a grid of bandwidths, and is matched with a step 1.2 times as long as the one that the paper
prints; that factor is an input here, not a part of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from netsim.simulated.fair_rates import Floats

GRID = np.logspace(-1, 3, 50) * 1e9  # bit/s; the grid of the paper's tables, one notch a factor of 1.2068


@dataclass(frozen=True)
class Layers:
    """A model of `layers` equal layers; `step_seconds` of one step's computation."""

    parameters: float
    layers: int
    step_seconds: float

    @property
    def operation(self) -> float:
        """Seconds of one of the 3 L - 1 operations of a step."""
        return self.step_seconds / (3 * self.layers - 1)


@dataclass(frozen=True)
class Method:
    """Which layers (counted from 0) a step reduces, in how many bits per parameter, hidden behind how many steps."""

    reduces: Callable[[int], tuple[int, ...]]
    bits: int = 16
    overlap: int = 0


def data_parallel(model: Layers) -> Method:
    """Every layer in every step."""
    return Method(partial(_every, tuple(range(model.layers)), 1))


def diloco(model: Layers, every: int) -> Method:
    """Every layer in every `every`-th step (counted from the first)."""
    return Method(partial(_every, tuple(range(model.layers)), every))


def streaming(model: Layers, every: int, fragment_layers: int = 3, bits: int = 16, overlap: int = 0) -> Method:
    """Strided fragments in turn, spread over `every` steps."""
    count = model.layers // fragment_layers
    spacing = max(1, round(every / count))
    fragments = tuple(tuple(range(p, model.layers, count)) for p in range(count))
    return Method(partial(_in_turn, fragments, spacing), bits, overlap)


def _every(layers: tuple[int, ...], period: int, step: int) -> tuple[int, ...]:
    return layers if step % period == 0 else ()


def _in_turn(fragments: tuple[tuple[int, ...], ...], spacing: int, step: int) -> tuple[int, ...]:
    return fragments[step // spacing % len(fragments)] if step % spacing == 0 else ()


def utilisation(model: Layers, method: Method, bandwidth: Floats, steps: int = 1000) -> Floats:
    """Compute time over total time for each bandwidth, bit/s -> (bandwidths,)."""
    c, count = model.operation, model.layers
    transmission = method.bits * model.parameters / count / bandwidth
    now, link = np.zeros_like(bandwidth), np.zeros_like(bandwidth)
    pending: dict[int, dict[int, Floats]] = {}  # by the step whose forward pass waits
    for step in range(steps):
        awaited = pending.pop(step, {})
        layer = 0
        for blocked in sorted(awaited):
            now = np.maximum(now + (blocked - layer) * c, awaited[blocked])
            layer = blocked
        now = now + (count - layer) * c
        released = method.reduces(step)
        done: dict[int, Floats] = {}
        for layer in sorted(released, reverse=True):
            # Before layer l's weight gradient ends, the layers from the last to l have passed: two operations each.
            ready = now + (2 * (count - layer) - (layer == 0)) * c
            link = np.maximum(link, ready) + transmission
            done[layer] = link
        if done:
            pending[step + 1 + method.overlap] = done
        now = now + (2 * count - 1) * c
    return steps * model.step_seconds / now


def bandwidth_for(model: Layers, method: Method, targets: tuple[float, ...], grid: Floats = GRID) -> list[float | None]:
    """The least bandwidth of the grid, bit/s, with at least each target utilisation; None where none suffices."""
    reached = utilisation(model, method, grid)
    found: list[float | None] = []
    for target in targets:
        enough = np.flatnonzero(reached >= target)
        found.append(float(grid[enough[0]]) if enough.size else None)
    return found


def stall(model: Layers, bandwidth: Floats, bits: int = 16) -> Floats:
    """Exposed seconds of one full reduction, closed: what the rest of the backward pass does not hide, and at least
    the last layer's own transmission. With it, CU = H T / (H T + stall) for data-parallel (H = 1) and DiLoCo."""
    whole = bits * model.parameters / bandwidth
    hidden = (2 * (model.layers - 2) + 1) * model.operation
    result: Floats = np.maximum(whole / model.layers, whole - hidden)
    return result
