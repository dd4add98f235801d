"""--chown and USER, to numbers, as BuildKit's file operations resolve them (client/llb WithUser, ops readUser)."""

from __future__ import annotations

import re
from pathlib import Path

from converter import inside

_NUMBER = re.compile(r"[-+]?[0-9]{1,10}").fullmatch
_ID_MAX = (1 << 31) - 1
_FILE_MAX = 1 << 26  # bytes


def resolve_owner(text: str, root: Path) -> tuple[int, int]:
    """uid and gid of `user[:group]`, names looked up in /etc/passwd and /etc/group of the tree at `root`.

    A number alone is also the group's. A name that is not there is root, as in BuildKit.
    """
    user, colon, group = text.partition(":")
    number = _number(user)
    uid, gid = (number, number) if number is not None else _user(user, root)
    if colon:
        number = _number(group)
        gid = number if number is not None else _group(group, root, gid)
    return uid, gid


def _number(text: str) -> int | None:
    if text == "root":
        return 0
    return int(text) if _NUMBER(text) and 0 <= int(text) <= _ID_MAX else None


def _user(name: str, root: Path) -> tuple[int, int]:
    for fields in _lines(root, "/etc/passwd"):
        if fields[0] == name:
            return _field(fields, 2), _field(fields, 3)
    return 0, 0


def _group(name: str, root: Path, default: int) -> int:
    for fields in _lines(root, "/etc/group"):
        if fields[0] == name:
            return _field(fields, 2)
    return default


def _field(fields: list[str], number: int) -> int:
    return _number(fields[number]) or 0 if number < len(fields) else 0


def _lines(root: Path, path: str) -> list[list[str]]:
    data = inside.read(root, path, _FILE_MAX) or b""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    return [line.strip().split(":") for line in lines if line.strip()]
