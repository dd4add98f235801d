"""Patterns of Docker as a shell's tools have them: for the files of trees that are not there yet.

COPY's wildcards are Go's filepath.Match, as shell patterns; --exclude and --parents are those of .dockerignore
(github.com/moby/patternmatcher), as expressions for find(1).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from converter.dockerfile.quoting import quote

_MOST_PATTERNS = 64
_WILD = re.compile(r"[*?\[\\]")
_PIECES = re.compile(r"\[\^?(?:\\.|[^\]\\])+\]|\\.|\*\*/|\*\*|[*?]|[^*?\[\\]|.", re.DOTALL)


def is_wild(path: str) -> bool:
    """Is it a pattern, or has it to be read as one?"""
    return _WILD.search(path) is not None


def globs(path: str) -> tuple[str, list[str]]:
    """A wildcard as shell patterns: the directory above them, and the patterns in it.

    The shell's wildcards leave out names with a dot at their beginning, Go's do not: hence several. Raises ValueError
    for a wildcard that would need very many.
    """
    parts = path.strip("/").split("/")
    first = next(number for number, part in enumerate(parts) if is_wild(part))
    patterns = [""]
    for part in parts[first:]:
        patterns = [f"{before}/{form}".lstrip("/") for before in patterns for form in _forms(part)]
        if len(patterns) > _MOST_PATTERNS:
            raise ValueError(path)
    return "/" + "/".join(parts[:first]), patterns


def _forms(part: str) -> list[str]:
    shell = _shell_pattern(part)
    if part.startswith("*"):
        return [shell, f".{shell}"]
    if part.startswith("?"):
        return [shell, f".{_shell_pattern(part[1:])}"]
    return [shell]


def _shell_pattern(part: str) -> str:
    made, literal = [], ""
    for piece in _PIECES.findall(part):
        if piece in {"*", "?", "**"} or (piece.startswith("[") and len(piece) > 2):
            made += [quote(literal)] if literal else []
            made.append(piece if piece in {"*", "?"} else "*" if piece == "**" else _shell_class(piece))
            literal = ""
        else:
            literal += piece[-1]
    return "".join(made) + (quote(literal) if literal or not made else "")


def _shell_class(piece: str) -> str:
    inside = piece[1:-1].replace("\\", "")
    negated = inside.startswith("^")
    return "[" + "!" * negated + re.sub(r"([^A-Za-z0-9-])", r"\\\1", inside[negated:]) + "]"


def expressions(patterns: Iterable[str]) -> list[str]:
    """What find(1) takes for -regex, in ".", for all that one of the patterns means itself.

    They are good for both GNU's find and busybox's. Raises ValueError for an exception ("!pattern").
    """
    found = []
    for pattern in patterns:
        if pattern.strip().startswith("!"):
            raise ValueError(pattern)
        clean = posixpath.normpath(f"/{pattern.strip()}").lstrip("/")
        found.append("[.]/" + "".join(map(_expression, _PIECES.findall(clean))))
    return found


def _expression(piece: str) -> str:
    if piece == "**/":
        return "\\(.*/\\)*"
    if piece == "**":
        return ".*"
    if piece == "*":
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if piece.startswith("[") and len(piece) > 2:
        inside = piece[1:-1].replace("\\", "")
        return f"[{inside}]"
    character = piece[-1]
    if character == "^":
        return "\\^"
    return character if character.isalnum() or character in "/_-" else f"[{character}]"
