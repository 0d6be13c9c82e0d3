"""Methods whose workers all gather each other's compressed payloads."""

from __future__ import annotations

from typing import ClassVar

from algorithms.method import Method, OptionsT
from algorithms.shape import ModelShape


class GatheringMethod(Method[OptionsT]):
    """Its codecs run on the CPU, and it needs every worker: an all-gather has a row for everyone."""

    cpu_only: ClassVar[bool] = True

    def survives(self, shape: ModelShape, sites: int, present: tuple[int, ...], seed: int = 0) -> bool:
        return len(present) == sites
