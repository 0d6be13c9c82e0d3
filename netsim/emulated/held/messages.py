"""What is said on a holder's socket: one JSON line each way, open files beside them, and errors of our own kinds."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

from netsim.errors import HostError, InputError, LinkError, LonghaulError

Message = dict[str, Any]
MOST_LINE = 1 << 24  # bytes
_KINDS = {kind.__name__: kind for kind in (HostError, LinkError)}


def send(link: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """One message, and copies of open files with it."""
    line = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(link, [line], descriptors) if descriptors else 0
    if rest := line[sent:]:  # else the answer may have come and the socket be closed: to send nothing would fail
        link.sendall(rest)


class Lines:
    """The messages that come on a socket, in their order. descriptors: of the open files that came with them."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._pending = b""
        self.descriptors: list[int] = []

    def next(self) -> Message | None:
        """The next message; None at the end. ValueError for what is none."""
        while b"\n" not in self._pending:
            received, descriptors, *_ = socket.recv_fds(self._link, 1 << 16, 8, socket.MSG_CMSG_CLOEXEC)
            self.descriptors.extend(descriptors)
            if not received:
                return None
            self._pending += received
            if len(self._pending) > MOST_LINE:
                raise ValueError("a line that is too long")
        line, _, self._pending = self._pending.partition(b"\n")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("not a message")
        return found


def error_message(error: Exception) -> Message:
    """An error as a message that `checked` raises again."""
    if isinstance(error, InputError):
        fields = ("where", "field", "found", "allowed", "meant", "line")
        return {"error": "InputError", "fields": [_plain(getattr(error, name)) for name in fields]}
    return {"error": type(error).__name__, "text": str(error) or type(error).__name__}


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def checked(message: Message | None) -> Message:
    """The message, unless it says what went wrong: that is raised here."""
    if message is None:
        raise LinkError("the process that holds this network has ended")
    if message.get("error") == "InputError":
        raise InputError(*message["fields"])
    if "error" in message:
        raise _KINDS.get(message["error"], LonghaulError)(message["text"])
    return message
