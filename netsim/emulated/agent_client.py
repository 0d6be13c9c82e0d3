"""The runner's side of the conversation with the node agents: requests by number, answers as futures."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

from netsim.errors import LinkError, LonghaulError

Answer = dict[str, Any]


class AgentClient:
    """One agent's connection. Thread-safe."""

    def __init__(self, site: str, link: socket.socket, rest: bytes) -> None:
        self.site = site
        self._link = link
        self._lock = threading.Lock()
        self._asked: dict[int, Future[Answer]] = {}
        self._number = 0
        self._ended = False
        threading.Thread(target=self._read, args=(rest,), daemon=True, name=f"agent-{site}").start()

    @property
    def ended(self) -> bool:
        return self._ended

    def ask(self, do: str, **parameters: Any) -> Future[Answer]:
        """Sends a request; the future holds the answer, a LonghaulError that the agent reported, or a LinkError."""
        future: Future[Answer] = Future()
        with self._lock:
            self._number += 1
            if self._ended:
                future.set_exception(self._gone())
                return future
            self._asked[self._number] = future
            message = json.dumps({"id": self._number, "do": do, **parameters}).encode() + b"\n"
            try:
                self._link.sendall(message)
            except OSError:
                self._ended = True
                self._asked.pop(self._number)
                future.set_exception(self._gone())
        return future

    def call(self, do: str, *, timeout: float = 30.0, **parameters: Any) -> Answer:
        """Asks and waits."""
        return wait([self.ask(do, **parameters)], timeout)[0]

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def _gone(self) -> LinkError:
        return LinkError(f"the agent of site {self.site} has ended; its network went with it")

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
            left, self._asked = list(self._asked.values()), {}
        for future in left:
            future.set_exception(self._gone())
        self._link.close()

    def _resolve(self, answer: Answer) -> None:
        with self._lock:
            future = self._asked.pop(answer.pop("id"), None)
        if future is None:
            return
        if "error" in answer:
            future.set_exception(LonghaulError(f"site {self.site}: {answer['error']}"))
        else:
            future.set_result(answer)


def wait(futures: Sequence[Future[Answer]], timeout: float) -> list[Answer]:
    """All answers, in order; the first error is raised."""
    end = time.monotonic() + timeout
    try:
        return [future.result(max(0.0, end - time.monotonic())) for future in futures]
    except FutureTimeout:
        raise LinkError(f"a node agent did not answer within {timeout:.0f} s") from None


class AgentListener:
    """Where the agents of a network report. Each must show the token of its network."""

    def __init__(self, path: Path, sites: Sequence[str]) -> None:
        self.token = secrets.token_hex(16)
        self._sites = sites
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)  # an agent may run as another user; the token is what admits it
        self._listener.listen(len(sites))

    def admit(self, timeout: float, alive: Any) -> list[AgentClient]:
        """The links of all agents, in the order of the sites. `alive`: called while waiting; False ends the wait."""
        links: dict[int, AgentClient] = {}
        end = time.monotonic() + timeout
        self._listener.settimeout(0.2)
        while len(links) < len(self._sites):
            if time.monotonic() > end or not alive():
                missing = [site for index, site in enumerate(self._sites) if index not in links]
                raise LinkError(f"the agents of these sites did not report: {', '.join(missing)}")
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
