"""The runner's control socket: only an agent that shows the token is let in, whatever others say first."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from netsim.emulated.agent_client import AgentListener
from netsim.errors import LinkError

NOISE = [
    b"\n",
    b"\xff\xfe\n",
    b"[]\n",
    b"null\n",
    b'"token"\n',
    b"{}\n",
    b'{"token": null, "node": 0}\n',
    b'{"token": "guessed", "node": 0}\n',
    b'{"node": 0}\n',
    b"[" * 4000 + b"\n",
    b"x" * 5000,
]


def test_strangers_are_turned_away_and_the_agent_is_let_in(tmp_path: Path) -> None:
    listener = AgentListener(tmp_path / "control", ["a"])

    def call() -> None:
        for noise in NOISE:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(str(tmp_path / "control"))
                with suppress(ConnectionError):  # hanging up on them is the right answer
                    stranger.sendall(noise)
                    stranger.shutdown(socket.SHUT_WR)
                    stranger.recv(100)
        agent.connect(str(tmp_path / "control"))
        agent.sendall(json.dumps({"node": 0, "token": listener.token}).encode() + b"\n")

    agent = socket.socket(socket.AF_UNIX)
    thread = threading.Thread(target=call)
    thread.start()
    (link,) = listener.accept_all(60, lambda: True)
    thread.join()
    assert link.site == "a"
    link.close()
    agent.close()
    listener.close()


def test_a_listener_to_which_no_agent_comes_names_the_site(tmp_path: Path) -> None:
    listener = AgentListener(tmp_path / "control", ["a", "b"])
    with pytest.raises(LinkError, match="a, b"):
        listener.accept_all(0.3, lambda: True)
    listener.close()
