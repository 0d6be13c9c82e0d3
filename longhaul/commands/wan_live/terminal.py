"""A terminal of its own for a program elsewhere, shown in ours: its keys and its size are passed on."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable
from contextlib import suppress


def in_terminal(run: Callable[[int], int]) -> int:
    """What `run` returns, which is given the program's end of a new terminal; ours is raw meanwhile."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(0)

    def resize(*_: object) -> None:
        with suppress(OSError):
            fcntl.ioctl(ours, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))

    def show() -> None:
        with suppress(OSError):  # EIO: nobody has the other end open any more
            while data := os.read(ours, 1 << 16):
                os.write(1, data)

    def type_() -> None:
        with suppress(OSError):
            while data := os.read(0, 1 << 12):
                os.write(ours, data)

    resize()
    previous = signal.signal(signal.SIGWINCH, resize)
    tty.setraw(0)
    showing = threading.Thread(target=show, daemon=True)
    try:
        showing.start()
        threading.Thread(target=type_, daemon=True).start()
        return run(theirs)
    finally:
        os.close(theirs)
        showing.join(1.0)
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, previous)
        os.close(ours)
        sys.stdout.flush()
