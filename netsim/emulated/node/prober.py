"""The prober: a process per node that answers echoes, counts streams and, when asked, sends them.

Senders are its children, so that they have its priority; how fast a probe is served must not depend on the load.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from mmap import mmap
from time import monotonic

from netsim.emulated.node.probes import (
    DISCARD_PORT,
    ECHO_PORT,
    NUMBERED,
    SOL_UDP,
    STREAM_PORT,
    UDP_GRO,
    Arrivals,
    udp_socket,
)
from netsim.emulated.node.realtime import PROBE, die_with_parent, set_realtime
from netsim.emulated.node.requests import (
    AgentAnswer,
    CrossBytes,
    Done,
    Echo,
    Json,
    NodeRequest,
    ProbeRequest,
    ReadCrossBytes,
    ReadStream,
    SendStream,
    SendTraffic,
    StopTraffic,
    StreamReceived,
    read_request,
)
from netsim.emulated.node.senders import echoes, send_stream, send_traffic

_BUFFER = 8 * 2**20
_READ = 1 << 20


class Prober:
    """Serves until its control socket is closed. Requests and answers are JSON lines with an `id`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._echo = udp_socket(address, ECHO_PORT)
        self._datagrams = udp_socket(address, STREAM_PORT)
        self._datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        with contextlib.suppress(OSError):
            self._datagrams.setsockopt(SOL_UDP, UDP_GRO, 1)
        self._discard = udp_socket(address, DISCARD_PORT)  # never read: what does not fit is dropped
        self._discard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        self._crossing = mmap(-1, 8)  # shared with the children that send cross-traffic
        self._listener = socket.create_server((address, STREAM_PORT), backlog=256)
        self._connections: dict[int, tuple[socket.socket, list[Arrivals]]] = {}
        self._arrivals: dict[int, Arrivals] = {}
        self._children: dict[int, tuple[int, int, bytes]] = {}  # by pipe: request, process, answer so far
        self._crossers: set[int] = set()  # those of the processes that send cross-traffic
        self._buffer = bytearray(_READ)
        self._poll = select.poll()

    def serve(self, control: socket.socket) -> None:
        granted = set_realtime(PROBE)
        control.sendall(json.dumps({"ready": True, "priority": granted, "pid": os.getpid()}).encode() + b"\n")
        gc.freeze()
        for one in (self._echo, self._datagrams, self._listener, control):
            self._poll.register(one.fileno(), select.POLLIN)
        pending = b""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._echo.fileno():
                    self._reflect()
                elif descriptor == self._datagrams.fileno():
                    self._count_datagrams()
                elif descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._children:
                    self._collect(descriptor, control)
                elif descriptor in self._connections:
                    self._count_stream(descriptor)
                else:
                    received = control.recv(1 << 20)
                    if not received:
                        return
                    *requests, pending = (pending + received).split(b"\n")
                    for request in requests:
                        self._answer(*read_request(json.loads(request)), control)

    def _answer(self, number: int, request: NodeRequest | ProbeRequest, control: socket.socket) -> None:
        own = self._address
        match request:
            case ReadStream():
                _say(control, number, self._report(request))
            case ReadCrossBytes():
                _say(control, number, CrossBytes(int.from_bytes(self._crossing[:8], sys.byteorder)))
            case Echo() as echo:
                self._start(number, lambda: echoes(own, echo.targets, echo.count, echo.interval, echo.patience))
            case SendTraffic() as flow:
                target, rate, seconds, mtu = flow.target, flow.rate, flow.seconds, flow.mtu
                sending = self._start(number, lambda: send_traffic(own, target, rate, seconds, mtu, self._crossing))
                self._crossers.add(sending)
            case StopTraffic():
                for process in self._crossers:
                    os.kill(process, signal.SIGKILL)
                _say(control, number, Done())
            case SendStream(stream=probe):
                self._start(number, lambda: send_stream(own, probe))
            case _:
                raise TypeError(f"{type(request).__name__} is not for the prober")

    def _start(self, number: int, work: Callable[[], AgentAnswer]) -> int:
        """Does `work` in a child, and returns that one's process; its answer comes through a pipe."""
        reading, writing = os.pipe()
        parent = os.getpid()
        child = os.fork()
        if child:
            os.close(writing)
            self._children[reading] = (number, child, b"")
            self._poll.register(reading, select.POLLIN)
            return child
        try:
            die_with_parent(parent)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            try:
                answer: Json = work().to_json()
            except OSError as error:
                answer = {"error": f"probe: {error.strerror or error}"}
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps(answer).encode())
        finally:
            os._exit(0)

    def _collect(self, descriptor: int, control: socket.socket) -> None:
        number, child, before = self._children[descriptor]
        received = os.read(descriptor, 1 << 20)
        if received:
            self._children[descriptor] = (number, child, before + received)
            return
        self._poll.unregister(descriptor)
        del self._children[descriptor]
        os.close(descriptor)
        os.waitpid(child, 0)
        self._crossers.discard(child)
        _send(control, {"id": number, **(json.loads(before) if before else {"error": "the probe ended early"})})

    def _reflect(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, sender = self._echo.recvfrom(2048)
                self._echo.sendto(data, sender)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._connections[connection.fileno()] = (connection, [])
        self._poll.register(connection.fileno(), select.POLLIN)

    def _count_datagrams(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                size, ancillary, _, _ = self._datagrams.recvmsg_into([self._buffer], 64)
                now = monotonic()
                segment = next((struct.unpack("=i", data[:4])[0] for _, _, data in ancillary), size)
                stream = None
                fresh = 0
                for offset in range(0, size, segment):
                    number, sequence = NUMBERED.unpack_from(self._buffer, offset)
                    stream = self._arrivals.setdefault(number, Arrivals())
                    if stream.count(sequence):
                        fresh += min(segment, size - offset)
                if stream is not None:
                    stream.times.append(now)
                    stream.sizes.append(fresh)

    def _count_stream(self, descriptor: int) -> None:
        connection, found = self._connections[descriptor]
        try:
            size = connection.recv_into(self._buffer)
        except OSError:
            size = 0
        if not size:
            self._poll.unregister(descriptor)
            del self._connections[descriptor]
            connection.close()
            return
        if not found:
            (number,) = struct.unpack_from(">I", self._buffer)
            found.append(self._arrivals.setdefault(number, Arrivals()))
        found[0].times.append(monotonic())
        found[0].sizes.append(size)

    def _report(self, asked: ReadStream) -> StreamReceived:
        arrivals = self._arrivals.get(asked.stream, Arrivals())
        if asked.finish:
            self._arrivals.pop(asked.stream, None)
        return StreamReceived(
            rate=arrivals.rate(asked.over, asked.tail),
            seen=len(arrivals.seen),
            datagrams=arrivals.datagrams,
            bytes=sum(arrivals.sizes),
            quiet=monotonic() - arrivals.times[-1] if arrivals.times else None,
            reordered=arrivals.reordered,
            gaps=arrivals.gaps(),
        )


def _say(control: socket.socket, number: int, answer: AgentAnswer) -> None:
    _send(control, {"id": number, **answer.to_json()})


def _send(control: socket.socket, message: Json) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")
