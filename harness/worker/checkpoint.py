"""Checkpoints: a directory per step with the tensors (safetensors) and a manifest that holds their hash.

    DIRECTORY/step-00000120/tensors.safetensors
                            manifest.json        {"content": {"step", "sha256", "bytes", "meta"}, "sha256": of content}

A checkpoint appears whole or not at all: it is written beside its place, flushed to the disk, and renamed. The last two
are kept, so that a damaged one, which its hash gives away, leaves another to use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save_file
from torch import Tensor

from harness.records.files import read_bytes
from netsim.errors import InputError

KEPT = 2

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """meta: what the caller stored beside the tensors (numbers, words, lists and mappings of them)."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save(directory: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step`, then remove all but the last two. An OSError (full disk) leaves those before."""
    directory.mkdir(parents=True, exist_ok=True)
    place = _place(directory, step)
    building = place.with_name(f".{place.name}.part")
    for left in directory.glob(".step-*"):  # by a writer that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        building.mkdir()
        file = building / "tensors.safetensors"
        save_file(_apart(tensors), file)
        _flush(file)
        content = {"step": step, "sha256": _sha256(file), "bytes": file.stat().st_size, "meta": dict(meta)}
        manifest = building / "manifest.json"
        manifest.write_text(json.dumps({"content": content, "sha256": _digest(content)}, indent=1) + "\n")
        _flush(manifest)
        _remove(place)
        building.rename(place)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(building, ignore_errors=True)
        raise error if isinstance(error, OSError) else OSError(f"{place}: {error}") from error
    _flush(directory)
    for old in steps(directory)[:-KEPT]:
        _remove(_place(directory, old))
    return place


def _remove(place: Path) -> None:
    """Under another name first: what is half removed when its writer is killed is no checkpoint."""
    aside = place.with_name(f".{place.name}.old")
    with suppress(OSError):
        place.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def steps(directory: Path) -> list[int]:
    """The steps with a checkpoint, ascending; not verified."""
    found = [_NAME.fullmatch(path.name) for path in directory.glob("step-*")]
    return sorted(int(match[1]) for match in found if match)


def load(directory: Path, step: int) -> Checkpoint:
    """The checkpoint of `step`. Raises InputError when it is missing, truncated or changed."""
    place = _place(directory, step)
    try:
        manifest = json.loads(read_bytes(place / "manifest.json"))
        content = manifest["content"]
        if _digest(content) != manifest["sha256"] or content["step"] != step:
            raise InputError(str(place / "manifest.json"), "sha256", "another hash", "the hash of its content")
        data = read_bytes(place / "tensors.safetensors", most=2**50)
        if hashlib.sha256(data).hexdigest() != content["sha256"]:
            raise InputError(
                str(place / "tensors.safetensors"), "", f"{len(data)} bytes with another hash", "as written"
            )
        return Checkpoint(step, read_tensors(data), content["meta"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        found = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise InputError(str(place), "", found, "a complete checkpoint") from None


def latest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is sound; damaged ones are passed over with a warning. None when there is none."""
    for step in reversed(steps(directory)):
        try:
            return load(directory, step)
        except InputError as error:
            _log.warning("passing over a damaged checkpoint: %s", error)
    return None


def _place(directory: Path, step: int) -> Path:
    return directory / f"step-{step:08d}"


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in storage of its own, which the format asks for; copies only views of a larger storage."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.detach().contiguous()
        storage = whole.untyped_storage()
        if storage.nbytes() != whole.numel() * whole.element_size() or storage.data_ptr() in seen:
            whole = whole.clone()
        seen.add(whole.untyped_storage().data_ptr())
        found[name] = whole
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """To the disk; a directory's entries too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
