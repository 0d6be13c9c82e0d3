"""Reading the YAML documents that people write: safely, strictly, with one clear error each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from netsim.errors import InputError


class Document(BaseModel):
    """A frozen piece of a document; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


D = TypeVar("D", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, which refuses a key given twice instead of keeping the last.

    Only true and false are truth values, as in YAML 1.2: `on`, `off`, `yes` and `no` are words.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        try:
            repeated = key in seen
        except TypeError:
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark) from None
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`; an unreadable file, bad syntax or anything but a mapping is an InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(str(path), "", found, "a readable YAML file") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # The constructors of explicit tags (`!!timestamp nonsense`, `!!bool perhaps`) fail in ways of their own.
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else ""
        found = getattr(error, "problem", None) or str(error)
        raise InputError(str(path), line, found, "valid YAML with each key given once") from None
    if not isinstance(data, dict):
        raise InputError(str(path), "", type(data).__name__, "a mapping of fields at the top of the file")
    return data


def is_file(path: Path) -> bool:
    """Whether `path`, which a document may have named, is a file."""
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system allows
        return False


def validate(kind: type[D], data: object, where: str, prefix: str = "") -> D:
    """`data` as a `kind`; the first thing wrong becomes an InputError that names the field."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise input_error(error, kind, where, prefix) from None


def input_error(error: ValidationError, kind: type[BaseModel], where: str, prefix: str = "") -> InputError:
    """The first entry of a ValidationError in our words."""
    first = error.errors(include_url=False)[0]
    field = ".".join(filter(None, [prefix, *(str(part) for part in first["loc"])]))
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    found: object = first["input"]
    if first["type"] == "extra_forbidden":
        message = f"only {', '.join(_fields_at(kind, first['loc'][:-1]))}"
        found = f"the key {first['loc'][-1]!r}"
    elif first["type"] == "missing":
        message, found = "this field must be given", "nothing"
    shown = found if len(repr(found)) <= 120 else f"{repr(found)[:117]}..."
    return InputError(where, field, shown, message)


def _fields_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names that are allowed at `location` inside `kind`."""
    for part in location:
        if not isinstance(part, str) or part not in kind.model_fields:
            continue
        inner = _model_in(kind.model_fields[part].annotation)
        if inner is not None:
            kind = inner
    return sorted(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
