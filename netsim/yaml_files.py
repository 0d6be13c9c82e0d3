"""YAML as people write it: a safe, bounded subset, read with the line of every key at hand.

Of YAML 1.1 the traps are left out: `on`, `off`, `yes` and `no` are words, `1:30` is a word and not 90, `010` is a word
and not 8, `2024-01-01` is a word and not a date. A key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from netsim.errors import InputError, Phrase
from netsim.text_files import read_text

MOST_BYTES = 4 * 2**20
MOST_DEPTH = 32
MOST_VALUES = 200_000  # keys, scalars, lists and mappings, with every alias counted as what it stands for

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same nodes from libyaml, ten times as fast


class _Loader(_Base):  # type: ignore[misc]
    """YAML's safe subset with the scalars of YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[object, object]:
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
    found: dict[object, object] = loader.construct_mapping(node, deep=True)
    return found


_NUMBERS = list("-+0123456789.")
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|false|False)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", _NUMBERS),
    ("float", r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9_]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", _NUMBERS),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`.

    Raises InputError for what is no regular file or not readable, for bad syntax, for anything but a mapping, and for
    more than MOST_BYTES, MOST_DEPTH or MOST_VALUES.
    """
    text = _text(path)
    try:
        root = _composed(text, str(path))
        loader = _Loader("")
        try:
            data = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        # The constructors of explicit tags (`!!timestamp nonsense`, `!!bool perhaps`) fail in ways of their own.
        mark = getattr(error, "problem_mark", None)
        found = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else None
        raise InputError(str(path), "", Phrase(found), "valid YAML with each key given once", line=line) from None
    if not isinstance(data, dict):
        raise InputError(str(path), "", Phrase(type(data).__name__), "a mapping of fields at the top of the file")
    return data


def line_of(path: Path, keys: Sequence[str]) -> tuple[int | None, int]:
    """The line, from 1, of the innermost of `keys` that the file has, and how many of them it has.

    An entry of a list is meant by its place, or by its `label`, `method` or name.
    """
    try:
        node: yaml.Node | None = _composed(_text(path), str(path))
    except (InputError, yaml.YAMLError, ValueError, RecursionError):
        return None, 0
    line = None
    for known, key in enumerate(keys):
        if (step := _step(node, key)) is None:
            return line, known
        mark, node = step
        line = mark.line + 1
    return line, len(keys)


def _text(path: Path) -> str:
    return read_text(path, f"a readable YAML file of at most {MOST_BYTES // 2**20} MiB", MOST_BYTES)


def _composed(text: str, where: str) -> yaml.Node | None:
    """The document's nodes, once it is known to be small enough to be composed."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        values += isinstance(event, yaml.events.NodeEvent)
        depth += isinstance(event, yaml.events.CollectionStartEvent)
        depth -= isinstance(event, yaml.events.CollectionEndEvent)
        if depth > MOST_DEPTH or values > MOST_VALUES:
            raise _too_large(where, depth, event.start_mark.line + 1 if event.start_mark else 1)
    root: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    if root is not None:
        _check_aliases(root, where)
    return root


def _check_aliases(root: yaml.Node, where: str) -> None:
    """Raises InputError for aliases that stand for too much, or for what they are part of."""
    sizes: dict[int, tuple[int, int]] = {}  # of a node that is done: values and depth below it
    inside: set[int] = set()

    def measured(node: yaml.Node) -> tuple[int, int]:
        if id(node) in sizes:
            return sizes[id(node)]
        line = node.start_mark.line + 1
        if id(node) in inside:
            raise InputError(
                where, "", Phrase("an alias inside what it stands for"), "aliases of what is complete", line=line
            )
        inside.add(id(node))
        below = [measured(child) for child in _children(node)]
        size, depth = 1 + sum(size for size, _ in below), 1 + max((deep for _, deep in below), default=0)
        if size > MOST_VALUES or depth > MOST_DEPTH + 1:
            raise _too_large(where, depth, line)
        sizes[id(node)] = size, depth
        return size, depth

    measured(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _too_large(where: str, depth: int, line: int) -> InputError:
    found = "deeper nesting" if depth > MOST_DEPTH else "more values"
    allowed = f"at most {MOST_VALUES:,} values, aliases counted as what they stand for, {MOST_DEPTH} levels deep"
    return InputError(where, "", Phrase(found), allowed, line=line)


def _step(node: yaml.Node | None, key: str) -> tuple[Any, yaml.Node] | None:
    """Where `key` stands inside `node`, and its value."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == key:
                return key_node.start_mark, value
    elif isinstance(node, yaml.SequenceNode):
        by_place = {str(index): item for index, item in enumerate(node.value)}
        item = by_place.get(key) or next((item for item in node.value if key in _names(item)), None)
        return None if item is None else (item.start_mark, item)
    return None


def _names(item: yaml.Node) -> list[str]:
    if isinstance(item, yaml.ScalarNode):
        return [item.value]
    named = [_step(item, key) for key in ("label", "method", "name")] if isinstance(item, yaml.MappingNode) else []
    return [str(found[1].value) for found in named if found is not None]
