"""A list as YAML: `defaults`, and `machines` with the options of `convert`; schema.json says what may stand there."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from importlib import resources
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from converter.batch.entry import Entry, Place, Setting, UsageError
from converter.batch.nodes import Items, Node, Pairs, Scalar, compose

SCHEMA: Mapping[str, Any] = json.loads(
    resources.files("converter.batch").joinpath("schema.json").read_bytes()
)

_OPTIONS: Mapping[str, Any] = SCHEMA["$defs"]["machine"]["properties"]
_VALIDATOR = Draft202012Validator(SCHEMA)
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on"), True),  # YAML 1.1 has more than true and false
    **dict.fromkeys(("false", "no", "off"), False),
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NO_TEXT = re.compile("[\\0\ud800-\udfff]")  # what a file cannot hold, but an escape can
_MOST_ERRORS = 100  # that are compared for the first in the file
_LONGEST = 80  # characters of a value in a message
_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_ELSEWHERE = {
    "json": "a batch has one report",
    "debug-shell": "nobody sits before a batch",
    "name": "a name is one machine's own",
    "source": "a source is one machine's own",
}


def read_yaml(file: str, text: str) -> tuple[Entry, ...]:
    """The machines of a list; `file` is its name in messages. Raises UsageError with the place of the first error."""
    document = compose(file, text)
    if document is None or (isinstance(document, Scalar) and document.plain and document.text in _NOTHING):
        return ()
    errors = list(islice(_VALIDATOR.iter_errors(_document(document)), _MOST_ERRORS))
    if errors:
        raise min((_usage_error(error, document) for error in errors), key=_position)
    assert isinstance(document, Pairs)
    defaults = document.values.get("defaults")
    shared = _settings(defaults) if isinstance(defaults, Pairs) else {}
    machines = document.values["machines"]
    assert isinstance(machines, Items)
    return tuple(_entry(machine, shared) for machine in machines.items)


def _entry(machine: Node, shared: Mapping[str, Setting]) -> Entry:
    if isinstance(machine, Pairs):
        settings = _settings(machine)
        source = settings.pop("source")
        return Entry(machine.place.short, str(source.value), settings, shared)
    assert isinstance(machine, Scalar)
    return Entry(machine.place.short, machine.text, {}, shared)


def _settings(pairs: Pairs) -> dict[str, Setting]:
    found = {}
    for key, node in pairs.values.items():
        value = _value(node, _OPTIONS[key])
        places = tuple(item.place for item in node.items) if isinstance(node, Items) else ()
        found[key] = Setting(tuple(value) if isinstance(value, list) else value, node.place, places)
    return found


def _document(node: Node) -> object:
    """The document as the schema's validator takes it."""
    if not isinstance(node, Pairs):
        return _value(node, {})
    found = {key: _value(value, {}) for key, value in node.values.items()}
    if isinstance(defaults := node.values.get("defaults"), Pairs):
        found["defaults"] = _options(defaults)
    if isinstance(machines := node.values.get("machines"), Items):
        found["machines"] = [
            _options(machine) if isinstance(machine, Pairs) else _value(machine, SCHEMA["$defs"]["machine"])
            for machine in machines.items
        ]
    return found


def _options(pairs: Pairs) -> dict[str, object]:
    return {key: _value(node, _OPTIONS.get(key, {})) for key, node in pairs.values.items()}


def _value(node: Node, schema: Mapping[str, Any]) -> Any:
    """The value of a node: where the schema takes a text it is the one that was written, whatever it looks like."""
    if isinstance(node, Items):
        return [_value(item, schema.get("items", {})) for item in node.items]
    if isinstance(node, Pairs):
        return {key: _value(value, {}) for key, value in node.values.items()}
    kinds = _kinds(schema)
    if node.plain and node.text in _NOTHING:
        return None
    if node.plain and "string" not in kinds:
        if "boolean" in kinds and node.text.lower() in _BOOLEANS:
            return _BOOLEANS[node.text.lower()]
        if "integer" in kinds and _INTEGER.fullmatch(node.text):
            return int(node.text)
    if wrong := _NO_TEXT.search(node.text):
        raise UsageError(node.place, f"the character {wrong[0]!r} is no text", "remove it")
    return node.text


def _kinds(schema: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = schema.get("type", ())
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def _schema(error: ValidationError) -> Any:
    """The part of the schema that is not kept to; that of an error is never just true or false."""
    return error.schema


def _position(error: UsageError) -> tuple[int, int]:
    return (error.place.line, error.place.column) if error.place else (0, 0)


def _usage_error(error: ValidationError, document: Node) -> UsageError:
    """A validator's error in our words and at its place."""
    path = list(error.absolute_path)
    node = document
    key = ""  # what the value belongs to
    for step in path:
        if isinstance(node, Pairs):
            key, node = str(step), node.values[str(step)]
        elif isinstance(node, Items):
            node = node.items[int(step)]
    if isinstance(node, Pairs) and error.validator in {"additionalProperties", "required"}:
        known = _schema(error)["properties"]
        if unknown := [name for name in node.values if name not in known]:
            return _unknown_key(unknown[0], node.keys[unknown[0]], known, within=key)
    return UsageError(node.place, *_wrong_value(error, key))


def _unknown_key(key: str, place: Place, known: Collection[str], *, within: str) -> UsageError:
    where = {"machines": "a machine's options", "defaults": "what defaults may have"}.get(
        within, "a list's keys"
    )
    if within and key in _ELSEWHERE:
        return UsageError(place, f"{key!r} is not among {where}", _ELSEWHERE[key])
    near = difflib.get_close_matches(key[:_LONGEST].lower(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return UsageError(place, f"{_short(key)} is not among {where}", hint)


def _wrong_value(error: ValidationError, key: str) -> tuple[str, str]:
    """What is wrong with the value of `key`, and what to do about it."""
    schema, value = _schema(error), error.instance
    what = key or "the list"
    is_item = bool(error.absolute_path) and isinstance(error.absolute_path[-1], int)
    example = next(iter(_OPTIONS.get(key, {}).get("examples", ())), None)
    if is_item and isinstance(example, list):
        example = example[0]
    hint = f"write it like {json.dumps(example)}" if example is not None else ""
    match error.validator:
        case "required" if key:
            return "this machine has no source", "write source: and what it is made of"
        case "required":
            return "there are no machines in it", "write them below machines:"
        case "minItems":
            return "there is nothing in it", "write one machine at least"
        case "minLength":
            return f"{what} is empty", hint
        case "enum":
            words = [str(word) for word in schema["enum"]]
            near = difflib.get_close_matches(str(value)[:_LONGEST].lower(), words, n=1)
            did_you = f"did you mean {near[0]}?" if near else ""
            return f"{what} is one of {', '.join(words)}, not {_short(value)}", did_you
        case "minimum":
            return f"{what} is {schema['minimum']} at least, not {value}", ""
        case "pattern":
            return f"{_short(value)} is not what {what} takes", hint
        case "type" if key == "machines" and is_item:
            return "a machine is its source, or a mapping with its options", ""
        case "type" if value is None and key == "machines":
            return "there is nothing in it", "write one machine at least"
        case "type" if value is None:
            return f"{what} has no value", hint or "remove it"
        case "type" if not key:
            return "a list in YAML is a mapping with machines", "write machines: and below it - SOURCE"
        case "type":
            kind = _KINDS[_kinds(schema)[0]]
            return f"each value of {what} is {kind}" if is_item else f"{what} takes {kind}", hint
        case _:
            return error.message[:_LONGEST], hint


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
