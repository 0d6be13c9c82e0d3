"""When rounds end, and for how much of a wire type's precision a method must make up."""

from __future__ import annotations

from netsim.traffic import Recurrence, Transfer, WireType


def periodic(transfers: tuple[Transfer, ...], every: int, steps: int, start: int = 0) -> tuple[Recurrence, ...]:
    """After every `every` steps counted from `start`, and after the last step when the run ends within a round."""
    if steps <= start:
        return ()
    whole = Recurrence(transfers, every, first=start + every, last=steps)
    rest = Recurrence(transfers, every, first=steps, last=steps)
    return (whole,) if (steps - start) % every == 0 else (whole, rest)


def lossy(wire: WireType) -> bool:
    """Whether fp32 numbers lose precision on the way, so that differences should travel and not the numbers."""
    return wire.bits < 32
