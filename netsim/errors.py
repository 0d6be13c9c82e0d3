"""The error tree.

LonghaulError
├── InputError      a file or an argument of the user is wrong; the command line exits with 2
├── HostError       this host lacks something that was asked for; exits with 1
├── LinkError       an emulated link is not what was asked for
└── PeerError       a worker stopped answering, or sent what it must not
"""

from __future__ import annotations


class LonghaulError(Exception):
    """Everything that Longhaul raises on purpose."""


class InputError(LonghaulError, ValueError):
    """One clear message: where, which field, what was found, what is allowed."""

    def __init__(self, where: str, field: str, found: object, allowed: str) -> None:
        self.where, self.field, self.found, self.allowed = where, field, found, allowed
        place = f"{where}: {field}" if field else where
        super().__init__(f"{place}: found {found!r}; allowed: {allowed}")


class HostError(LonghaulError):
    """This host cannot do what was asked: names what is missing and what would provide it."""


class LinkError(LonghaulError):
    """A link does not behave as asked: names the link, what was asked and what was found."""


class PeerError(LonghaulError):
    """A peer did not answer in time, closed its connection or sent a malformed message.

    ranks: the peers that cannot be reached or must not be trusted; empty where nobody is to blame, as for those who
    left in order or are only late. hung_up: they ended the connection, which is also how a peer leaves for a meeting.
    """

    def __init__(self, message: str, ranks: tuple[int, ...] = (), hung_up: bool = False) -> None:
        self.ranks, self.hung_up = ranks, hung_up
        super().__init__(message)
