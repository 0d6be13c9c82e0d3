"""Writes the packets of wan0 to standard output in pcap form, as tcpdump and Wireshark read it. A process of its own.

It needs CAP_NET_RAW, which the agent has and programs have not. It ends when nobody reads, or by a signal.
"""

from __future__ import annotations

import socket
import struct
import sys

from netsim.emulated.node.tc import WAN

_ALL = 0x0003  # ETH_P_ALL, linux/if_ether.h
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_ETHERNET = 1  # LINKTYPE_ETHERNET
_MAGIC = 0xA1B23C4D  # with nanoseconds
_BUFFER = 1 << 25  # bytes that may wait for the reader
_ROOM = 1 << 16


def file_header(kept: int) -> bytes:
    """The first bytes of a capture file. kept: bytes of a packet, at most."""
    return struct.pack("=IHHiIII", _MAGIC, 2, 4, 0, 0, kept, _ETHERNET)


def record(seconds: int, nanoseconds: int, packet: bytes, length: int) -> bytes:
    """One packet of a capture file. length: of the whole packet, of which `packet` is the part that is kept."""
    return struct.pack("=IIII", seconds, nanoseconds, len(packet), length) + packet


def capture(kept: int) -> None:
    """Until the reader has gone."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    packets.bind((WAN, _ALL))
    out = sys.stdout.buffer
    out.write(file_header(kept))
    out.flush()
    while True:
        data, ancillary, _, _ = packets.recvmsg(_ROOM, 256)
        found = next((content for level, kind, content in ancillary if kind == _SO_TIMESTAMPNS), b"")
        seconds, nanoseconds = struct.unpack("=qq", found) if len(found) == 16 else (0, 0)
        try:
            out.write(record(seconds, nanoseconds, data[:kept], len(data)))
            out.flush()
        except BrokenPipeError:
            sys.stderr.close()
            return


if __name__ == "__main__":
    capture(int(sys.argv[1]))
