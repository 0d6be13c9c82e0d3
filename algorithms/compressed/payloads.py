"""How a payload is encoded, as data: exact bytes from the number of elements. No torch; see `codecs` beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netsim.traffic import WireType

SCALE = 4  # bytes of an fp32 scale


@dataclass(frozen=True)
class Dense:
    """Every number in a wire type."""

    wire: WireType = WireType.FP32

    def bytes_for(self, elements: int) -> int:
        return self.wire.bytes_for(elements)


@dataclass(frozen=True)
class Packed:
    """Every number in 1 or 2 bits, one fp32 scale for each `chunk` numbers."""

    bits: Literal[1, 2] = 1
    chunk: int = 4096

    def bytes_for(self, elements: int) -> int:
        return SCALE * -(-elements // self.chunk) + -(-elements * self.bits // 8)


@dataclass(frozen=True)
class TopK:
    """The `k` largest magnitudes of each `chunk` numbers, values in `bits`: 1 and 2 with an fp32 scale per chunk, 16 as
    bf16, 32 as fp32. A last, shorter chunk keeps its share of k, at least one."""

    chunk: int = 4096
    k: int = 64
    bits: Literal[1, 2, 16, 32] = 2

    def kept(self, width: int) -> int:
        """Numbers that are kept of a chunk of `width`."""
        return max(1, min(width, round(self.k * width / self.chunk)))

    @staticmethod
    def index_bits(width: int) -> int:
        return max(1, (width - 1).bit_length())

    def regions(self, elements: int) -> list[tuple[int, int, int]]:
        """(start, chunks, width): the whole chunks, then the rest."""
        whole, rest = divmod(elements, self.chunk)
        found = [(0, whole, self.chunk)] if whole else []
        return [*found, (whole * self.chunk, 1, rest)] if rest else found

    def bytes_for(self, elements: int) -> int:
        total = 0
        for _, count, width in self.regions(elements):
            kept = count * self.kept(width)
            total += -(-kept * self.index_bits(width) // 8) + -(-kept * self.bits // 8)
            total += SCALE * count if self.bits < 16 else 0
        return total


Payload = Dense | Packed | TopK


@dataclass(frozen=True)
class LowRank:
    """The two factors of a p x q matrix: p x r and q x r."""

    rank: int

    def elements(self, p: int, q: int) -> tuple[int, int]:
        r = min(self.rank, p, q)
        return p * r, q * r
