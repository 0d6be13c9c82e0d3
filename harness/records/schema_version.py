"""Records of other versions of the schema: which keys they may hold."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.spec.run_spec import SCHEMA_VERSION
from netsim.documents import validate

R = TypeVar("R", bound=BaseModel)


def version_of(document: object) -> int:
    """The schema version that a document says it has: 1 where it says nothing, or nothing that is one."""
    found = document.get("schema_version", 1) if isinstance(document, dict) else 1
    return found if isinstance(found, int) else 1


def validate_record(kind: type[R], document: object, where: str, version: int, prefix: str = "") -> R:
    """`document` as a `kind`, without the keys that a newer version of the schema added."""
    known = _known(kind, document) if version > SCHEMA_VERSION else document
    return validate(kind, known, where, prefix)


def _known(kind: type[BaseModel], document: object) -> object:
    """A copy of `document` without the keys that `kind` has no field for, at any depth."""
    copied: Any = json.loads(json.dumps(document))
    try:
        kind.model_validate(copied)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_context=False, include_input=False):
            if entry["type"] == "extra_forbidden":
                *place, key = entry["loc"]
                inner: Any = copied
                for part in place:
                    with suppress(KeyError, TypeError):  # parts of the place that name which kind of value was tried
                        inner = inner[part]
                inner.pop(key, None)
    return copied
