"""COPY --chmod: octal, or symbolic as in chmod(1)."""

from __future__ import annotations

import re

_OCTAL = re.compile(r"[0-7]{1,11}").fullmatch
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)").fullmatch
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_MOST = 0o7777


def is_mode(text: str) -> bool:
    """Can `change_mode` take it?"""
    if _OCTAL(text):
        return int(text, 8) <= _MOST
    return bool(text) and all(_CLAUSE(clause) for clause in text.split(","))


def change_mode(text: str, mode: int, *, directory: bool) -> int:
    """What a file with the permission bits `mode` gets. Raises ValueError when the text is no mode."""
    if not is_mode(text):
        raise ValueError(f"{text!r} is not a mode")
    if _OCTAL(text):
        return int(text, 8)
    for clause in text.split(","):
        match = _CLAUSE(clause)
        assert match is not None
        who = match[1].replace("a", "ugo") or "ugo"  # BuildKit has no umask here
        for operator, what in _ACTION.findall(match[2]):
            mode = _apply(mode, who, operator, what, directory=directory)
    return mode


def _apply(mode: int, who: str, operator: str, what: str, *, directory: bool) -> int:
    whole = 0
    for one in who:
        whole |= _WHO[one]
    bits = 0
    if what in _SHIFT:
        copied = mode >> _SHIFT[what] & 7
        bits = copied * 0o111
    for letter in what if what not in _SHIFT else "":
        if letter == "X":
            bits |= 0o111 if directory or mode & 0o111 else 0
        elif letter == "s":
            bits |= 0o6000
        elif letter == "t":
            bits |= 0o1000
        else:
            bits |= _BITS[letter]
    bits &= whole
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~whole | bits
