"""Reading the LIST of a batch: its bytes, and which of its two forms it has."""

from __future__ import annotations

import re
import sys
from itertools import islice
from pathlib import Path

from converter.batch.entry import Entries, Entry, Place, UsageError
from converter.batch.text_form import read_text

__all__ = ["Entries", "Entry", "UsageError", "read_list"]

_LARGEST = 16 << 20  # bytes
_MOST = 100_000  # machines
_STANDARD_INPUT = "standard input"
# What YAML does not allow either.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]|\r(?!\n)")
# No source begins like one of these: a YAML or JSON document, a key, an item.
_YAML = re.compile(
    r"(?:[ \t]*(?:#[^\n]*)?\r?\n)*+[ \t]*(?:---|%YAML|\{|-[ \t\r\n]|[^\s:]++:(?:[ \t\r\n]|\Z))"
)


def read_list(source: str) -> Entries:
    """Read the list at the path `source`, or standard input for "-".

    YAML is told by the ending .yaml or .yml, or by how it begins; all else is one machine a line. Raises UsageError,
    with its place, for what is wrong in the list itself; the sources that it names are not looked at.
    """
    name = _STANDARD_INPUT if source == "-" else source
    text = _decoded(_read(source), name)
    if Path(source).suffix.lower() in {".yaml", ".yml"} or _YAML.match(text):
        from converter.batch.yaml_form import read_yaml  # here, because jsonschema takes long to load

        entries = read_yaml(name, text)
    else:
        entries = tuple(islice(read_text(name, text), _MOST + 1))
    if not entries:
        raise UsageError(Place(name, 1, 1), "there is nothing in it", "write one source a line")
    if len(entries) > _MOST:
        raise UsageError(Place(name, 1, 1), f"more than {_MOST} machines", "split it up")
    return Entries(entries)


def _read(source: str) -> bytes:
    try:
        if source != "-":
            with Path(source).open("rb") as file:
                data = file.read(_LARGEST + 1)
        elif sys.stdin is None:
            raise UsageError(None, "there is no standard input to read the list from")
        else:
            data = sys.stdin.buffer.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not valid"
        raise UsageError(None, f"cannot read the list '{source}': {reason}") from None
    if len(data) > _LARGEST:
        raise UsageError(None, f"'{source}' has more than {_LARGEST >> 20} MiB; that is no list of machines")
    return data


def _decoded(data: bytes, file: str) -> str:
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        raise UsageError(_place(file, before), what, "save the list as UTF-8") from None
    if wrong := _CONTROL.search(text):
        what = f"the character {wrong[0]!r} is no text"
        raise UsageError(_place(file, text[: wrong.start()]), what, "is this a list of machines?")
    return text


def _place(file: str, before: str) -> Place:
    """The place after the text `before`."""
    before = before.removeprefix("\ufeff")
    return Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
