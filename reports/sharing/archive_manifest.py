"""The list of an archive's files, first in it."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

from pydantic import Field, field_validator

from harness.records.run_record import Record
from netsim.documents import validate
from netsim.errors import InputError

MANIFEST_NAME = "archive.json"
FORMAT = 1
MOST_FILES = 500_000
MOST_BYTES = 16 * 2**30  # of all files together, unpacked
MOST_MANIFEST = 128 * 2**20
_HASH = re.compile(r"[0-9a-f]{64}")


class ArchivedFile(Record):
    bytes: int = Field(ge=0, le=MOST_BYTES)
    sha256: str

    @field_validator("sha256")
    @classmethod
    def _is_hash(cls, value: str) -> str:
        if not _HASH.fullmatch(value):
            raise ValueError("64 hexadecimal digits")
        return value


class ArchiveManifest(Record):
    """archive.json: every other file of the archive by its path, and what of the records is not in it."""

    model_config = {"extra": "ignore"}

    format: int = Field(ge=1)
    written_by: str = ""
    files: dict[str, ArchivedFile] = Field(max_length=MOST_FILES)
    left_out: dict[str, str] = {}  # why, by path

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, ArchivedFile]) -> dict[str, ArchivedFile]:
        for name in files:
            if not is_plain(name) or name == MANIFEST_NAME:
                raise ValueError(f"relative paths inside the archive, not {name[:80]!r}")
        return files


def is_plain(name: str) -> bool:
    """Whether a path stays in the folder that it is unpacked to, on any file system."""
    path = PurePosixPath(name)
    sound = not path.is_absolute() and path.as_posix() == name and "\\" not in name and "\0" not in name
    return sound and all(part not in ("", ".", "..") and len(part) <= 255 for part in path.parts) and bool(path.parts)


def manifest_from(content: bytes, where: str) -> ArchiveManifest:
    """InputError for what is no manifest of ours, of a newer format, or of more than we unpack."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(where, MANIFEST_NAME, "not JSON", "an archive of longhaul archive") from None
    manifest = validate(ArchiveManifest, document, where, MANIFEST_NAME)
    if manifest.format > FORMAT:
        raise InputError(
            where, f"{MANIFEST_NAME}.format", manifest.format, f"at most {FORMAT}: a newer longhaul wrote it"
        )
    if (total := sum(file.bytes for file in manifest.files.values())) > MOST_BYTES:
        raise InputError(where, MANIFEST_NAME, f"{total} bytes in all", f"at most {MOST_BYTES}")
    return manifest
