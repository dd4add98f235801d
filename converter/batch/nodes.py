"""YAML as nodes that know their places: no more of YAML than a list needs, and every scalar as it was written.

PyYAML's own composer would take the last of two equal keys, copy without bound what aliases name, and its C form
recurses; its resolver reads 8080:80 as a number to the base of 60. So the nodes are made of the parser's events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from converter.batch.entry import Place, UsageError

_DEEPEST = 8  # a list has four levels
_MOST = 1_000_000  # nodes, those that aliases name counted each time
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KNOWN_TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))}
_MERGE = "<<"


@dataclass(frozen=True)
class Scalar:
    """`plain`: without quotes or a tag, so that it may be a number, a boolean or nothing at all."""

    place: Place
    text: str
    plain: bool
    size: int = 1
    height: int = 1


@dataclass(frozen=True)
class Items:
    """A sequence. `size` counts the nodes in it and itself, `height` the levels."""

    place: Place
    items: tuple[Node, ...]
    size: int
    height: int


@dataclass(frozen=True)
class Pairs:
    """A mapping, with what `<<` brings into it; `keys` are the places of the keys."""

    place: Place
    values: Mapping[str, Node]
    keys: Mapping[str, Place]
    size: int
    height: int


Node = Scalar | Items | Pairs


@dataclass
class _Open:
    """A sequence or a mapping whose end has not come yet."""

    place: Place
    anchor: str | None
    pairs: bool
    nodes: list[Node] = field(default_factory=list)
    size: int = 1
    height: int = 0


def compose(file: str, text: str) -> Node | None:
    """The one document of a YAML text; None when it is empty. Raises UsageError with its place in `file`."""
    composer = _Composer(file)
    for event in _events(file, text):
        composer.take(event)
    return composer.document


def _events(file: str, text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line, mark.column) if mark is not None else (0, 0)
        raise UsageError(Place(file, at[0] + 1, at[1] + 1), *_said(error, text, *at)) from None
    except yaml.YAMLError:  # of the reader: a character that YAML does not allow
        raise UsageError(Place(file, 1, 1), "there are characters in it that YAML does not allow") from None


def _said(error: yaml.MarkedYAMLError, text: str, line: int, column: int) -> tuple[str, str]:
    """What the parser says, and what to do about it."""
    problem = error.problem or "this is not YAML"
    here = next(iter(text.split("\n", line + 1)[line : line + 1]), "")
    if "\t" in here[: column + 1] and ("token" in problem or "tab" in problem):
        return "a tab before the text", "YAML is indented with spaces"
    if "cannot start any token" in problem:
        return f"a word cannot begin with {here[column : column + 1]!r}", "put it in quotes"
    if "mapping values" in problem:
        return "a ':' where none can be", "put a value with ': ' in it in quotes, and indent keys alike"
    hint = "look at the indentation and the brackets before it" if "expected" in problem else ""
    return f"{error.context}: {problem}" if error.context else problem, hint


class _Composer:
    """Builds nodes of events, without recursion."""

    def __init__(self, file: str) -> None:
        self.document: Node | None = None
        self._file = file
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """The next event."""
        mark = event.start_mark
        assert mark is not None  # the parser's events have one
        place = Place(self._file, mark.line + 1, mark.column + 1)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise UsageError(place, "a second document", "a list is one; remove the line ---")
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise UsageError(place, f"*{event.anchor} names nothing that ends before it")
                self._add(replace(self._anchors[event.anchor], place=place))
            case yaml.ScalarEvent():
                self._check_tag(event.tag, place)
                self._finish(Scalar(place, event.value, event.implicit[0]), event.anchor)
            case yaml.CollectionStartEvent():
                self._check_tag(event.tag, place)
                if len(self._open) == _DEEPEST:
                    raise UsageError(place, f"more than {_DEEPEST} levels within each other")
                self._open.append(_Open(place, event.anchor, isinstance(event, yaml.MappingStartEvent)))
            case yaml.CollectionEndEvent():
                ended = self._open.pop()
                self._finish(_pairs(ended) if ended.pairs else _items(ended), ended.anchor)

    def _check_tag(self, tag: str | None, place: Place) -> None:
        if tag not in _KNOWN_TAGS:
            raise UsageError(place, f"the tag {tag!r} means nothing in a list", "remove it")

    def _finish(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        self._add(node)

    def _add(self, node: Node) -> None:
        """Put a node where it belongs."""
        if not self._open:
            self.document = node
            return
        parent = self._open[-1]
        parent.nodes.append(node)
        parent.size += node.size
        parent.height = max(parent.height, node.height)
        if parent.size > _MOST:
            raise UsageError(node.place, f"more than {_MOST} values, aliases counted with all that they name")
        if len(self._open) + node.height > _DEEPEST:
            raise UsageError(node.place, f"more than {_DEEPEST} levels within each other")


def _items(ended: _Open) -> Items:
    return Items(ended.place, tuple(ended.nodes), ended.size, ended.height + 1)


def _pairs(ended: _Open) -> Pairs:
    values: dict[str, Node] = {}
    keys: dict[str, Place] = {}
    merged: list[Pairs] = []
    for key, value in zip(ended.nodes[::2], ended.nodes[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise UsageError(key.place, "a key must be a word")
        if key.plain and key.text == _MERGE:
            merged += _merged(value)
        elif key.text in keys:
            first = keys[key.text]
            raise UsageError(key.place, f"{key.text!r} is there twice", f"it is in line {first.line} already")
        else:
            values[key.text], keys[key.text] = value, key.place
    for more in merged:
        for name, value in more.values.items():
            values.setdefault(name, value)
            keys.setdefault(name, more.keys[name])
    return Pairs(ended.place, values, keys, ended.size, ended.height + 1)


def _merged(value: Node) -> Iterator[Pairs]:
    """The mappings that `<<` brings; the first one that has a key counts."""
    for node in value.items if isinstance(value, Items) else (value,):
        if not isinstance(node, Pairs):
            raise UsageError(node.place, "<< takes a mapping, or a list of mappings")
        yield node
