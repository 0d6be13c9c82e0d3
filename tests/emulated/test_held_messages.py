"""What is said on the socket of a process that holds a network."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from netsim.emulated.held.messages import Lines, send


def test_a_message_and_its_descriptors_arrive_together() -> None:
    near, far = socket.socketpair()
    with near, far, Path(os.devnull).open("rb") as null:
        send(near, {"do": "exec"}, [null.fileno()])
        lines = Lines(far)
        assert lines.next() == {"do": "exec"}
        (copy,) = lines.descriptors
        os.close(copy)


def test_who_has_answered_and_left_has_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may have ended, and its status be on the way, before the caller has returned from sending."""
    near, far = socket.socketpair()
    sent = socket.send_fds

    def sent_and_answered(link: socket.socket, buffers: Sequence[bytes], fds: Sequence[int]) -> int:
        count = sent(link, buffers, fds)
        far.close()
        return count

    monkeypatch.setattr(socket, "send_fds", sent_and_answered)
    with near, Path(os.devnull).open("rb") as null:
        send(near, {"do": "exec"}, [null.fileno()])
