"""The error tree.

LonghaulError
├── InputError      a file or an argument of the user is wrong; the command line exits with 2
├── HostError       this host lacks something that was asked for; exits with 1
├── LinkError       an emulated link is not what was asked for
└── PeerError       a worker stopped answering, or sent what it must not
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

MOST_NAMED = 40  # choices that a message lists
_CLOSE = 0.6  # of difflib's ratio: what counts as a slip of the keyboard


class LonghaulError(Exception):
    """Everything that Longhaul raises on purpose."""


class InputError(LonghaulError, ValueError):
    """One clear message: where, which field, what was found, what is allowed.

    Args:
        where: the file or the argument that is wrong.
        field: the key inside it, dotted; empty for the whole.
        found: what stands there; shown shortened.
        allowed: what may stand there, in words.
        meant: the nearest allowed spelling, if there is one.
        line: where the key stands in the file, counted from 1; filled in by `netsim.documents.located`.
    """

    def __init__(
        self, where: str, field: str, found: object, allowed: str, meant: str | None = None, line: int | None = None
    ) -> None:
        super().__init__(where, field, found, allowed, meant, line)
        self.where, self.field, self.found, self.allowed, self.meant, self.line = (
            where,
            field,
            found,
            allowed,
            meant,
            line,
        )

    @classmethod
    def unknown(cls, where: str, field: str, found: str, choices: Iterable[str], prefix: str = "one of") -> InputError:
        """For a name that is none of `choices`: lists them, and proposes the nearest."""
        known = sorted(choices)
        listed = ", ".join(known[:MOST_NAMED]) + (f" and {len(known) - MOST_NAMED} more" * (len(known) > MOST_NAMED))
        return cls(where, field, found, f"{prefix} {listed}" if known else "nothing", nearest(found, known))

    def __reduce__(self) -> tuple[type[InputError], tuple[object, ...]]:
        return type(self), (self.where, self.field, self.found, self.allowed, self.meant, self.line)

    def __str__(self) -> str:
        place = self.where if self.line is None else f"{self.where}, line {self.line}"
        place = f"{place}: {self.field}" if self.field else place
        hint = f"; did you mean {self.meant!r}?" if self.meant else ";"
        return f"{place}: found {shortened(self.found)}{hint} allowed: {self.allowed}"


def nearest(found: str, choices: Iterable[str]) -> str | None:
    """The choice that `found` is most likely a misspelling of; None if none is near."""
    by_lower = {choice.lower().replace("-", "_"): choice for choice in choices}
    close = difflib.get_close_matches(found.lower().replace("-", "_")[:200], by_lower, 1, _CLOSE)
    return by_lower[close[0]] if close else None


class Phrase(str):
    """Words that stand for themselves in a message, without quotes around them."""

    __slots__ = ()
    __repr__ = str.__str__


class _Short(reprlib.Repr):
    """Of anything, at most about a line: nested input is cut before it is written out, not after."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 4, 6, 6
        self.maxstring = self.maxother = self.maxlong = 116

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()  # Python refuses to write out integers of more than 4,300 digits
        return super().repr_int(x, level) if bits < 10_000 else f"an integer of {bits} bits"


def shortened(value: object) -> str:
    """`repr(value)` in at most 120 characters, in time that does not grow with `value`."""
    text = _Short().repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class HostError(LonghaulError):
    """This host cannot do what was asked: names what is missing and what would provide it."""


class LinkError(LonghaulError):
    """A link does not behave as asked: names the link, what was asked and what was found."""


class PeerError(LonghaulError):
    """A peer did not answer in time, closed its connection or sent a malformed message.

    ranks: the peers that cannot be reached or must not be trusted; empty where nobody is to blame, as for those who
    left in order or are only late. hung_up: they ended the connection, which is also how a peer leaves for a
    rendezvous. corrupt: they sent what no sound peer sends, which is evidence against them. late: they are there, but
    have not come to the transfer in time.
    late: they are there, but have not come to the transfer in time.
    """

    def __init__(
        self,
        message: str,
        ranks: tuple[int, ...] = (),
        hung_up: bool = False,
        corrupt: bool = False,
        late: bool = False,
    ) -> None:
        self.ranks, self.hung_up, self.corrupt, self.late = ranks, hung_up, corrupt, late
        super().__init__(message)
