"""COPY --chmod: octal, or symbolic as in BSD's setmode(3), which newer BuildKits take (tonistiigi/dchapes-mode)."""

from __future__ import annotations

import re

_OCTAL = re.compile(r"[0-7]{1,11}").fullmatch
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)").fullmatch
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_STICKY = 0o1000
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": _STICKY}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o007}
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
    original = mode
    for clause in text.split(","):
        match = _CLAUSE(clause)
        assert match is not None
        who = match[1].replace("a", "ugo")
        for operator, what in _ACTION.findall(match[2]):
            reached = 0o6777 if not who else 0  # BuildKit has no umask here
            for one in who:
                reached |= _WHO[one]
            if what in _SHIFT:
                reached &= 0o777
                bits = (mode >> _SHIFT[what] & 7) * 0o111
            else:
                if "t" in what and who != "o":
                    reached = reached | _STICKY if who else _STICKY
                bits = _bits(what, executes=directory or original & 0o111 != 0)
            bits &= reached
            if operator == "=":
                mode &= ~reached
            mode = mode & ~bits if operator == "-" else mode | bits
    return mode


def _bits(letters: str, *, executes: bool) -> int:
    """For all classes at once."""
    bits = 0
    for letter in letters:
        if letter != "X":
            bits |= _BITS[letter]
        elif executes:
            bits |= _BITS["x"]
    return bits
