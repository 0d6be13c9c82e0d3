"""Ctrl-C and SIGTERM: the first is the way out, further ones do not disturb it. In the command line's process."""

from __future__ import annotations

import signal
from types import FrameType

INTERRUPTED = 130  # the exit code, as a shell gives it for SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interrupt_once() -> None:
    """From now on the first Ctrl-C or SIGTERM raises KeyboardInterrupt, and all later ones are ignored.

    What is cleaned up on the way out has time-outs of its own, and takes seconds.
    """
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def interrupted() -> bool:
    """Whether the way out was taken."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _interrupt(number: int, frame: FrameType | None) -> None:
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt
