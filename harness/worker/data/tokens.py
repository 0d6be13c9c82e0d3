"""Files of token numbers: numpy's .npy, and .bin with llm.c's header or without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netsim.errors import InputError

Tokens = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]

# llm.c: 256 int32 before the tokens; magic, version, number of tokens. GPT-2's version 1 is uint16, Llama 3's 7 uint32.
HEADER_BYTES = 1024
MAGICS: dict[int, np.dtype[Any]] = {20240520: np.dtype("<u2"), 20240801: np.dtype("<u4")}


def open_tokens(path: Path, token_type: str) -> Tokens:
    """The tokens of a file (n,), memory-mapped. `token_type`: uint16 or uint32, of a .bin without a header.

    InputError for files that are cut short, of another type, or that look like uint32 where uint16 is asked for.
    """
    try:
        return _from_npy(path) if path.suffix == ".npy" else _from_bin(path, np.dtype(token_type).newbyteorder("<"))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("data", "path", f"{path} ({error})", "a readable file of tokens") from None


def narrow(numbers: ArrayLike) -> Tokens:
    """(n,) as uint16 if all fit, else as uint32; a copy."""
    found = np.asarray(numbers)
    return np.array(found, np.uint16) if not found.size or found.max() < 2**16 else np.array(found, np.uint32)


def _from_npy(path: Path) -> Tokens:
    found: Tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.dtype not in (np.uint8, np.uint16, np.uint32) or found.ndim != 1:
        allowed = "one axis of uint8, uint16 or uint32"
        raise InputError("data", "path", f"{path}: {found.ndim} axes of {found.dtype}", allowed)
    return found


def _from_bin(path: Path, kind: np.dtype[Any]) -> Tokens:
    size = path.stat().st_size
    if size == 0:
        return np.empty(0, dtype=kind)
    head = np.fromfile(path, dtype="<i4", count=3) if size >= HEADER_BYTES else np.zeros(3, dtype="<i4")
    if int(head[0]) in MAGICS:
        kind, count = MAGICS[int(head[0])], int(head[2])
        if size != HEADER_BYTES + count * kind.itemsize:
            allowed = f"{HEADER_BYTES} bytes and the {count} tokens of {kind.itemsize} bytes that its header states"
            raise InputError("data", "path", f"{path} of {size} bytes", allowed)
        return np.memmap(path, dtype=kind, mode="r", offset=HEADER_BYTES)
    if size % kind.itemsize:
        allowed = f"{kind.name} tokens: a multiple of {kind.itemsize} bytes"
        raise InputError("data", "path", f"{path} of {size} bytes", allowed)
    tokens = np.memmap(path, dtype=kind, mode="r")
    if kind.itemsize == 2 and _looks_wide(tokens):
        raise InputError("data", "token_type", f"uint16 for {path}, whose every other number is below 16", "uint32")
    return tokens


def _looks_wide(tokens: NDArray[np.uint16]) -> bool:
    """Whether uint16 numbers are the halves of uint32 tokens: the upper ones of any vocabulary below a million."""
    first = tokens[:4096]
    return len(first) >= 64 and len(tokens) % 2 == 0 and bool((first[1::2] < 16).all()) and int(first[0::2].max()) >= 16
