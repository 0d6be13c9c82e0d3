"""The runner's connection to the node agents: typed requests, answers as futures. See `node.requests`."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, TypeVar

from netsim.emulated.node.requests import AgentAnswer, AgentRequest, Json
from netsim.errors import LinkError, LonghaulError

ANSWER_SECONDS = 20.0  # for an agent to answer a request that it can answer at once
A = TypeVar("A", bound=AgentAnswer)
_Pending = Callable[[Json | LonghaulError], None]


class PendingAnswer(Future[A]):
    """The future answer of one agent."""

    def __init__(self, agent: AgentClient) -> None:
        super().__init__()
        self.agent = agent


class AgentClient:
    """One agent's connection. Thread-safe. An agent that was too late once is not asked again: it counts as ended."""

    def __init__(self, site: str, link: socket.socket, rest: bytes) -> None:
        self.site = site
        self._link = link
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._ended = False
        self._why = "has ended; its network went with it"
        # A stopped agent reads nothing: a request must not wait for room in the socket for longer than for its answer.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_SECONDS), 0))
        threading.Thread(target=self._read, args=(rest,), daemon=True, name=f"agent-{site}").start()

    @property
    def ended(self) -> bool:
        return self._ended

    def request(self, request: AgentRequest[A], descriptors: Sequence[int] = ()) -> PendingAnswer[A]:
        """Sends a request; the future holds its answer, a LonghaulError that the agent reported, or a LinkError.

        descriptors: open files that go with it, of which the agent gets copies.
        """
        future: PendingAnswer[A] = PendingAnswer(self)

        def settle(answer: Json | LonghaulError) -> None:
            if future.done():  # given up
                return
            if isinstance(answer, LonghaulError):
                future.set_exception(answer)
            else:
                future.set_result(request.read_answer(answer))

        with self._lock:
            self._number += 1
            if self._ended:
                settle(self._gone())
                return future
            self._pending[self._number] = settle
            message = json.dumps({"id": self._number, **request.to_json()}).encode() + b"\n"
            try:
                sent = socket.send_fds(self._link, [message], descriptors) if descriptors else 0
                self._link.sendall(message[sent:])
            except OSError:
                self._ended = True
                self._pending.pop(self._number)
                settle(self._gone())
        return future

    def call(self, request: AgentRequest[A], timeout: float = ANSWER_SECONDS) -> A:
        """Sends a request and waits for its answer. Raises LinkError when there is none in time."""
        return wait([self.request(request)], timeout)[0]

    def give_up(self, seconds: float) -> None:
        """It has not answered for `seconds`: what is asked of it, now and later, fails at once."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._why = f"has not answered for {seconds:.0f} s: its process is stopped, or its host is overloaded"
            left, self._pending = list(self._pending.values()), {}
        for settle in left:
            settle(self._gone())

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def _gone(self) -> LinkError:
        return LinkError(f"the agent of site {self.site} {self._why}")

    def _read(self, pending: bytes) -> None:
        while True:
            *lines, pending = pending.split(b"\n")
            for line in lines:
                self._resolve(json.loads(line))
            try:
                received = self._link.recv(1 << 20)
            except OSError:
                received = b""
            if not received:
                break
            pending += received
        with self._lock:
            self._ended = True
            left, self._pending = list(self._pending.values()), {}
        for settle in left:
            settle(self._gone())
        self._link.close()

    def _resolve(self, answer: Json) -> None:
        with self._lock:
            settle = self._pending.pop(answer.pop("id"), None)
        if settle is None:
            return
        if "error" in answer:
            settle(LonghaulError(f"site {self.site}: {answer['error']}"))
        else:
            settle(answer)


def wait(futures: Sequence[PendingAnswer[A]], timeout: float = ANSWER_SECONDS) -> list[A]:
    """All answers, in order; the first error is raised. An agent that does not answer in time is given up."""
    end = time.monotonic() + timeout
    answers = []
    for future in futures:
        try:
            answers.append(future.result(max(0.0, end - time.monotonic())))
        except FutureTimeout:
            future.agent.give_up(timeout)
            answers.append(future.result(0))  # raises why
    return answers


class AgentListener:
    """The socket to which the agents of a network connect. Each must show the token of its network."""

    def __init__(self, path: Path, sites: Sequence[str]) -> None:
        self.token = secrets.token_hex(16)
        self._sites = sites
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)  # an agent may run as another user; the token is what admits it
        self._listener.listen(len(sites))

    def accept_all(self, timeout: float, alive: Callable[[], bool]) -> list[AgentClient]:
        """The connections of all agents, in the order of the sites. alive: False ends the wait with a LinkError."""
        links: dict[int, AgentClient] = {}
        end = time.monotonic() + timeout
        self._listener.settimeout(0.2)
        while len(links) < len(self._sites):
            if time.monotonic() > end or not alive():
                missing = [site for index, site in enumerate(self._sites) if index not in links]
                raise LinkError(f"no agent connected from these sites: {', '.join(missing)}")
            try:
                link, _ = self._listener.accept()
            except TimeoutError:
                continue
            greeting, rest = _first_line(link)
            if greeting.get("token") != self.token:
                link.close()
                continue
            index = greeting["node"]
            links[index] = AgentClient(self._sites[index], link, rest)
        return [links[index] for index in range(len(self._sites))]

    def close(self) -> None:
        self._listener.close()


def _first_line(link: socket.socket) -> tuple[dict[str, Any], bytes]:
    link.settimeout(5)
    received = b""
    try:
        while b"\n" not in received and len(received) < 4096:
            part = link.recv(4096)
            if not part:
                return {}, b""
            received += part
        line, _, rest = received.partition(b"\n")
        found = json.loads(line)
    except (OSError, ValueError, RecursionError):  # a stranger may say anything
        return {}, b""
    link.settimeout(None)
    return (found, rest) if isinstance(found, dict) else ({}, b"")
