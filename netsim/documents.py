"""Checking the documents that people write: strictly, with one clear error each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from netsim.errors import InputError, Phrase, nearest
from netsim.yaml_files import line_of, read_yaml

__all__ = ["Document", "Label", "Name", "is_file", "located", "read_yaml", "validate"]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
# A word for people: something to see in it, and nothing that moves a terminal's cursor.
Label = Annotated[str, Field(max_length=60, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\w[^\x00-\x1f\x7f-\x9f]*$")]


class Document(BaseModel):
    """A frozen piece of a document; a key it does not know is an error, and so is true or false for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: object, info: ValidationInfo) -> object:
        several = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, bool) for item in several) and not _admits_bool(cls, info.field_name or ""):
            raise ValueError("a number or a word, not true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _no_endless_number(cls, value: object) -> object:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:  # where the field itself has no bound
            raise ValueError("a whole number of at most 63 bits")
        return value


D = TypeVar("D", bound=BaseModel)


@cache
def _admits_bool(kind: type[BaseModel], field: str) -> bool:
    return _has_bool(kind.model_fields[field].annotation)


def _has_bool(annotation: Any) -> bool:
    return annotation in (bool, Any, object) or any(_has_bool(one) for one in getattr(annotation, "__args__", ()))


def is_file(path: Path) -> bool:
    """Whether `path`, which a document may have named, is a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name longer than the file system allows, or with a null character
        return False


@contextmanager
def located() -> Iterator[None]:
    """Within it, an InputError about a key of a YAML file gets the line on which the key stands.

    Also a decorator for what loads a file.
    """
    try:
        yield
    except InputError as error:
        file, _, rest = error.where.partition(": ")
        if error.line is None and file.endswith((".yaml", ".yml")) and is_file(Path(file)):
            outer, inner = ([key for key in text.split(".") if key] for text in (rest, error.field))
            error.line, known = line_of(Path(file), [*outer, *inner])
            whole, found = line_of(Path(file), inner)
            if known <= len(outer) and inner and found == len(inner):  # a key of the whole file, wrong for a part of it
                error.line = whole
            elif error.line is not None:
                error.where, error.field = file, ".".join([*outer, *inner])
        raise


def validate(kind: type[D], data: object, where: str, prefix: str = "") -> D:
    """`data` as a `kind`; the first thing wrong becomes an InputError that names the field."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _input_error(error, kind, data, where, prefix) from None


def _input_error(
    error: ValidationError, kind: type[BaseModel], data: object, where: str, prefix: str = ""
) -> InputError:
    """The first thing wrong with `data`, in our words and in the spelling of the file."""
    entries = error.errors(include_url=False, include_context=False)
    places = [_place(entry["loc"], data, entry["type"] in ("missing", "extra_forbidden")) for entry in entries]
    # Of a field that may be of several kinds there is an entry for each; the one that went deepest is the one meant.
    # A key that is missing is most often one that stands there misspelt.
    shared = places[0][:-1] if entries[0]["type"] == "missing" else places[0]
    chosen = max(
        (index for index, place in enumerate(places) if place[: len(shared)] == shared),
        key=lambda index: (len(places[index]), entries[index]["type"] == "extra_forbidden", -index),
    )
    entry, place = entries[chosen], places[chosen]
    message = entry["msg"]
    for prefix_of_pydantic in ("Value error, ", "Assertion failed, ", "Input should be ", "Value should have "):
        message = message.removeprefix(prefix_of_pydantic)
    found: object = entry["input"]
    meant = None
    if entry["type"] == "extra_forbidden":
        key, keys = str(entry["loc"][-1]), _keys_at(kind, entry["loc"][:-1])
        message, found, meant = f"only {', '.join(keys)}", Phrase(f"the key {key!r}"), nearest(key, keys)
    elif entry["type"] == "missing":
        message, found = "this field must be given", Phrase("nothing")
    elif entry["type"] in _IN_WORDS:
        message = _IN_WORDS[entry["type"]]
    elif entry["type"] in ("model_type", "model_attributes_type"):
        message = f"a mapping of {', '.join(_keys_at(kind, entry['loc']))}"
    elif entry["type"] == "string_pattern_mismatch" and "\\x00-\\x1f" in message:
        message = "a word with a letter or a digit in it, without control characters"
    elif entry["type"] == "literal_error" and isinstance(found, str):
        meant = nearest(found, message.split("'")[1::2])
    return InputError(where, ".".join(filter(None, [prefix, *place])), found, message, meant)


_IN_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a finite number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "string_type": "text",
    "dict_type": "a mapping",
}


def _place(location: Sequence[int | str], data: object, kept: bool) -> list[str]:
    """`location` as the file has it: without the parts that name which kind of value was tried."""
    place: list[str] = []
    for index, part in enumerate(location):
        listed = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if listed or (isinstance(data, dict) and part in data):
            data = data[part]  # type: ignore[index]  # a list by a number, a mapping by a name: as just tested
        elif not (kept and index == len(location) - 1):
            continue
        place.append(str(part))
    return place


def _keys_at(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that are allowed at `location` inside `kind`, as a file spells them."""
    for part in location:
        field = next((f for name, f in kind.model_fields.items() if part in (name, f.alias)), None)
        models = _models_in(field.annotation) if field is not None else []
        named = [model for model in models if model.__name__ in location]
        if models:
            kind = (named or models)[0]
    return sorted(field.alias or name for name, field in kind.model_fields.items())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
