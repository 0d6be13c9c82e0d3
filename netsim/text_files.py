"""Text files of bounded size, the tables in them as spreadsheets and measuring programs write them, and logs' ends."""

from __future__ import annotations

import csv
import math
import re
import stat
from pathlib import Path

from netsim.errors import InputError, Phrase

MOST_BYTES = 16 * 2**20
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DELIMITERS = ",;\t"

Row = tuple[int, list[str]]  # its line in the file, from 1, and its cells without blanks around them


def read_rows(path: Path, allowed: str) -> list[Row]:
    """The rows of a table without empty lines and lines that begin with #.

    Cells are apart by what the first row has most of: commas, semicolons or tabs; by blanks where it has none.
    allowed: what the file should be, for the message. Raises InputError for a file that is not readable text of at most
    MOST_BYTES.
    """
    kept = [
        (number, line)
        for number, line in enumerate(read_text(path, allowed).splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    first = kept[0][1] if kept else ""
    delimiter = max(_DELIMITERS, key=first.count)
    if not first.count(delimiter):
        return [(number, line.split()) for number, line in kept]
    try:
        return [
            (number, [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]) for number, line in kept
        ]
    except csv.Error as error:
        raise InputError(str(path), "", Phrase(str(error)), allowed) from None


def parse_number(cell: str) -> float | None:
    """A finite non-negative decimal number in ASCII digits; None for any other text."""
    number = float(cell) if len(cell) <= 40 and _NUMBER.fullmatch(cell) else math.inf
    return number if number < math.inf else None


def read_text(path: Path, allowed: str, most: int = MOST_BYTES) -> str:
    """The text of a regular UTF-8 file of at most `most` bytes; InputError with `allowed` for any other."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end
            raise InputError(str(path), "", Phrase("not a regular file"), allowed)
        with path.open("rb") as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise InputError(str(path), "", Phrase(f"more than {most // 2**20} MiB"), allowed)
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(path), "", Phrase(getattr(error, "strerror", None) or "not UTF-8"), allowed) from None


def last_words(log: Path, lines: int = 3) -> str:
    """The end of what a program of ours has said, in one line."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:])
